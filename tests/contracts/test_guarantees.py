"""The guarantees of sinks, for any behaviour of their writers: an item that was taken does not come again, and a sink
at best effort neither ends nor delays the flow."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, run_main
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.base import Guarantee, Message, State
from connectors.channel import ChannelPartition, ChannelSink, sink_of
from connectors.config import ReliabilityConfig
from connectors.registry import ALERTS, DEAD_LETTERS, STORES, asked_for
from connectors.reliable import ReliableSink
from flows.settings.model import Settings
from operators.errors import ConfigError, DataError, FatalError, RetryableError
from operators.stored import stored
from tests.connectors.samples import Clock, alert
from tests.harness import MemoryLog

Act = Literal["take", "fail", "refuse", "fatal", "crash", "hang", "slow"]
ACTS: Final[tuple[Act, ...]] = ("take", "fail", "refuse", "fatal", "crash", "hang", "slow")
AT_ONCE_S: Final = 5.0
"""Far longer than a call that waits for nothing, even on a busy machine, and shorter than a hang of the writer."""
HANG_S: Final = 60.0
TAKES: Final[tuple[Act, ...]] = ("take",) * 10


class Script:
    """A system that neither undoes nor overwrites: each call performs the next act, and the last act again and again.

    `reached` counts how often it took each item. A hang lasts until `released` is set, or `HANG_S`.
    """

    name = "script"

    def __init__(self, acts: Sequence[Act], opening: Sequence[Act] = ()) -> None:
        self.acts = list(acts)
        self.opening = list(opening)
        self.reached: Counter[str] = Counter()
        self.sizes: set[int] = set()
        self.hanging = threading.Event()
        self.released = threading.Event()

    def partitions(self) -> list[str]:
        return ["script"]

    def route(self, key: str) -> int:
        return 0

    def open(self, partition: str, resume: State | None) -> Script:
        if self.opening:
            self._act(self.opening.pop(0), [])
        return self

    def ask(self) -> str:
        raise AssertionError("a sink is not asked while the flow runs")

    def write(self, items: Sequence[Message]) -> None:
        self.sizes.add(len(items))
        self._act(self.acts.pop(0) if len(self.acts) > 1 else self.acts[0], items)

    def _act(self, act: Act, items: Sequence[Message]) -> None:
        match act:
            case "fail":
                raise RetryableError("away")
            case "refuse":
                raise DataError("bad_row", "no")
            case "fatal":
                raise FatalError("broken")
            case "crash":
                raise ZeroDivisionError
            case "hang":
                self.hanging.set()
                self.released.wait(HANG_S)
                raise RetryableError("it hung")
            case "slow":
                time.sleep(0.001)
        self.reached.update(item.id for item in items)

    def snapshot(self) -> State | None:
        raise AssertionError("a writer at best effort has no state")

    def close(self) -> None: ...


class Counts:
    """An observer that counts."""

    def __init__(self) -> None:
        self.taken = 0
        self.refused = 0
        self.lost: Counter[str] = Counter()

    def written(self, sink: str, items: int, seconds: float) -> None:
        self.taken += items

    def retried(self, sink: str) -> None: ...

    def rejected(self, sink: str, reason: str) -> None:
        self.refused += 1

    def dropped(self, sink: str, reason: str, items: int) -> None:
        self.lost[reason] += items


def refuse(sink: str, item: object, error: DataError) -> None:
    """Refused items are only counted."""


@contextmanager
def at_once() -> Iterator[None]:
    """Fails if its block waits for anything."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE_S


def channel(
    script: Script, counts: Counts, *, state: State | None = None, queue: int = 1_000, close_s: float = 10.0,
    clock: Clock | None = None,
) -> ChannelPartition:  # fmt: skip
    sink = ChannelSink(
        script,
        ReliabilityConfig(backoff_first_s=0.1, budget_s=5),
        rejected=refuse,
        observer=counts,
        clock=clock or Clock(),
        queue=queue,
        close_s=close_s,
    )
    return sink.build_part("step", "script", state)


def test_only_messages_may_be_lost_and_no_sink_pages_unless_asked_to() -> None:
    assert all(sink.guarantee == "exactly_once" for sink in STORES.values())
    assert ALERTS["terminal"].guarantee == "best_effort"
    assert [name for name, sink in ALERTS.items() if sink.pages] == ["kafka"]
    assert not any(sink.pages for sink in DEAD_LETTERS.values())
    assert not any(ALERTS[name].pages for name in asked_for(ALERTS, Settings()))


@pytest.mark.parametrize("guarantee", ["at_least_once", "best_effort"])
@settings(deadline=None)
@given(
    acts=st.lists(st.sampled_from(["take", "take", "fail", "refuse"]), max_size=30),
    cuts=st.lists(st.integers(1, 8), max_size=6),
    chunk=st.integers(1, 9),
)
def test_what_was_taken_does_not_come_again(guarantee: Guarantee, acts: list[Act], cuts: list[int], chunk: int) -> None:
    script, counts = Script([*acts, "take"]), Counts()
    config = ReliabilityConfig(chunk_rows=chunk, backoff_first_s=0.1, budget_s=1_000)
    sink = sink_of(guarantee, script, config, at_once=True, rejected=refuse, observer=counts, clock=Clock())
    part = sink.build_part("step", "script", None)
    given = 0
    for cut in cuts:
        part.write_batch([alert(n) for n in range(given, given + cut)])
        given += cut
    part.close()
    assert set(script.reached.values()) <= {1}
    assert script.reached.total() == counts.taken == given - counts.refused
    assert script.sizes <= {1}
    assert not counts.lost


