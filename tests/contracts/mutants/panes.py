"""Parts that make panes, with one bug each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from operators.decode.seen import Seen
from operators.kernels.seen import Keys
from operators.model import Bools, Events, Ints
from operators.panes import fold, watermark
from operators.panes.admission import Admission
from operators.panes.rollup import Rollup
from operators.panes.shard import Partial, Shard, Slice
from operators.panes.table import Closed, PaneTable
from operators.panes.watermark import Idle, Judged, Progress, ShardClock, Watermark
from tests.operators.pane_parts import REAL, Parts

TableChange = Callable[[PaneTable], PaneTable]


def _folds(before: Callable[[Events], dict[str, Any]] | None = None, after: TableChange | None = None) -> Parts:
    """Folding with changed events or a changed table; an empty table is not changed."""

    def folded(events: Events, *rest: Any) -> PaneTable:
        events = replace(events, **before(events)) if before else events
        table = fold.fold_events(events, *rest)
        return after(table) if after and len(table.pane) else table

    return replace(REAL, fold_events=folded)


def _merges(change: Callable[[PaneTable, list[PaneTable]], PaneTable]) -> Parts:
    """Merging with a changed table if two or more tables are not empty."""

    def merged(tables: Sequence[PaneTable], *bounds: Any) -> PaneTable:
        full = [table for table in tables if len(table.pane)]
        table = fold.merge(tables, *bounds)
        return change(table, full) if len(full) > 1 else table

    return replace(REAL, merge=merged)


def _column(name: str, change: Callable[[Any], Any]) -> TableChange:
    return lambda table: replace(table, **{name: change(getattr(table, name))})


def _without_breakdown(table: PaneTable) -> PaneTable:
    names = [name for name in PaneTable.__slots__ if name.startswith("breakdown_")]
    return replace(table, **{name: getattr(table, name)[:0] for name in names})


def _evidence(table: PaneTable, at: Any) -> PaneTable:
    places = np.arange(len(table.evidence_row))[at].tolist()
    texts: dict[str, Any] = {
        name: [getattr(table, name)[i] for i in places]
        for name in ("evidence_event", "evidence_trace", "evidence_caller")
    }
    arrays = ("evidence_row", "evidence_start", "evidence_values", "evidence_error")
    return replace(table, **texts, **{name: getattr(table, name)[places] for name in arrays})


def _evidence_backwards(table: PaneTable) -> PaneTable:
    return _evidence(table, np.lexsort((-np.arange(len(table.evidence_row)), table.evidence_row)))


def _by_arrival(table: PaneTable, among: list[PaneTable]) -> PaneTable:
    """The table with its evidence in the order of the merged tables."""
    first = [(event, trace) for t in among for event, trace in zip(t.evidence_event, t.evidence_trace, strict=True)]
    rank = [first.index(one) for one in zip(table.evidence_event, table.evidence_trace, strict=True)]
    return _evidence(table, np.lexsort((np.array(rank, np.int64), table.evidence_row)))


def _unbounded_breakdown(events: Events, keep: Bools, sets: Any, width: int, evidence: int, values: int) -> PaneTable:
    return fold.fold_events(events, keep, sets, width, evidence, 10**6)


def _judges(change: Callable[..., Judged]) -> Parts:
    return replace(REAL, judge=change)


def _late_on_time(*given: Any) -> Judged:
    judged = watermark.judge(*given)
    return judged._replace(on_time=judged.on_time | judged.late, late=judged.late & False)


def _forgetful(start: Ints, end: Ints, before: int | None, *rest: Any) -> Judged:
    return watermark.judge(start, end, None, *rest)


def _by_the_newest_of_the_batch(start: Ints, end: Ints, before: int | None, *rest: Any) -> Judged:
    newest = max([*start.tolist(), *([] if before is None else [before])], default=None)
    return watermark.judge(start, end, newest, *rest)


def _by_start(start: Ints, end: Ints, *rest: Any) -> Judged:
    return watermark.judge(start, start, *rest)


class _FastClock(ShardClock):
    def _slowest(self, live: Sequence[str]) -> int:
        return max(self._at[p] for p in live)


class _HastyClock(ShardClock):
    """Does not wait for partitions that have not reported yet."""

    def observe(self, partition: str, partitions: Sequence[str], progress: Progress) -> None:
        super().observe(partition, tuple(self._at) or (partition,), progress)
        self.partitions = tuple(self._at)


class _FallingClock(ShardClock):
    def observe(self, partition: str, partitions: Sequence[str], progress: Progress) -> None:
        self._at.pop(partition, None)
        super().observe(partition, partitions, progress)


class _WaitingClock(ShardClock):
    """Waits also for partitions that lag while they stand at their end."""

    def _slowest(self, live: Sequence[str]) -> int:
        return min(self._at[p] for p in live)


class _FirstComeFirst(Admission):
    """Admits series in the order in which their names first came."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._came: dict[str, int] = {}

    def prune(self, table: PaneTable, closed: int) -> PaneTable:
        for name in table.series:
            self._came.setdefault(name, len(self._came))
        return super().prune(table, closed)

    def _unprotected(self, names: list[str], pane: int) -> list[str]:
        young = super()._unprotected(names, pane)
        return sorted(young, key=lambda name: self._came.setdefault(name, len(self._came)))


