"""The live simulation: paced by a clock that the test sets, with the same events at any pace."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from connectors.base import Chunk, Reader
from connectors.simulation.config import SimulatorConfig
from connectors.simulator import Simulator
from operators.decode.times import parse_times
from operators.model import Ints

MINUTE = 60_000_000
HOUR = 60 * MINUTE
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
BEGAN = int(START.timestamp()) * 1_000_000
CONFIG = SimulatorConfig(start=START, rate=4, hours=4, live=True, partitions=2)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def ends(values: list[bytes]) -> Ints:
    events = [orjson.loads(v) for v in values]
    starts, _ = parse_times([e["timestamp"] for e in events])
    found: Ints = starts + np.array([round(e["latency_ms"] * 1000) for e in events])
    return found


def drain(reader: Reader, most: int = 500) -> list[Chunk]:
    """The chunks up to the first empty one, with it."""
    out: list[Chunk] = []
    while True:
        chunk = reader.poll(most)
        out.append(chunk)
        if not chunk.values:
            return out


def values(chunks: list[Chunk]) -> list[bytes]:
    return [v for chunk in chunks for v in chunk.values]


def test_each_event_comes_when_it_has_ended_and_arrives_now() -> None:
    clock = Clock(BEGAN + 90 * MINUTE)
    reader = Simulator(CONFIG, clock).open("simulator/000", None)
    first = reader.poll(100)
    assert not first.values and first.at_end and not first.finished
    seen: list[bytes] = []
    for second in range(1, 181):
        clock.now = BEGAN + 90 * MINUTE + second * 1_000_000
        for chunk in drain(reader):
            found = ends(chunk.values) if chunk.values else np.empty(0, np.int64)
            assert (clock.now - 1_000_000 <= found).all() and (found <= clock.now).all()
            assert chunk.arrivals is not None and (chunk.arrivals == clock.now).all()
            assert not chunk.finished
            seen += chunk.values
    assert 150 < len(seen) < 900  # roughly half of 4 a second over three minutes, in the morning


def test_the_events_are_those_of_a_whole_simulation() -> None:
    clock = Clock(BEGAN)
    readers = [Simulator(CONFIG, clock).open(p, None) for p in Simulator(CONFIG).partitions()]
    live: list[bytes] = []
    for _ in range(40):
        for reader in readers:
            live += values(drain(reader, 37))
        clock.now += 30_000_000
    backfilled = CONFIG.model_copy(update={"history_h": 1.0, "backfill_h": 1.0})
    all_at_once = Simulator(backfilled, Clock(clock.now - 30_000_000))
    again = [v for p in all_at_once.partitions() for v in values(drain(all_at_once.open(p, None)))]
    assert sorted(live) == sorted(again)
    assert len(set(live)) == len(live) > 2_000


@pytest.mark.parametrize("speed", [1.0, 60.0])
def test_the_history_comes_at_once_then_at_the_set_speed_and_never_overtakes_the_clock(speed: float) -> None:
    clock = Clock(BEGAN + 3 * HOUR)
    config = CONFIG.model_copy(update={"history_h": 2.0, "backfill_h": 1.0, "speed": speed})
    reader = Simulator(config, clock).open("simulator/000", None)
    backfill = drain(reader)
    assert not backfill[-1].at_end  # more records are overdue
    found = ends(values(backfill))
    assert BEGAN + HOUR <= found.min() < BEGAN + HOUR + MINUTE
    assert BEGAN + 2 * HOUR - MINUTE < found.max() <= BEGAN + 2 * HOUR
    clock.now += 30_000_000
    more = ends(values(drain(reader)))
    assert more.size and (more > BEGAN + 2 * HOUR).all()
    assert more.max() <= BEGAN + 2 * HOUR + 30_000_000 * speed
    clock.now += 2 * HOUR
    rest = drain(reader)
    assert ends(values(rest)).max() <= min(clock.now, BEGAN + 2 * HOUR + round((2 * HOUR + 30_000_000) * speed))
    assert rest[-1].at_end == (speed > 1)


def test_a_resumed_reader_goes_on_now_and_its_offsets_ascend() -> None:
    clock = Clock(BEGAN)
    source = Simulator(CONFIG, clock)
    reader = source.open("simulator/000", None)
    clock.now += 3 * MINUTE
    first = drain(reader)
    offsets = np.concatenate([c.offsets for c in first])
    assert (np.diff(offsets) > 0).all() and reader.position() > offsets[-1]
    for away in (0, 20 * MINUTE):  # resumed at once, and after a while
        clock.now += away
        resumed = source.open("simulator/000", reader.position())
        assert resumed.position() >= reader.position()
        assert values(drain(resumed)) == []
        clock.now += MINUTE
        later = drain(resumed)
        assert values(later) and ends(values(later)).min() >= clock.now - MINUTE
        assert np.concatenate([c.offsets for c in later])[0] >= reader.position()
        assert not set(values(later)) & set(values(first))


def test_before_its_start_there_is_nothing() -> None:
    clock = Clock(BEGAN - HOUR)
    reader = Simulator(CONFIG, clock).open("simulator/000", None)
    assert values(drain(reader)) == []
    clock.now = BEGAN + MINUTE
    assert values(drain(reader))
    reader.close()
    clock.now += MINUTE
    assert values(drain(reader)) == []


def test_pacing_is_no_part_of_the_identity() -> None:
    slow = CONFIG.model_copy(update={"speed": 2.0, "history_h": 1.0})
    assert Simulator(slow).identity() == Simulator(CONFIG).identity()


def test_labels_of_a_time() -> None:
    source = Simulator(CONFIG)
    day = source.labels(BEGAN, BEGAN + 48 * HOUR)
    assert len(day) == 28
    assert source.labels(BEGAN, BEGAN + 24 * HOUR) == []
