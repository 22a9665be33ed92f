"""Loops over the horizons' means of each metric.

All detectors that judge a horizon's mean by its past share `judge_means` and `learn_means`. A detector passes its past,
and a function that views it or one that enters a mean into it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeVar

from numpy.typing import NDArray

from operators.kernels import inner
from operators.kernels.detect import (
    EXPECTED,
    LOWER,
    OBSERVED,
    SCORE,
    SPAN,
    UPPER,
    WEIGHT,
    Floats,
    Seen,
    count_column,
    is_excluded,
    is_live,
    score_of,
    surprise,
    total_column,
)
from operators.model import Bools, Ints

USUAL = 0.25
"""A horizon is judged if it held enough requests in this share of the panes in which the next longer one did."""


class MeanRules(NamedTuple):
    """How means are judged and learned; arrays by metric."""

    warm: int  # panes to learn before anything is judged
    patience: int  # panes in a row after which means that are far out are learned all the same
    direction: Ints  # 1 up, -1 down, 0 both
    least: Floats  # least change
    floor: Floats  # least spread
    min_count: Ints
    boundary: float  # z at which a pane is anomalous
    threshold: float  # surprise at which a pane is anomalous
    keep: float  # factor by which one pane fades the weight of older ones


class View(NamedTuple):
    """The past of a mean: its middle, the points from which deviations up and down count, and their units."""

    middle: float
    above: float
    below: float
    up: float
    down: float


class _Past(Protocol):
    """The part of a detector's past that the loops themselves read."""

    @property
    def learned(self) -> NDArray[Any]:
        """[slots, K, H] panes learned."""

    @property
    def dirty(self) -> Ints:
        """[slots, K] panes until the longest horizon holds nothing excluded."""


Past = TypeVar("Past", bound=_Past)
Viewer = Callable[[Past, MeanRules, Seen, int, int, int], View]
"""Views the past of slot s, metric k, horizon h."""
Learner = Callable[[Past, MeanRules, int, int, int, float], None]
"""Enters a mean into the past of slot s, metric k, horizon h."""


@inner
def is_known(learned: NDArray[Any], widths: Ints, warm: int, s: int, k: int, h: int) -> bool:
    """Whether enough was learned of the horizon to judge by it.

    A horizon that seldom holds enough requests does so in bursts, and has learned only from bursts.
    """
    panes = learned[s, k, h]
    if panes < warm or panes < 2 * widths[h]:
        return False
    return h + 1 == len(widths) or panes >= USUAL * learned[s, k, h + 1]


@inner
def judge_means(seen: Seen, past: Past, rules: MeanRules, view: Viewer[Past], out: Floats) -> None:
    """Write the verdicts [used, K, FIELDS] on the mean of each metric if the pane has data and a horizon is known.

    A longer horizon counts only while all shorter ones show at least half of its deviation; else the deviation is over,
    or lasted a moment.
    """
    metrics, horizons = past.learned.shape[1], past.learned.shape[2]
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for k in range(metrics):
            count, total = count_column(k), total_column(k)
            if seen.now[s, count] == 0.0:
                continue
            low, high = math.inf, -math.inf  # deviations over the shorter horizons
            best = -1.0
            for h in range(horizons):
                n = seen.sums[s, h, count]
                if n < rules.min_count[k] or not is_known(past.learned, seen.widths, rules.warm, s, k, h):
                    continue
                x = seen.sums[s, h, total] / n
                v = view(past, rules, seen, s, k, h)
                d = x - v.middle
                far = (x - v.above) / v.up if d >= 0.0 else (v.below - x) / v.down
                # A mean that is nearer to the middle than the metric's least change is never an anomaly.
                z = max(min(far, abs(d) / rules.floor[k]), 0.0)
                if rules.direction[k] * d < 0.0:
                    z = 0.0
                borne_out = low >= 0.5 * d if d >= 0.0 else high <= 0.5 * d
                low, high = min(low, d), max(high, d)
                if borne_out and z > best:
                    best = z
                    reach = rules.boundary * rules.floor[k]
                    out[s, k, OBSERVED] = x
                    out[s, k, EXPECTED] = v.middle
                    out[s, k, LOWER] = min(v.below - rules.boundary * v.down, v.middle - reach)
                    out[s, k, UPPER] = max(v.above + rules.boundary * v.up, v.middle + reach)
                    out[s, k, SPAN] = seen.widths[h]
                    out[s, k, WEIGHT] = n
            if best >= 0.0:
                out[s, k, SCORE] = score_of(surprise(best), rules.threshold)


@inner
def learn_means(seen: Seen, past: Past, rules: MeanRules, excluded: Bools, learn: Learner[Past]) -> None:
    """Learn the means of horizons with enough requests and no excluded pane; metric k is column k of `excluded`."""
    metrics, horizons = past.learned.shape[1], past.learned.shape[2]
    longest = seen.widths[horizons - 1]
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for k in range(metrics):
            count, total = count_column(k), total_column(k)
            if is_excluded(excluded[s, k], past.dirty, (s, k), longest) or seen.now[s, count] == 0.0:
                continue
            for h in range(horizons):
                n = seen.sums[s, h, count]
                if n >= rules.min_count[k] and past.dirty[s, k] <= longest - seen.widths[h]:
                    learn(past, rules, s, k, h, seen.sums[s, h, total] / n)