class _OneTooMany(Admission):
    def __init__(self, cap: int, *given: Any) -> None:
        super().__init__(cap + 1, *given)


class _Dropping(Admission):
    """Drops the series that it does not admit."""

    def close(self, table: PaneTable, upto: int) -> PaneTable:
        closed = super().close(table, upto)
        return fold.select(closed, ~np.array(["__other__" in closed.series[s] for s in closed.row_series], np.bool_))


class _NeverExpiring(Admission):
    def _expire(self, pane: int) -> None: ...


class _AnotherShard(Shard):
    """A shard with changed items, changed output or a changed saved state."""

    def __init__(self, *given: Any, item: Any = None, out: Any = None, state: Any = None, **more: Any) -> None:
        super().__init__(*given, **more)
        self._item, self._out, self._state = item, out, state

    def take(self, items: Sequence[Partial]) -> Iterator[Closed | Slice]:
        for out in super().take([self._item(item) for item in items] if self._item else items):
            yield from self._out(out) if self._out else [out]

    def save(self) -> tuple[object, ...]:
        state = super().save()
        return self._state(state) if self._state else state


def _shard(**changes: Callable[[Any], Any]) -> Parts:
    return replace(REAL, shard=lambda *given, **more: _AnotherShard(*given, **changes, **more))


def _a_pane_early(item: Partial) -> Partial:
    match item.progress:
        case Watermark(int(at), at_end):
            return item._replace(progress=Watermark(at + 3_600_000_000, at_end))
        case Idle(bound):
            return item._replace(progress=Idle(bound + 3_600_000_000))
    return item


def _late_as_on_time(item: Partial) -> Partial:
    tables = [table for table in (item.on_time, item.late) if table is not None]
    return item._replace(on_time=fold.merge(tables, 3, 2) if tables else None, late=None)


def _without(state: tuple[Any, ...], place: int, empty: Any) -> tuple[object, ...]:
    return (*state[:place], empty, *state[place + 1 :])


class _Amnesiac(Rollup):
    def save(self) -> tuple[object, ...]:
        return self.VERSION, ()


class _AloneAfterSeal(Rollup):
    """Gives the rows of a correction without the rows that they correct."""

    def take(self, items: Sequence[Slice]) -> list[Any]:
        fresh = Rollup(self._pane_s, self._config)
        super().take(items)
        return fresh.take(items)


class _Blind(Seen):
    def repeats(self, keys: Keys, times: Ints) -> Bools:
        return super().repeats(keys, times) & False


