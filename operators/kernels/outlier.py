"""Compiled loops of the request outlier: a pane's largest request against the tail of all earlier requests."""

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
    is_live,
    score_of,
)
from operators.kernels.histogram import Counts, enter, fade, quantile
from operators.model import Bools, Ints

BUCKETS = 24
HOME = 8
WIDTH = 0.35
"""The width of a bucket on the logarithmic scale, a factor of 1.4; the first value lies in bucket HOME."""

TAIL = 0.02
"""The share of the largest requests to which an exponential tail (of the logarithms: Pareto's) is fitted."""

ENOUGH = 10.0
"""Requests that must lie in the tail before it is believed."""


class OutlierRules(NamedTuple):
    """How single requests are judged and learned."""

    judged: Bools  # [K]
    warm: int
    least: float  # logarithm of the least factor over the beginning of the tail
    threshold: float
    keep: float  # factor by which one pane fades the weight of older ones


class Tails(NamedTuple):
    """The learned past of all requests of a series."""

    past: Counts  # [slots, K, BUCKETS] of requests
    low: Floats  # [slots, K] where bucket 0 begins
    requests: Floats  # [slots, K] faded number of entered requests
    learned: Ints  # [slots, K] panes with data


class Requests(NamedTuple):
    """The requests of a pane, by value: row r and watched metric k have `[start[r * K + k], start[r * K + k + 1])`.

    Values are on the scale that the metric is judged in, within 1.6 % of the requests' own, in ascending order.
    """

    slots: Ints  # [R] of the rows
    start: Ints  # [R * K + 1]
    value: Floats
    counts: Ints


@inner
def tail_of(mass: Counts, low: float) -> tuple[float, float]:
    """The beginning of the tail, and the mean excess over it."""
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
def score_outliers(seen: Seen, counts: Floats, most: Floats, tails: Tails, rules: OutlierRules) -> Floats:
    """Verdicts [used, K, FIELDS] on the pane's largest request: the rarity of one as large among the pane's requests.

    `counts` and `most` [slots, K] are the number of requests of this pane, and the largest of them.
    """
    metrics = tails.learned.shape[1]
    past, low, requests, learned = tails
    judged, threshold, least = rules.judged, rules.threshold, rules.least
    out = np.zeros((seen.used, metrics, FIELDS))
    begin = -math.log10(TAIL)
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for k in range(metrics):
            n = counts[s, k]
            if not judged[k] or n == 0.0:
                continue
            if learned[s, k] < rules.warm or requests[s, k] * TAIL < ENOUGH:
                continue
            start, excess = tail_of(past[s, k], low[s, k])
            excess = max(excess, least / (max(threshold - begin, 1.0) * LN10))
            x = most[s, k]
            level = max(begin + (x - start) / (excess * LN10) - math.log10(n), 0.0) if x > start else 0.0
            if x < start + least:
                level = min(level, 0.9 * threshold)
            usual = quantile(past[s, k], low[s, k], WIDTH, 0.5)
            out[s, k, SCORE] = score_of(level, threshold)
            out[s, k, OBSERVED] = x
            out[s, k, EXPECTED] = usual
            out[s, k, LOWER] = usual
            out[s, k, UPPER] = max(start + max((threshold - begin + math.log10(n)) * excess * LN10, least), usual)
            out[s, k, SPAN] = 1.0
            out[s, k, WEIGHT] = n
    return out


@in_place
def learn_requests(
    seen: Seen, counts: Floats, requests: Requests, tails: Tails, rules: OutlierRules, excluded: Bools
) -> None:
    """Enter the pane's requests, in place."""
    metrics = tails.learned.shape[1]
    for r in range(len(requests.slots)):
        s = requests.slots[r]
        if s >= seen.used or not is_live(seen, s):
            continue
        for k in range(metrics):
            if excluded[s, k] or not rules.judged[k] or counts[s, k] == 0.0:
                continue
            fade(tails.past[s, k], rules.keep)
            tails.requests[s, k] *= rules.keep
            for i in range(requests.start[r * metrics + k], requests.start[r * metrics + k + 1]):
                count = requests.counts[i]
                low = enter(tails.past[s, k], tails.low[s, k], WIDTH, requests.value[i], float(count), HOME)
                tails.low[s, k] = low
                tails.requests[s, k] += count
            tails.learned[s, k] += 1
