"""Compiled loops of the detectors: scores and learning over slots x metrics x horizons.

Layout of a statistic's columns: 0 requests, 1 errors, then for metric k its count (2 + 2k) and its total (3 + 2k). A
slot is live from the pane it was born in; free slots have born = -1.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.model import Ints

Floats = NDArray[np.float64]
Learned = NDArray[np.float32]
"""What is kept of a series from pane to pane, in seven digits: its own noise leaves fewer."""

SCORE, OBSERVED, EXPECTED, LOWER, UPPER, SPAN, WEIGHT = range(7)
"""Columns of a verdict: score, values in the detector's own scale, panes looked back over, requests judged."""
FIELDS = 7

YOUNG = 4.0
"""Independent horizons that the prior spread weighs as much as: twice the least spread, until more was seen."""

PRIOR_PAIRS = 1e4
"""Pairs of requests that the prior correlation of errors weighs as much as."""

FAR = 3.5
"""Deviations beyond so many times the spread are not learned, but for a lasting one."""

CLUSTERED = 1.0
"""Variance of the square root of a count: four times Poisson's, for requests come in sessions of a few."""

FAR_LEAST = 0.1
"""The least relative spread of a number of requests, on the square-root scale, for being far out."""

USUAL = 0.25
"""A horizon is judged where it held enough in this share of the panes in which the next longer one did."""

LN10 = math.log(10.0)
LN_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


@compiled
def surprise(z: float) -> float:
    """-log10 of the upper tail of the normal distribution at z >= 0; beyond 8 by its asymptotic series."""
    if z < 8.0:
        return -math.log10(0.5 * math.erfc(z / math.sqrt(2.0)))
    return (0.5 * z * z + math.log(z) + LN_SQRT_2PI + 1.0 / (z * z)) / LN10


@compiled
def score_means(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,  # [slots, V] of this pane
    sums: Floats,  # [slots, H, V] over the horizons
    widths: Ints,  # [H] panes
    mean: Learned,  # [slots, K, H] of the horizon's statistic
    above: Learned,  # [slots, K, H] twice the mean of its squared deviations where above the mean, else 0
    below: Learned,
    learned: Learned,  # [slots, K, H] panes learned
    request: Floats,  # [slots, K] mean square deviation of a single request
    warm: int,
    direction: Ints,  # [K] 1 up, -1 down, 0 both
    floor: Floats,  # [K] least spread
    min_count: Ints,  # [K]
    boundary: float,  # z at which a pane is anomalous
    threshold: float,  # surprise at which a pane is anomalous
) -> Floats:
    """Verdicts [used, K, FIELDS] on the mean of each metric; all 0 where the pane has no data or nothing is warm."""
    metrics, horizons = mean.shape[1], mean.shape[2]
    out = np.zeros((used, metrics, FIELDS))
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for k in range(metrics):
            if now[s, 2 + 2 * k] == 0.0:
                continue
            low, high = math.inf, -math.inf  # deviations over the shorter horizons
            best = -1.0
            for h in range(horizons):
                n = sums[s, h, 2 + 2 * k]
                if n < min_count[k] or learned[s, k, h] < warm or learned[s, k, h] < 2 * widths[h]:
                    continue
                # A horizon that seldom holds enough does so in bursts, and what it learned is of these alone.
                if h + 1 < horizons and learned[s, k, h] < USUAL * learned[s, k, h + 1]:
                    continue
                x = sums[s, h, 3 + 2 * k] / n
                d = x - mean[s, k, h]
                # While few independent horizons were seen, a wide prior stands in for the spread.
                seen = learned[s, k, h] / widths[h]
                prior = YOUNG * 4.0 * floor[k] * floor[k]
                least = max(request[s, k] / n, floor[k] * floor[k])
                up = math.sqrt(max((prior + seen * above[s, k, h]) / (YOUNG + seen), least))
                down = math.sqrt(max((prior + seen * below[s, k, h]) / (YOUNG + seen), least))
                z = d / up if d >= 0.0 else -d / down
                if direction[k] * d < 0.0:
                    z = 0.0
                # A longer horizon speaks only while all shorter ones bear it out: else it is over, or was a moment's.
                borne_out = low >= 0.5 * d if d >= 0.0 else high <= 0.5 * d
                low, high = min(low, d), max(high, d)
                if borne_out and z > best:
                    best = z
                    out[s, k, OBSERVED] = x
                    out[s, k, EXPECTED] = mean[s, k, h]
                    out[s, k, LOWER] = mean[s, k, h] - boundary * down
                    out[s, k, UPPER] = mean[s, k, h] + boundary * up
                    out[s, k, SPAN] = widths[h]
                    out[s, k, WEIGHT] = n
            if best >= 0.0:
                level = surprise(best)
                out[s, k, SCORE] = level / (level + threshold)
    return out


