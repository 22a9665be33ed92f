"""How the partitions of one process wait: for slower ones, and for something to come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from connectors.clocks import Clock

SLICE_S: Final = 0.005
"""The longest that a worker sleeps at a time: what other workers send it waits for as long."""


@dataclass(slots=True)
class Pace:
    """How far partitions are, in event time: one of this process that is too far ahead of the slowest has to wait.

    A partition that stands at its end holds nobody back. Of the partitions of other processes the shards of this one
    tell, since each of them hears of all; their own are known sooner without them.
    """

    max_ahead: int
    at: dict[str, int] = field(default_factory=dict)
    at_end: set[str] = field(default_factory=set)
    informant: int | None = None
    elsewhere: int | None = None

    def tell(self, partition: str, at: int | None, at_end: bool) -> None:
        """How far a partition is, None where it has shown no event yet, and whether it has been read to its end."""
        if at is not None:
            self.at[partition] = at
        (self.at_end.add if at_end else self.at_end.discard)(partition)

    def leave(self, partition: str) -> None:
        """The partition is over."""
        self.at.pop(partition, None)

    def heard(self, shard: int, reading: Callable[[], Mapping[str, int]]) -> None:
        """A shard of this process has heard of partitions; `reading` gives those with records to read.

        One shard is believed, the first by number: all hear the same.
        """
        if self.informant is None or shard < self.informant:
            self.informant = shard
        if shard == self.informant:
            self.elsewhere = min((at for p, at in reading().items() if p not in self.at), default=None)

    def ahead(self, partition: str) -> bool:
        """Whether the partition is too far ahead."""
        mine = self.at.get(partition)
        if mine is None:
            return False
        # A list, made at once: a worker of its own thread may just be adding its partition.
        slowest = min((at for p, at in list(self.at.items()) if p not in self.at_end), default=mine)
        if self.elsewhere is not None:
            slowest = min(slowest, self.elsewhere)
        return mine - slowest > self.max_ahead


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
