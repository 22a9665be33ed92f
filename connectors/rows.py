"""Pane tables and alerts as rows of `connectors.tables`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from connectors.base import Row
from connectors.tables import ALERTS, EXPECTATIONS, JUDGED, PANES, QUANTILES
from operators.detect.expectations import BAND, Expected
from operators.model import DIMENSIONS, LABELS, METRICS, MISSING, SECOND, Alert
from operators.pane_table import PaneTable
from operators.panes import quantiles
from operators.series import dimension_set, parse, text
from operators.sketch import encode

_NAMES: Final = [metric.name for metric in METRICS]
_SCALES: Final = np.array([metric.scale for metric in METRICS], np.float64)
_EMPTY: Final = "[]"


@lru_cache(maxsize=1 << 14)
def _key(series: str) -> tuple[str, ...]:
    """(dimension set, series, the value of each dimension or "")."""
    values = parse(series)
    return (dimension_set(series), series, *(values.get(name, "") for name in DIMENSIONS))


def _nullable(values: NDArray[np.float64], there: NDArray[np.bool_]) -> list[object]:
    """The values as a list, None where not `there`."""
    out = values.astype(object)
    out[~there] = None
    return list(out)


def _named(
    columns: Sequence[Sequence[object]], there: NDArray[np.bool_], used: Sequence[int]
) -> list[dict[str, object]]:
    """For each of n entries {metric: value} of what it carries, from a column of n values for each used metric."""
    names = [_NAMES[m] for m in used]
    whole: list[bool] = np.all(there, axis=1).tolist()
    out = []
    for i, values in enumerate(zip(*columns, strict=True)):
        if whole[i]:
            out.append(dict(zip(names, values, strict=True)))
        else:
            out.append({n: v for n, v, t in zip(names, values, there[i].tolist(), strict=True) if t})
    return out


def _breakdowns(table: PaneTable) -> list[str]:
    """For each row the breakdown as JSON: [{label, value, requests, errors, metric: [count, sum]}]."""
    out = [_EMPTY] * len(table.pane)
    used = np.flatnonzero((table.breakdown_count > 0).any(axis=0)).tolist()
    count = table.breakdown_count[:, used]
    total = table.breakdown_total[:, used] / _SCALES[used]
    pairs = [list(zip(count[:, j].tolist(), total[:, j].tolist(), strict=True)) for j in range(len(used))]
    metrics = _named(pairs, count > 0, used) if used else [{} for _ in table.breakdown_row]
    entries = [
        {"label": LABELS[label], "value": table.breakdown_values[value], "requests": requests, "errors": errors, **rest}
        for label, value, requests, errors, rest in zip(
            table.breakdown_label.tolist(),
            table.breakdown_value.tolist(),
            table.breakdown_requests.tolist(),
            table.breakdown_errors.tolist(),
            metrics,
            strict=True,
        )
    ]
    for row, low, high in _runs(table.breakdown_row):
        out[row] = _json(entries[low:high])
    return out


def _evidence(table: PaneTable) -> list[str]:
    """For each row its worst requests as JSON: [{event_id, trace_id, start (us), error, metric: value}]."""
    out = [_EMPTY] * len(table.pane)
    there = table.evidence_values != MISSING
    used = np.flatnonzero(there.any(axis=0)).tolist()
    units = table.evidence_values[:, used] / _SCALES[used]
    columns = [units[:, j].tolist() for j in range(len(used))]
    metrics = _named(columns, there[:, used], used) if used else [{} for _ in table.evidence_row]
    entries = [
        {"event_id": event, "trace_id": trace, "start": start, "error": error, **rest}
        for event, trace, start, error, rest in zip(
            table.evidence_event,
            table.evidence_trace,
            table.evidence_start.tolist(),
            table.evidence_error.tolist(),
            metrics,
            strict=True,
        )
    ]
    for row, low, high in _runs(table.evidence_row):
        out[row] = _json(entries[low:high])
    return out


def _runs(rows: NDArray[np.int32]) -> list[tuple[int, int, int]]:
    """(row, low, high) for each run of equal numbers."""
    if not len(rows):
        return []
    edges = np.flatnonzero(np.diff(rows)) + 1
    low = np.concatenate(([0], edges))
    high = np.concatenate((edges, [len(rows)]))
    return list(zip(rows[low].tolist(), low.tolist(), high.tolist(), strict=True))


def _json(value: object) -> str:
    """As JSON text; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return orjson.dumps(_clean(value)).decode()