class _Unforgetting(Seen):
    def __init__(self, horizon: int, most: int) -> None:
        super().__init__(2**62, most)


class _ByBatch(Seen):
    def repeats(self, keys: Keys, times: Ints) -> Bools:
        self._ring.use[:] = 0
        self._ring.place[:] = -1
        return super().repeats(keys, times)


class _Nameless(Seen):
    """Treats all events without an id as the same event."""

    def repeats(self, keys: Keys, times: Ints) -> Bools:
        return super().repeats(np.where(keys == 0, np.uint64(1), keys), times)


MUTANTS: Final[dict[str, Parts]] = {
    "puts the end of a pane into it": _folds(lambda events: {"end": events.end - 1}),
    "puts a request into the pane of its start": _folds(lambda events: {"end": events.start}),
    "counts what is missing as zero": _folds(lambda events: {"values": np.maximum(events.values, 0)}),
    "gives evidence backwards": _folds(after=_evidence_backwards),
    "keeps no errors as evidence": _folds(after=lambda table: _evidence(table, ~table.evidence_error)),
    "keeps all values of a breakdown": replace(REAL, fold_events=_unbounded_breakdown),
    "counts errors as requests once more": _folds(after=lambda t: replace(t, requests=t.requests + t.errors)),
    "swaps the least and the most": _folds(after=lambda t: replace(t, least=t.most, most=t.least)),
    "adds up in floats": _folds(after=_column("total", lambda total: total.astype(np.float32).astype(np.int64))),
    "merges totals in floats": _merges(lambda t, _: replace(t, total=t.total.astype(np.float32).astype(np.int64))),
    "loses the first table that it merges": _merges(lambda _, tables: fold.merge(tables[1:], 2, 3)),
    "loses breakdowns when it merges": _merges(lambda table, _: _without_breakdown(table)),
    "merges sketches one short": _merges(lambda t, _: replace(t, sketch_count=np.maximum(1, t.sketch_count - 1))),
    "orders evidence by arrival": _merges(_by_arrival),
    "counts late events": _judges(_late_on_time),
    "forgets between polls how late it is": _judges(_forgetful),
    "judges by the newest of a batch": _judges(_by_the_newest_of_the_batch),
    "judges lateness by the start": _judges(_by_start),
    "follows the fastest partition": replace(REAL, clock=_FastClock),
    "waits for nobody who has not spoken": replace(REAL, clock=_HastyClock),
    "lets time go back": replace(REAL, clock=_FallingClock),
    "waits for what trails at its end": replace(REAL, clock=_WaitingClock),
    "admits who comes first": replace(REAL, admission=_FirstComeFirst),
    "admits one too many": replace(REAL, admission=_OneTooMany),
    "drops what it does not admit": replace(REAL, admission=_Dropping),
    "never forgets a series": replace(REAL, admission=_NeverExpiring),
    "closes panes early": _shard(item=_a_pane_early),
    "gives late events to detection": _shard(item=_late_as_on_time),
    "drops late events": _shard(item=lambda item: item._replace(late=None)),
    "closes a pane twice": _shard(out=lambda out: [out, out] if isinstance(out, Closed) else [out]),
    "never stores an hour": _shard(out=lambda out: [] if isinstance(out, Slice) and out.width_s == 3600 else [out]),
    "saves no open panes": _shard(state=lambda state: _without(state, 7, state[8])),
    "saves no rows of the running minute": _shard(state=lambda state: _without(state, 9, ())),
    "saves no buckets of rows": replace(REAL, rollup=_Amnesiac),
    "stores a correction in place of what it corrects": replace(REAL, rollup=_AloneAfterSeal),
    "counts duplicates": replace(REAL, seen=_Blind),
    "never forgets an id": replace(REAL, seen=_Unforgetting),
    "knows the ids of one poll alone": replace(REAL, seen=_ByBatch),
    "takes events without an id for one": replace(REAL, seen=_Nameless),
}
"""The parts by the mistake of the one that is replaced."""
