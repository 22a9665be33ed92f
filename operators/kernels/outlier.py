"""Compiled loops of the request outlier: a pane's largest request against the tail of all requests before."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import EXPECTED, FIELDS, LN10, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT, Floats
from operators.kernels.histogram import Counts, enter, fade, quantile
from operators.model import Ints

BUCKETS = 24
HOME = 8
WIDTH = 0.35
"""Of a bucket: a factor of 1.4, on the logarithmic scale; the first value that comes lies in bucket HOME."""

TAIL = 0.02
"""The share of the largest requests to which an exponential tail (of the logarithms: Pareto's) is fitted."""

ENOUGH = 10.0
"""Requests that must lie in the tail before it is believed."""


@compiled
def tail_of(mass: Counts, low: float) -> tuple[float, float]:
    """Where the tail begins, and the mean excess over that."""
    start = quantile(mass, low, WIDTH, 1.0 - TAIL)
    above = 0.0
    excess = 0.0
    for b in range(len(mass)):
        a, z = low + b * WIDTH, low + (b + 1) * WIDTH
        if z <= start:
            continue
        part = mass[b] * (z - max(a, start)) / WIDTH
        above += part
        excess += part * (0.5 * (z + max(a, start)) - start)
    return start, excess / above if above > 0.0 else 0.0


@compiled
def score_outliers(
    used: int,
    pane: int,
    born: Ints,
    counts: Floats,  # [slots, K] of this pane
    most: Floats,  # [slots, K] the largest request of the pane
    past: Counts,  # [slots, K, BUCKETS] of requests
    low: Floats,  # [slots, K]
    requests: Floats,  # [slots, K] entered, fading
    learned: Ints,  # [slots, K] panes with data
    judged: NDArray[np.bool_],  # [K]
    warm: int,
    least: float,  # logarithm of the least factor over where the tail begins
    threshold: float,
) -> Floats:
    """Verdicts [used, K, FIELDS] on the pane's largest request: how rare is one as large among so many."""
    metrics = learned.shape[1]
    out = np.zeros((used, metrics, FIELDS))
    begin = -math.log10(TAIL)
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            n = counts[s, k]
            if not judged[k] or n == 0.0 or learned[s, k] < warm or requests[s, k] * TAIL < ENOUGH:
                continue
            start, excess = tail_of(past[s, k], low[s, k])
            excess = max(excess, least / (max(threshold - begin, 1.0) * LN10))
            x = most[s, k]
            level = max(begin + (x - start) / (excess * LN10) - math.log10(n), 0.0) if x > start else 0.0
            if x < start + least:
                level = min(level, 0.9 * threshold)
            usual = quantile(past[s, k], low[s, k], WIDTH, 0.5)
            out[s, k, SCORE] = level / (level + threshold)
            out[s, k, OBSERVED] = x
            out[s, k, EXPECTED] = usual
            out[s, k, LOWER] = usual
            out[s, k, UPPER] = max(start + max((threshold - begin + math.log10(n)) * excess * LN10, least), usual)
            out[s, k, SPAN] = 1.0
            out[s, k, WEIGHT] = n
    return out


@compiled
def learn_requests(
    used: int,
    pane: int,
    born: Ints,
    counts: Floats,  # [slots, K] of this pane
    slots: Ints,  # [R] of the pane's rows
    start: Ints,  # [R * K + 1] where the values of (row, metric) begin
    value: Floats,
    count: Ints,
    excluded: NDArray[np.bool_],
    past: Counts,
    low: Floats,
    requests: Floats,
    learned: Ints,
    judged: NDArray[np.bool_],
    keep: float,
) -> None:
    """Enter the pane's requests, in place."""
    metrics = learned.shape[1]
    for r in range(len(slots)):
        s = slots[r]
        if s >= used or born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            if excluded[s, k] or not judged[k] or counts[s, k] == 0.0:
                continue
            fade(past[s, k], keep)
            requests[s, k] *= keep
            for i in range(start[r * metrics + k], start[r * metrics + k + 1]):
                low[s, k] = enter(past[s, k], low[s, k], WIDTH, value[i], float(count[i]), HOME)
                requests[s, k] += count[i]
            learned[s, k] += 1