def _clean(value: object) -> object:
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case list() | tuple():
            return [_clean(v) for v in value]
        case dict():
            return {_clean(k): _clean(v) for k, v in value.items()}
    return value


def pane_rows(table: PaneTable, width_s: int) -> list[Row]:
    """The rows of `llm_panes` for a table of panes that are `width_s` wide, in the table's order."""
    rows = len(table.pane)
    if not rows:
        return []
    keys = [_key(series) for series in table.series]
    of_row = [keys[i] for i in table.row_series.tolist()]
    columns: list[Sequence[object]] = [
        [key[0] for key in of_row],
        [key[1] for key in of_row],
        [width_s] * rows,
        (table.pane * (width_s * SECOND)).tolist(),
    ]
    columns.extend([key[2 + i] for key in of_row] for i in range(len(DIMENSIONS)))
    columns.append(table.requests.tolist())
    columns.append(table.errors.tolist())
    columns.append((table.errors / np.maximum(table.requests, 1)).tolist())
    there = table.count > 0
    points = quantiles(table, [q for q, _ in QUANTILES])
    for m, scale in enumerate(_SCALES):
        some = there[:, m]
        columns.append(table.count[:, m].tolist())
        if not some.any():
            columns.extend([[None] * rows] * (3 + len(QUANTILES)))
            continue
        columns.extend(_nullable(part[:, m] / scale, some) for part in (table.total, table.least, table.most))
        columns.extend(_nullable(points[:, m, q] / scale, some) for q in range(len(QUANTILES)))
    columns.append(encode(table.sketch_start, table.sketch_bucket, table.sketch_count, len(METRICS)))
    columns.append(_breakdowns(table))
    columns.append(_evidence(table))
    return [Row(PANES.name, values) for values in zip(*columns, strict=True)]


def expectation_rows(expected: Expected) -> list[Row]:
    """The rows of `llm_expectations`, in the order of the series."""
    series, places = len(expected.series), [JUDGED.index(cell) for cell in expected.cells]
    bands = np.full((series, len(JUDGED), len(BAND)), np.nan)
    bands[:, places] = expected.bands
    flat = bands.reshape(series, -1)
    values = flat.astype(object)
    values[np.isnan(flat)] = None
    keys = [_key(text) for text in expected.series]
    return [
        Row(EXPECTATIONS.name, (*key[:2], expected.start, *key[2:], *of))
        for key, of in zip(keys, values.tolist(), strict=True)
    ]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def alert_row(alert: Alert) -> Row:
    """The row of `llm_alerts` for one transition; a number that is not finite becomes null."""
    names = list(alert.series)
    return Row(
        ALERTS.name,
        (
            alert.alert_id,
            alert.at,
            alert.episode_id,
            alert.group_id,
            _json(alert.related),
            alert.sequence,
            alert.status,
            alert.severity,
            alert.kind,
            ",".join(names),
            text(names, list(alert.series.values())),
            *(alert.series.get(name, "") for name in DIMENSIONS),
            alert.metric,
            alert.unit,
            alert.since,
            alert.until,
            *(_finite(v) for v in (alert.observed, alert.expected, alert.lower, alert.upper, alert.score)),
            _json(alert.detectors),
            alert.learned_panes,
            alert.learned_since,
            _json(alert.contributors),
            _json(alert.factors),
            _json(alert.evidence),
            alert.text,
            _json(alert.links),
            alert.reason,
        ),
    )
