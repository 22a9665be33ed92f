"""Pane tables: aggregates of (series, pane) rows, mergeable in any order with the same result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from operators import series as names
from operators.kernels.grouping import group
from operators.kernels.panes import Sums, fold_cells
from operators.kernels.sketch import Floats, Sketches, sketch_events
from operators.metrics import METRICS
from operators.model import EVALUATION, LABELS, Bools, Events, Ints
from operators.panes import sketch
from operators.panes.aggregate import (
    Breakdown,
    Cells,
    Requests,
    add_up,
    break_down,
    indexed,
    joined,
    keep_worst,
    owners,
    ranked,
    spans,
    used,
)
from operators.panes.evidence import chosen, content_order
from operators.panes.table import PaneTable

_M = len(METRICS)
_L = len(LABELS)
_OPERATION = LABELS.index("operation")
_KNOWN_SERIES = 1 << 17


def fold_events(
    events: Events,
    keep: Bools,
    dimension_sets: Sequence[Sequence[str]],
    width_us: int,
    evidence: int,
    breakdown_values: int,
) -> PaneTable:
    """The chosen events as rows: each belongs to the pane of its end, once in every dimension set.

    An evaluation counts as no request, since it tells the quality of one that was counted before. An event that is
    empty in all dimensions of a set makes no row there. `width_us` is the width of a pane; `evidence`
    and `breakdown_values` are bounds, as in `merge`.
    """
    picked = np.flatnonzero(keep)
    if not len(picked):
        return EMPTY
    in_order, alike = content_order(
        events.start[picked],
        events.values[:, picked].T,
        lambda among: _contents(
            picked[among],
            (events.event_id, events.trace_id, events.caller),
            events.values[:, picked[among]].T,
            events.error,
        ),
    )
    picked = picked[in_order]
    values, error = np.ascontiguousarray(events.values[:, picked].T), events.error[picked]

    # Groups of equal labels and pane are few in dense traffic: all that follows works on these, not on events.
    panes, pane_of = ranked(events.end[picked] // width_us)
    combos, combo_of = ranked(events.combo[picked].astype(np.int64))
    members, start = group(pane_of, combo_of, len(panes), len(combos))
    firsts = members[start[:-1]]
    group_pane, group_combo = pane_of[firsts], combo_of[firsts]
    request = np.array([of[_OPERATION] != EVALUATION for of in events.combos], np.bool_)[events.combo[picked]]
    sums, least, most = fold_cells(members, start, values, error, request, sketch.LOGS)
    cells = Cells(Sums(*sums), least, most, Sketches(*sketch_events(members, start, values)))

    # Every group goes to one row of each dimension set.
    sets = tuple(tuple(s) for s in dimension_sets)
    labels = [events.combos[c] for c in combos.tolist()]
    series, series_of = indexed(_series(sets, labels))
    group_series = series_of.reshape(len(labels), len(sets))[group_combo].ravel()
    pairs = np.flatnonzero(group_series >= 0)
    source, pair_set = np.divmod(pairs, len(sets))
    pair_pane, pair_series = group_pane[source], group_series[pairs]
    order, row_start = group(pair_pane, pair_series, len(panes), len(series))
    row_of_pair = owners(order, row_start)
    firsts = order[row_start[:-1]]

    texts, text_of = indexed(list(chain.from_iterable(labels)))
    pair_text = text_of.reshape(len(labels), _L)[group_combo[source]]
    free = np.array([[label not in s for label in LABELS] for s in sets])
    pair, label = np.nonzero((pair_text >= 0) & free[pair_set])
    entries = Breakdown(row_of_pair[pair], label, pair_text[pair, label], texts, cells.sums)

    kept = chosen(members, start, alike, values, error, evidence)
    worst, worst_group = members[kept], owners(np.arange(len(members)), start)[kept]
    again = np.argsort(worst)
    row_of = np.full(len(group_series), -1)
    row_of[pairs] = row_of_pair
    rows = row_of.reshape(-1, len(sets))[worst_group[again]].ravel()
    entry = np.repeat(worst[again], len(sets))
    row, entry = keep_worst(rows[rows >= 0], len(firsts), entry[rows >= 0], alike, values, error, evidence)
    where = picked[entry]
    return _table(
        series,
        pair_series[firsts],
        panes[pair_pane[firsts]],
        add_up(cells, source[order], row_start),
        break_down(entries, source[pair], len(firsts), breakdown_values),
        Requests(
            row,
            events.start[where],
            values[entry],
            error[entry],
            _picked(events.event_id, where),
            _picked(events.trace_id, where),
            _picked(events.caller, where),
        ),
    )


def merge(tables: Sequence[PaneTable], evidence: int, breakdown_values: int) -> PaneTable:
    """The sum of the tables: equal (series, pane) rows become one. Associative, commutative and exact.

    A row keeps, per metric, the `evidence` worst requests, and as many first errors; per label at most
    `breakdown_values` values, those with the smallest `series.rank`, and the rest under `__other__`. The bounds must
    not be larger than those that the tables were made with.
    """
    tables = [t for t in tables if len(t.pane)]
    if not tables:
        return EMPTY
    series, series_of = indexed(list(chain.from_iterable(t.series for t in tables)))
    row_series = series_of[joined([t.row_series for t in tables], [len(t.series) for t in tables])]
    panes, pane_of = ranked(np.concatenate([t.pane for t in tables]))
    order, start = group(pane_of, row_series, len(panes), len(series))
    row_of = owners(order, start)
    firsts = order[start[:-1]]

    sizes = [len(t.pane) for t in tables]
    entries = [len(t.sketch_bucket) for t in tables]
    cells = Cells(
        Sums(
            np.concatenate([t.requests for t in tables]),
            np.concatenate([t.errors for t in tables]),
            np.concatenate([t.count for t in tables]),
            np.concatenate([t.total for t in tables]),
            np.concatenate([t.logs for t in tables]),
        ),
        np.concatenate([t.least for t in tables]),
        np.concatenate([t.most for t in tables]),
        Sketches(
            np.append(joined([t.sketch_start[:-1] for t in tables], entries), sum(entries)),
            np.concatenate([t.sketch_bucket for t in tables]),
            np.concatenate([t.sketch_count for t in tables]),
        ),
    )

    texts, text_of = indexed(list(chain.from_iterable(t.breakdown_values for t in tables)))
    breakdown = Breakdown(
        row_of[joined([t.breakdown_row for t in tables], sizes)],
        np.concatenate([t.breakdown_label for t in tables]).astype(np.int64),
        text_of[joined([t.breakdown_value for t in tables], [len(t.breakdown_values) for t in tables])],
        texts,
        Sums(
            np.concatenate([t.breakdown_requests for t in tables]),
            np.concatenate([t.breakdown_errors for t in tables]),
            np.concatenate([t.breakdown_count for t in tables]),
            np.concatenate([t.breakdown_total for t in tables]),
            np.concatenate([t.breakdown_logs for t in tables]),
        ),
    )

    worst = Requests(
        row_of[joined([t.evidence_row for t in tables], sizes)],
        np.concatenate([t.evidence_start for t in tables]),
        np.concatenate([t.evidence_values for t in tables]),
        np.concatenate([t.evidence_error for t in tables]),
        list(chain.from_iterable(t.evidence_event for t in tables)),
        list(chain.from_iterable(t.evidence_trace for t in tables)),
        list(chain.from_iterable(t.evidence_caller for t in tables)),
    )
    in_order, place_alike = content_order(
        worst.start,
        worst.values,
        lambda among: _contents(among, (worst.event, worst.trace, worst.caller), worst.values[among], worst.error),
        worst.row,
    )
    alike = np.empty(len(in_order), np.int64)
    alike[in_order] = place_alike
    row, entry = keep_worst(worst.row[in_order], len(firsts), in_order, alike, worst.values, worst.error, evidence)
    return _table(
        series,
        row_series[firsts],
        panes[pane_of[firsts]],
        add_up(cells, order, start),
        break_down(breakdown, np.arange(len(breakdown.row)), len(firsts), breakdown_values),
        Requests(
            row,
            worst.start[entry],
            worst.values[entry],
            worst.error[entry],
            _picked(worst.event, entry),
            _picked(worst.trace, entry),
            _picked(worst.caller, entry),
        ),
    )


def split(table: PaneTable, part: Ints, parts: int) -> list[PaneTable | None]:
    """Split the table into `parts`: row r goes to number `part[r]`, or nowhere if that is -1. None for an empty part.

    Takes one pass over the table, however many parts; the tables are views of common arrays.
    """
    rows = np.flatnonzero(part >= 0)
    out: list[PaneTable | None] = [None] * parts
    if not len(rows):
        return out
    rows = rows[group(part[rows], np.zeros(len(rows), np.int64), parts, 1)[0]]
    of_row = part[rows]
    row_end = np.searchsorted(of_row, np.arange(parts + 1))
    new_row = np.arange(len(rows)) - row_end[of_row]
    series, series_end, row_series = _localised(table.series, of_row, table.row_series[rows], parts)

    first, last = table.sketch_start[rows * _M], table.sketch_start[(rows + 1) * _M]
    in_sketch = spans(first, last - first)
    run_end = np.append(0, np.cumsum(last - first))
    sketch_start = np.append(
        (table.sketch_start[:-1].reshape(-1, _M)[rows] - (first - run_end[:-1])[:, np.newaxis]).ravel(), len(in_sketch)
    )

    ends = np.searchsorted(table.breakdown_row, np.arange(len(table.pane) + 1))
    sizes = np.diff(ends)[rows]
    in_breakdown = spans(ends[rows], sizes)
    breakdown_end = np.append(0, np.cumsum(sizes))[row_end]
    breakdown_row = np.repeat(new_row, sizes).astype(np.int32)
    values, value_end, breakdown_value = _localised(
        table.breakdown_values, np.repeat(of_row, sizes), table.breakdown_value[in_breakdown], parts
    )

    ends = np.searchsorted(table.evidence_row, np.arange(len(table.pane) + 1))
    sizes = np.diff(ends)[rows]
    in_evidence = spans(ends[rows], sizes)
    evidence_end = np.append(0, np.cumsum(sizes))[row_end]
    evidence_row = np.repeat(new_row, sizes).astype(np.int32)
    event, trace, caller = (
        _picked(texts, in_evidence) for texts in (table.evidence_event, table.evidence_trace, table.evidence_caller)
    )

    def columns(at: Ints, *wanted: str) -> dict[str, NDArray[Any]]:
        return {name: getattr(table, name)[at] for name in wanted}

    by_row = columns(rows, "pane", "requests", "errors", "count", "total", "logs", "least", "most")
    by_run = columns(in_sketch, "sketch_bucket", "sketch_count")
    by_entry = columns(
        in_breakdown,
        "breakdown_label",
        "breakdown_requests",
        "breakdown_errors",
        "breakdown_count",
        "breakdown_total",
        "breakdown_logs",
    )
    by_request = columns(in_evidence, "evidence_start", "evidence_values", "evidence_error")
    by_row["row_series"] = row_series
    by_entry["breakdown_row"], by_entry["breakdown_value"] = breakdown_row, breakdown_value
    by_request["evidence_row"] = evidence_row
    edges = [x.tolist() for x in (row_end, run_end[row_end], breakdown_end, evidence_end)]
    for p in np.unique(of_row).tolist():
        r, s, b, e = (slice(x[p], x[p + 1]) for x in edges)
        out[p] = PaneTable(
            series=series[series_end[p] : series_end[p + 1]],
            breakdown_values=values[value_end[p] : value_end[p + 1]],
            sketch_start=sketch_start[r.start * _M : r.stop * _M + 1] - s.start,
            evidence_event=event[e],
            evidence_trace=trace[e],
            evidence_caller=caller[e],
            **{name: column[r] for name, column in by_row.items()},
            **{name: column[s] for name, column in by_run.items()},
            **{name: column[b] for name, column in by_entry.items()},
            **{name: column[e] for name, column in by_request.items()},
        )
    return out


def cut(table: PaneTable, shards: int) -> list[PaneTable | None]:
    """Split the table by the shard that owns each series; None for a shard without rows."""
    owner = np.array([names.shard_of(s, shards) for s in table.series], np.int64)
    return split(table, owner[table.row_series], shards)


def select(table: PaneTable, rows: Bools) -> PaneTable:
    """The rows where the mask [R] is true."""
    if rows.all():
        return table
    return split(table, rows.astype(np.int64) - 1, 1)[0] or EMPTY


def between(table: PaneTable, low: int, high: int) -> PaneTable:
    """The rows of panes `low` to `high` - 1."""
    return select(table, (table.pane >= low) & (table.pane < high))


def matching(table: PaneTable, others: PaneTable) -> PaneTable:
    """The rows of `table` whose (series, pane) has a row in `others`."""
    wanted = set(zip(_picked(others.series, others.row_series), others.pane.tolist(), strict=True))
    rows = zip(_picked(table.series, table.row_series), table.pane.tolist(), strict=True)
    return select(table, np.array([r in wanted for r in rows], np.bool_))


def widen(tables: Sequence[PaneTable], factor: int, evidence: int, breakdown_values: int) -> PaneTable:
    """The sum of the tables in panes `factor` times as wide."""
    return merge([replace(t, pane=t.pane // factor) for t in tables], evidence, breakdown_values)


def rename_series(
    table: PaneTable, mapping: Mapping[str, str], evidence: int, breakdown_values: int, rows: Bools | None = None
) -> PaneTable:
    """Move rows (with `rows` [R], only where true) from series in `mapping` to those that it names, and add them up."""
    known = {s: i for i, s in enumerate(dict.fromkeys([*table.series, *mapping.values()]))}
    target = np.array([known[mapping.get(s, s)] for s in table.series], np.int32)[table.row_series]
    if rows is not None:
        target = np.where(rows, target, table.row_series)
    return merge([replace(table, series=list(known), row_series=target)], evidence, breakdown_values)


def requests_of(table: PaneTable, dimensions: Sequence[str]) -> int:
    """All requests in the rows of one dimension set."""
    wanted = ",".join(dimensions)
    mask = np.array([names.dimension_set(s) == wanted for s in table.series], np.bool_)
    return int(table.requests[mask[table.row_series]].sum())


def quantiles(table: PaneTable, shares: Sequence[float]) -> Floats:
    """[R, M, Q] quantiles in fixed-point units, nan where a row has no values of a metric (as `sketch.quantiles`)."""
    found = sketch.quantiles(table.sketch_start, table.sketch_bucket, table.sketch_count, shares)
    found = found.reshape(len(table.pane), _M, len(shares))
    return cast(Floats, np.clip(found, table.least[:, :, np.newaxis], table.most[:, :, np.newaxis]))


def _contents(at: Ints, texts: Sequence[list[str]], values: Ints, error: Bools) -> list[tuple[object, ...]]:
    """The content of the requests `at` for `content_order`; `values` holds those of these requests alone."""
    return list(zip(*(_picked(column, at) for column in texts), values.tolist(), error[at].tolist(), strict=True))


def _picked(texts: list[str], at: NDArray[np.signedinteger]) -> list[str]:
    """These of the texts; "" where there are no texts at all."""
    return list(map(texts.__getitem__, at.tolist())) if texts else [""] * len(at)


@lru_cache(maxsize=_KNOWN_SERIES)
def _name(dimensions: tuple[str, ...], values: tuple[str, ...]) -> str:
    """The series of a dimension set with these values, "" if all are empty."""
    return names.text(dimensions, values) if any(values) else ""


def _series(dimension_sets: Sequence[Sequence[str]], labels: Sequence[tuple[str, ...]]) -> list[str]:
    """The series of each combination of labels, one for each dimension set."""
    sets = [(tuple(s), [LABELS.index(d) for d in s]) for s in dimension_sets]
    return [_name(s, tuple([of[p] for p in places])) for of in labels for s, places in sets]


def _localised(
    texts: list[str], part: Ints, index: NDArray[np.int32], parts: int
) -> tuple[list[str], list[int], NDArray[np.int32]]:
    """The texts that each part uses, part after part; the bounds of the parts; the index into the part's own texts."""
    order, start = group(part, index.astype(np.int64), parts, len(texts))
    firsts = order[start[:-1]]
    ends = np.searchsorted(part[firsts], np.arange(parts + 1))
    local = np.empty(len(order), np.int32)
    local[order] = np.repeat(np.arange(len(firsts)) - ends[part[firsts]], np.diff(start))
    return _picked(texts, index[firsts]), ends.tolist(), local


