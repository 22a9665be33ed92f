"""A shard's open panes: merge the rows of all partitions, close panes when all of them have passed, hand them on.

Every poll of every partition sends each shard one item, empty or not, so progress and rows cannot overtake each other.
Closed panes go two ways: whole to detection, and to the rows of the store, where they stay for a while so that late
events can correct them. Every epoch rewrites the state, so it holds no rows older than the running minute.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from operators.config import PanesConfig, TimeConfig
from operators.errors import FatalError
from operators.model import SECOND
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.admission import Admission
from operators.panes.table import Closed, PaneTable
from operators.panes.watermark import End, Progress, ShardClock

MINUTE = 60
HOUR = 3600
_FIRST, _LAST = -(2**62), 2**62  # bounds beyond every pane
_LATE_TABLES = 64  # most tables of late rows that wait unmerged for their panes to close


Observe = Callable[[int, int, int], None]
"""Called with (shard, number of watched series, newly overtaken events) when panes close or events are overtaken."""


class Partial(NamedTuple):
    """The item of one poll of one partition for one shard: progress, and rows of on-time and of late events."""

    shard: int
    partition: str
    partitions: tuple[str, ...]
    progress: Progress
    on_time: PaneTable | None
    late: PaneTable | None


@dataclass(frozen=True, slots=True)
class Slice:
    """An item for the stored rows of one time bucket of one shard (see `operators.panes.rollup`).

    `rows` adds a table of panes; `seal` says that the bucket is over; `drop` that no correction will come any more;
    `end` that the source is over: rows are written, but the bucket itself stays as it is. `number` is the number of
    the bucket's key.
    """

    shard: int
    width_s: int
    bucket: int
    number: int
    what: Literal["rows", "seal", "drop", "end"]
    table: PaneTable | None = None

    @property
    def key(self) -> str:
        """The Bytewax key of the bucket; it begins with the shard, since the store's writer routes by that."""
        return f"{self.shard:04d}/{self.width_s}/{self.number}"


def bucket_widths(pane_s: int) -> tuple[int, ...]:
    """The widths of the buckets that keep rows, in seconds: a minute (or a pane, if that is longer) and an hour."""
    return tuple(sorted({max(MINUTE, pane_s), HOUR}))


