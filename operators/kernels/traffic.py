"""Loops over the number of requests, on the square-root scale, where Poisson's variance is 1/4."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled, inner
from operators.kernels.detect import (
    EXPECTED,
    FAR,
    FIELDS,
    LOWER,
    OBSERVED,
    REQUESTS_COLUMN,
    SCORE,
    SPAN,
    UPPER,
    WEIGHT,
    Floats,
    Seen,
    is_excluded,
    is_live,
    score_of,
    surprise,
)
from operators.kernels.season import Hours, Times, Usual, expect, remember
from operators.model import Bools, Ints

CLUSTERED = 1.0
"""The variance of the square root of a count: four times Poisson's, since requests come in sessions of a few."""

FAR_LEAST = 0.1
"""The least relative spread, on the square-root scale, by which a number of requests counts as far out."""


class TrafficRules(NamedTuple):
    """How the number of requests is judged and learned."""

    column: int  # its column in `excluded`
    first: int  # the shortest horizon that judges traffic
    warm: int
    patience: int  # panes in a row after which numbers that are far out are learned all the same
    trusted_after: int  # panes
    surge: float
    drop: float
    boundary: float
    threshold: float
    share_of_late: float  # weight of a new pane in the rate, once many were learned
    share_of_new: float  # weight of a new pane in the spreads, once many were learned
    hour: int  # least known panes of an hour


class Deviations(NamedTuple):
    """The recent rate, and the deviations of requests from the usual number, relative to it."""

    rate: Floats  # [slots] recent requests a pane
    late: Floats  # [slots] the season of the panes that the rate was learned from
    above: Floats  # [slots, H] twice the mean of squared relative deviations, in which those below count as 0
    below: Floats  # the same with the sides exchanged
    learned: Ints  # [slots, H] panes
    seen: Ints  # [slots] panes that the rate was learned from
    dirty: Ints  # [slots] panes until the longest horizon holds nothing excluded
    far: NDArray[np.int32]  # [slots] panes in a row that were too far out to be learned


@inner
def _requests(seen: Seen, s: int, h: int) -> float:
    """Requests of the horizon, scaled to its whole width."""
    return float(seen.sums[s, h, REQUESTS_COLUMN] * (seen.widths[h] / seen.spans[h]))


@compiled
def score_traffic(seen: Seen, deviations: Deviations, hours: Hours, times: Times, rules: TrafficRules) -> Floats:
    """Verdicts [used, 1, FIELDS] on the number of requests."""
    usual = expect(seen.used, times, hours, deviations.rate, deviations.late)
    out = np.zeros((seen.used, 1, FIELDS))
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        trust = 1.0 if seen.pane - seen.born[s] >= rules.trusted_after else 0.5
        nearest = math.nan  # requests a pane over the shortest horizon
        best = -1.0
        for h in range(rules.first, len(seen.widths)):
            width, panes, slack = seen.widths[h], deviations.learned[s, h], usual.slack[s, h]
            if panes < rules.warm or panes < 2 * width:
                continue
            expected = usual.rate[s, h] * width
            m = math.sqrt(expected)
            c = _requests(seen, s, h)
            d = math.sqrt(c) - m
            floor = (math.sqrt(rules.surge) - 1.0) / rules.boundary
            up = math.sqrt(CLUSTERED + max(deviations.above[s, h], slack, floor * floor) * expected)
            floor = (1.0 - math.sqrt(rules.drop)) / rules.boundary
            down = math.sqrt(CLUSTERED + max(deviations.below[s, h], slack, floor * floor) * expected)
            z = d / up if d >= 0.0 else -d / down
            each = c / width
            if math.isnan(nearest):
                nearest = each
            borne_out = nearest >= 0.5 * each if d >= 0.0 else nearest <= 2.0 * each
            if borne_out and z > best:
                best = z
                out[s, 0, OBSERVED] = each
                out[s, 0, EXPECTED] = usual.rate[s, h]
                least = max(m - rules.boundary * down / trust, 0.0)
                most = m + rules.boundary * up / trust
                out[s, 0, LOWER] = least * least / width
                out[s, 0, UPPER] = most * most / width
                out[s, 0, SPAN] = width
                out[s, 0, WEIGHT] = seen.sums[s, h, REQUESTS_COLUMN]
        if best >= 0.0:
            out[s, 0, SCORE] = score_of(surprise(best * trust), rules.threshold)
    return out


@inner
def _is_far_out(seen: Seen, usual: Usual, deviations: Deviations, s: int) -> bool:
    """Whether any horizon deviates too far, of those with enough learned and no excluded pane."""
    longest = seen.widths[len(seen.widths) - 1]
    for h in range(len(seen.widths)):
        width = seen.widths[h]
        expected = usual.rate[s, h] * width
        if deviations.learned[s, h] < 2 * width or expected <= 0.0 or deviations.dirty[s] > longest - width:
            continue
        d = math.sqrt(_requests(seen, s, h)) - math.sqrt(expected)
        spread = max(deviations.above[s, h] if d > 0.0 else deviations.below[s, h], usual.slack[s, h])
        reach = FAR * math.sqrt(CLUSTERED + spread * expected)
        if abs(d) > max(reach, FAR * FAR_LEAST * math.sqrt(expected)):
            return True
    return False


@compiled
def learn_traffic(
    seen: Seen, deviations: Deviations, hours: Hours, times: Times, rules: TrafficRules, excluded: Bools
) -> None:
    """Move the rate, the relative deviations and the hour towards this pane's, in place.

    The rate and the deviations do not learn a pane that is far out over any horizon, unless the change lasts.
    """
    usual = expect(seen.used, times, hours, deviations.rate, deviations.late)
    remember(seen, hours, times.hour, rules.hour, excluded[:, rules.column])
    horizons = len(seen.widths)
    longest = seen.widths[horizons - 1]
    above, below, learned = deviations.above, deviations.below, deviations.learned
    for s in range(seen.used):
        if not is_live(seen, s) or is_excluded(excluded[s, rules.column], deviations.dirty, (s,), longest):
            continue
        out = _is_far_out(seen, usual, deviations, s)
        if out and deviations.far[s] < rules.patience:
            deviations.far[s] += 1
            continue
        deviations.far[s] = rules.patience if out else 0
        # While a series is younger than the horizon, the requests before its birth are unknown, not zero.
        known = min(seen.pane - seen.born[s] + 1, deviations.seen[s])
        for h in range(horizons):
            width = seen.widths[h]
            expected = usual.rate[s, h] * width
            if deviations.dirty[s] > longest - width or known < width or expected <= 0.0:
                continue
            d = math.sqrt(_requests(seen, s, h)) - math.sqrt(expected)
            r = max(d * d - CLUSTERED - usual.slack[s, h] * expected, 0.0) / max(expected, 1.0)
            share = max(rules.share_of_new, 1.0 / (learned[s, h] + 1.0))
            above[s, h] += share * ((2.0 * r if d > 0.0 else 0.0) - above[s, h])
            below[s, h] += share * ((2.0 * r if d < 0.0 else 0.0) - below[s, h])
            learned[s, h] += 1
        if deviations.dirty[s] == 0:
            share = max(rules.share_of_late, 1.0 / (deviations.seen[s] + 1.0))
            deviations.late[s] += share * (usual.season[s, horizons] - deviations.late[s])
            deviations.rate[s] += share * (seen.now[s, REQUESTS_COLUMN] - deviations.rate[s])
            deviations.seen[s] += 1
