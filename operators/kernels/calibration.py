"""Compiled loops of calibration, which learn raw levels in fading histograms and replace them by empirical tails."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import EXPECTED, LN10, LOWER, SCORE, SPAN, UPPER, Floats, level_of, score_of
from operators.model import Bools, Ints

BUCKETS = 20
STEP = 0.3
"""Bucket b holds the levels whose square root lies in [b, b + 1) * STEP; the last one also holds all above."""

TAIL = 0.02
"""The share of the highest levels to which an exponential tail is fitted."""

Counts = NDArray[np.float32]


@compiled
def tail_of(histograms: Counts, prior: Floats, s: int, c: int) -> tuple[float, float]:
    """The level above which the share TAIL of a histogram and the prior lies, and the mean excess over it."""
    total = 0.0
    for b in range(BUCKETS):
        total += prior[b] + histograms[s, c, b]
    want = TAIL * total
    above = 0.0  # mass of the buckets above b
    first = 0.0  # their levels, summed
    for b in range(BUCKETS - 1, -1, -1):
        low = b * b * STEP * STEP
        high = (b + 1) * (b + 1) * STEP * STEP
        mass = prior[b] + histograms[s, c, b]
        if above + mass >= want or b == 0:
            part = min(max(want - above, 0.0) / mass, 1.0) if mass > 0.0 else 0.0
            start = high - part * (high - low)
            excess = first + part * mass * 0.5 * (start + high) - start * (above + part * mass)
            return start, excess / want if want > 0.0 else 0.0
        above += mass
        first += mass * 0.5 * (low + high)
    return 0.0, 0.0


@compiled
def calibrate(
    table: Floats,  # [used, C, FIELDS]
    histograms: Counts,  # [slots, C, BUCKETS]
    prior: Floats,  # [BUCKETS]
    blank: tuple[float, float],  # `tail_of` the prior alone, which the buckets blur in the same way
    threshold: float,
    out: Floats,  # [used, C, FIELDS], written
) -> None:
    """Replace each level by that of its empirical tail if that is lower, and widen the band accordingly."""
    at_start = -math.log10(TAIL)
    model = 1.0 / LN10  # mean excess over any level if the detector's model is right
    for s in range(table.shape[0]):
        for c in range(table.shape[1]):
            out[s, c] = table[s, c]
            score = table[s, c, SCORE]
            if table[s, c, SPAN] == 0.0:
                continue
            start, excess = tail_of(histograms, prior, s, c)
            start = max(start - blank[0], 0.0) + at_start
            excess = max(excess / blank[1], 1.0) * model
            if start <= at_start and excess <= model:
                continue
            scale = excess * LN10
            level = level_of(score, threshold)
            empirical = at_start + (level - start) / scale if level > start else level * at_start / start
            if empirical < level:
                out[s, c, SCORE] = score_of(empirical, threshold) if empirical < math.inf else 1.0
            needed = start + (threshold - at_start) * scale
            if needed > threshold:
                # A level grows about as the square of the deviation.
                wider = math.sqrt(needed / threshold)
                out[s, c, LOWER] = table[s, c, EXPECTED] - wider * (table[s, c, EXPECTED] - table[s, c, LOWER])
                out[s, c, UPPER] = table[s, c, EXPECTED] + wider * (table[s, c, UPPER] - table[s, c, EXPECTED])


@compiled
def learn_levels(
    table: Floats,  # [used, C, FIELDS] the detector's own verdicts
    histograms: Counts,
    high: NDArray[np.int32],  # [slots, C] panes in a row with a level in the tail
    columns: Ints,  # [C] of `excluded`
    excluded: Bools,
    threshold: float,
    keep: float,
) -> None:
    """Enter the levels of judged cells that are not excluded, in place. A stretch in the tail counts once."""
    for s in range(table.shape[0]):
        for c in range(table.shape[1]):
            if table[s, c, SPAN] == 0.0 or excluded[s, columns[c]]:
                continue
            score = table[s, c, SCORE]
            level = level_of(score, threshold)
            high[s, c] = high[s, c] + 1 if level > -math.log10(TAIL) else 0
            if high[s, c] > table[s, c, SPAN]:
                continue
            bucket = min(int(math.sqrt(min(level, 1e6)) / STEP), BUCKETS - 1)
            for b in range(BUCKETS):
                histograms[s, c, b] *= keep
            histograms[s, c, bucket] += 1.0 / table[s, c, SPAN]
