"""Compiled loops of the cumulative sums: both sides, in standard deviations of a pane's mean."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import EXPECTED, FIELDS, LN10, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT, Floats
from operators.model import Ints

SLACK = 0.5
"""k: what a pane may deviate, in standard deviations, before anything accumulates."""


@compiled
def score_cusum(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    mean: Floats,  # [slots, K] of a pane's mean
    between: Floats,  # [slots, K] mean square deviation of a pane's mean
    within: Floats,  # [slots, K] mean square deviation of a request
    learned: Ints,  # [slots, K] panes with data
    sums: Floats,  # [slots, K, 2] accumulated above and below
    panes: Floats,  # [slots, K, 2] panes with data since the sum left zero
    length: Floats,  # [slots, K, 2] their requests
    shift: Floats,  # [slots, K, 2] their deviation, summed
    warm: int,
    direction: Ints,
    least: Floats,  # [K] least lasting deviation
    threshold: float,
) -> Floats:
    """Verdicts [used, K, FIELDS]: how far the sum has come, and the mean deviation since it left zero."""
    metrics = mean.shape[1]
    out = np.zeros((used, metrics, FIELDS))
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            n = now[s, 2 + 2 * k]
            if n == 0.0 or learned[s, k] < warm:
                continue
            d = now[s, 3 + 2 * k] / n - mean[s, k]
            sigma = math.sqrt(max(between[s, k], within[s, k] / n, least[k] * least[k]))
            best = -1.0
            for side in range(2):
                sign = 1.0 - 2.0 * side
                if direction[k] * sign < 0.0:
                    continue
                total = sums[s, k, side] + sign * d / sigma - SLACK
                run = panes[s, k, side] + 1.0
                requests, moved = length[s, k, side] + n, shift[s, k, side] + n * sign * d
                if total <= 0.0:
                    total, run, requests, moved = 0.0, 1.0, n, n * sign * d
                # A smaller shift than the least one accumulates as well, where it lasts: it never is an anomaly.
                if moved < least[k] * requests:
                    total = min(total, 0.5 * threshold * LN10 / (2.0 * SLACK))
                if total > best:
                    best = total
                    # The stationary sum of normal values is above h in about exp(-2 k h) of all panes.
                    level = 2.0 * SLACK * total / LN10
                    reach = max(least[k], SLACK * sigma)
                    out[s, k, SCORE] = level / (level + threshold)
                    out[s, k, OBSERVED] = mean[s, k] + sign * moved / requests
                    out[s, k, EXPECTED] = mean[s, k]
                    out[s, k, LOWER] = mean[s, k] - reach
                    out[s, k, UPPER] = mean[s, k] + reach
                    out[s, k, SPAN] = run
                    out[s, k, WEIGHT] = requests
    return out


@compiled
def learn_cusum(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    square: Floats,  # [slots, K]
    excluded: NDArray[np.bool_],
    mean: Floats,
    between: Floats,
    within: Floats,
    learned: Ints,
    sums: Floats,
    panes: Floats,
    length: Floats,
    shift: Floats,
    dirty: Ints,  # [slots, K] 1 where the pane before was excluded
    warm: int,
    least: Floats,
    rate: float,
) -> None:
    """Accumulate and learn, in place; what is excluded stops both, and the sums begin anew after it."""
    metrics = mean.shape[1]
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            if excluded[s, k]:
                dirty[s, k] = 1
                continue
            n = now[s, 2 + 2 * k]
            if n == 0.0:
                continue
            if dirty[s, k] > 0:
                dirty[s, k] = 0
                sums[s, k] = 0.0
            x = now[s, 3 + 2 * k] / n
            d = x - mean[s, k]
            sigma = math.sqrt(max(between[s, k], within[s, k] / n, least[k] * least[k]))
            if learned[s, k] >= warm:
                for side in range(2):
                    deviation = (1.0 - 2.0 * side) * d
                    if sums[s, k, side] == 0.0:
                        panes[s, k, side] = 0.0
                        length[s, k, side] = 0.0
                        shift[s, k, side] = 0.0
                    sums[s, k, side] = max(0.0, sums[s, k, side] + deviation / sigma - SLACK)
                    panes[s, k, side] += 1.0
                    length[s, k, side] += n
                    shift[s, k, side] += n * deviation
                d = min(max(d, -4.0 * sigma), 4.0 * sigma)
            share = max(rate, 1.0 / (learned[s, k] + 1.0))
            mean[s, k] += share * d
            if learned[s, k] > 0:  # the first value tells the mean, and nothing of the spread
                between[s, k] += share * (d * d - between[s, k])
                m = mean[s, k]
                q = max((square[s, k] - 2.0 * m * now[s, 3 + 2 * k]) / n + m * m, 0.0)
                within[s, k] += share * (q - within[s, k])
            learned[s, k] += 1
