"""The stored rows of time buckets of a shard: the panes of a minute, the minute itself, the hour, and corrections.

A minute's bucket keeps its panes; it gives their rows at once, and the minute's row when the minute is over. An hour's
bucket keeps one row a series, and gives it when the hour is over. Both stay as long as a late event may correct them. A
bucket lives under one Bytewax key, which it seldom shares with another live one (`operators.panes.shard.row_keys`). So
it is written to the snapshot only while it changes, and all versions of a stored row come from one place, in order. The
keys are few and are used again, since the recovery store keeps a row of every key that it ever saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from operators.config import PanesConfig
from operators.errors import FatalError
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.shard import Slice, bucket_widths
from operators.panes.table import PaneTable

_APART = 4
"""Most tables of an hour that wait to be merged."""
_UNTOLD: Final = -1
"""Stands for the number of a bucket that an earlier release kept under its own key, until its next item tells it."""


class StoredRows(NamedTuple):
    """Rows to upsert: all of one width, in seconds."""

    width_s: int
    table: PaneTable


class Rollup:
    """The live buckets of one key; `dropped` when there are none."""

    VERSION = 3

    def __init__(self, pane_s: int, config: PanesConfig) -> None:
        self._pane_s = pane_s
        self._config = config
        self._live: dict[int, Bucket] = {}

    @property
    def dropped(self) -> bool:
        return not self._live

    def take(self, items: Sequence[Slice]) -> list[StoredRows]:
        """Take in slices and return the rows that they add or change, each once."""
        by_bucket: dict[int, list[Slice]] = {}
        for item in items:
            by_bucket.setdefault(item.bucket, []).append(item)
        out: list[StoredRows] = []
        for number, those in by_bucket.items():
            if _UNTOLD in self._live:
                self._live[number] = self._live.pop(_UNTOLD)
            bucket = self._live.setdefault(number, Bucket(self._pane_s, self._config))
            out += bucket.take(those)
            if bucket.dropped or bucket.empty:
                del self._live[number]
        return out

    def save(self) -> tuple[object, ...]:
        return (self.VERSION, tuple((number, bucket.save()) for number, bucket in sorted(self._live.items())))

    def restore(self, state: tuple[object, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for a version that this release does not read."""
        match state:
            case (self.VERSION, tuple() as live):
                self._live = {number: self._restored(bucket) for number, bucket in live}
            case (2, *bucket):
                self._live = {_UNTOLD: self._restored(tuple(bucket))}
            case _:
                raise FatalError(
                    f"buckets of rows in the snapshot have version {state[0]!r}; this release reads {self.VERSION}"
                )

    def _restored(self, state: tuple[object, ...]) -> Bucket:
        bucket = Bucket(self._pane_s, self._config)
        bucket.restore(state)
        return bucket


class Bucket:
    """The rows of one bucket, from panes of `pane_s` seconds; `dropped` once it takes no more.

    It learns its width from its items.
    """

    def __init__(self, pane_s: int, config: PanesConfig) -> None:
        self._width_s = 0
        self._pane_s = pane_s
        self._config = config
        # Tables in compact form, since most buckets only wait for corrections; tables of panes in the order of time.
        self._packed: list[tuple[object, ...]] = []
        self._last = -1  # the last pane in `_packed`
        self._sealed = False
        self.dropped = False

    def take(self, items: Sequence[Slice]) -> list[StoredRows]:
        """Take in slices and return the rows that they add or change, each once."""
        self._width_s = items[0].width_s
        added = self._kept([i.table for i in items if i.what == "rows" and i.table is not None])
        sealing = any(i.what == "seal" for i in items)
        out = self._add(added)
        if sealing:
            out += self._whole(self._tables(), None)
        elif self._sealed and len(added.pane):
            out += self._whole(self._tables(), added)
        self._sealed |= sealing
        self.dropped = any(i.what == "drop" for i in items)
        if any(i.what == "end" for i in items):
            last = self._kept([i.table for i in items if i.what == "end" and i.table is not None])
            table = self._merge([*self._tables(), last])
            out += self._panes(table, last) + self._whole([table], None)
        return out

    @property
    def empty(self) -> bool:
        """Whether it has nothing to keep."""
        return not self._packed and not self._sealed

    def _tables(self) -> list[PaneTable]:
        return list(map(pane_table.from_state, self._packed))

    @property
    def _keeps_panes(self) -> bool:
        return self._width_s == bucket_widths(self._pane_s)[0]

    def _merge(self, tables: Sequence[PaneTable]) -> PaneTable:
        return fold.merge(tables, self._config.evidence, self._config.breakdown_values)

    def _kept(self, tables: Sequence[PaneTable]) -> PaneTable:
        """The tables merged, in the width that this bucket keeps."""
        if not self._keeps_panes:
            return self._widened(tables)
        return tables[0] if len(tables) == 1 else self._merge(tables)

    def _widened(self, tables: Sequence[PaneTable]) -> PaneTable:
        """All rows in panes as wide as the bucket."""
        factor = self._width_s // self._pane_s
        return fold.widen(tables, factor, self._config.evidence, self._config.breakdown_values)

    def _add(self, added: PaneTable) -> list[StoredRows]:
        """Take in rows; returns the rows of single panes as they are now."""
        if not len(added.pane):
            return []
        if self._keeps_panes and added.pane[0] > self._last:
            self._keep(added)
            return [StoredRows(self._pane_s, added)]
        if not self._keeps_panes and len(self._packed) < _APART:
            self._keep(added)
            return []
        table = self._merge([*self._tables(), added])
        self._packed.clear()
        self._keep(table)
        return self._panes(table, added)

    def _keep(self, table: PaneTable) -> None:
        self._packed.append(pane_table.to_state(table))
        self._last = int(table.pane[-1])

    def _panes(self, table: PaneTable, changed: PaneTable) -> list[StoredRows]:
        """The changed rows of single panes."""
        if not self._keeps_panes or not len(changed.pane):
            return []
        return [StoredRows(self._pane_s, fold.matching(table, changed))]

    def _whole(self, tables: Sequence[PaneTable], changed: PaneTable | None) -> list[StoredRows]:
        """The rows of the whole bucket, of the series in `changed` or of all; none if the bucket is a single pane."""
        if self._keeps_panes and self._width_s == self._pane_s:
            return []
        table = self._widened(tables) if self._keeps_panes else self._merge(tables)
        if changed is not None:
            table = fold.matching(table, self._widened([changed]) if self._keeps_panes else changed)
        return [StoredRows(self._width_s, table)] if len(table.pane) else []

    def save(self) -> tuple[object, ...]:
        return (self._sealed, self._last, tuple(self._packed))

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take over the state of a predecessor."""
        self._sealed, self._last, packed = state
        self._packed = list(packed)
