"""Log lines: for people and as JSON, both with times in UTC."""

from __future__ import annotations

import io
import logging
import signal
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest

from flows.process.logs import JsonLines, Lines, Who, debug_on_signal, set_up_logging, tell
from tests.processes import Job

WHO = Who(3, "0a1b2c3d")


def record(message: str, *args: object, exc_info: bool = False) -> logging.LogRecord:
    made = logging.LogRecord(
        'a "name"', logging.WARNING, "f.py", 1, message, args, sys.exc_info() if exc_info else None
    )
    made.created = 1_767_225_600.125
    return made


def test_a_line_to_read_has_its_time_in_utc() -> None:
    assert Lines().format(record("%d left", 3)) == '2026-01-01T00:00:00.125Z WARNING a "name": 3 left'


def test_a_json_line_is_one_object_whatever_the_message() -> None:
    text = JsonLines(WHO).format(record('two\nlines, "quoted", a lone \ud800 and %s', "é"))
    assert "\n" not in text
    assert orjson.loads(text) == {
        "time": "2026-01-01T00:00:00.125Z",
        "level": "WARNING",
        "logger": 'a "name"',
        "message": 'two\nlines, "quoted", a lone ? and é',
        "process": 3,
        "run": "0a1b2c3d",
    }


def test_a_traceback_stays_inside_the_json_object() -> None:
    try:
        raise ValueError("no \ud800")
    except ValueError:
        text = JsonLines(WHO).format(record("failed", exc_info=True))
    line = orjson.loads(text)
    assert "\n" not in text
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: no ?")


@pytest.mark.parametrize(("form", "kind"), [("text", Lines), ("json", JsonLines)])
def test_the_settings_choose_the_form_and_the_least_level(form: Literal["text", "json"], kind: type) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    try:
        set_up_logging("warning", form)
        assert root.level == logging.WARNING
        assert [type(h.formatter) for h in root.handlers] == [kind]
    finally:
        root.handlers[:] = before
        root.setLevel(level)


def test_every_start_has_a_name_of_its_own() -> None:
    assert Who().run != Who().run
    assert len(Who().run) == 8


def test_messages_are_json_lines_if_log_lines_are(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("error", "text")
    tell(logging.INFO, "\nstopping")
    assert capsys.readouterr().err == "\nstopping\n"
    set_up_logging("error", "json", WHO)
    tell(logging.INFO, "\nstopping")
    line = orjson.loads(capsys.readouterr().err)
    assert (line["level"], line["message"], line["run"]) == ("INFO", "stopping", "0a1b2c3d")


def test_a_message_during_a_write_to_the_same_stream_is_left_out() -> None:
    class Interrupted(io.RawIOBase):
        said, interruptions = b"", 0

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            if not self.interruptions:
                self.interruptions += 1
                tell(logging.INFO, "stopping")
            self.said += bytes(data)
            return len(data)

    raw = Interrupted()
    with redirect_stderr(io.TextIOWrapper(io.BufferedWriter(raw))):
        print("a line", file=sys.stderr, flush=True)
    assert raw.interruptions == 1 and raw.said.startswith(b"a line\n")


def test_a_signal_shows_the_debug_lines_of_our_packages_and_hides_them_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGUSR1)
    set_up_logging("warning", "text")
    ours, others = logging.getLogger("connectors.kafka.reader"), logging.getLogger("urllib3")
    try:
        debug_on_signal()
        assert not ours.isEnabledFor(logging.DEBUG)
        signal.raise_signal(signal.SIGUSR1)
        assert ours.isEnabledFor(logging.DEBUG) and not others.isEnabledFor(logging.INFO)
        signal.raise_signal(signal.SIGUSR1)
        assert not ours.isEnabledFor(logging.INFO)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert capsys.readouterr().err == "debug lines are shown from now on\ndebug lines are hidden from now on\n"


def test_a_flow_that_logs_json_says_nothing_else(tmp_path: Path) -> None:
    job = Job(tmp_path, {"source.simulator.live": True, "log.format": "json", "metrics.balance_file": ""})
    with job.start(*job.recovered()) as process:
        while not (tmp_path / "sentinel.db").exists():
            time.sleep(0.05)
        process.send(signal.SIGUSR1)
        process.wait_for("debug lines are shown")
        process.send(signal.SIGTERM)
        assert process.finish() == 0, process.said()
    lines = [orjson.loads(line) for line in process.said().splitlines()]
    assert len({line["run"] for line in lines}) == 1
    assert {line["process"] for line in lines} == {0}
    assert any(line["message"] == "SIGTERM: stopping after a last snapshot" for line in lines)


def test_a_refused_start_says_so_as_json(tmp_path: Path) -> None:
    job = Job(tmp_path, {"log.format": "json", "alerts.jsonl": tmp_path / "nowhere" / "alerts.jsonl"})
    with job.start() as process:
        assert process.finish() == 78
    (line,) = map(orjson.loads, process.said().splitlines())
    assert line["level"] == "CRITICAL" and "alerts.jsonl" in line["message"]
