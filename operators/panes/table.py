"""The form of pane tables: their columns, their equality, their compact form for snapshots and other workers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from operators.errors import FatalError
from operators.kernels import varint
from operators.metrics import METRICS
from operators.model import MISSING, Ints

STATE_VERSION = 4
"""The version of the form that `to_state` gives."""

_M = len(METRICS)
_OF_3 = 9
"""The metrics of version 3, the first ones of today's; it held no callers."""


@dataclass(frozen=True, slots=True)
class PaneTable:
    """R rows, one for each (series, pane), in the order of (pane, series text); M is the number of metrics.

    The canonical form: the same events give equal tables, array by array, however they were split and merged.
    `series` are the distinct canonical texts in sorted order and every one is used. Sketch entries of the cell
    (row r, metric m) are `[sketch_start[r * M + m], sketch_start[r * M + m + 1])`, by ascending bucket. Breakdown
    entries are sorted by (row, label, value text); evidence by (row, then the order that `evidence.py` fixes).
    """

    series: list[str]
    row_series: NDArray[np.int32]  # [R] index into series
    pane: Ints  # [R] pane start // pane width
    requests: Ints  # [R]
    errors: Ints  # [R]
    count: Ints  # [R, M] events that carry the metric
    total: Ints  # [R, M] sum, fixed-point
    logs: Ints  # [R, M] sum of logarithms, in steps of `sketch.LOG_STEPS`
    least: Ints  # [R, M] minimum, MISSING where count is 0
    most: Ints  # [R, M] maximum, MISSING where count is 0
    sketch_start: Ints  # [R * M + 1]
    sketch_bucket: NDArray[np.int16]
    sketch_count: Ints

    breakdown_row: NDArray[np.int32]  # [B]
    breakdown_label: NDArray[np.int8]  # [B] index into LABELS
    breakdown_value: NDArray[np.int32]  # [B] index into breakdown_values
    breakdown_values: list[str]  # distinct, sorted, all used
    breakdown_requests: Ints  # [B]
    breakdown_errors: Ints  # [B]
    breakdown_count: Ints  # [B, M]
    breakdown_total: Ints  # [B, M]
    breakdown_logs: Ints  # [B, M]

    evidence_row: NDArray[np.int32]  # [E]
    evidence_start: Ints  # [E] start of the request
    evidence_values: Ints  # [E, M], MISSING where absent
    evidence_error: NDArray[np.bool_]  # [E]
    evidence_event: list[str]  # [E] event_id
    evidence_trace: list[str]  # [E] trace_id
    evidence_caller: list[str]  # [E] `operators.model.caller_text`

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled in the compact form of `to_state`: tables cross between workers."""
        return from_state, (to_state(self),)


@dataclass(frozen=True, slots=True)
class Closed:
    """Panes `low` to `high` - 1, which a shard hands on when its watermark has passed them, in order and without gaps.

    `table` holds their rows after admission. Panes from `judged` on are written but not judged: the source ended inside
    them. `final`: the source is over; if it has grown when the flow resumes, these panes are closed again, so nothing
    may be remembered of them.
    """

    low: int
    high: int
    judged: int
    table: PaneTable
    final: bool = False
    shard: int = 0


def equal(a: PaneTable, b: PaneTable) -> bool:
    """Whether the tables are the same, array by array."""
    pairs = ((getattr(a, f.name), getattr(b, f.name)) for f in fields(PaneTable))
    return all(x == y if isinstance(x, list) else x.dtype == y.dtype and np.array_equal(x, y) for x, y in pairs)


_COLUMNS: tuple[tuple[str, type[np.generic], str], ...] = (
    ("row_series", np.int32, "row"),
    ("pane", np.int64, "row"),
    ("requests", np.int64, "row"),
    ("errors", np.int64, "row"),
    ("count", np.int64, "row x metric"),
    ("total", np.int64, "row x metric"),
    ("logs", np.int64, "row x metric"),
    ("least", np.int64, "row x metric"),
    ("most", np.int64, "row x metric"),
    ("sketch_bucket", np.int16, "run"),
    ("sketch_count", np.int64, "run"),
    ("breakdown_row", np.int32, "entry"),
    ("breakdown_label", np.int8, "entry"),
    ("breakdown_value", np.int32, "entry"),
    ("breakdown_requests", np.int64, "entry"),
    ("breakdown_errors", np.int64, "entry"),
    ("breakdown_count", np.int64, "entry x metric"),
    ("breakdown_total", np.int64, "entry x metric"),
    ("breakdown_logs", np.int64, "entry x metric"),
    ("evidence_row", np.int32, "request"),
    ("evidence_start", np.int64, "request"),
    ("evidence_values", np.int64, "request x metric"),
    ("evidence_error", np.bool_, "request"),
)
"""The arrays of a table in the order of its compact form, which begins with `sketch_start` as sizes."""

_ABSENT = {"least", "most", "evidence_values"}
"""Columns that hold MISSING where a metric is absent."""

_STEPS = {"pane", "sketch_bucket", "breakdown_row", "evidence_row", "evidence_start"}
"""Columns that are kept as steps from the number before, since these are small."""


def to_state(table: PaneTable) -> tuple[object, ...]:
    """The table as builtins, for a snapshot or another worker: version, lengths, all numbers as one `bytes`, one text.

    Small numbers take one byte: a table takes about a fifth of its size in memory.
    """
    numbers = [np.diff(table.sketch_start)]
    for name, _, _ in _COLUMNS:
        column = getattr(table, name).ravel().astype(np.int64)
        numbers.append(np.diff(column, prepend=0) if name in _STEPS else column)
    texts = [
        *table.series, *table.breakdown_values, *table.evidence_event, *table.evidence_trace, *table.evidence_caller
    ]  # fmt: skip
    together = np.concatenate([*numbers, np.fromiter(map(len, texts), np.int64, len(texts))])
    data, _ = varint.write(together, np.array([0, len(together)]))
    sizes = (len(table.pane), len(table.sketch_bucket), len(table.breakdown_row), len(table.evidence_row))
    return (STATE_VERSION, (*sizes, len(table.series), len(table.breakdown_values)), data.tobytes(), "".join(texts))


def from_state(state: tuple[Any, ...]) -> PaneTable:
    """The table that `to_state` was given. Raises `FatalError` for a form that this release cannot read."""
    match state:
        case (
            3 | 4 as version,
            (int(rows), int(runs), int(entries), int(requests), int(series), int(values)),
            bytes(data),
            str(text),
        ):
            lengths = {"row": rows, "run": runs, "entry": entries, "request": requests}
            metrics, of_request = (_OF_3, 2) if version == 3 else (_M, 3)
        case _:
            raise FatalError(
                f"a pane table of version {state[0]!r} in the snapshot; this release reads version {STATE_VERSION}"
            )
    sizes = [
        rows * metrics,
        *(lengths[of.split(" ")[0]] * (metrics if of.endswith("metric") else 1) for _, _, of in _COLUMNS),
    ]
    whole = sum(sizes) + series + values + of_request * requests
    numbers, taken = varint.read(np.frombuffer(data, np.uint8).copy(), whole)
    if len(numbers) != whole or taken != len(data):
        raise FatalError("a pane table in the snapshot is damaged: its numbers do not fit its lengths")
    starts, *columns, of_text = np.split(numbers, np.cumsum(sizes))
    arrays: dict[str, Any] = {"sketch_start": np.append(0, np.cumsum(_widened(starts, metrics, 0)))}
    for (name, kind, of), column in zip(_COLUMNS, columns, strict=True):
        ready = np.cumsum(column) if name in _STEPS else column
        if of.endswith("metric"):
            ready = _widened(ready, metrics, MISSING if name in _ABSENT else 0).reshape(-1, _M)
        arrays[name] = ready.astype(kind, copy=False)
    ends = np.cumsum(of_text).tolist()
    texts = [text[low:high] for low, high in zip([0, *ends], ends, strict=False)]
    values_end, events_end = series + values, series + values + requests
    return PaneTable(
        series=texts[:series],
        breakdown_values=texts[series:values_end],
        evidence_event=texts[values_end:events_end],
        evidence_trace=texts[events_end : events_end + requests],
        evidence_caller=texts[events_end + requests :] if of_request == 3 else [""] * requests,
        **arrays,
    )


def _widened(numbers: Ints, metrics: int, absent: int) -> Ints:
    """Numbers of this many metrics a row, with those of today's: no request had the later ones."""
    return np.pad(numbers.reshape(-1, metrics), ((0, 0), (0, _M - metrics)), constant_values=absent).ravel()