def test_a_flow_that_dies_amid_a_batch_does_not_give_its_first_items_again() -> None:
    script = Script(["take", "take", "fatal"])
    sink = sink_of("at_least_once", script, ReliabilityConfig(), at_once=True, clock=Clock())
    part = sink.build_part("step", "script", None)
    with pytest.raises(FatalError):
        part.write_batch([alert(n) for n in range(4)])
    part.close()
    assert script.reached == {"alert-0": 1, "alert-1": 1}


@settings(deadline=None)
@given(
    acts=st.lists(st.sampled_from(ACTS), min_size=1, max_size=12),
    opening=st.lists(st.sampled_from(ACTS), max_size=3),
    cuts=st.lists(st.integers(0, 9), max_size=8),
    queue=st.integers(1, 12),
)
def test_no_writer_ends_or_delays_the_flow(acts: list[Act], opening: list[Act], cuts: list[int], queue: int) -> None:
    """Each item is exactly one of taken, refused or dropped; at most `queue` items wait."""
    script, counts = Script([*acts, "take"], opening), Counts()
    part = channel(script, counts, queue=queue)
    given = 0
    try:
        for cut in cuts:
            with at_once():
                part.write_batch([alert(n) for n in range(given, given + cut)])
                held = part.snapshot()
            given += cut
            assert len(part.waiting()) <= queue
            assert isinstance(held, tuple)
    finally:
        script.released.set()
    part.close()
    assert script.reached.total() == counts.taken
    assert set(script.reached.values()) <= {1}
    assert counts.taken + counts.refused + counts.lost.total() == given


@pytest.mark.parametrize("act", ["hang", "fail", "fatal", "crash", "refuse"])
def test_a_writer_that_never_takes_anything_costs_a_bounded_time_and_room(
    act: Act, caplog: pytest.LogCaptureFixture
) -> None:
    script, counts = Script([act]), Counts()
    part = channel(script, counts, queue=5, close_s=0.5)
    with at_once():
        for low in range(0, 1_000, 10):
            part.write_batch([alert(n) for n in range(low, low + 10)])
            assert len(part.waiting()) <= 5
            part.snapshot()
        part.close()
    script.released.set()
    assert counts.lost.total() + counts.refused == 1_000
    if act != "refuse":
        assert caplog.text.count("gives up items") == 1  # not one line for each item
    assert not script.reached


def test_an_item_is_given_up_when_its_budget_is_spent_since_it_came() -> None:
    clock, counts = Clock(), Counts()
    script = Script(["fail"])
    part = channel(script, counts, clock=clock)
    part.write_batch([alert(0)])
    deadline = time.monotonic() + AT_ONCE_S
    while not counts.lost and time.monotonic() < deadline:
        time.sleep(0.001)
    assert counts.lost == {"budget": 1}
    assert clock.now == pytest.approx(5, abs=0.01)
    script.acts = ["take"]
    part.write_batch([alert(1)])
    part.close()
    assert script.reached == {"alert-1": 1}


@settings(deadline=None)
@given(taken=st.integers(0, 6), given=st.integers(1, 8))
def test_what_waits_in_a_snapshot_is_sent_by_the_next_process(taken: int, given: int) -> None:
    script, counts = Script([*TAKES[: min(taken, given)], "hang"]), Counts()
    part = channel(script, counts, close_s=0.01)
    items = [alert(n, text="\N{SNOWMAN}") for n in range(given)]
    part.write_batch(items)
    if taken < given:
        assert script.hanging.wait(AT_ONCE_S)
    else:
        part.close()
    held = part.snapshot()
    after = Script(["take"])
    successor = channel(after, Counts(), state=held)
    assert [item for item in successor.waiting() if item not in items] == []
    successor.close()
    assert list(after.reached.elements()) == [item.id for item in items[taken:]]
    part.close()
    script.released.set()


def test_a_snapshot_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match=r"wait for sink script are stored in version \(9,\)"):
        channel(Script(["take"]), Counts(), state=stored((1, (9, ()))))
    with pytest.raises(FatalError, match=r"sink script has version \(2,\), this program reads version 1"):
        channel(Script(["take"]), Counts(), state=stored((2, None)))


@pytest.mark.parametrize("act", ["hang", "fail", "crash"])
def test_the_sinks_beside_it_get_everything_and_the_flow_ends(act: Act) -> None:
    script, counts, beside = Script([act]), Counts(), MemoryLog("beside")
    flow = Dataflow("flow")
    items = op.input("in", flow, TestingSource([(f"{n}", alert(n)) for n in range(50)], batch_size=3))
    config = ReliabilityConfig(budget_s=600)
    op.output("first", items, ChannelSink(script, config, observer=counts, queue=5, close_s=0.5))
    op.output("second", items, ReliableSink(beside, config, at_once=True))
    with at_once():
        run_main(flow)  # type: ignore[no-untyped-call]
    script.released.set()
    assert [line.id for line in beside.lines] == [f"alert-{n}" for n in range(50)]
    assert counts.lost.total() == 50


def test_a_setting_that_is_wrong_shows_in_the_log_and_the_count(caplog: pytest.LogCaptureFixture) -> None:
    class Wrong(Script):
        def open(self, partition: str, resume: State | None) -> Script:
            raise ConfigError("the address is wrong")

    counts = Counts()
    part = channel(Wrong(["take"]), counts)
    part.write_batch([alert(0), alert(1)])
    part.close()
    assert counts.lost == {"fault": 2}
    assert "sink script gives up items: ConfigError: the address is wrong" in caplog.text
