"""Loops over the share of errors: Chernoff's bound on the tail of an over-dispersed binomial."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from operators.kernels import compiled, in_place, inner
from operators.kernels.detect import (
    ERRORS_COLUMN,
    EXPECTED,
    FIELDS,
    LN10,
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
)
from operators.model import Bools, Ints

PRIOR_PAIRS = 1e4
"""The weight of the prior correlation of errors, in pairs of requests."""


class ErrorRules(NamedTuple):
    """How the share of errors is judged and learned."""

    column: int  # its column in `excluded`
    warm: int
    min_ratio: float
    min_errors: int
    min_count: int
    prior_ratio: float
    prior_requests: float
    dispersion: float
    threshold: float
    keep: float  # factor by which one pane fades the weight of older ones


class Errors(NamedTuple):
    """The learned errors of a series; all but the numbers of panes fade."""

    errors: Floats  # [slots]
    requests: Floats  # [slots]
    excess: Floats  # [slots, H] squared deviation beyond the binomial
    pairs: Floats  # [slots, H] the excess that a correlation of 1 would give
    learned: Ints  # [slots] panes with data
    dirty: Ints  # [slots] panes until the longest horizon holds nothing excluded


@inner
def divergence(q: float, p: float) -> float:
    """Kullback-Leibler divergence of a coin q from a coin p, in nats; 0 < p < 1."""
    total = 0.0
    if q > 0.0:
        total += q * math.log(q / p)
    if q < 1.0:
        total += (1.0 - q) * math.log((1.0 - q) / (1.0 - p))
    return total


@inner
def _base_rate(errors: Errors, rules: ErrorRules, s: int) -> float:
    """The usual share of errors, drawn towards the prior."""
    prior = rules.prior_ratio * rules.prior_requests
    return float((errors.errors[s] + prior) / (errors.requests[s] + rules.prior_requests))


@inner
def _limit(p: float, effective: float, threshold: float) -> float:
    """The share of errors at which a pane with this effective number of requests is anomalous."""
    below, above = p, 1.0
    for _ in range(20):
        middle = 0.5 * (below + above)
        if effective * divergence(middle, p) / LN10 < threshold:
            below = middle
        else:
            above = middle
    return above


@compiled
def score_errors(seen: Seen, errors: Errors, rules: ErrorRules) -> Floats:
    """Verdicts [used, 1, FIELDS] on the share of errors."""
    now, sums, widths = seen.now, seen.sums, seen.widths
    out = np.zeros((seen.used, 1, FIELDS))
    for s in range(seen.used):
        if not is_live(seen, s) or now[s, REQUESTS_COLUMN] == 0.0:
            continue
        if errors.learned[s] < rules.warm or errors.requests[s] < rules.prior_requests:
            continue
        p = _base_rate(errors, rules, s)
        least = 1.0  # least share over the shorter horizons
        best = -1.0
        for h in range(len(widths)):
            n, k = sums[s, h, REQUESTS_COLUMN], sums[s, h, ERRORS_COLUMN]
            if n < rules.min_errors:
                continue
            q = k / n
            if least < 0.5 * q:
                continue
            if n >= rules.min_count:
                least = min(least, q)
            prior = PRIOR_PAIRS * p * (1.0 - p)
            rho = (errors.excess[s, h] + rules.dispersion * prior) / (errors.pairs[s, h] + prior)
            rho = min(max(rho, 0.05 * rules.dispersion), 0.5)
            effective = n / (1.0 + (n - 1.0) * rho)
            level = 0.0
            if q > p and q >= rules.min_ratio and k >= rules.min_errors:
                level = effective * divergence(q, p) / LN10
            if level > best:
                best = level
                out[s, 0, SCORE] = score_of(level, rules.threshold)
                out[s, 0, OBSERVED] = q
                out[s, 0, EXPECTED] = p
                out[s, 0, UPPER] = max(_limit(p, effective, rules.threshold), rules.min_ratio)
                out[s, 0, SPAN] = widths[h]
                out[s, 0, WEIGHT] = n
    return out


@in_place
def learn_errors(seen: Seen, errors: Errors, rules: ErrorRules, excluded: Bools) -> None:
    """Learn the base rate of errors and, per horizon, how much they cluster; in place."""
    keep = rules.keep
    longest = seen.widths[len(seen.widths) - 1]
    for s in range(seen.used):
        if not is_live(seen, s) or is_excluded(excluded[s, rules.column], errors.dirty, (s,), longest):
            continue
        requests = seen.now[s, REQUESTS_COLUMN]
        if requests == 0.0:
            continue
        p = _base_rate(errors, rules, s)
        for h in range(len(seen.widths)):
            if errors.dirty[s] > longest - seen.widths[h]:
                continue
            n = seen.sums[s, h, REQUESTS_COLUMN]
            d = seen.sums[s, h, ERRORS_COLUMN] - n * p
            errors.excess[s, h] = keep * errors.excess[s, h] + (d * d - n * p * (1.0 - p)) / n
            errors.pairs[s, h] = keep * errors.pairs[s, h] + (n - 1.0) * p * (1.0 - p)
        errors.errors[s] = keep * errors.errors[s] + seen.now[s, ERRORS_COLUMN]
        errors.requests[s] = keep * errors.requests[s] + requests
        errors.learned[s] += 1
