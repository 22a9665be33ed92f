"""How the partitions of one process wait: for slower ones, and for something to come."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Final

from connectors.clocks import Clock

SLICE_S: Final = 0.005
"""The longest that a worker sleeps at a time: what other workers send it waits for as long."""


@dataclass(slots=True)
class Pace:
    """How far the partitions of this process are, in event time: one too far ahead of the slowest has to wait.

    A partition that stands at its end holds nobody back.
    """

    max_ahead: int
    at: dict[str, int] = field(default_factory=dict)
    at_end: set[str] = field(default_factory=set)

    def tell(self, partition: str, at: int | None, at_end: bool) -> None:
        """How far a partition is, None where it has shown no event yet, and whether it has been read to its end."""
        if at is not None:
            self.at[partition] = at
        (self.at_end.add if at_end else self.at_end.discard)(partition)

    def leave(self, partition: str) -> None:
        """The partition is over."""
        self.at.pop(partition, None)

    def ahead(self, partition: str) -> bool:
        """Whether the partition is too far ahead."""
        mine = self.at.get(partition)
        if mine is None:
            return False
        slowest = min((at for p, at in self.at.items() if p not in self.at_end), default=mine)
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
