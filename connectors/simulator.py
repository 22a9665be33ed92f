"""The embedded source: simulated LLM traffic with labelled incidents, determined by its settings.

Records are in the order of the requests' ends, as a live collector gets them. The requests go to the partitions in
turn, so every series is in every partition. Offsets count the records of a partition; an offset of a live simulation
consists of the record's block and its place there, so offsets ascend over any restart.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np

from connectors.base import Chunk, Reader, State
from connectors.simulation.config import SimulatorConfig
from connectors.simulation.encode import encode
from connectors.simulation.traffic import Requests, Traffic
from operators.errors import ConfigError
from operators.model import Ints

__all__ = ["LivePartition", "SimulatedPartition", "Simulator", "SimulatorConfig"]

_VERSION = 2  # of the simulated world; another version gives other records for the same settings
_PLACES = 24
"""Bits of a live offset that hold the place within the block."""
_PACING = {"history_h", "backfill_h", "speed"}
"""Settings that change the times at which records come, but not the records."""


def wall_clock() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def _nothing(at_end: bool, finished: bool = False) -> Chunk:
    return Chunk([], np.empty(0, np.int64), np.empty(0, np.int64), at_end, finished)


class SimulatedPartition:
    """One partition. Opening at a position makes the requests before it again, as columns: some 2 us for each."""

    def __init__(self, config: SimulatorConfig, partition: int, position: int) -> None:
        self._traffic = Traffic(config)
        self._config = config
        self._partition = partition
        self._parts: Iterator[Requests] = self._traffic.emitted()
        self._part = self._next()
        self._position = position
        skip = position
        while self._part is not None and skip >= len(self._part):
            skip -= len(self._part)
            self._part = self._next()
        if self._part is None and skip:
            raise ConfigError(
                f"the simulator has no record {position} in partition {partition}: it has {position - skip}. "
                "The stored position belongs to other settings of the simulator; start in a new run folder"
            )
        self._given = skip  # number of requests of the current part that were given out

    def _next(self) -> Requests | None:
        """The requests of this partition in the next part that has any; None after the last."""
        for part in self._parts:
            mine = part.take(_mine(part, self._partition, self._config.partitions))
            if len(mine):
                return mine
        return None

    def poll(self, most: int) -> Chunk:
        """The next records, at most `most`, with the requests' ends as arrival times."""
        first = self._position
        values: list[bytes] = []
        arrivals: list[Ints] = []
        while self._part is not None and len(values) < most:
            take = slice(self._given, self._given + most - len(values))
            some = self._part.take(take)
            values += encode(self._config.seed, self._traffic.fleet, some)
            arrivals.append(some.end)
            self._given += len(some)
            if self._given >= len(self._part):
                self._part, self._given = self._next(), 0
        self._position += len(values)
        done = self._part is None
        if not values:
            return _nothing(at_end=done, finished=done)
        return Chunk(values, np.arange(first, self._position), np.concatenate(arrivals), at_end=done, finished=done)

    def position(self) -> int:
        return self._position

    def behind(self) -> None:
        """Unknown: requests are made as they are read."""

    def log(self) -> State:
        """Nothing: a configuration always gives the same records."""
        return ()

    def durable(self, position: int) -> None:
        """Nothing outside waits for this."""

    def close(self) -> None:
        self._part, self._parts = None, iter(())


class LiveClock:
    """The time of a live simulation: the backfill at once, then `speed` times as fast as the clock until the present.

    All times are microseconds since 1970. The simulation never overtakes the present.
    """

    def __init__(self, now: Callable[[], int], begin: int, backfill: int, speed: float) -> None:
        self._now = now
        self._speed = speed
        self._from = begin + backfill
        self._since: int | None = None
        self.present = self._from >= now()
        """Whether the simulation has reached the present."""

    def time(self) -> int:
        """The simulated time: requests that have ended by then may be given out."""
        now = self._now()
        if not self.present:
            since = now if self._since is None else self._since
            reached = self._from + round((now - since) * self._speed)
            if reached < now:
                return reached
            self.present = True
        return now

    def go(self) -> None:
        """End the backfill: from now on the simulated time follows the clock."""
        if self._since is None:
            self._since = self._now()