@compiled
def learn_means(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    square: Floats,  # [slots, K] sum of squares in this pane
    sums: Floats,
    widths: Ints,
    excluded: NDArray[np.bool_],  # [slots, C]; metric k is column k
    mean: Learned,
    above: Learned,
    below: Learned,
    learned: Learned,
    request: Floats,
    dirty: Ints,  # [slots, K] panes until the longest horizon holds nothing excluded
    far: NDArray[np.int32],  # [slots, K, H] panes in a row that were too far out to be learned
    warm: int,
    patience: int,  # panes in a row after which what is far out is learned all the same
    min_count: Ints,
    floor: Floats,
    rate: float,  # share of the new in what is learned, once there is much
) -> None:
    """Move the moments towards this pane's statistics, in place, without horizons that hold something excluded.

    What is far out is not learned either, or a slow drift would hide in the spread that it makes itself.
    """
    metrics, horizons = mean.shape[1], mean.shape[2]
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
            here = now[s, 2 + 2 * k]
            if here == 0.0:
                continue
            for h in range(horizons):
                n = sums[s, h, 2 + 2 * k]
                if n < min_count[k] or dirty[s, k] > longest - widths[h]:
                    continue
                x = sums[s, h, 3 + 2 * k] / n
                count = learned[s, k, h]
                share = max(rate, 1.0 / (count + 1.0))
                d = x - mean[s, k, h]
                if count >= warm:
                    reach = FAR * max(math.sqrt(above[s, k, h] if d > 0.0 else below[s, k, h]), floor[k])
                    if abs(d) > reach and far[s, k, h] < patience:
                        far[s, k, h] += 1
                        continue
                    far[s, k, h] = 0 if abs(d) <= reach else patience
                    d = min(max(d, -reach), reach)
                mean[s, k, h] += share * d
                if count > 0.0:  # the first value tells the mean, and nothing of the spread
                    above[s, k, h] += share * ((2.0 * d * d if d > 0.0 else 0.0) - above[s, k, h])
                    below[s, k, h] += share * ((2.0 * d * d if d < 0.0 else 0.0) - below[s, k, h])
                learned[s, k, h] = count + 1.0
            if learned[s, k, horizons - 1] > 0.0:
                m = mean[s, k, horizons - 1]
                q = max((square[s, k] - 2.0 * m * now[s, 3 + 2 * k]) / here + m * m, 0.0)
                share = max(rate, 1.0 / learned[s, k, horizons - 1])
                request[s, k] += share * (q - request[s, k])


@compiled
def divergence(q: float, p: float) -> float:
    """Kullback-Leibler divergence of a coin q from a coin p, in nats; 0 < p < 1."""
    total = 0.0
    if q > 0.0:
        total += q * math.log(q / p)
    if q < 1.0:
        total += (1.0 - q) * math.log((1.0 - q) / (1.0 - p))
    return total


