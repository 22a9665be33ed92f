"""Loops of the detectors that judge a horizon's mean by the quantiles of its past."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from operators.kernels import compiled, in_place, inner
from operators.kernels.detect import FIELDS, Floats, Seen
from operators.kernels.histogram import Counts, distance, enter, fade, quantile
from operators.kernels.means import MeanRules, View, judge_means, learn_means
from operators.model import Bools, Ints

BUCKETS = 32
HOME = BUCKETS // 2

TO_SIGMA = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations from the median."""

QUARTILE = 0.6745
"""A normal distribution's upper quartile, in standard deviations."""


class MeanHistograms(NamedTuple):
    """The learned past of the horizons' means: fading histograms."""

    past: Counts  # [slots, K, H, BUCKETS]
    low: Floats  # [slots, K, H] where bucket 0 begins
    width: Floats  # [slots, K] of a bucket, 0 until it is needed
    learned: Floats  # [slots, K, H] panes learned
    dirty: Ints  # [slots, K] panes until the longest horizon holds nothing excluded


@inner
def hampel(histograms: MeanHistograms, rules: MeanRules, seen: Seen, s: int, k: int, h: int) -> View:
    """View the past by its median and its median absolute deviation."""
    mass, low, width = histograms.past[s, k, h], histograms.low[s, k, h], histograms.width[s, k]
    median = quantile(mass, low, width, 0.5)
    spread = max(TO_SIGMA * distance(mass, low, width, median), rules.floor[k])
    return View(median, median, median, spread, spread)


@inner
def tukey(histograms: MeanHistograms, rules: MeanRules, seen: Seen, s: int, k: int, h: int) -> View:
    """View the past by its quartiles: k interquartile ranges beyond one are QUARTILE * (1 + 2 k) spreads."""
    mass, low, width = histograms.past[s, k, h], histograms.low[s, k, h], histograms.width[s, k]
    first, third = quantile(mass, low, width, 0.25), quantile(mass, low, width, 0.75)
    sigma = (third - first) / (2.0 * QUARTILE)
    spread = max(sigma, rules.floor[k])
    median = quantile(mass, low, width, 0.5)
    return View(median, third - QUARTILE * sigma, first + QUARTILE * sigma, spread, spread)


@inner
def _learn(histograms: MeanHistograms, rules: MeanRules, s: int, k: int, h: int, x: float) -> None:
    """Enter the mean; a bucket is a quarter of the metric's least change wide."""
    if histograms.width[s, k] == 0.0:
        histograms.width[s, k] = rules.least[k] / 4.0
    mass, low, width = histograms.past[s, k, h], histograms.low[s, k, h], histograms.width[s, k]
    fade(mass, rules.keep)
    histograms.low[s, k, h] = enter(mass, low, width, x, 1.0, HOME)
    histograms.learned[s, k, h] += 1.0


@compiled
def score_mad(seen: Seen, histograms: MeanHistograms, rules: MeanRules) -> Floats:
    """Verdicts [used, K, FIELDS] on the mean of each metric, by the median and MAD of its past."""
    out = np.zeros((seen.used, histograms.learned.shape[1], FIELDS))
    judge_means(seen, histograms, rules, hampel, out)
    return out


@compiled
def score_iqr(seen: Seen, histograms: MeanHistograms, rules: MeanRules) -> Floats:
    """Verdicts [used, K, FIELDS] on the mean of each metric, by fences around the quartiles of its past."""
    out = np.zeros((seen.used, histograms.learned.shape[1], FIELDS))
    judge_means(seen, histograms, rules, tukey, out)
    return out


@in_place
def learn_past(seen: Seen, histograms: MeanHistograms, rules: MeanRules, excluded: Bools) -> None:
    """Enter the horizons' means into their past, in place, except for horizons that hold an excluded pane."""
    learn_means(seen, histograms, rules, excluded, _learn)