def _table(
    series: list[str], row_series: Ints, pane: Ints, cells: Cells, breakdown: Breakdown, requests: Requests
) -> PaneTable:
    """A table of rows in order, without unused texts."""
    used_series, narrow_series = used(series, row_series)
    texts, value = used(breakdown.texts, breakdown.value)
    return PaneTable(
        series=used_series,
        row_series=narrow_series,
        pane=pane,
        requests=cells.sums.requests,
        errors=cells.sums.errors,
        count=cells.sums.counts,
        total=cells.sums.totals,
        logs=cells.sums.logs,
        least=cells.least,
        most=cells.most,
        sketch_start=cells.sketches.start,
        sketch_bucket=cells.sketches.bucket,
        sketch_count=cells.sketches.counts,
        breakdown_row=breakdown.row.astype(np.int32),
        breakdown_label=breakdown.label.astype(np.int8),
        breakdown_value=value,
        breakdown_values=texts,
        breakdown_requests=breakdown.sums.requests,
        breakdown_errors=breakdown.sums.errors,
        breakdown_count=breakdown.sums.counts,
        breakdown_total=breakdown.sums.totals,
        breakdown_logs=breakdown.sums.logs,
        evidence_row=requests.row.astype(np.int32),
        evidence_start=requests.start,
        evidence_values=requests.values,
        evidence_error=requests.error,
        evidence_event=requests.event,
        evidence_trace=requests.trace,
        evidence_caller=requests.caller,
    )


def _empty() -> PaneTable:
    none, wide = np.zeros(0, np.int64), np.zeros((0, _M), np.int64)
    sums = Sums(none, none, wide, wide, wide)
    return _table(
        [],
        none,
        none,
        Cells(sums, wide, wide, Sketches(np.zeros(1, np.int64), none.astype(np.int16), none)),
        Breakdown(none, none, none, [], sums),
        Requests(none, none, wide, none.astype(np.bool_), [], [], []),
    )


EMPTY = _empty()
"""The table without rows: merging it changes nothing."""
