"""The expected content of a pane table, counted in the simplest way."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operators import series
from operators.metrics import METRICS
from operators.model import LABELS, MISSING
from operators.panes import fold
from operators.panes.table import PaneTable
from tests.operators.pane_events import EVIDENCE, SETS, VALUES, WIDTH, Call, M


@dataclass
class Row:
    """The expected content of a row."""

    members: list[Call] = field(default_factory=list)
    breakdown: dict[tuple[int, str], list[Call]] = field(default_factory=lambda: defaultdict(list))


def reference(given_calls: list[Call], sets: tuple[tuple[str, ...], ...] = SETS) -> dict[tuple[int, str], Row]:
    rows: dict[tuple[int, str], Row] = defaultdict(Row)
    for c in given_calls:
        of = dict(zip(LABELS, c.labels, strict=True))
        for dims in sets:
            if any(of[d] for d in dims):
                row = rows[(c.start + c.took) // WIDTH, series.text(dims, [of[d] for d in dims])]
                row.members.append(c)
                for i, label in enumerate(LABELS):
                    if label not in dims and of[label]:
                        row.breakdown[i, of[label]].append(c)
    for row in rows.values():
        for i in range(len(LABELS)):
            texts = sorted((v for at, v in row.breakdown if at == i), key=series.rank)
            for beyond in texts[VALUES:]:
                row.breakdown[i, series.OTHER] += row.breakdown.pop((i, beyond))
    return rows


def evidence_of(members: list[Call]) -> list[tuple[object, ...]]:
    order = sorted({(c.start, c.event, c.trace, c.caller, c.values, c.error) for c in members}, key=content)
    kept = set([c for c in order if c[5]][:EVIDENCE])
    for m, metric in enumerate(METRICS):
        sign = -1 if metric.worst == "high" else 1
        carrying = [c for c in order if c[4][m] != MISSING]
        kept |= set(sorted(carrying, key=lambda c: sign * c[4][m])[:EVIDENCE])
    return sorted(kept, key=content)


def requests(members: list[Call]) -> list[Call]:
    """Those that are requests; the others are evaluations of them."""
    return [c for c in members if c.labels[LABELS.index("operation")] != "evaluation"]


def content(call: tuple[Any, ...]) -> tuple[Any, ...]:
    start, event, trace, caller, values, error = call
    return start, values[0], values[1], event, trace, caller, values, error


def check(table: PaneTable, rows: dict[tuple[int, str], Row]) -> None:
    """Compare a table with the reference, row by row, and check its canonical form."""
    keys = [(p, table.series[s]) for p, s in zip(table.pane.tolist(), table.row_series.tolist(), strict=True)]
    assert keys == sorted(rows)
    assert table.series == sorted({s for _, s in rows})
    assert table.breakdown_values == sorted({v for row in rows.values() for _, v in row.breakdown})
    exact = fold.quantiles(table, [0.0, 0.5, 0.95, 1.0])
    for r, key in enumerate(keys):
        row = rows[key]
        assert table.requests[r] == len(requests(row.members))
        assert table.errors[r] == sum(c.error for c in requests(row.members))
        for m in range(M):
            values = sorted(c.values[m] for c in row.members if c.values[m] != MISSING)
            assert table.count[r, m] == len(values)
            assert table.total[r, m] == sum(values)
            assert table.least[r, m] == (values[0] if values else MISSING)
            assert table.most[r, m] == (values[-1] if values else MISSING)
            low, high = table.sketch_start[r * M + m : r * M + m + 2]
            assert table.sketch_count[low:high].sum() == len(values)
            assert (np.diff(table.sketch_bucket[low:high]) > 0).all()
            for q, share in enumerate([0.0, 0.5, 0.95, 1.0]):
                if values:
                    true = values[max(1, int(np.ceil(share * len(values)))) - 1]
                    assert abs(exact[r, m, q] - true) <= 0.02 * true
                else:
                    assert np.isnan(exact[r, m, q])
        b = np.flatnonzero(table.breakdown_row == r)
        got = [
            (table.breakdown_label[i], table.breakdown_values[v])
            for i, v in zip(b.tolist(), table.breakdown_value[b].tolist(), strict=True)
        ]
        assert got == sorted(row.breakdown)
        for i, at in zip(b.tolist(), got, strict=True):
            members = row.breakdown[at]
            assert table.breakdown_requests[i] == len(requests(members))
            assert table.breakdown_errors[i] == sum(c.error for c in requests(members))
            for m in range(M):
                values = [c.values[m] for c in members if c.values[m] != MISSING]
                assert table.breakdown_count[i, m] == len(values)
                assert table.breakdown_total[i, m] == sum(values)
        e = np.flatnonzero(table.evidence_row == r).tolist()
        found = [
            (
                int(table.evidence_start[i]),
                table.evidence_event[i],
                table.evidence_trace[i],
                table.evidence_caller[i],
                tuple(table.evidence_values[i].tolist()),
                bool(table.evidence_error[i]),
            )
            for i in e
        ]
        assert found == evidence_of(row.members)
    assert len(table.sketch_start) == len(keys) * M + 1
    assert (np.diff(table.breakdown_row) >= 0).all()
    assert (np.diff(table.evidence_row) >= 0).all()
