"""Compiled loops of the detectors that judge a horizon's mean by quantiles of that same mean's own past."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import (
    EXPECTED,
    FIELDS,
    LOWER,
    OBSERVED,
    SCORE,
    SPAN,
    UPPER,
    USUAL,
    WEIGHT,
    Floats,
    surprise,
)
from operators.kernels.histogram import Counts, distance, enter, fade, quantile
from operators.model import Ints

BUCKETS = 32
HOME = BUCKETS // 2

MEDIAN, ABOVE, BELOW, SPREAD = range(4)
"""Columns of a view of the past: the median, from where deviations up and down are counted, and their unit."""

TO_SIGMA = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations from the median."""

QUARTILE = 0.6745
"""A normal distribution's upper quartile, in standard deviations."""


@compiled
def hampel(mass: Counts, low: float, width: float, view: Floats) -> None:
    """View the past by its median and its median absolute deviation."""
    view[MEDIAN] = quantile(mass, low, width, 0.5)
    view[ABOVE] = view[MEDIAN]
    view[BELOW] = view[MEDIAN]
    view[SPREAD] = TO_SIGMA * distance(mass, low, width, view[MEDIAN])


@compiled
def tukey(mass: Counts, low: float, width: float, view: Floats) -> None:
    """View the past by its quartiles: a value k interquartile ranges beyond one lies at QUARTILE * (1 + 2 k)."""
    first = quantile(mass, low, width, 0.25)
    third = quantile(mass, low, width, 0.75)
    view[MEDIAN] = quantile(mass, low, width, 0.5)
    view[SPREAD] = (third - first) / (2.0 * QUARTILE)
    view[ABOVE] = third - QUARTILE * view[SPREAD]
    view[BELOW] = first + QUARTILE * view[SPREAD]


@compiled
def _judge(
    by_quartiles: bool,
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    sums: Floats,
    widths: Ints,
    past: Counts,  # [slots, K, H, BUCKETS]
    low: Floats,  # [slots, K, H]
    learned: Floats,  # [slots, K, H]
    warm: int,
    direction: Ints,
    floor: Floats,
    width: Floats,  # [slots, K] of a bucket, 0 until it was needed
    min_count: Ints,
    boundary: float,
    threshold: float,
) -> Floats:
    metrics, horizons = learned.shape[1], learned.shape[2]
    out = np.zeros((used, metrics, FIELDS))
    view = np.empty(4)
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            if now[s, 2 + 2 * k] == 0.0:
                continue
            least, most = math.inf, -math.inf  # deviations over the shorter horizons
            best = -1.0
            for h in range(horizons):
                n = sums[s, h, 2 + 2 * k]
                if n < min_count[k] or learned[s, k, h] < warm or learned[s, k, h] < 2 * widths[h]:
                    continue
                if h + 1 < horizons and learned[s, k, h] < USUAL * learned[s, k, h + 1]:
                    continue
                if by_quartiles:
                    tukey(past[s, k, h], low[s, k, h], width[s, k], view)
                else:
                    hampel(past[s, k, h], low[s, k, h], width[s, k], view)
                x = sums[s, h, 3 + 2 * k] / n
                d = x - view[MEDIAN]
                spread = max(view[SPREAD], floor[k])
                far = (x - view[ABOVE]) / spread if d >= 0.0 else (view[BELOW] - x) / spread
                # What lies nearer to the median than the metric's least change is never an anomaly.
                z = max(min(far, abs(d) / floor[k]), 0.0)
                if direction[k] * d < 0.0:
                    z = 0.0
                borne_out = least >= 0.5 * d if d >= 0.0 else most <= 0.5 * d
                least, most = min(least, d), max(most, d)
                if borne_out and z > best:
                    best = z
                    reach = boundary * floor[k]
                    out[s, k, OBSERVED] = x
                    out[s, k, EXPECTED] = view[MEDIAN]
                    out[s, k, LOWER] = min(view[BELOW] - boundary * spread, view[MEDIAN] - reach)
                    out[s, k, UPPER] = max(view[ABOVE] + boundary * spread, view[MEDIAN] + reach)
                    out[s, k, SPAN] = widths[h]
                    out[s, k, WEIGHT] = n
            if best >= 0.0:
                level = surprise(best)
                out[s, k, SCORE] = level / (level + threshold)
    return out


@compiled
def score_mad(
    used: int, pane: int, born: Ints, now: Floats, sums: Floats, widths: Ints, past: Counts, low: Floats,
    learned: Floats, warm: int, direction: Ints, floor: Floats, width: Floats, min_count: Ints, boundary: float,
    threshold: float,
) -> Floats:  # fmt: skip
    """Verdicts [used, K, FIELDS] on the mean of each metric, by the median and MAD of its past."""
    return _judge(
        False, used, pane, born, now, sums, widths, past, low, learned, warm, direction, floor, width, min_count,
        boundary, threshold,
    )  # fmt: skip


@compiled
def score_iqr(
    used: int, pane: int, born: Ints, now: Floats, sums: Floats, widths: Ints, past: Counts, low: Floats,
    learned: Floats, warm: int, direction: Ints, floor: Floats, width: Floats, min_count: Ints, boundary: float,
    threshold: float,
) -> Floats:  # fmt: skip
    """Verdicts [used, K, FIELDS] on the mean of each metric, by fences around the quartiles of its past."""
    return _judge(
        True, used, pane, born, now, sums, widths, past, low, learned, warm, direction, floor, width, min_count,
        boundary, threshold,
    )  # fmt: skip


@compiled
def learn_past(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    sums: Floats,
    widths: Ints,
    excluded: NDArray[np.bool_],
    past: Counts,
    low: Floats,
    learned: Floats,
    dirty: Ints,  # [slots, K] panes until the longest horizon holds nothing excluded
    width: Floats,
    bucket: Floats,  # [K] width of a new histogram's buckets
    min_count: Ints,
    keep: float,
) -> None:
    """Enter the horizons' means into their past, in place, without horizons that hold something excluded."""
    metrics, horizons = learned.shape[1], learned.shape[2]
    longest = widths[horizons - 1]
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            if excluded[s, k]:
                dirty[s, k] = longest
                continue
            if dirty[s, k] > 0:
                dirty[s, k] -= 1
            if now[s, 2 + 2 * k] == 0.0:
                continue
            for h in range(horizons):
                n = sums[s, h, 2 + 2 * k]
                if n < min_count[k] or dirty[s, k] > longest - widths[h]:
                    continue
                if width[s, k] == 0.0:
                    width[s, k] = bucket[k]
                fade(past[s, k, h], keep)
                x = sums[s, h, 3 + 2 * k] / n
                low[s, k, h] = enter(past[s, k, h], low[s, k, h], width[s, k], x, 1.0, HOME)
                learned[s, k, h] += 1.0
