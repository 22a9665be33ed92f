"""Loops of the detector that judges a horizon's mean by the moments of its past."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled, in_place, inner
from operators.kernels.detect import FAR, FIELDS, Floats, Learned, Seen, count_column, is_live, square_deviation
from operators.kernels.means import MeanRules, View, judge_means, learn_means
from operators.model import Bools, Ints

YOUNG = 4.0
"""The weight of the prior spread, which is twice the least spread, in independent horizons."""


class Moments(NamedTuple):
    """The learned moments of the horizons' means."""

    mean: Learned  # [slots, K, H] of the horizon's mean
    above: Learned  # [slots, K, H] twice the mean of squared deviations, in which those below the mean count as 0
    below: Learned  # the same with the sides exchanged
    learned: Learned  # [slots, K, H] panes learned
    request: Floats  # [slots, K] mean square deviation of a single request
    dirty: Ints  # [slots, K] panes until the longest horizon holds nothing excluded
    far: NDArray[np.int32]  # [slots, K, H] panes in a row that were too far out to be learned


@inner
def _view(moments: Moments, rules: MeanRules, seen: Seen, s: int, k: int, h: int) -> View:
    """The mean and its spreads, which are at least the sampling error and the metric's least spread."""
    mean = float(moments.mean[s, k, h])
    # While few independent horizons were seen, a wide prior stands in for the spread.
    horizons = moments.learned[s, k, h] / seen.widths[h]
    floor = rules.floor[k] * rules.floor[k]
    prior = YOUNG * 4.0 * rules.floor[k] * rules.floor[k]
    least = max(moments.request[s, k] / seen.sums[s, h, count_column(k)], floor)
    up = math.sqrt(max((prior + horizons * moments.above[s, k, h]) / (YOUNG + horizons), least))
    down = math.sqrt(max((prior + horizons * moments.below[s, k, h]) / (YOUNG + horizons), least))
    return View(mean, mean, mean, up, down)


@inner
def _learn(moments: Moments, rules: MeanRules, s: int, k: int, h: int, x: float) -> None:
    """Move the moments towards this mean unless it is far out; else a drift would hide in the spread that it makes."""
    count = moments.learned[s, k, h]
    share = max(1.0 - rules.keep, 1.0 / (count + 1.0))
    d = x - moments.mean[s, k, h]
    if count >= rules.warm:
        spread = math.sqrt(moments.above[s, k, h] if d > 0.0 else moments.below[s, k, h])
        reach = FAR * max(spread, rules.floor[k])
        if abs(d) > reach and moments.far[s, k, h] < rules.patience:
            moments.far[s, k, h] += 1
            return
        moments.far[s, k, h] = 0 if abs(d) <= reach else rules.patience
        d = min(max(d, -reach), reach)
    moments.mean[s, k, h] += share * d
    if count > 0.0:  # the first value says nothing about the spread
        moments.above[s, k, h] += share * ((2.0 * d * d if d > 0.0 else 0.0) - moments.above[s, k, h])
        moments.below[s, k, h] += share * ((2.0 * d * d if d < 0.0 else 0.0) - moments.below[s, k, h])
    moments.learned[s, k, h] = count + 1.0


@compiled
def score_moments(seen: Seen, moments: Moments, rules: MeanRules) -> Floats:
    """Verdicts [used, K, FIELDS] on the mean of each metric, by the mean and spreads of its past."""
    out = np.zeros((seen.used, moments.learned.shape[1], FIELDS))
    judge_means(seen, moments, rules, _view, out)
    return out


@in_place
def learn_moments(seen: Seen, moments: Moments, rules: MeanRules, excluded: Bools) -> None:
    """Move the moments towards this pane's means, in place, and the spread of requests towards this pane's."""
    learn_means(seen, moments, rules, excluded, _learn)
    longest = moments.learned.shape[2] - 1
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for k in range(moments.learned.shape[1]):
            panes = moments.learned[s, k, longest]
            if excluded[s, k] or seen.now[s, count_column(k)] == 0.0 or panes == 0.0:
                continue
            q = square_deviation(seen, s, k, moments.mean[s, k, longest])
            moments.request[s, k] += max(1.0 - rules.keep, 1.0 / panes) * (q - moments.request[s, k])
