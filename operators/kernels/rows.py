"""Compiled loops over the rows of closed panes: their statistics and requests on the scale that is judged."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from operators.kernels import compiled, in_place
from operators.kernels.detect import ERRORS_COLUMN, REQUESTS_COLUMN, count_column, total_column
from operators.kernels.panes import Sums
from operators.kernels.sketch import Floats, Sketches
from operators.model import Ints


class Scale(NamedTuple):
    """The scale that each watched metric is judged in."""

    metrics: Ints  # [K] index on the metric axis
    value_of: Floats  # [K, buckets] judged value of the bucket
    linear: Floats  # [K] fixed-point steps in a unit if the metric is judged without logarithms, else 0
    log_steps: float


@in_place
def row_statistics(sums: Sums, sketches: Sketches, scale: Scale, stats: Floats, square: Floats) -> None:
    """Per row: requests, errors, and each metric's count, total and sum of squares on the scale it is judged in.

    `stats` [R, V] and `square` [R, K] are written.
    """
    axis = sums.counts.shape[1]
    for r in range(len(sums.requests)):
        stats[r, REQUESTS_COLUMN] = sums.requests[r]
        stats[r, ERRORS_COLUMN] = sums.errors[r]
        for k in range(len(scale.metrics)):
            m = scale.metrics[k]
            cell = r * axis + m
            second = 0.0
            for i in range(sketches.start[cell], sketches.start[cell + 1]):
                v = scale.value_of[k, sketches.bucket[i]]
                second += sketches.counts[i] * v * v
            steps = scale.linear[k]
            stats[r, count_column(k)] = sums.counts[r, m]
            stats[r, total_column(k)] = sums.totals[r, m] / steps if steps > 0.0 else sums.logs[r, m] / scale.log_steps
            square[r, k] = second


@compiled
def request_values(sketches: Sketches, scale: Scale, start: Ints) -> tuple[Floats, Ints]:
    """The values of the rows' requests on the scale they are judged in, with their counts, by (row, metric).

    `start` [R * K + 1] is written.
    """
    first, bucket, counts = sketches.start, sketches.bucket, sketches.counts
    metrics, value_of = scale.metrics, scale.value_of
    width = len(metrics)
    number = (len(start) - 1) // max(width, 1)
    axis = (len(first) - 1) // max(number, 1)
    n = 0
    for r in range(number):
        for k in range(width):
            start[r * width + k] = n
            cell = r * axis + metrics[k]
            n += first[cell + 1] - first[cell]
    start[number * width] = n
    value, count = np.empty(n), np.empty(n, np.int64)
    for r in range(number):
        for k in range(width):
            cell = r * axis + metrics[k]
            j = start[r * width + k]
            for i in range(first[cell], first[cell + 1]):
                value[j] = value_of[k, bucket[i]]
                count[j] = counts[i]
                j += 1
    return value, count