@compiled
def score_errors(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    sums: Floats,
    widths: Ints,
    errors: Floats,  # [slots] errors learned, fading
    requests: Floats,  # [slots] requests learned, fading
    excess: Floats,  # [slots, H] squared deviation beyond the binomial, fading
    pairs: Floats,  # [slots, H] what a correlation of 1 would have given, fading
    learned: Ints,  # [slots] panes with data learned
    warm: int,
    min_ratio: float,
    min_errors: int,
    min_count: int,
    prior_ratio: float,
    prior_requests: float,
    dispersion: float,
    threshold: float,
) -> Floats:
    """Verdicts [used, 1, FIELDS] on the share of errors: Chernoff's bound on the tail of an over-dispersed binomial."""
    horizons = len(widths)
    out = np.zeros((used, 1, FIELDS))
    for s in range(used):
        if born[s] < 0 or born[s] > pane or now[s, 0] == 0.0 or learned[s] < warm or requests[s] < prior_requests:
            continue
        p = (errors[s] + prior_ratio * prior_requests) / (requests[s] + prior_requests)
        least = 1.0  # share over the shorter horizons
        best = -1.0
        for h in range(horizons):
            n = sums[s, h, 0]
            k = sums[s, h, 1]
            if n < min_errors:
                continue
            q = k / n
            if least < 0.5 * q:
                continue
            if n >= min_count:
                least = min(least, q)
            prior = PRIOR_PAIRS * p * (1.0 - p)
            rho = min(max((excess[s, h] + dispersion * prior) / (pairs[s, h] + prior), 0.05 * dispersion), 0.5)
            effective = n / (1.0 + (n - 1.0) * rho)
            level = 0.0
            if q > p and q >= min_ratio and k >= min_errors:
                level = effective * divergence(q, p) / LN10
            if level > best:
                best = level
                below, above = p, 1.0
                for _ in range(20):  # the share at which this horizon would be anomalous
                    middle = 0.5 * (below + above)
                    if effective * divergence(middle, p) / LN10 < threshold:
                        below = middle
                    else:
                        above = middle
                out[s, 0, SCORE] = level / (level + threshold)
                out[s, 0, OBSERVED] = q
                out[s, 0, EXPECTED] = p
                out[s, 0, UPPER] = max(above, min_ratio)
                out[s, 0, SPAN] = widths[h]
                out[s, 0, WEIGHT] = n
    return out


@compiled
def learn_errors(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,
    sums: Floats,
    widths: Ints,
    excluded: NDArray[np.bool_],
    column: int,
    errors: Floats,
    requests: Floats,
    excess: Floats,
    pairs: Floats,
    learned: Ints,
    dirty: Ints,  # [slots]
    prior_ratio: float,
    prior_requests: float,
    keep: float,  # what one pane leaves of what was learned
) -> None:
    """Learn the base rate of errors and, per horizon, how much they cluster; in place."""
    horizons = len(widths)
    longest = widths[horizons - 1]
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        if excluded[s, column]:
            dirty[s] = longest
            continue
        if dirty[s] > 0:
            dirty[s] -= 1
        if now[s, 0] == 0.0:
            continue
        p = (errors[s] + prior_ratio * prior_requests) / (requests[s] + prior_requests)
        for h in range(horizons):
            if dirty[s] > longest - widths[h]:
                continue
            n = sums[s, h, 0]
            d = sums[s, h, 1] - n * p
            excess[s, h] = keep * excess[s, h] + (d * d - n * p * (1.0 - p)) / n
            pairs[s, h] = keep * pairs[s, h] + (n - 1.0) * p * (1.0 - p)
        errors[s] = keep * errors[s] + now[s, 1]
        requests[s] = keep * requests[s] + now[s, 0]
        learned[s] += 1


@compiled
def score_traffic(
    used: int,
    pane: int,
    born: Ints,
    sums: Floats,
    widths: Ints,
    spans: Ints,  # [H] panes that the horizon really spans now
    first: int,  # the shortest horizon that judges traffic
    usual: Floats,  # [used, H + 1] requests a pane that are usual over each horizon, and in this pane
    slack: Floats,  # [used, H + 1] relative variance of what is usual, on the square-root scale
    above: Floats,  # [slots, H] twice the mean of the squared relative deviation where above the usual, else 0
    below: Floats,
    learned: Ints,  # [slots, H] panes
    warm: int,
    trusted_after: int,  # panes
    surge: float,
    drop: float,
    boundary: float,
    threshold: float,
) -> Floats:
    """Verdicts [used, 1, FIELDS] on the requests, on the square-root scale, where Poisson's variance is 1/4."""
    horizons = len(widths)
    out = np.zeros((used, 1, FIELDS))
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        trust = 1.0 if pane - born[s] >= trusted_after else 0.5
        nearest = math.nan  # requests a pane over the shortest horizon
        best = -1.0
        for h in range(first, horizons):
            if learned[s, h] < warm or learned[s, h] < 2 * widths[h]:
                continue
            expected = usual[s, h] * widths[h]
            m = math.sqrt(expected)
            c = sums[s, h, 0] * (widths[h] / spans[h])
            d = math.sqrt(c) - m
            floor = (math.sqrt(surge) - 1.0) / boundary
            up = math.sqrt(CLUSTERED + max(above[s, h], slack[s, h], floor * floor) * expected)
            floor = (1.0 - math.sqrt(drop)) / boundary
            down = math.sqrt(CLUSTERED + max(below[s, h], slack[s, h], floor * floor) * expected)
            z = d / up if d >= 0.0 else -d / down
            each = c / widths[h]
            if math.isnan(nearest):
                nearest = each
            borne_out = nearest >= 0.5 * each if d >= 0.0 else nearest <= 2.0 * each
            if borne_out and z > best:
                best = z
                out[s, 0, OBSERVED] = each
                out[s, 0, EXPECTED] = usual[s, h]
                least = max(m - boundary * down / trust, 0.0)
                most = m + boundary * up / trust
                out[s, 0, LOWER] = least * least / widths[h]
                out[s, 0, UPPER] = most * most / widths[h]
                out[s, 0, SPAN] = widths[h]
                out[s, 0, WEIGHT] = sums[s, h, 0]
        if best >= 0.0:
            level = surprise(best * trust)
            out[s, 0, SCORE] = level / (level + threshold)
    return out


