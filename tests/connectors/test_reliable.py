"""The behaviour of a reliable sink when its writer fails."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest

from connectors.base import Row, State
from connectors.config import ReliabilityConfig
from connectors.reliable import SLICE_S, RejectedFile, ReliablePartition, ReliableSink, never
from operators.errors import DataError, FatalError, RetryableError, SentinelError
from tests.connectors.samples import Clock


class Notebook:
    """A sink that keeps its items; `before` is called before each write and may raise."""

    name = "notebook"

    def __init__(self, before: Callable[[Sequence[str]], None] = lambda items: None) -> None:
        self.calls: list[list[str]] = []
        self.before = before
        self.resumed: list[State | None] = []
        self.state: State | None = None
        self.open_errors: list[SentinelError] = []
        self.closed = False

    def partitions(self) -> list[str]:
        return ["left", "right"]

    def route(self, key: str) -> int:
        return len(key) % 2

    def open(self, partition: str, resume: State | None) -> Notebook:
        if self.open_errors:
            raise self.open_errors.pop()
        self.resumed.append(resume)
        return self

    def ask(self) -> str:
        return "it is there"

    def write(self, items: Sequence[str]) -> None:
        self.before(items)
        self.calls.append(list(items))

    def snapshot(self) -> State | None:
        return self.state

    def close(self) -> None:
        self.closed = True

    @property
    def written(self) -> list[str]:
        return [item for call in self.calls for item in call]


class Counts:
    """An observer that sums its reports."""

    def __init__(self) -> None:
        self.items = 0
        self.seconds = 0.0
        self.retries = 0
        self.reasons: list[str] = []

    def written(self, sink: str, items: int, seconds: float) -> None:
        self.items += items
        self.seconds += seconds

    def retried(self, sink: str) -> None:
        self.retries += 1

    def rejected(self, sink: str, reason: str) -> None:
        self.reasons.append(reason)

    def dropped(self, sink: str, reason: str, items: int) -> None:
        raise AssertionError("a sink that must lose nothing has dropped items")


def part(
    notebook: Notebook, *, at_once: bool = False, clock: Clock | None = None, counts: Counts | None = None,
    stopping: Callable[[], bool] = never, rejected: Callable[[str, object, DataError], None] | None = None,
    **config: object,
) -> ReliablePartition[str]:  # fmt: skip
    settings = ReliabilityConfig.model_validate({"chunk_rows": 3, **config})
    sink = ReliableSink(
        notebook,
        settings,
        at_once=at_once,
        clock=clock or Clock(),
        observer=counts,
        stopping=stopping,
        rejected=rejected,
    )
    return sink.build_part("step", "left", None)


def failing(times: int, error: SentinelError) -> Callable[[Sequence[str]], None]:
    left = [times]

    def before(items: Sequence[str]) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return before


def test_the_sink_takes_partitions_and_routes_from_its_factory() -> None:
    sink = ReliableSink(Notebook(), ReliabilityConfig())
    assert sink.list_parts() == ["left", "right"]
    assert [sink.part_fn("a"), sink.part_fn("ab")] == [1, 0]


def test_whole_chunks_are_written_and_the_rest_waits_for_the_snapshot() -> None:
    notebook = Notebook()
    p = part(notebook)
    p.write_batch(list("ab"))
    assert notebook.calls == []
    p.write_batch(list("cdefg"))
    assert notebook.calls == [["a", "b", "c"], ["d", "e", "f"]]
    p.snapshot()
    assert notebook.written == list("abcdefg")
    p.snapshot()
    assert notebook.written == list("abcdefg")


def test_at_once_writes_every_batch_in_chunks() -> None:
    notebook = Notebook()
    p = part(notebook, at_once=True)
    p.write_batch(list("abcd"))
    assert notebook.calls == [["a", "b", "c"], ["d"]]


def test_close_flushes_and_closes_the_writer() -> None:
    notebook = Notebook()
    p = part(notebook)
    p.write_batch(["a"])
    p.close()
    assert notebook.written == ["a"]
    assert notebook.closed


def test_a_passing_fault_is_tried_again_with_doubled_waits_up_to_the_most() -> None:
    notebook, clock, counts = Notebook(failing(6, RetryableError("away"))), Clock(), Counts()
    p = part(notebook, clock=clock, counts=counts, backoff_first_s=0.1, backoff_most_s=0.5)
    p.write_batch(list("abc"))
    assert notebook.written == list("abc")
    whole = 0.1 + 0.2 + 0.4 + 0.5 + 0.5 + 0.5
    assert whole / 2 <= clock.now <= whole
    assert (counts.retries, counts.items) == (6, 3)
    assert counts.seconds == pytest.approx(clock.now)


def test_the_stop_flag_is_looked_at_in_every_slice_of_a_wait() -> None:
    clock = Clock()
    p = part(
        Notebook(failing(9, RetryableError("away"))), clock=clock, stopping=lambda: clock.now > 1, backoff_first_s=30,
        backoff_most_s=30,
    )  # fmt: skip
    with pytest.raises(FatalError, match=r"notebook: stopped while trying again; the last error: away"):
        p.write_batch(list("abc"))
    assert max(clock.slept) <= SLICE_S
    assert clock.now < 1 + 2 * SLICE_S


def test_a_spent_budget_ends_the_process_and_names_sink_error_and_budget() -> None:
    clock = Clock()
    p = part(Notebook(failing(99, RetryableError("no route"))), clock=clock, budget_s=7)
    with pytest.raises(FatalError, match=r"sink notebook failed for 7 s \(budget_s = 7\); the last error: no route"):
        p.write_batch(list("abc"))
    assert clock.now == pytest.approx(7)


def test_a_fatal_error_is_not_tried_again() -> None:
    clock = Clock()
    with pytest.raises(FatalError, match="disk"):
        part(Notebook(failing(1, FatalError("disk"))), clock=clock).write_batch(list("abc"))
    assert clock.slept == []


def test_another_error_is_not_hidden() -> None:
    def before(items: Sequence[str]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        part(Notebook(before)).write_batch(list("abc"))


def test_a_bad_item_is_split_out_and_the_others_are_written() -> None:
    def before(items: Sequence[str]) -> None:
        if "x" in items:
            raise DataError("bad_row", "x is bad")

    notebook, counts = Notebook(before), Counts()
    seen: list[tuple[str, object, str]] = []
    p = part(
        notebook, counts=counts, chunk_rows=100, rejected=lambda sink, item, e: seen.append((sink, item, e.reason))
    )
    p.write_batch(list("abcxdefgxh"))
    p.snapshot()
    assert notebook.written == list("abcdefgh")
    assert seen == [("notebook", "x", "bad_row")] * 2
    assert counts.reasons == ["bad_row"] * 2
    assert counts.items == 8


def test_opening_is_tried_again_too() -> None:
    notebook = Notebook()
    notebook.open_errors = [RetryableError("locked"), RetryableError("locked")]
    clock = Clock()
    part(notebook, clock=clock)
    assert notebook.resumed == [None]
    assert clock.now > 0


def test_the_snapshot_carries_the_writers_state_to_its_successor() -> None:
    notebook = Notebook()
    sink = ReliableSink(notebook, ReliabilityConfig())
    first = sink.build_part("step", "left", None).snapshot()
    notebook.state = (1, 5)
    second = sink.build_part("step", "left", first).snapshot()
    sink.build_part("step", "left", second)
    assert notebook.resumed == [None, None, (1, 5)]


def test_a_snapshot_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match=r"sink notebook has version \(2,\), this program reads version 1"):
        ReliableSink(Notebook(), ReliabilityConfig()).build_part("step", "left", (2, "?"))


def test_rejected_items_are_appended_to_a_file(tmp_path: Path) -> None:
    def before(items: Sequence[object]) -> None:
        raise DataError("bad_row", "no")

    path = tmp_path / "rejected.jsonl"
    notebook = Notebook(before)
    p = part(notebook, rejected_file=path)
    odd: list[object] = [Row("t", (1, b"\x00", float("nan"), 2**70)), "\ud800", Row("t", (b"\x01",))]
    p.write_batch(odd)  # type: ignore[arg-type]
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [(line["sink"], line["reason"], line["detail"]) for line in lines] == [("notebook", "bad_row", "no")] * 3
    assert lines[2]["item"] == {"table": "t", "values": ["AQ=="]}
    assert "1180591620717411303424" in lines[0]["item"]


def test_a_file_of_rejected_items_that_cannot_be_written_is_fatal(tmp_path: Path) -> None:
    with pytest.raises(FatalError, match="cannot be written"):
        RejectedFile(tmp_path / "none" / "file")("sink", "item", DataError("bad_row", "no"))


def test_without_a_file_rejected_items_are_logged_without_values(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        part(Notebook(failing(1, DataError("bad_row", "secret"))), chunk_rows=1).write_batch(["secret"])
    assert "notebook refused an item (bad_row)" in caplog.text
    assert "secret" not in caplog.text


def test_the_real_clock_is_the_default() -> None:
    notebook = Notebook(failing(1, RetryableError("away")))
    sink = ReliableSink(notebook, ReliabilityConfig(backoff_first_s=0.01))
    p = sink.build_part("step", "left", None)
    p.write_batch(["a"])
    p.snapshot()
    assert notebook.written == ["a"]
