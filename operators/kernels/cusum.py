"""Compiled loops of the cumulative sums: both sides, in standard deviations of a pane's mean."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from operators.kernels import compiled, in_place, inner
from operators.kernels.detect import (
    EXPECTED,
    FIELDS,
    LN10,
    LOWER,
    OBSERVED,
    SCORE,
    SPAN,
    UPPER,
    WEIGHT,
    Floats,
    Seen,
    count_column,
    is_live,
    score_of,
    square_deviation,
    total_column,
)
from operators.kernels.means import MeanRules
from operators.model import Bools, Ints

SLACK = 0.5
"""k: the deviation of a pane, in standard deviations, from which the sum grows."""


class Cusums(NamedTuple):
    """The learned moments of a pane's mean, and the sums above and below it."""

    mean: Floats  # [slots, K] of a pane's mean
    between: Floats  # [slots, K] mean square deviation of a pane's mean
    within: Floats  # [slots, K] mean square deviation of a request
    learned: Ints  # [slots, K] panes with data
    sums: Floats  # [slots, K, 2] accumulated above and below
    panes: Floats  # [slots, K, 2] panes with data since the sum left zero
    length: Floats  # [slots, K, 2] requests of these panes
    shift: Floats  # [slots, K, 2] sum of their deviations
    dirty: Ints  # [slots, K] 1 if the last pane was excluded


@inner
def _sigma(cusums: Cusums, rules: MeanRules, s: int, k: int, n: float) -> float:
    """The spread of the mean of n requests: at least that of panes, the sampling error and the least change."""
    return math.sqrt(max(cusums.between[s, k], cusums.within[s, k] / n, rules.least[k] * rules.least[k]))


@compiled
def score_cusum(seen: Seen, cusums: Cusums, rules: MeanRules) -> Floats:
    """Verdicts [used, K, FIELDS] on the larger sum of each metric; it observes the mean since the sum left zero."""
    metrics = cusums.mean.shape[1]
    out = np.zeros((seen.used, metrics, FIELDS))
    _judge(seen, cusums, rules, out)
    return out


@inner
def _judge(seen: Seen, cusums: Cusums, rules: MeanRules, out: Floats) -> None:
    metrics = cusums.mean.shape[1]
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for k in range(metrics):
            n = seen.now[s, count_column(k)]
            if n == 0.0 or cusums.learned[s, k] < rules.warm:
                continue
            mean, least = cusums.mean[s, k], rules.least[k]
            d = seen.now[s, total_column(k)] / n - mean
            sigma = _sigma(cusums, rules, s, k, n)
            best = -1.0
            for side in range(2):
                sign = 1.0 - 2.0 * side
                if rules.direction[k] * sign < 0.0:
                    continue
                total = cusums.sums[s, k, side] + sign * d / sigma - SLACK
                run = cusums.panes[s, k, side] + 1.0
                requests, moved = cusums.length[s, k, side] + n, cusums.shift[s, k, side] + n * sign * d
                if total <= 0.0:
                    total, run, requests, moved = 0.0, 1.0, n, n * sign * d
                # A lasting shift below the least change accumulates too, but it is never an anomaly.
                if moved < least * requests:
                    total = min(total, 0.5 * rules.threshold * LN10 / (2.0 * SLACK))
                if total > best:
                    best = total
                    # The stationary sum of normal values is above h in about exp(-2 k h) of all panes.
                    level = 2.0 * SLACK * total / LN10
                    reach = max(least, SLACK * sigma)
                    out[s, k, SCORE] = score_of(level, rules.threshold)
                    out[s, k, OBSERVED] = mean + sign * moved / requests
                    out[s, k, EXPECTED] = mean
                    out[s, k, LOWER] = mean - reach
                    out[s, k, UPPER] = mean + reach
                    out[s, k, SPAN] = run
                    out[s, k, WEIGHT] = requests


@in_place
def learn_cusum(seen: Seen, cusums: Cusums, rules: MeanRules, excluded: Bools) -> None:
    """Accumulate and learn, in place; an excluded pane stops both, and the sums begin anew after it."""
    sums, panes, length, shift = cusums.sums, cusums.panes, cusums.length, cusums.shift
    metrics = cusums.mean.shape[1]
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for k in range(metrics):
            if excluded[s, k]:
                cusums.dirty[s, k] = 1
                continue
            n = seen.now[s, count_column(k)]
            if n == 0.0:
                continue
            if cusums.dirty[s, k] > 0:
                cusums.dirty[s, k] = 0
                sums[s, k] = 0.0
            d = seen.now[s, total_column(k)] / n - cusums.mean[s, k]
            sigma = _sigma(cusums, rules, s, k, n)
            if cusums.learned[s, k] >= rules.warm:
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
            share = max(1.0 - rules.keep, 1.0 / (cusums.learned[s, k] + 1.0))
            cusums.mean[s, k] += share * d
            if cusums.learned[s, k] > 0:  # the first value says nothing about the spread
                cusums.between[s, k] += share * (d * d - cusums.between[s, k])
                cusums.within[s, k] += share * (square_deviation(seen, s, k, cusums.mean[s, k]) - cusums.within[s, k])
            cusums.learned[s, k] += 1
