"""The stored rows of one time bucket of one shard: the panes of a minute, the minute itself, the hour, and corrections.

A minute's bucket keeps its panes; it gives their rows at once, and the minute's row when the minute is over. An hour's
bucket keeps one row a series, and gives it when the hour is over. Both stay until no late event may correct them any
more. One bucket is one Bytewax key, so it is written to the snapshot only while it changes, and all versions of a
stored row come from one place, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from operators import pane_table, panes
from operators.config import PanesConfig
from operators.errors import FatalError
from operators.pane_table import PaneTable
from operators.shard import Slice, bucket_widths


class StoredRows(NamedTuple):
    """Rows to upsert: all of one width, in seconds."""

    width_s: int
    table: PaneTable


class Bucket:
    """The rows of one bucket, fed with panes `pane_s` wide; `dropped` once it takes no more.

    Which bucket it is, it learns from its first item.
    """

    VERSION = 1

    def __init__(self, pane_s: int, config: PanesConfig) -> None:
        self._width_s = 0
        self._pane_s = pane_s
        self._config = config
        self._table = panes.EMPTY
        self._sealed = False
        self.dropped = False

    def take(self, items: Sequence[Slice]) -> list[StoredRows]:
        """Take in what came and return the rows that are new or changed by it, each once."""
        self._width_s = items[0].width_s
        added = self._kept([i.table for i in items if i.what == "rows" and i.table is not None])
        sealing = any(i.what == "seal" for i in items)
        self._table = self._merge([self._table, added])
        out = self._panes(self._table, added)
        if sealing or self._sealed:
            out += self._whole(self._table, self._table if sealing else added)
        self._sealed |= sealing
        self.dropped = any(i.what == "drop" for i in items)
        if any(i.what == "end" for i in items):
            last = self._kept([i.table for i in items if i.what == "end" and i.table is not None])
            table = self._merge([self._table, last])
            out += self._panes(table, last) + self._whole(table, table)
        return out

    @property
    def _keeps_panes(self) -> bool:
        return self._width_s == bucket_widths(self._pane_s)[0]

    def _merge(self, tables: Sequence[PaneTable]) -> PaneTable:
        return panes.merge(tables, self._config.evidence, self._config.breakdown_values)

    def _kept(self, tables: Sequence[PaneTable]) -> PaneTable:
        """The tables as one, at the width that this bucket keeps."""
        return self._merge(tables) if self._keeps_panes else self._merge([self._widened(t) for t in tables])

    def _widened(self, table: PaneTable) -> PaneTable:
        factor = self._width_s // self._pane_s
        return panes.widen(table, factor, self._config.evidence, self._config.breakdown_values)

    def _panes(self, table: PaneTable, changed: PaneTable) -> list[StoredRows]:
        """The rows of single panes."""
        if not self._keeps_panes or not len(changed.pane):
            return []
        return [StoredRows(self._pane_s, panes.matching(table, changed))]

    def _whole(self, table: PaneTable, changed: PaneTable) -> list[StoredRows]:
        """The rows of the whole bucket, where they are not those of a pane."""
        if not len(changed.pane) or (self._keeps_panes and self._width_s == self._pane_s):
            return []
        if self._keeps_panes:
            table, changed = self._widened(table), self._widened(changed)
        return [StoredRows(self._width_s, panes.matching(table, changed))]

    def save(self) -> tuple[object, ...]:
        return (self.VERSION, self._sealed, pane_table.to_state(self._table))

    def restore(self, state: tuple[object, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for a version this release does not read."""
        match state:
            case (self.VERSION, bool() as sealed, tuple() as table):
                self._sealed, self._table = sealed, pane_table.from_state(table)
            case _:
                raise FatalError(
                    f"a bucket of rows in the snapshot has version {state[0]!r}; this release reads {self.VERSION}"
                )