class LivePartition:
    """One partition of a live simulation: gives each record once its request has ended, and `now` as its arrival.

    Opened at a position it goes on at the present; the requests between the position and the present are left out.
    """

    def __init__(self, config: SimulatorConfig, partition: int, position: int | None, now: Callable[[], int]) -> None:
        self._traffic = Traffic(config)
        self._config = config
        self._partition = partition
        self._now = now
        present = now()
        begin = max(self._traffic.start, present if position is not None else present - config.history_us)
        self._clock = LiveClock(now, begin, config.backfill_us if position is None else 0, config.speed)
        block = self._traffic.block_of(begin)
        stored = position or 0
        block = max(block, stored >> _PLACES)
        self._parts = self._traffic.emitted(block)
        self._block = block - 1
        self._part: Requests | None = None
        self._given = 0
        self._closed = False
        self._begin = begin
        self._stored = stored
        self._position = max(stored, block << _PLACES)

    def _load(self) -> None:
        """Make the next block's part; the first part is entered at the place where reading begins."""
        self._block += 1
        part = next(self._parts)
        part = part.take(_mine(part, self._partition, self._config.partitions))
        self._given = int(np.searchsorted(part.end, self._begin))
        if self._block == self._stored >> _PLACES:
            self._given = max(self._given, self._stored & ((1 << _PLACES) - 1))
        self._part = part

    def poll(self, most: int) -> Chunk:
        """The next records whose requests have ended, at most `most`; `at_end` only in the present and without any."""
        if self._closed:
            return _nothing(at_end=False)
        until = self._clock.time()
        values: list[bytes] = []
        offsets: list[Ints] = []
        while len(values) < most:
            if self._part is None:
                if self._traffic.until(self._block) > until:
                    break  # the next block has not begun
                self._load()
            assert self._part is not None
            ended = int(np.searchsorted(self._part.end, until, side="right"))
            last = min(max(ended, self._given), self._given + most - len(values))
            some = self._part.take(slice(self._given, last))
            values += encode(self._config.seed, self._traffic.fleet, some)
            first = self._block << _PLACES
            offsets.append(first + np.arange(self._given, last))
            self._given = last
            self._position = max(self._position, first + last)
            if last < len(self._part):
                break
            if self._traffic.until(self._block) > until:
                break  # requests of this part may still end before the block does
            self._part = None
        if len(values) < most:
            self._clock.go()
        if not values:
            return _nothing(at_end=self._clock.present)
        found = np.concatenate(offsets)
        return Chunk(values, found, np.full(len(found), self._now()), at_end=False)

    def position(self) -> int:
        return self._position

    def behind(self) -> None:
        """Unknown: requests are made as they are read."""

    def log(self) -> State:
        """Nothing: a configuration always gives the same records."""
        return ()

    def durable(self, position: int) -> None:
        """Nothing outside waits for this."""

    def close(self) -> None:
        self._closed, self._part = True, None


def _mine(part: Requests, partition: int, partitions: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    mine: np.ndarray[tuple[int], np.dtype[np.bool_]] = (part.number & 0xFFFFFFFF) % partitions == partition
    return mine


class Simulator:
    """The source of a configuration; see `SimulatorConfig`. `now` gives microseconds, only for a live simulation."""

    def __init__(self, config: SimulatorConfig, now: Callable[[], int] = wall_clock) -> None:
        self.config = config
        self._now = now

    def partitions(self) -> list[str]:
        """`simulator/000`, `simulator/001` and so on."""
        return [f"simulator/{p:03d}" for p in range(self.config.partitions)]

    def origin(self, partition: str) -> tuple[str, int]:
        return "simulator", int(partition.rpartition("/")[2])

    def open(self, partition: str, position: int | None, log: State | None = None) -> Reader:
        number = self.origin(partition)[1]
        if self.config.live:
            return LivePartition(self.config, number, position, self._now)
        return SimulatedPartition(self.config, number, position or 0)

    def identity(self) -> str:
        settings = ",".join(f"{k}={v}" for k, v in self.config.model_dump(mode="json", exclude=_PACING).items())
        return f"simulator {_VERSION}: {settings}"

    def labels(self, begin: int | None = None, end: int | None = None) -> list[dict[str, object]]:
        """The incidents that overlap begin <= t < end (microseconds), by start, in the form of a labels file.

        Without bounds those of the whole simulation; a live simulation has no end, so it needs both bounds.
        """
        traffic = Traffic(self.config)
        if end is None:
            assert self.config.minutes is not None, "a live simulation has no last incident"
            end = traffic.start + self.config.minutes * 60_000_000
        found = traffic.schedule.between(traffic.start if begin is None else begin, end)
        return [incident.label(n) for n, incident in enumerate(found, 1)]
