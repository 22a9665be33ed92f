"""Makes the partitions of one process wait for slower partitions and for new records."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from connectors.clocks import Clock

SLICE_S: Final = 0.005
"""The longest sleep of a worker, in seconds: items from other workers wait as long."""


class Pace:
    """Knows how far the partitions are in event time; one that is too far ahead of the slowest has to wait.

    A partition that stands at its end holds no other back. The shards of this process report the partitions of other
    processes, since each shard hears of all; the own partitions report sooner. A partition with records but without a
    known event counts as standing where the first partition began.
    """

    def __init__(self, max_ahead: int) -> None:
        self._max_ahead = max_ahead
        self._at: dict[str, int | None] = {}
        self._at_end: set[str] = set()
        self._began: int | None = None
        self._informant: int | None = None
        self._elsewhere: list[int | None] = []
        self._slowest: int | None = None  # kept, since many files ask for it far more often than it changes
        self._lock = threading.Lock()

    def tell(self, partition: str, at: int | None, at_end: bool) -> None:
        """A partition has reached this time, None before its first event, and stands at its end or not."""
        with self._lock:
            if at is not None and self._at.get(partition) is None:
                self._began = at if self._began is None else min(at, self._began)
            self._at[partition] = at
            (self._at_end.add if at_end else self._at_end.discard)(partition)
            self._find_slowest()

    def leave(self, partition: str) -> None:
        """The partition is over."""
        with self._lock:
            self._at_end.add(partition)
            self._find_slowest()

    def heard(self, shard: int, reading: Callable[[], Mapping[str, int | None]]) -> None:
        """A shard of this process has heard of partitions; `reading` gives those with records to read.

        One shard is believed, the first by number: all hear the same.
        """
        if self._informant is None or shard < self._informant:
            self._informant = shard
        if shard == self._informant:
            heard = reading()
            with self._lock:
                self._elsewhere = [at for partition, at in heard.items() if partition not in self._at]
                self._find_slowest()

    def _find_slowest(self) -> None:
        here = [at for partition, at in self._at.items() if partition not in self._at_end]
        known = [self._began if at is None else at for at in here + self._elsewhere]
        self._slowest = min((at for at in known if at is not None), default=None)

    def ahead(self, partition: str) -> bool:
        """Whether the partition is too far ahead."""
        mine, slowest = self._at.get(partition), self._slowest
        return mine is not None and slowest is not None and mine - slowest > self._max_ahead


class Rest:
    """Lets a worker sleep while none of its partitions has anything to do.

    It goes by the monotonic clock: Bytewax would wait by the host's clock, and longer after that was set back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[int, dict[str, float]] = {}  # by thread, which is a worker, and partition

    def until(self, partition: str, due: float) -> None:
        """The partition has nothing to do before `due`; sleeps for a moment if no partition of the worker has."""
        mine = self._due.setdefault(threading.get_ident(), {})
        mine[partition] = due
        left = min(mine.values()) - self._clock.monotonic()
        if left > 0:
            self._clock.sleep(min(left, SLICE_S))

    def leave(self, partition: str) -> None:
        """The partition is over."""
        self._due.get(threading.get_ident(), {}).pop(partition, None)
