"""The rows of closed panes as detectors see them: every metric on the scale that it is judged in."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from operators.detect.base import Watch
from operators.detect.detectors.static_limits import StaticLimits
from operators.kernels.detect import Floats, count_column, total_column
from operators.kernels.panes import Sums
from operators.kernels.rows import Scale, request_values, row_statistics
from operators.kernels.sketch import Sketches
from operators.model import Ints
from operators.panes.sketch import LOG_STEPS, LOGS, MIDDLE
from operators.panes.table import PaneTable


class RowValues(NamedTuple):
    """The values of a table's rows, on the scale that each metric is judged in."""

    stats: Floats  # [R, V]
    square: Floats  # [R, K]
    most: Floats  # [R, K]
    start: Ints  # [R * K + 1] where the requests' values of (row, metric) begin
    value: Floats
    counts: Ints


class RowReader:
    """Reads the rows of tables. A row with decoding speeds has no latency to judge, since a long answer takes long.

    This holds for the mean latency and for that of a single request.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._limits = StaticLimits(watch)
        self._told_by_speed = _places(watch, "latency", "tokens_per_second")
        self._counts = [count_column(k) for k in range(len(watch.metrics))]
        self._totals = [total_column(k) for k in range(len(watch.metrics))]
        self._judged_in = _judged_values(watch)
        self._scale = np.array([float(m.scale) for m in watch.metrics])
        self._offset = np.array(
            [m.offset if s.in_logs else 0.0 for m, s in zip(watch.metrics, watch.settings, strict=True)]
        )

    def read(self, table: PaneTable) -> RowValues:
        """The values of all rows of the table."""
        rows, metrics = len(table.pane), len(self._watch.metrics)
        stats, square = np.empty((rows, self._watch.columns)), np.empty((rows, metrics))
        start = np.zeros(rows * metrics + 1, np.int64)
        value, count = np.empty(0), np.empty(0, np.int64)
        most = self._judged(table.most[:, self._watch.axis])
        if rows:
            sums = Sums(table.requests, table.errors, table.count, table.total, table.logs)
            sketches = Sketches(table.sketch_start, table.sketch_bucket, table.sketch_count)
            row_statistics(sums, sketches, self._judged_in, stats, square)
            value, count = request_values(sketches, self._judged_in, start)
            if self._told_by_speed is not None:
                latency, speed = self._told_by_speed
                known = stats[:, self._counts[speed]] > 0.0
                stats[known, self._counts[latency]] = stats[known, self._totals[latency]] = 0.0
                square[known, latency] = most[known, latency] = 0.0
            if self._watch.config.limits:
                self._limits.statistics(sums, sketches, stats)
        return RowValues(stats, square, most, start, value, count)

    def _judged(self, values: Ints) -> Floats:
        """Fixed-point values [R, K] on the scale that each metric is judged in."""
        found = np.maximum(values, 0.5) / self._scale + self._offset
        return cast(Floats, np.where(self._judged_in.linear > 0.0, found, np.log(np.maximum(found, 1e-12))))


def _places(watch: Watch, *metrics: str) -> tuple[int, ...] | None:
    """The places of these metrics among the watched ones; None if one of them is not watched."""
    names_ = [m.name for m in watch.metrics]
    return tuple(names_.index(m) for m in metrics) if set(metrics) <= set(names_) else None


def _judged_values(watch: Watch) -> Scale:
    """The scale that each watched metric is judged in."""
    table = np.empty((len(watch.metrics), len(MIDDLE)))
    linear = np.zeros(len(watch.metrics))
    for k, (metric, settings) in enumerate(zip(watch.metrics, watch.settings, strict=True)):
        if settings.in_logs:
            table[k] = LOGS[watch.axis[k]] / LOG_STEPS
        else:
            table[k] = MIDDLE / metric.scale
            linear[k] = metric.scale
    return Scale(watch.axis, table, linear, float(LOG_STEPS))