@compiled
def learn_traffic(
    used: int,
    pane: int,
    born: Ints,
    sums: Floats,
    now: Floats,
    widths: Ints,
    spans: Ints,
    excluded: NDArray[np.bool_],
    column: int,
    usual: Floats,  # [used, H + 1] requests a pane that are usual over each horizon, and in this pane
    season: Floats,  # [used, H + 1] what the season alone says of them
    slack: Floats,  # [used, H + 1] relative variance of what is usual
    rate: Floats,
    late: Floats,  # [slots] the season of the panes that the rate was learned from
    above: Floats,
    below: Floats,
    learned: Ints,
    seen: Ints,  # [slots] panes that the rate was learned from
    dirty: Ints,
    far: NDArray[np.int32],  # [slots] panes in a row that were too far out to be learned
    patience: int,
    share_of_late: float,  # of the new in the rate, once there is much
    share_of_new: float,  # of the new in the spreads, once there is much
) -> None:
    """Move the rate and what requests deviate from it, relative to it, towards this pane's; in place.

    What is far out over any horizon is not learned, but for a lasting change.
    """
    horizons = len(widths)
    longest = widths[horizons - 1]
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        if excluded[s, column]:
            dirty[s] = longest
            continue
        if dirty[s] > 0:
            dirty[s] -= 1
        age = pane - born[s] + 1
        out = False
        for h in range(horizons):
            expected = usual[s, h] * widths[h]
            if learned[s, h] < 2 * widths[h] or expected <= 0.0 or dirty[s] > longest - widths[h]:
                continue
            d = math.sqrt(sums[s, h, 0] * (widths[h] / spans[h])) - math.sqrt(expected)
            spread = max(above[s, h] if d > 0.0 else below[s, h], slack[s, h])
            reach = FAR * math.sqrt(CLUSTERED + spread * expected)
            out = out or abs(d) > max(reach, FAR * FAR_LEAST * math.sqrt(expected))
        if out and far[s] < patience:
            far[s] += 1
            continue
        far[s] = patience if out else 0
        for h in range(horizons):
            # Before the slot is as old as the horizon, what it lacks is not known to be zero.
            expected = usual[s, h] * widths[h]
            if dirty[s] > longest - widths[h] or age < widths[h] or expected <= 0.0 or seen[s] < widths[h]:
                continue
            d = math.sqrt(sums[s, h, 0] * (widths[h] / spans[h])) - math.sqrt(expected)
            r = max(d * d - CLUSTERED - slack[s, h] * expected, 0.0) / max(expected, 1.0)
            share = max(share_of_new, 1.0 / (learned[s, h] + 1.0))
            above[s, h] += share * ((2.0 * r if d > 0.0 else 0.0) - above[s, h])
            below[s, h] += share * ((2.0 * r if d < 0.0 else 0.0) - below[s, h])
            learned[s, h] += 1
        if dirty[s] == 0:
            share = max(share_of_late, 1.0 / (seen[s] + 1.0))
            late[s] += share * (season[s, horizons] - late[s])
            rate[s] += share * (now[s, 0] - rate[s])
            seen[s] += 1
