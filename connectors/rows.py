"""Pane tables and alerts as rows of `connectors.tables`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import compress, pairwise
from typing import Final

import numpy as np
import orjson
from numpy.typing import NDArray

from connectors.base import Row
from connectors.tables import ALERTS, EXPECTATIONS, PANES, QUANTILES
from operators.detect.engine.expectations import BAND, Expected
from operators.metrics import MEASURES, METRICS
from operators.model import DIMENSIONS, LABELS, MISSING, SECOND, Alert, caller_fields
from operators.panes.fold import quantiles
from operators.panes.sketch import encode
from operators.panes.table import PaneTable
from operators.series import dimension_set, parse, text
from operators.text import encodable

_NAMES: Final = [metric.name for metric in METRICS]
_CELLS: Final = tuple(MEASURES)
_SCALES: Final = np.array([metric.scale for metric in METRICS], np.float64)


@lru_cache(maxsize=1 << 14)
def _key(series: str) -> tuple[str, ...]:
    """(dimension set, series, the value of each dimension or "")."""
    values = parse(series)
    return (dimension_set(series), series, *(values.get(name, "") for name in DIMENSIONS))


def _nullable(values: NDArray[np.float64], there: NDArray[np.bool_]) -> list[object]:
    """The values as a list, with None where `there` is false."""
    out = values.astype(object)
    out[~there] = None
    return list(out)


def _entries(
    keys: Sequence[str], columns: Sequence[Sequence[object]], there: NDArray[np.bool_], used: Sequence[int]
) -> list[dict[str, object]]:
    """One dict for each of n entries, made of columns: `keys` first, then each `used` metric that is `there`."""
    names = (*keys, *(_NAMES[m] for m in used))
    carried: list[list[bool]] = np.pad(there, ((0, 0), (len(keys), 0)), constant_values=True).tolist()
    return [
        dict(compress(zip(names, values, strict=True), some))
        for values, some in zip(zip(*columns, strict=True), carried, strict=True)
    ]


def _breakdowns(table: PaneTable) -> list[str]:
    """The breakdown of each row as JSON: [{label, value, requests, errors, metric: [count, sum]}]."""
    there = table.breakdown_count > 0
    used = np.flatnonzero(there.any(axis=0)).tolist()
    total = table.breakdown_total[:, used] / _SCALES[used]
    columns: list[Sequence[object]] = [
        [LABELS[label] for label in table.breakdown_label.tolist()],
        [table.breakdown_values[value] for value in table.breakdown_value.tolist()],
        table.breakdown_requests.tolist(),
        table.breakdown_errors.tolist(),
        *(
            list(zip(table.breakdown_count[:, m].tolist(), total[:, j].tolist(), strict=True))
            for j, m in enumerate(used)
        ),
    ]
    entries = _entries(("label", "value", "requests", "errors"), columns, there[:, used], used)
    return _texts(len(table.pane), table.breakdown_row, entries)


def _evidence(table: PaneTable) -> list[str]:
    """The worst requests of each row as JSON: [{event_id, trace_id, start (us), error, metric: value, caller}]."""
    there = table.evidence_values != MISSING
    used = np.flatnonzero(there.any(axis=0)).tolist()
    units = table.evidence_values[:, used] / _SCALES[used]
    columns: list[Sequence[object]] = [
        table.evidence_event,
        table.evidence_trace,
        table.evidence_start.tolist(),
        table.evidence_error.tolist(),
        *(units[:, j].tolist() for j in range(len(used))),
    ]
    entries = _entries(("event_id", "trace_id", "start", "error"), columns, there[:, used], used)
    if any(table.evidence_caller):
        entries = [{**entry, **caller_fields(c)} for entry, c in zip(entries, table.evidence_caller, strict=True)]
    return _texts(len(table.pane), table.evidence_row, entries)


def _texts(rows: int, row: NDArray[np.int32], entries: Sequence[object]) -> list[str]:
    """The entries of each row as a JSON list; `row` holds the row of each entry, in ascending order."""
    edges = np.searchsorted(row, np.arange(rows + 1)).tolist()
    return [_json(entries[low:high]) if high > low else "[]" for low, high in pairwise(edges)]


def _json(value: object) -> str:
    """The value as JSON text; lone surrogates, which UTF-8 cannot hold, become question marks."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return orjson.dumps(_clean(value)).decode()


def _clean(value: object) -> object:
    match value:
        case str():
            return encodable(value)
        case list() | tuple():
            return [_clean(v) for v in value]
        case dict():
            return {_clean(k): _clean(v) for k, v in value.items()}
    return value


def pane_rows(table: PaneTable, width_s: int) -> list[Row]:
    """The rows of `llm_panes` for a table of panes of `width_s` seconds, in the table's order."""
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
    series, places = len(expected.series), [_CELLS.index(cell) for cell in expected.cells]
    bands = np.full((series, len(_CELLS), len(BAND)), np.nan)
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
