"""How the partitions of one process wait: for slower ones, and for something to come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Final

from connectors.clocks import Clock

SLICE_S: Final = 0.005
"""The longest that a worker sleeps at a time: what other workers send it waits for as long."""


class Pace:
    """How far partitions are, in event time: one of this process that is too far ahead of the slowest has to wait.

    A partition that stands at its end holds nobody back. Of the partitions of other processes the shards of this one
    tell, since each of them hears of all; its own are known here sooner. A partition with records, of which no event is
    known yet, counts as being where the first one began.
    """

    def __init__(self, max_ahead: int) -> None:
        self._max_ahead = max_ahead
        self._at: dict[str, int | None] = {}
        self._at_end: set[str] = set()
        self._began: int | None = None
        self._informant: int | None = None
        self._elsewhere: list[int | None] = []

    def tell(self, partition: str, at: int | None, at_end: bool) -> None:
        """How far a partition is, None where it has shown no event yet, and whether it has been read to its end."""
        if at is not None and self._at.get(partition) is None:
            self._began = at if self._began is None else min(at, self._began)
        self._at[partition] = at
        (self._at_end.add if at_end else self._at_end.discard)(partition)

    def leave(self, partition: str) -> None:
        """The partition is over."""
        self._at_end.add(partition)

    def heard(self, shard: int, reading: Callable[[], Mapping[str, int | None]]) -> None:
        """A shard of this process has heard of partitions; `reading` gives those with records to read.

        One shard is believed, the first by number: all hear the same.
        """
        if self._informant is None or shard < self._informant:
            self._informant = shard
        if shard == self._informant:
            self._elsewhere = [at for partition, at in reading().items() if partition not in self._at]

    def ahead(self, partition: str) -> bool:
        """Whether the partition is too far ahead."""
        mine = self._at.get(partition)
        if mine is None:
            return False
        # A list, made at once: a worker of its own thread may just be adding its partition.
        here = [at for p, at in list(self._at.items()) if p not in self._at_end]
        began = mine if self._began is None else self._began
        slowest = min((began if at is None else at for at in here + self._elsewhere), default=mine)
        return mine - slowest > self._max_ahead


class Rest:
    """Lets a worker sleep while none of its partitions has anything to do.

    By the monotonic clock: Bytewax itself would wait by the host's clock, and for as long as that was set back.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: dict[int, dict[str, float]] = {}  # of each worker's thread

    def until(self, partition: str, due: float) -> None:
        """This partition has nothing to do before this time; sleeps for a moment where that holds for all."""
        mine = self._due.setdefault(threading.get_ident(), {})
        mine[partition] = due
        left = min(mine.values()) - self._clock.monotonic()
        if left > 0:
            self._clock.sleep(min(left, SLICE_S))

    def leave(self, partition: str) -> None:
        """The partition is over."""
        self._due.get(threading.get_ident(), {}).pop(partition, None)
