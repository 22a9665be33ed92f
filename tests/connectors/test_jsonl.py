"""The writer of alerts as JSON lines, each written once."""

from __future__ import annotations

import errno
import fcntl
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson
import pytest

from connectors import jsonl
from connectors.base import Message, State, WriterFactory
from connectors.config import JsonlConfig
from connectors.jsonl import JsonlFactory, JsonlWriter
from connectors.once import KEEP
from operators.errors import ConfigError, DataError, RetryableError
from operators.stored import restored
from tests.connectors.samples import alert
from tests.contracts.systems import Alerts, Maker, after


class JsonlSystem(Alerts):
    fails = "opening"  # the only transient fault is a predecessor that still holds the file

    def __init__(self, folder: Path) -> None:
        self.path = folder / "alerts.jsonl"

    def factory(self) -> WriterFactory[Message]:
        return JsonlFactory(JsonlConfig(path=self.path))

    def contents(self) -> list[object]:
        return [orjson.loads(line)["alert_id"] for line in self.path.read_bytes().splitlines()]

    def trouble(self, tries: int) -> Callable[[], None]:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return after(tries, lambda: os.close(fd))


@contextmanager
def systems() -> Iterator[Maker]:
    """The systems for the laws of writers."""
    yield JsonlSystem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "alerts.jsonl"


def open_writer(path: Path, resume: State | None = None) -> JsonlWriter:
    return JsonlFactory(JsonlConfig(path=path)).open("jsonl", resume)


def ids(path: Path) -> list[str]:
    text = path.read_bytes()
    assert text == b"" or text.endswith(b"\n")
    return [orjson.loads(line)["alert_id"] for line in text.splitlines()]


def test_an_alert_is_one_line_exactly_as_it_was_given(path: Path) -> None:
    writer = open_writer(path)
    writer.write([alert(1), alert(2)])
    assert path.read_bytes() == alert(1).value + b"\n" + alert(2).value + b"\n"
    writer.close()


def test_a_successor_without_a_snapshot_reads_back_from_the_start(path: Path) -> None:
    first = open_writer(path)
    first.write([alert(1), alert(2)])
    first.close()
    second = open_writer(path)
    second.write([alert(1), alert(2), alert(3)])
    second.close()
    assert ids(path) == ["alert-1", "alert-2", "alert-3"]


def test_a_successor_reads_back_from_the_position_in_the_snapshot(path: Path) -> None:
    first = open_writer(path)
    first.write([alert(1)])
    state = first.snapshot()
    first.write([alert(2)])
    first.close()
    second = open_writer(path, state)
    size = path.stat().st_size
    assert second.snapshot() == (2, size, tuple((a.id, a.at) for a in (alert(1), alert(2))), "")
    second.write([alert(2), alert(3)])
    assert second.snapshot() == (
        2,
        path.stat().st_size,
        tuple((a.id, a.at) for a in (alert(1), alert(2), alert(3))),
        "",
    )
    second.close()
    assert ids(path) == ["alert-1", "alert-2", "alert-3"]


def test_ids_not_seen_again_survive_a_second_crash(path: Path) -> None:
    first = open_writer(path)
    state = first.snapshot()
    first.write([alert(1), alert(2), alert(3)])
    first.close()
    second = open_writer(path, state)
    second.write([alert(1)])  # the replayed epoch holds fewer items than before the crash
    state = second.snapshot()
    second.close()
    third = open_writer(path, state)
    third.write([alert(2), alert(3), alert(4)])
    third.close()
    assert ids(path) == ["alert-1", "alert-2", "alert-3", "alert-4"]


