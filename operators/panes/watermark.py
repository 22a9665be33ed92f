"""Event time: the progress of a partition, the events that are late, and the panes that a shard may close.

A partition's watermark is the running maximum of event STARTS less the allowed lateness, while an event belongs to the
pane of its END: an end is never before its start, so neither start-sorted files nor live emission order makes anything
late. Nothing here reads a clock; only the bound of an idle partition comes from one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from operators.errors import FatalError
from operators.model import Bools, Ints


class Watermark(NamedTuple):
    """No event before `at` is expected from the partition any more; None if it has shown no event yet.

    `at_end`: all its records have been read.
    """

    at: int | None
    at_end: bool = False


class Idle(NamedTuple):
    """The partition is at its end and nothing comes; panes before `bound` may close once all partitions are idle."""

    bound: int


class End(NamedTuple):
    """The partition's source is finite and over; its latest event started at `start` and ended at `end` (or None)."""

    start: int | None
    end: int | None


Progress = Watermark | Idle | End | None
"""None: the partition's last report still holds."""


class Judged(NamedTuple):
    """The events that are on time, and the late ones that may still correct stored rows; all others are too late."""

    on_time: Bools
    late: Bools
    max_start: int | None


def judge(start: Ints, end: Ints, before: int | None, lateness: int, width: int, horizon: int, aged: Bools) -> Judged:
    """Tell on-time events from late ones: an event is late if its own partition had already closed its pane.

    Events are in partition order; `before` is the running maximum of starts over all earlier ones. Each event is judged
    by the earlier events of the partition alone, so the answer is the same for any batch size. `horizon` is the number
    of panes that a correction may reach back; times and `width` are in microseconds. `aged` events are always late, and
    do not move the running maximum.
    """
    if not len(start):
        return Judged(np.zeros(0, np.bool_), np.zeros(0, np.bool_), before)
    floor = np.iinfo(np.int64).min // 2
    moving = np.where(aged, floor, start)
    seen = np.maximum.accumulate(np.concatenate(([floor if before is None else before], moving)))
    behind = (seen[:-1] - lateness) // width - end // width
    on_time = (behind <= 0) & ~aged
    return Judged(on_time, ~on_time & (behind <= horizon), None if seen[-1] == floor else int(seen[-1]))


class ShardClock:
    """The watermark of a shard: the smallest one over ALL partitions of the source.

    It stands still until every partition has reported. Idle and ended partitions leave the minimum; if no partition is
    live, the smallest idle bound counts. A partition that is at its end and trails the others by more than `max_ahead`
    microseconds leaves the minimum until it has records to read again: old events cannot stop time. Idleness and ends
    are not part of the state: after a resume each partition reports them anew.
    """

    VERSION = 1

    def __init__(self, max_ahead: int) -> None:
        self.partitions: tuple[str, ...] = ()
        self._max_ahead = max_ahead
        self._at: dict[str, int] = {}
        self._at_end: set[str] = set()
        self._idle: dict[str, int] = {}
        self._end: dict[str, End] = {}

    def observe(self, partition: str, partitions: Sequence[str], progress: Progress) -> None:
        """Take in the report of one partition, and the list of all partitions that it knows."""
        if len(partitions) >= len(self.partitions):
            self.partitions = tuple(partitions)
        match progress:
            case Watermark(at, at_end):
                if at is not None:
                    self._at[partition] = max(at, self._at.get(partition, at))
                (self._at_end.add if at_end else self._at_end.discard)(partition)
                self._idle.pop(partition, None)
                self._end.pop(partition, None)
            case Idle(bound):
                self._idle[partition] = bound
            case End():
                self._end[partition] = progress
            case None:
                pass

    def closed_to(self) -> int | None:
        """The time before which no event is expected any more, or None while that is unknown (or all have ended)."""
        heard = self._at.keys() | self._idle.keys() | self._end.keys()
        if not self.partitions or any(p not in heard for p in self.partitions):
            return None
        out = self._idle.keys() | self._end.keys()
        live = [p for p in self.partitions if p not in out]
        if live:
            return self._slowest(live)
        idle = [self._idle[p] for p in self.partitions if p in self._idle and p not in self._end]
        return min(idle) if idle else None

    def reading(self) -> dict[str, int | None]:
        """The watermarks of the partitions that have records to read; None for one without an event so far."""
        out = self._idle.keys() | self._end.keys() | self._at_end
        return {partition: self._at.get(partition) for partition in self.partitions if partition not in out}

    def _slowest(self, live: Sequence[str]) -> int:
        """The smallest watermark of these partitions, without those that trail too far at their end.

        The distance is to the slowest partition that has records to read, or to the foremost if all are read.
        """
        reading = [self._at[p] for p in live if p not in self._at_end]
        front = min(reading) if reading else max(self._at[p] for p in live)
        return min(self._at[p] for p in live if p not in self._at_end or front - self._at[p] <= self._max_ahead)

    def newest(self) -> int | None:
        """The largest watermark of all partitions, also of those that are idle or over; None until there is one."""
        return max(self._at.values(), default=None)

    def ended(self) -> End | None:
        """The latest start and end of all partitions, once every one is over; None before."""
        if not self.partitions or any(p not in self._end for p in self.partitions):
            return None
        ends = [self._end[p] for p in self.partitions]
        starts = [e.start for e in ends if e.start is not None]
        lasts = [e.end for e in ends if e.end is not None]
        return End(max(starts, default=None), max(lasts, default=None))

    def save(self) -> tuple[object, ...]:
        return (self.VERSION, self.partitions, tuple(sorted(self._at.items())))

    @classmethod
    def load(cls, state: tuple[object, ...], max_ahead: int) -> ShardClock:
        match state:
            case (cls.VERSION, tuple() as partitions, tuple() as at):
                clock = cls(max_ahead)
                clock.partitions, clock._at = partitions, dict(at)
                return clock
        raise FatalError(f"a shard's clock in the snapshot has version {state[0]!r}; this release reads {cls.VERSION}")
