"""The memory of a writer with which each item reaches its topic or file exactly once, over any number of crashes.

A writer that takes over reads back the items of its predecessors, from the position in its snapshot (from the start if
there is none) to the end, and then skips items that come again. The snapshot holds:

- The position.
- The ids that were read back and have not come again. A replayed epoch may hold fewer items than the one that died.
  With the position alone, a snapshot would move past ids that are still to come, and a second crash would write them
  twice.
- The ids of the last epoch that wrote any: the last items of a finite source come again when the finished run is
  started once more.
- The id of the log that the position counts in, if it has one: a topic that was made anew under the same name is read
  back from its start.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Protocol, TypeVar

from connectors.base import State
from operators.errors import FatalError
from operators.model import SECOND

VERSION: Final = 2
KEEP: Final = 86_400 * SECOND
"""How far items may be out of order, in event time: an id that is older than the newest item by more is forgotten."""
MOST_TIMELESS: Final = 100_000
"""How many ids without an event time (dead letters) are kept of those read back, the last ones. If the epoch that died
had written more of them to one partition, the first of them are written again."""


class Identified(Protocol):
    """An item that is written once: its id, and its event time in microseconds (0 if it has none)."""

    @property
    def id(self) -> str: ...

    @property
    def at(self) -> int: ...


Item = TypeVar("Item", bound=Identified)


class Once:
    """The ids that are already in the topic or file, and the position up to which it was read back or written.

    The order of use: `load` the snapshot; `saw` for each id from `end` on; then for each write `fresh`, and `wrote`
    once its items are durable. `fresh` changes nothing, so a failed write may be tried again; after a failure that
    leaves the outcome open, read back from `end` (`saw`) before the next try.
    """

    def __init__(self, end: int = 0, pending: Iterable[tuple[str, int]] = (), log: str = "") -> None:
        self.end = end
        self._log = log
        self._pending: dict[str, int] = {}  # id -> at
        self._timeless: dict[str, None] = {}  # ids without an event time, in the order of reading back
        for item_id, at in pending:
            self._remember(item_id, at)
        self._written: dict[str, int] = {}  # id -> at, written by this process since its last snapshot
        self._last: dict[str, int] = {}  # id -> at, written in the last earlier epoch that wrote any with a time

    @classmethod
    def load(cls, state: State | None) -> Once:
        """The memory from a `state`, or an empty one. Raises `FatalError` where another version wrote the state."""
        if state is None:
            return cls()
        match state:
            case (1, int(end), tuple(pending)):
                return cls(end, pending)
            case (2, int(end), tuple(pending), str(log)):
                return cls(end, pending, log)
        raise FatalError(
            f"the snapshot of a sink has version {state[:1]}, this program reads version {VERSION}: "
            "resume with the program that wrote it, or start with a new recovery folder"
        )

    def counts_in(self, log: str) -> bool:
        """Let positions count in the log with this id ("" if it has none); returns whether that is another log.

        For another log the position is its start. A log counts as the same if its id was unknown before or is now.
        """
        replaced = bool(log and self._log and log != self._log)
        if replaced:
            self.end = 0
        self._log = log
        return replaced

    def saw(self, item_id: str, end: int, at: int = 0) -> None:
        """Note an id that was read back; `end` is the position after it."""
        self._remember(item_id, at)
        self.end = end

    def _remember(self, item_id: str, at: int) -> None:
        if at > 0:
            self._pending[item_id] = at
            return
        self._timeless[item_id] = None
        if len(self._timeless) > MOST_TIMELESS:
            del self._timeless[next(iter(self._timeless))]

    def passed(self, end: int) -> None:
        """Note a record without an id (another program's) that was read back; `end` is the position after it."""
        self.end = end

    def fresh(self, items: Iterable[Item]) -> list[Item]:
        """The items that are not there yet, each once, in order."""
        out: dict[str, Item] = {}
        for item in items:
            if item.id not in self._pending and item.id not in self._timeless and item.id not in self._written:
                out.setdefault(item.id, item)
        return list(out.values())

    def wrote(self, items: Sequence[Identified], end: int) -> None:
        """Note that all `items` that were given to `fresh` are durable; `end` is the position after the last one."""
        for item in items:
            self._written[item.id] = item.at
            self._pending.pop(item.id, None)
            self._timeless.pop(item.id, None)
        self.end = max(self.end, end)
        newest = max((item.at for item in items), default=0)
        if newest > 0:
            old = [item_id for item_id, at in self._pending.items() if at < newest - KEEP]
            for item_id in old:
                del self._pending[item_id]

    def state(self) -> State:
        """The state for the epoch's snapshot: the position after its items, the ids that may come again, the log."""
        if timed := {item_id: at for item_id, at in self._written.items() if at > 0}:
            self._last = timed
        self._written.clear()
        timeless = ((item_id, 0) for item_id in self._timeless)
        pending = (*timeless, *sorted({**self._pending, **self._last}.items()))
        return (VERSION, self.end, pending, self._log)