def test_ids_of_long_ago_do_not_stay_in_the_snapshot(path: Path) -> None:
    first = open_writer(path)
    first.write([alert(1)])
    first.close()
    second = open_writer(path)
    late = alert(2 + KEEP // 10_000_000)
    second.write([late])
    assert second.snapshot() == (2, path.stat().st_size, ((late.id, late.at),), "")
    second.close()


@pytest.mark.parametrize("torn", [b"{", b'{"alert_id": "alert-2"', alert(2).value])
def test_a_torn_last_line_is_cut_off_and_written_again(path: Path, torn: bytes) -> None:
    path.write_bytes(alert(1).value + b"\n" + torn)
    writer = open_writer(path)
    writer.write([alert(1), alert(2)])
    writer.close()
    assert ids(path) == ["alert-1", "alert-2"]


def test_lines_over_several_blocks_are_read_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", 100)
    first = open_writer(path)
    first.write([alert(n) for n in range(20)])
    first.close()
    second = open_writer(path)
    second.write([alert(n) for n in range(21)])
    second.close()
    assert ids(path) == [f"alert-{n}" for n in range(21)]


def test_lines_of_others_are_left_alone(path: Path) -> None:
    theirs = b'not json\n{"x": 1}\n[1]\n\n{"alert_id": "alert-1", "at": "sometime"}\n{"alert_id": "alert-2", "at": 5}\n'
    path.write_bytes(theirs)
    writer = open_writer(path)
    writer.write([alert(1), alert(2), alert(3)])
    writer.close()
    assert path.read_bytes() == theirs + alert(3).value + b"\n"


@pytest.mark.parametrize("now", [b"", b"{}\n", b'{"alert_id": "alert-7"}\n' + b"x" * 1000])
def test_a_file_that_was_replaced_is_read_from_its_start(path: Path, now: bytes) -> None:
    first = open_writer(path)
    first.write([alert(1), alert(2)])
    state = first.snapshot()
    first.close()
    path.write_bytes(now)
    second = open_writer(path, state)
    second.write([alert(7), alert(8)])
    second.close()
    text = path.read_bytes()
    assert (text.count(b'"alert-7"'), text.count(b'"alert-8"')) == (1, 1)


def test_two_writers_do_not_share_a_file(path: Path) -> None:
    first = open_writer(path)
    with pytest.raises(RetryableError, match="another process writes the file"):
        open_writer(path)
    first.close()
    open_writer(path).close()


def test_a_value_of_two_lines_is_a_data_error_and_nothing_is_written(path: Path) -> None:
    writer = open_writer(path)
    with pytest.raises(DataError, match="alert-x is not one line"):
        writer.write([alert(1), Message("alert-x", "", {}, b"{\n}")])
    assert path.read_bytes() == b""
    writer.close()


@pytest.mark.parametrize(
    ("code", "sentence"), [(errno.ENOSPC, "the disk is full"), (errno.EIO, "writing failed: Input/output error")]
)
def test_a_failed_write_can_be_tried_again_and_leaves_whole_lines(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    writer = open_writer(path)
    writer.write([alert(1)])
    pwrite = os.pwrite

    def half(fd: int, data: bytes, at: int) -> int:
        if at > path.stat().st_size - 1 and len(data) < 60:
            raise OSError(code, os.strerror(code))
        return pwrite(fd, data[: len(data) - 50], at)

    monkeypatch.setattr(os, "pwrite", half)
    with pytest.raises(RetryableError, match=sentence):
        writer.write([alert(2)])
    assert ids(path) == ["alert-1"]
    monkeypatch.setattr(os, "pwrite", pwrite)
    writer.write([alert(2)])
    writer.close()
    assert ids(path) == ["alert-1", "alert-2"]


def test_a_path_without_a_folder_or_that_is_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no folder"):
        open_writer(tmp_path / "none" / "alerts.jsonl")
    with pytest.raises(ConfigError, match="cannot be opened for writing: Is a directory"):
        open_writer(tmp_path)


def test_other_records_have_other_names_and_keys(path: Path) -> None:
    factory = JsonlFactory(JsonlConfig(path=path), "letters", key="id")
    assert (factory.name, factory.partitions(), factory.route("x")) == ("letters", ["jsonl"], 0)
    record = Message("topic/0/7", "", {}, b'{"id":"topic/0/7"}')
    for _ in range(2):
        writer = factory.open("jsonl", None)
        writer.write([record])
        writer.close()
    assert path.read_bytes() == record.value + b"\n"


LIFE = """
import pickle, sys
from pathlib import Path
from connectors.config import JsonlConfig, ReliabilityConfig
from connectors.jsonl import JsonlFactory
from connectors.reliable import ReliableSink
from tests.connectors.samples import alert

folder, count = Path(sys.argv[1]), int(sys.argv[2])
saved = folder / "snapshot"
at, state = pickle.loads(saved.read_bytes()) if saved.exists() else (0, None)
sink = ReliableSink(JsonlFactory(JsonlConfig(path=folder / "alerts.jsonl")), ReliabilityConfig(), at_once=True)
part = sink.build_part("alerts", "jsonl", state)
print("on", flush=True)
while at < count:
    for _ in range(3):
        part.write_batch([alert(n) for n in range(at, min(at + 2, count))])
        at = min(at + 2, count)
    (folder / "next").write_bytes(pickle.dumps((at, part.snapshot())))
    (folder / "next").replace(saved)
"""


def test_each_alert_stands_once_over_kill_9(tmp_path: Path) -> None:
    count, kills, rng = 100_000, 5, random.Random(7)
    for _ in range(kills):
        child = subprocess.Popen([sys.executable, "-c", LIFE, str(tmp_path), str(count)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"on\n"
        time.sleep(rng.uniform(0.01, 0.12))
        child.send_signal(signal.SIGKILL)
        child.stdout.close()
        assert child.wait() == -signal.SIGKILL
    done, state = pickle.loads((tmp_path / "snapshot").read_bytes())
    resume = restored(state, "alerts.jsonl")[1]
    assert isinstance(resume, tuple)
    writer = open_writer(tmp_path / "alerts.jsonl", resume)
    writer.write([alert(n) for n in range(done, done + 50)])
    writer.close()
    assert done > 0
    found = ids(tmp_path / "alerts.jsonl")
    assert found == [f"alert-{n}" for n in range(len(found))]
    assert len(found) >= done + 50