def row_keys(pane_s: int, correction_s: int) -> tuple[int, ...]:
    """The number of keys that a shard's buckets of each width take turns on: as many as are live at once.

    So a live bucket has a key of its own, and an epoch writes only changed buckets. Live are the open bucket, those
    that corrections reach, and the one that is dropped only after the next has opened.
    """
    return tuple(-(-correction_s // width) + 2 for width in bucket_widths(pane_s))


@dataclass(slots=True)
class _Buckets:
    """The live buckets of one width: those that have rows and are not dropped yet, each with the number of its key.

    A bucket keeps its key for life, even if a later run has another number of keys: all its rows stay in one place.
    """

    width_s: int
    keys: int
    open: dict[int, int] = field(default_factory=dict)
    sealed: dict[int, int] = field(default_factory=dict)

    def number(self, bucket: int) -> int:
        """The number of this bucket's key."""
        return self.open.get(bucket, self.sealed.get(bucket, bucket % self.keys))


class Shard:
    """The open panes of one shard. `take` is the only way in; `closed` is the first pane that is still open.

    It learns its number from its items. Without `rows` nothing is handed on for the store, which saves more than half
    of the work, and late events are left out. `keys` is the number of keys for the buckets of each width (by default
    that of `row_keys`); rows do not depend on it.
    """

    VERSION = 3
    dropped = False

    def __init__(
        self,
        shards: int,
        time: TimeConfig,
        config: PanesConfig,
        observe: Observe,
        *,
        rows: bool = True,
        keys: Sequence[int] = (),
    ) -> None:
        self.index = -1
        self._rows = rows
        self.shards = shards
        self._observe = observe
        self._time = time
        self._config = config
        self._clock = ShardClock(round(time.max_ahead_s * SECOND))
        self._admission = Admission(
            config.series_per_shard,
            config.expiry_s // time.pane_s,
            HOUR // time.pane_s,
            config.evidence,
            config.breakdown_values,
        )
        self.closed: int | None = None
        self.overtaken = 0  # events on time for their partition, whose pane was closed while that partition was idle
        self._told = 0
        self._pending: list[PaneTable] = []
        self._pending_late: list[PaneTable] = []
        self._settled = 0
        self._advanced = _FIRST  # buckets are sealed and dropped up to this pane; `closed`, except while closing
        # Closed panes of the running minute, not yet handed to the hour's bucket: the first pane of each table, and the
        # table in compact form, made once since every snapshot until the end of the minute holds it.
        self._running: list[tuple[int, tuple[object, ...]]] = []
        self._keys = tuple(keys) or row_keys(time.pane_s, time.correction_s)
        self._buckets = [_Buckets(w, n) for w, n in zip(bucket_widths(time.pane_s), self._keys, strict=True)]

    def take(self, items: Sequence[Partial]) -> Iterator[Closed | Slice]:
        """Merge the items in order, and hand on closed panes; the order of the output depends on the content alone."""
        for item in items:
            self.index = self._admission.shard = item.shard
            self._clock.observe(item.partition, item.partitions, item.progress)
            if item.on_time is not None:
                self._accept(item.on_time)
            if item.late is not None and self._rows:
                self._pending_late.append(item.late)
            yield from self._correct()
            upto = self._clock.closed_to()
            if upto is not None:
                pane = upto // (self._time.pane_s * SECOND)
                if self.closed is None or pane > self.closed:
                    yield from self._close(pane)
            end = self._clock.ended()
            if end is not None:
                yield from self._finish(end)
        if self.overtaken > self._told:
            self._tell()
        self._bound()

    @property
    def folded_requests(self) -> int:
        """Requests that have gone to the overflow series, over all closed panes."""
        return self._admission.folded_requests

    @property
    def reached(self) -> tuple[int | None, int | None]:
        """The time up to which panes are closed, and the same by the foremost partition alone, in microseconds.

        None if not known yet: no pane closes before every partition has reported.
        """
        width = self._time.pane_s * SECOND
        newest = self._clock.newest()
        return None if self.closed is None else self.closed * width, None if newest is None else newest // width * width

    def reading(self) -> dict[str, int | None]:
        """The watermarks of the partitions that have records to read; None for one without an event so far."""
        return self._clock.reading()

    def _tell(self) -> None:
        self._observe(self.index, len(self._admission), self.overtaken - self._told)
        self._told = self.overtaken

    def _merge(self, tables: Sequence[PaneTable]) -> PaneTable:
        return fold.merge(tables, self._config.evidence, self._config.breakdown_values)

    def _accept(self, table: PaneTable) -> None:
        """Add rows to the open panes; those of closed panes (a partition was idle) only correct stored rows."""
        if self.closed is not None and int(table.pane[0]) < self.closed:
            overtaken = fold.select(table, table.pane < self.closed)
            self.overtaken += fold.requests_of(overtaken, self._config.dimension_sets[0])
            if self._rows:
                self._pending_late.append(overtaken)
            table = fold.select(table, table.pane >= self.closed)
        if len(table.pane):
            self._pending.append(table)

    def _bound(self) -> None:
        """Merge waiting tables, so that memory grows with distinct rows, not with events."""
        rows = sum(len(t.pane) for t in self._pending)
        if rows > 2 * self._settled + 4_096:
            table = self._merge(self._pending)
            if self.closed is not None:
                table = self._admission.prune(table, self.closed)
            self._pending = [table]
            self._settled = len(table.pane)
        if len(self._pending_late) > _LATE_TABLES:
            self._pending_late = [self._merge(self._pending_late)]

    def _close(self, upto: int) -> Iterator[Closed | Slice]:
        table = self._merge(self._pending)
        self._pending = [fold.between(table, upto, _LAST)]
        self._settled = len(self._pending[0].pane)
        table = fold.between(table, _FIRST, upto)
        low = self._low(table, upto)
        table = self._admission.close(table, upto - 1)
        self.closed = upto
        self._tell()
        yield Closed(low, upto, upto, table, shard=self.index)
        yield from self._store(table)
        yield from self._correct()
        yield from self._advance(upto)

    def _low(self, table: PaneTable, upto: int) -> int:
        """The first pane that closes now. Before its first row a shard has no panes, whatever its watermark."""
        if self._admission.empty:
            return int(table.pane[0]) if len(table.pane) else upto
        assert self.closed is not None
        return self.closed

    def _store(self, table: PaneTable) -> Iterator[Slice]:
        """Hand closed panes to the minute's rows at once, and to the hour's when the minute is over."""
        if not self._rows:
            return
        yield from self._slices(self._buckets[0], table)
        if len(self._buckets) > 1:
            self._run(table)

    def _run(self, table: PaneTable) -> None:
        if len(table.pane):
            self._running.append((int(table.pane[0]), pane_table.to_state(table)))

    def _ran(self) -> list[PaneTable]:
        return [pane_table.from_state(packed) for _, packed in self._running]

    def _slices(self, buckets: _Buckets, table: PaneTable) -> Iterator[Slice]:
        """Cut rows by bucket. A dropped bucket takes no more rows, since its earlier ones are forgotten."""
        per_bucket = buckets.width_s // self._time.pane_s
        index = table.pane // per_bucket
        for bucket in np.unique(index).tolist():
            if self._over(buckets, bucket, self._advanced, self._time.correction_s):
                continue
            yield self._slice(buckets, bucket, "rows", fold.select(table, index == bucket))
            if bucket not in buckets.sealed:
                buckets.open[bucket] = buckets.number(bucket)

    def _slice(
        self,
        buckets: _Buckets,
        bucket: int,
        what: Literal["rows", "seal", "drop", "end"],
        table: PaneTable | None = None,
    ) -> Slice:
        return Slice(self.index, buckets.width_s, bucket, buckets.number(bucket), what, table)

    def _over(self, buckets: _Buckets, bucket: int, upto: int, after_s: int = 0) -> bool:
        """Whether the bucket ended at least `after_s` before pane `upto`."""
        return (bucket + 1) * buckets.width_s + after_s <= upto * self._time.pane_s

    def _advance(self, upto: int) -> Iterator[Slice]:
        """Seal the buckets that are over, and drop those that no correction can reach any more."""
        if len(self._buckets) > 1:
            per_minute = self._buckets[0].width_s // self._time.pane_s
            over = upto // per_minute * per_minute
            if any(first < over for first, _ in self._running):
                table = self._merge(self._ran())
                self._running.clear()
                self._run(fold.between(table, over, _LAST))
                yield from self._slices(self._buckets[1], fold.between(table, _FIRST, over))
        for buckets in self._buckets:
            for bucket in sorted(b for b in buckets.open if self._over(buckets, b, upto)):
                buckets.sealed[bucket] = buckets.open.pop(bucket)
                yield self._slice(buckets, bucket, "seal")
            for bucket in sorted(b for b in buckets.sealed if self._over(buckets, b, upto, self._time.correction_s)):
                yield self._slice(buckets, bucket, "drop")
                del buckets.sealed[bucket]
        self._advanced = upto

    def _correct(self) -> Iterator[Slice]:
        """Hand late rows of closed panes to the stored rows; those of open panes wait. Detection sees none of them."""
        closed = self.closed
        if closed is None or not any(int(t.pane[0]) < closed for t in self._pending_late):
            return
        table = self._merge(self._pending_late)
        self._pending_late = _filled(fold.between(table, closed, _LAST))
        table = self._admission.known(fold.between(table, _FIRST, closed))
        for buckets in self._buckets:
            yield from self._slices(buckets, table)

    def _finish(self, end: End) -> Iterator[Closed | Slice]:
        """The finite source is over: hand on the open panes, and leave the state as it is.

        If the source has grown when the flow resumes, the panes close again, then whole. Panes from the last start on
        are not judged: the source ended inside them.
        """
        if end.start is None or end.end is None:
            return
        table = self._merge(self._pending)
        width = self._time.pane_s * SECOND
        upto = max(end.end // width + 1, self.closed or 0)
        low = self._low(table, upto)
        admission = Admission.load(self._admission.save(), *self._admission.settings)
        table = admission.close(table, upto - 1)
        yield Closed(low, upto, min(upto, max(low, end.start // width)), table, final=True, shard=self.index)
        if not self._rows:
            return
        table = self._merge([table, admission.known(self._merge(self._pending_late))])
        for buckets, rows in zip(self._buckets, (table, self._merge([*self._ran(), table])), strict=False):
            per_bucket = buckets.width_s // self._time.pane_s
            index = rows.pane // per_bucket
            for bucket in sorted({*np.unique(index).tolist(), *buckets.open}):
                yield self._slice(buckets, bucket, "end", fold.select(rows, index == bucket))

    def save(self) -> tuple[object, ...]:
        self._pending = [self._merge(self._pending)]
        self._settled = len(self._pending[0].pane)
        return (
            self.VERSION,
            self.index,
            self.shards,
            self.closed,
            self.overtaken,
            self._clock.save(),
            self._admission.save(),
            pane_table.to_state(self._pending[0]),
            pane_table.to_state(self._merge(self._pending_late)),
            tuple(self._running),
            tuple((b.width_s, tuple(sorted(b.open.items())), tuple(sorted(b.sealed.items()))) for b in self._buckets),
        )

    def restore(self, state: tuple[Any, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for another version or number of shards."""
        match state:
            case (
                2 | 3 as version,
                index,
                shards,
                closed,
                overtaken,
                clock,
                admission,
                pending,
                late,
                running,
                buckets,
            ):
                if shards != self.shards:
                    raise FatalError(f"the snapshot was made with {shards} shards, the flow has {self.shards}")
                self.index, self.closed, self.overtaken = index, closed, overtaken
                self._told = overtaken
                self._clock = ShardClock.load(clock, round(self._time.max_ahead_s * SECOND))
                self._admission = Admission.load(admission, *self._admission.settings)
                self._admission.retire(self._config.dimension_sets)
                self._pending = [pane_table.from_state(pending)]
                self._settled = len(self._pending[0].pane)
                self._pending_late = _filled(pane_table.from_state(late))
                self._advanced = _FIRST if closed is None else closed
                self._running = list(running)
                if version == 2:  # the number of each bucket was that of its key
                    buckets = [(width, *(((b, b) for b in live) for live in both)) for width, *both in buckets]
                self._buckets = [
                    _Buckets(width, keys, dict(live), dict(sealed))
                    for (width, live, sealed), keys in zip(buckets, self._keys, strict=True)
                ]
            case _:
                raise FatalError(
                    f"a shard's state in the snapshot has version {state[0]!r}; this release reads {self.VERSION}"
                )


def _filled(table: PaneTable) -> list[PaneTable]:
    """The table in a list, which is empty if the table has no rows."""
    return [table] if len(table.pane) else []
