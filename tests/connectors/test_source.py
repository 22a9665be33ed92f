"""A source partition: progress, idleness, pauses, trouble, stops and resumes, on clocks that the test sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from connectors.backoff import pause_s
from connectors.base import Chunk, Reader, State
from connectors.config import ReliabilityConfig
from connectors.source import SourceSettings, TelemetryPartition, TelemetrySource
from operators.config import TimeConfig
from operators.decode.config import DecodeConfig
from operators.decode.intake import Balance, Batch
from operators.decode.registry import DECODERS
from operators.errors import ConfigError, FatalError, RetryableError
from operators.model import SECOND, Events
from operators.panes.watermark import End, Idle, Watermark
from operators.stored import restored

T0 = 1_767_225_600
RETRY = ReliabilityConfig(backoff_first_s=1, backoff_most_s=4, budget_s=10)


def event(second: float, event_id: str = "") -> bytes:
    return orjson.dumps({"timestamp": T0 + second, "service": "chat", "event_id": event_id})


def unchanged(events: Events) -> Events:
    return events


class Topic:
    """Partitions of records; `script` gives the faults and empty answers of the next polls."""

    def __init__(self, **records: list[bytes]) -> None:
        self.records = records
        self.first = 0  # records before it are gone
        self.id = "first"  # another id stands for another topic of the same name
        self.script: list[Exception | str] = []  # for the next polls of any reader: an error, "nothing", "finished"
        self.opened: list[TopicReader] = []

    def partitions(self) -> list[str]:
        return sorted(self.records)

    def origin(self, partition: str) -> tuple[str, int]:
        return "topic", self.partitions().index(partition)

    def open(self, partition: str, position: int | None, log: State | None = None) -> Reader:
        self.opened.append(TopicReader(self, partition, position or 0, log))
        return self.opened[-1]

    def identity(self) -> str:
        return "topic"


class TopicReader:
    def __init__(self, topic: Topic, partition: str, position: int, log: State | None = None) -> None:
        self.id = str(log[0]) if log else topic.id
        self.topic = topic
        self.partition = partition
        self.values = topic.records[partition]
        self.at = position
        self.was_durable: list[int] = []
        self.closed = False

    def poll(self, most: int) -> Chunk:
        told = self.topic.script.pop(0) if self.topic.script else ""
        if isinstance(told, Exception):
            raise told
        if self.at < self.topic.first:
            raise ConfigError(f"records {self.at} to {self.topic.first - 1} are gone")
        replaced = self.id != self.topic.id
        if replaced:
            self.id, self.values, self.at = self.topic.id, self.topic.records[self.partition], 0
        low = self.at
        values = [] if told == "nothing" else self.values[low : low + most]
        self.at += len(values)
        return Chunk(
            values, np.arange(low, self.at, dtype=np.int64), None,
            at_end=told != "nothing" and self.at == len(self.values), finished=told == "finished", replaced=replaced,
        )  # fmt: skip

    def position(self) -> int:
        return self.at

    def behind(self) -> int:
        return len(self.values) - self.at

    def log(self) -> State:
        return (self.id,)

    def durable(self, position: int) -> None:
        self.was_durable.append(position)

    def close(self) -> None:
        self.closed = True


class World:
    """A topic, the clocks of a host, a stop flag and an observer, and the partitions made with them."""

    def __init__(self, topic: Topic, dedupe_s: float = 0, batch_size: int = 10, **time: float) -> None:
        self.topic = topic
        self.now = (T0 + 100_000) * SECOND
        self.passed = 0.0
        self.slept: list[float] = []
        self.stopped = False
        self.seen: list[tuple[str, int, int | None]] = []
        self.lags: list[tuple[str, int]] = []
        self.steps = 0
        self.replaced: list[str] = []
        self.settings = SourceSettings(
            factory=topic,
            decoder=DECODERS["native"],
            enrich=unchanged,
            time=TimeConfig.model_validate({"idle_s": 30, "lateness_s": 10, **time}),
            decode=DecodeConfig(dedupe_s=dedupe_s),
            retry=RETRY,
            batch_size=batch_size,
            now=lambda: self.now,
            stopping=lambda: self.stopped,
            observer=self,
            stepped=self.stepped,
            clock=self,
            replaced=self.replaced.append,
        )
        self.source = TelemetrySource(self.settings)

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def stepped(self) -> None:
        self.steps += 1

    def lagging(self, partition: str, records: int) -> None:
        self.lags.append((partition, records))

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        self.seen.append((partition, balance.records, watermark))

    def part(self, key: str = "p0", resume: State | None = None) -> TelemetryPartition:
        return self.source.build_part("telemetry", key, resume)

    def later(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        self.passed += seconds

    def set_clock(self, seconds: float) -> None:
        """Set the clock of the host forward by this many seconds; the monotonic clock stays."""
        self.now += round(seconds * SECOND)


def said(batches: list[Batch]) -> list[object]:
    return [batch.progress for batch in batches]


def test_progress_and_the_list_of_partitions_ride_with_the_rows() -> None:
    world = World(Topic(p0=[event(0), event(100)], p1=[]), batch_size=1)
    assert world.source.list_parts() == ["p0", "p1"]
    part = world.part()
    (first,), (second,) = part.next_batch(), part.next_batch()
    assert (first.partition, first.partitions) == ("p0", ("p0", "p1"))
    assert first.progress == Watermark((T0 - 10) * SECOND)
    assert second.progress == Watermark((T0 + 90) * SECOND, at_end=True)
    assert len(first.events) == 1 and part.next_awake() < datetime.now(UTC)
    assert world.seen == [("p0", 1, (T0 - 10) * SECOND), ("p0", 2, (T0 + 90) * SECOND)]


def test_dead_letters_before_any_event_report_the_end_and_no_progress() -> None:
    part = World(Topic(p0=[b"{", b"{"]), batch_size=1).part()
    (first,), (second,) = part.next_batch(), part.next_batch()
    assert (first.progress, second.progress) == (Watermark(None), Watermark(None, at_end=True))
    assert len(first.dead) == len(second.dead) == 1


def test_idle_only_after_polls_that_stood_at_the_end_and_again_every_pane() -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    part.next_batch()
    world.later(10_000)  # time without polls is not idleness
    assert part.next_batch() == []
    world.later(29)
    assert part.next_batch() == []
    world.later(1)
    began = world.now
    assert said(part.next_batch()) == [Idle(began - 20 * SECOND)]  # the clock less lateness and a pane
    world.later(9.9)
    assert part.next_batch() == []
    world.later(0.1)
    assert said(part.next_batch()) == [Idle(began - 10 * SECOND)]


def test_a_poll_that_did_not_stand_at_the_end_begins_the_wait_anew() -> None:
    world = World(Topic(p0=[]))
    part = world.part()
    part.next_batch()
    world.later(29)
    world.topic.script = ["nothing"]
    assert said(part.next_batch()) == [Watermark(None)]
    world.later(2)
    assert said(part.next_batch()) == [Watermark(None, at_end=True)]
    world.later(29)
    assert part.next_batch() == []
    world.later(1)
    assert [type(p) for p in said(part.next_batch())] == [Idle]


def test_an_event_ends_idleness_and_the_next_wait_begins_anew() -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    part.next_batch()
    part.next_batch()
    world.later(30)
    assert [type(p) for p in said(part.next_batch())] == [Idle]
    world.topic.records["p0"].append(event(50))
    assert said(part.next_batch()) == [Watermark((T0 + 40) * SECOND, at_end=True)]
    world.later(30)
    assert part.next_batch() == []
    world.later(30)
    assert [type(p) for p in said(part.next_batch())] == [Idle]


def test_trouble_is_not_idleness() -> None:
    world = World(Topic(p0=[]))
    part = world.part()
    part.next_batch()
    world.later(29)
    world.topic.script = [RetryableError("away")]
    part.next_batch()
    world.later(5)
    assert said(part.next_batch()) == [Watermark(None, at_end=True)]


@pytest.mark.parametrize("seconds", [1, 31])
def test_trouble_takes_the_end_back(seconds: int) -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    part.next_batch()
    for _ in range(seconds):
        world.later(1)
        part.next_batch()
    world.topic.script = [RetryableError("away"), RetryableError("away")]
    world.later(1)
    assert said(part.next_batch()) == [Watermark((T0 - 10) * SECOND)]
    world.later(1)
    assert part.next_batch() == []
    world.later(2)
    assert said(part.next_batch()) == [Watermark((T0 - 10) * SECOND, at_end=True)]


def test_trouble_is_tried_again_with_growing_waits_until_it_passes(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    world.topic.script = [RetryableError("away") for _ in range(5)]
    waits = [pause_s("source p0", failures, 1, 4) for failures in range(1, 5)]
    with caplog.at_level(logging.WARNING):
        for wait in waits:
            left = len(world.topic.script)
            assert part.next_batch() == []
            world.later(wait - 0.01)
            part.next_batch()
            assert len(world.topic.script) == left - 1, "it must not poll during the wait"
            world.later(0.011)
    assert [m.partition("again in ")[2] for m in caplog.messages] == [f"{wait:.1f} s" for wait in waits]
    assert caplog.messages[1] == f"source partition p0: away; trying again in {waits[1]:.1f} s"
    world.topic.script = []
    assert len(part.next_batch()) == 1
    world.topic.script = [RetryableError("away")]
    part.next_batch()
    assert caplog.messages[-1] == caplog.messages[0], "after a good poll the waits begin anew"


def test_trouble_beyond_the_budget_ends_the_process() -> None:
    world = World(Topic(p0=[]))
    part = world.part()
    world.topic.script = [RetryableError("away"), RetryableError("away"), RetryableError("still away")]
    part.next_batch()
    world.later(8)
    part.next_batch()
    world.later(2.1)
    with pytest.raises(FatalError, match=r"source partition p0 failed for 10 s \(budget_s = 10\).*still away"):
        part.next_batch()


def test_a_partition_that_hangs_waits_or_fails_from_its_start_still_tells_its_balance() -> None:
    """So after a restart its metrics exist again and the process is ready; a failure is reported separately."""
    world = World(Topic(p0=[event(0)], p1=[event(60 * i) for i in range(20)]), batch_size=20, max_ahead_s=600)
    hanging, ahead = world.part("p0"), world.part("p1")
    ahead.next_batch()
    hanging.next_batch()
    saved = {"p0": hanging.snapshot(), "p1": ahead.snapshot()}
    world = World(world.topic, batch_size=20, max_ahead_s=600)
    world.topic.script = [RetryableError("away"), "nothing", "nothing"]
    hanging, ahead = world.part("p0", saved["p0"]), world.part("p1", saved["p1"])
    assert (hanging.next_batch(), world.seen) == ([], [])
    world.later(60)
    assert said(hanging.next_batch()) == [Watermark((T0 - 10) * SECOND)]
    assert said(ahead.next_batch()) == [Watermark((T0 + 1130) * SECOND)]
    assert world.seen == [("p0", 1, (T0 - 10) * SECOND), ("p1", 20, (T0 + 1130) * SECOND)]
    world.later(60)
    assert hanging.next_batch() == ahead.next_batch() == []
    assert world.topic.script == []


def test_a_partition_too_far_ahead_of_the_slowest_waits() -> None:
    world = World(Topic(p0=[event(s) for s in range(0, 3000, 300)], p1=[event(0), event(500), event(700)]),
                  batch_size=1, max_ahead_s=600)  # fmt: skip
    fast, slow = world.part("p0"), world.part("p1")

    def read(part: TelemetryPartition) -> int:
        world.later(0.02)
        return len(part.next_batch())

    read(slow)
    assert [read(fast) for _ in range(6)] == [1, 1, 1, 1, 0, 0]  # at 900 s: more than 600 s ahead of 0 s
    read(slow)
    assert read(fast) == 1
    assert read(fast) == 0  # at 1200 s: more than 600 s ahead of 500 s
    read(slow)  # read to its end: it holds nobody back
    assert [read(fast) for _ in range(3)] == [1, 1, 1]
    world.topic.records["p1"] += [event(800), event(801)]
    read(slow)
    assert read(fast) == 0  # it has records again


def test_a_partition_that_has_ended_holds_nobody_back() -> None:
    world = World(Topic(p0=[event(0), event(5000), event(5001)], p1=[event(0), event(1)]), batch_size=1)
    fast, slow = world.part("p0"), world.part("p1")
    slow.next_batch()
    fast.next_batch()
    fast.next_batch()
    assert fast.next_batch() == []
    world.topic.script = ["finished"]
    slow.next_batch()
    world.later(0.02)
    assert fast.next_batch() == [], "the flow must first work on the last records of the slow one"
    with pytest.raises(StopIteration):
        slow.next_batch()
    world.later(0.02)
    assert len(fast.next_batch()) == 1


def test_lag_is_told_while_a_partition_waits_for_others() -> None:
    world = World(Topic(p0=[event(s) for s in range(0, 9000, 900)], p1=[event(0), event(1)]), batch_size=1)
    fast, slow = world.part("p0"), world.part("p1")
    slow.next_batch()
    fast.next_batch()
    fast.next_batch()
    for _ in range(3):
        world.later(1)
        assert fast.next_batch() == []
    assert [left for name, left in world.lags if name == "p0"] == [10, 8, 8, 8]


def test_a_partition_reports_its_end_once_and_not_within_a_second() -> None:
    world = World(Topic(p0=[event(0), event(1)]), batch_size=1)
    part = world.part()
    part.next_batch()
    world.topic.script = ["nothing", "nothing"]
    part.next_batch()
    world.later(0.5)
    world.topic.records["p0"].pop()  # as if a transaction had been aborted
    assert part.next_batch() == []
    world.later(0.6)
    assert said(part.next_batch()) == [Watermark((T0 - 10) * SECOND, at_end=True)]
    world.later(5)
    assert part.next_batch() == []
    world.topic.script = ["nothing"]
    world.later(0.1)
    assert said(part.next_batch()) == [Watermark((T0 - 10) * SECOND)], (
        "told at once: something has arrived that is not readable"
    )


def test_a_partition_without_events_on_time_is_idle() -> None:
    topic = Topic(p0=[event(1000)])
    world = World(topic)
    part = world.part()
    part.next_batch()
    saying: list[object] = []
    for second in range(70):
        world.later(1)
        if second % 20 == 10:
            topic.records["p0"] += [b"{", event(0)]  # a dead letter, and a late event
        saying += said(part.next_batch())
    assert [type(p) for p in saying if p is not None] == [Watermark, *[Idle] * 4]


def test_a_partition_of_dead_letters_alone_is_idle_too() -> None:
    topic = Topic(p0=[])
    world = World(topic)
    part = world.part()
    saying: list[object] = []
    for _ in range(35):
        world.later(1)
        topic.records["p0"].append(b"{")
        saying += said(part.next_batch())
    assert [type(p) for p in saying if p is not None] == [*[Watermark] * 30, Idle]


# --- clocks ---------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_back_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    world = World(Topic(p0=[event(0)], p1=[]))
    part = world.part()
    part.next_batch()
    world.later(1)
    part.next_batch()
    with caplog.at_level(logging.WARNING):
        world.set_clock(-100)
        world.later(0.02)
        world.topic.records["p0"].append(event(1))
        assert len(part.next_batch()) == 1
    assert caplog.messages == [
        "the host's clock went back by 100 s: the flow reads on, but there is no snapshot until it has caught up"
    ]
    assert world.steps == 1
    for _ in range(5):
        world.later(9)
        part.snapshot()
        told = said(part.next_batch())
    assert [type(p) for p in told] == [Idle], "idleness is measured by the monotonic clock"


def test_without_a_snapshot_for_the_budget_after_a_step_back_the_process_ends() -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    part.next_batch()
    world.set_clock(-3600)
    part.next_batch()
    for _ in range(20):
        world.later(1)
        if world.passed < 8:
            part.snapshot()  # of an epoch from before the step
        elif world.passed > 17:
            break
        part.next_batch()
    with pytest.raises(FatalError, match="went back by 3600 s, and for 11 s there was no snapshot"):
        part.next_batch()
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    world.set_clock(-5)
    for _ in range(30):
        world.later(1)
        part.next_batch()  # the clock has caught up before the budget is spent


def test_a_clock_that_is_an_hour_fast_for_a_moment_closes_no_hour_of_panes() -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    part.next_batch()
    for _ in range(60):
        world.later(1)
        part.next_batch()
    truly = world.now
    world.set_clock(3600)
    bounds = []
    for _ in range(20):
        world.later(1)
        bounds += [p.bound for p in said(part.next_batch()) if isinstance(p, Idle)]
    assert bounds and max(bounds) <= truly + 40 * SECOND
    world.set_clock(-3600)
    for _ in range(40):
        world.later(1)
        part.snapshot()
        bounds += [p.bound for p in said(part.next_batch()) if isinstance(p, Idle)]
    assert bounds == sorted(bounds), "the bound must never go back"
    assert abs(bounds[-1] - (world.now - 20 * SECOND)) <= 10 * SECOND, "the bound must follow the clock again"


def test_a_worker_sleeps_only_while_none_of_its_partitions_has_anything_to_do() -> None:
    world = World(Topic(p0=[event(s) for s in range(3)], p1=[]), batch_size=1)
    busy, quiet = world.part("p0"), world.part("p1")
    for _ in range(3):
        busy.next_batch()
        quiet.next_batch()
    assert world.slept == []
    busy.next_batch()
    quiet.next_batch()
    assert world.slept == [0.005, 0.005]
    busy.close()
    world.later(0.02)
    world.topic.script = [RetryableError("away")]
    quiet.next_batch()
    assert world.slept[2:] == [0.005], "sleeping through the wait would hold up the other workers"


def test_a_finite_source_ends_with_one_message() -> None:
    world = World(Topic(p0=[event(3), event(1)]))
    part = world.part()
    world.topic.script = ["finished"]
    (batch,) = part.next_batch()
    assert batch.progress == End((T0 + 3) * SECOND, (T0 + 3) * SECOND)
    assert len(batch.events) == 2
    with pytest.raises(StopIteration):
        part.next_batch()


def test_a_stop_ends_a_partition_without_a_message() -> None:
    world = World(Topic(p0=[event(0), event(1)]), batch_size=1)
    part = world.part()
    part.next_batch()
    world.stopped = True
    with pytest.raises(StopIteration):
        part.next_batch()
    assert len(world.seen) == 1
    part.close()
    assert world.topic.opened[0].closed


def test_durable_is_said_once_at_the_first_poll_after_a_snapshot() -> None:
    world = World(Topic(p0=[event(0), event(1)]), batch_size=1)
    part = world.part()
    reader = world.topic.opened[0]
    part.next_batch()
    part.snapshot()
    assert reader.was_durable == []
    part.next_batch()
    part.next_batch()
    assert reader.was_durable == [1]
    part.snapshot()
    world.stopped = True
    with pytest.raises(StopIteration):
        part.next_batch()
    assert reader.was_durable == [1, 2]


def test_lost_records_are_counted() -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()

    class Gap(TopicReader):
        def poll(self, most: int) -> Chunk:
            chunk = super().poll(most)
            chunk.skipped = 5
            return chunk

    part._reader = Gap(world.topic, "p0", 0)
    part.next_batch()
    saved = part.snapshot()
    again = world.part(resume=saved)
    assert again._intake.balance.skipped == 5


def test_a_successor_goes_on_after_the_snapshot() -> None:
    records = [event(s) for s in range(6)]
    world = World(Topic(p0=records), batch_size=2)
    part = world.part()
    part.next_batch()
    saved = part.snapshot()
    part.next_batch()
    again = world.part(resume=saved)
    (batch,) = again.next_batch()
    assert batch.events.start.tolist() == [(T0 + 2) * SECOND, (T0 + 3) * SECOND]
    assert batch.progress == Watermark((T0 - 7) * SECOND)
    assert world.seen[-1][1] == 4


def test_idleness_does_not_survive_a_resume() -> None:
    world = World(Topic(p0=[event(0)]))
    part = world.part()
    part.next_batch()
    part.next_batch()
    world.later(30)
    part.next_batch()
    again = world.part(resume=part.snapshot())
    world.later(5)
    assert said(again.next_batch()) == [Watermark((T0 - 10) * SECOND, at_end=True)]


def test_the_state_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match="source partition p0 has version 7; this release reads 2"):
        World(Topic(p0=[])).part(resume=(7, 0, ()))


# --- the memory for duplicates -------------------------------------------------------------------------------------


def remembering() -> tuple[World, State]:
    """Ten minutes of events, one every ten seconds, then their 60 ids again; and a snapshot after 40 records."""
    records = [event(10 * i, f"e{i}") for i in range(60)]
    world = World(Topic(p0=[*records, *(event(600, f"e{i}") for i in range(60))]), dedupe_s=3600)
    part = world.part()
    for _ in range(4):
        part.next_batch()
    return world, part.snapshot()


def drain(world: World, part: TelemetryPartition) -> Iterator[Batch]:
    for _ in range(100):
        yield from part.next_batch()
        world.later(0.05)


def balance_after(world: World, part: TelemetryPartition) -> Balance:
    list(drain(world, part))
    return part._intake.balance


def test_the_memory_for_duplicates_is_rebuilt_by_reading_again() -> None:
    world, saved = remembering()
    part = world.part(resume=saved)
    balance = balance_after(world, part)
    assert (balance.records, balance.on_time, balance.duplicate) == (120, 60, 60)
    main, again = world.topic.opened[-2:]
    assert not main.closed and again.closed


def test_reading_again_is_retried_within_the_budget() -> None:
    world, saved = remembering()
    part = world.part(resume=saved)
    world.topic.script = ["", RetryableError("away"), "nothing", RetryableError("away")]
    assert part.next_batch() == [] and not world.slept
    assert part.next_batch() == [] and world.slept
    balance = balance_after(world, part)
    assert balance.duplicate == 60
    world, saved = remembering()
    part = world.part(resume=saved)
    world.topic.script = [RetryableError("away"), RetryableError("away")]
    part.next_batch()
    world.later(11)
    with pytest.raises(FatalError, match="failed for 11 s"):
        part.next_batch()


def test_records_that_are_gone_by_now_shorten_the_memory_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    world, saved = remembering()
    world.topic.first = 15
    with caplog.at_level(logging.WARNING):
        part = world.part(resume=saved)
        balance = balance_after(world, part)
    assert balance.records == 120
    # The log begins at record 15. When the replay fails, the memory gives up the older half of its minutes.
    assert 60 - 24 <= balance.duplicate <= 60 - 15
    assert "duplicates of some earlier records will not be noticed" in caplog.text
    assert "records 0 to 14 are gone" in caplog.text


def test_a_log_cut_up_to_the_position_is_enough() -> None:
    world, saved = remembering()
    world.topic.first = 40
    part = world.part(resume=saved)
    balance = balance_after(world, part)
    assert (balance.records, balance.duplicate) == (120, 20)
    world.topic.opened[-1].close()
    again = world.part(resume=part.snapshot())
    assert again._intake.balance == balance


def test_a_gap_on_the_way_back_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    world, saved = remembering()
    part = world.part(resume=saved)
    reader = world.topic.opened[-1]
    poll: Callable[[int], Chunk] = reader.poll

    def after_gap(most: int) -> Chunk:
        chunk = poll(most)
        chunk.skipped = 3
        return chunk

    reader.poll = after_gap  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING):
        part.next_batch()
    assert "duplicates of 3 earlier records will not be noticed" in caplog.text


def test_a_stop_while_reading_again_closes_both_readers() -> None:
    world, saved = remembering()
    part = world.part(resume=saved)
    part.next_batch()
    assert part.snapshot() == saved
    world.stopped = True
    with pytest.raises(StopIteration):
        part.next_batch()
    part.close()
    assert all(reader.closed for reader in world.topic.opened[-2:])


# --- another topic of the same name --------------------------------------------------------------------------------


def test_the_state_of_the_release_before_does_not_say_which_log_it_was() -> None:
    world, saved = remembering()
    _, position, _, intake = restored(saved, "p0")
    world.topic.id = "second"
    part = world.part(resume=(1, position, intake))
    assert [reader.at for reader in world.topic.opened[-2:]] == [40, 0]
    assert restored(part.snapshot(), "p0")[:3] == (2, 40, ("second",))


def test_the_memory_for_duplicates_does_not_take_another_log_for_the_one_before() -> None:
    world, state = remembering()
    world.topic.id, world.topic.records = "second", {"p0": [event(600 + i, f"n{i}") for i in range(50)]}
    part = world.part(resume=state)
    list(drain(world, part))
    assert world.seen[-1][1] == 40 + 50
    assert world.replaced == ["p0"]
    assert restored(part.snapshot(), "p0")[1:3] == (50, ("second",))
    again = world.part(resume=part.snapshot())  # the records that it reads again are in the new log
    world.topic.records["p0"] += [event(650, f"n{i}") for i in range(20)]
    batches = list(drain(world, again))
    assert sum(len(batch.events) for batch in batches) == 20
    assert not any(batch.on_time.any() for batch in batches)


def test_a_log_that_is_replaced_while_it_is_read_keeps_what_is_remembered_of_ids() -> None:
    world, state = remembering()
    part = world.part(resume=state)
    while len(world.seen) < 5:
        part.next_batch()
    world.topic.id, world.topic.records = "second", {"p0": [event(500, "e1"), event(500, "n1")]}
    (batch,) = part.next_batch()
    assert batch.on_time.tolist() == [False, True]
    assert world.replaced == ["p0"]
