"""Loops that judge a series against its mix of requests, by the values of one dimension within a row."""

from __future__ import annotations

from typing import NamedTuple

from operators.kernels import in_place
from operators.kernels.detect import Floats, Learned, count_column, total_column
from operators.model import Bools, Ints

KNOWN = 10.0
"""Faded requests of a part from which its usual value counts."""

RECENT = 100.0
"""Requests of a series over which the usual value of its recent mix is averaged."""


class Entries(NamedTuple):
    """The parts of one pane's rows."""

    row: Ints  # [E] among the pane's rows, ascending
    slot: Ints
    part: Ints
    counts: Floats  # [E, K]
    totals: Floats  # [E, K] on the scale that is judged


class KnownParts(NamedTuple):
    """The learned values of each part."""

    usual: Learned  # [P, K]
    weight: Learned  # [P, K]
    last: Ints  # [P] the pane in which it was seen last


@in_place
def less_the_usual(entries: Entries, parts: KnownParts, stats: Floats, square: Floats, reference: Floats) -> None:
    """Subtract the usual values of its parts from each row's totals, and leave out parts with too few requests so far.

    `stats` [R, V] (the metrics' counts and totals), `square` [R, K] and `reference` [slots, K], the usual value of the
    recent mix, are changed.
    """
    row, part = entries.row, entries.part
    metrics = entries.counts.shape[1]
    first = 0
    while first < len(row):
        r = row[first]
        last = first
        while last < len(row) and row[last] == r:
            last += 1
        for k in range(metrics):
            count, total = count_column(k), total_column(k)
            if stats[r, count] == 0.0:
                continue
            n = 0.0
            above = 0.0
            expected = 0.0
            squares = square[r, k]
            for e in range(first, last):
                c = entries.counts[e, k]
                if c == 0.0:
                    continue
                p = part[e]
                t = entries.totals[e, k]
                if parts.weight[p, k] < KNOWN:
                    squares -= t * t / c
                    continue
                u = parts.usual[p, k]
                n += c
                above += t - c * u
                expected += c * u
                squares += c * u * u - 2.0 * u * t
            stats[r, count] = n
            stats[r, total] = above
            square[r, k] = max(squares, 0.0)
            if n > 0.0:
                s = entries.slot[first]
                share = 1.0 if reference[s, k] == 0.0 else min(1.0, n / RECENT)
                reference[s, k] += share * (expected / n - reference[s, k])
        first = last


@in_place
def learn_the_usual(pane: int, entries: Entries, parts: KnownParts, excluded: Bools, keep: float) -> None:
    """Move the usual values of the parts towards this pane's, without the cells of `excluded` [slots, C].

    `keep` is the factor by which one pane fades a weight.
    """
    usual, weight = parts.usual, parts.weight
    for e in range(len(entries.part)):
        p = entries.part[e]
        fade = keep ** (pane - parts.last[p]) if parts.last[p] >= 0 else 0.0
        parts.last[p] = pane
        for k in range(entries.counts.shape[1]):
            weight[p, k] *= fade
            c = entries.counts[e, k]
            if c > 0.0 and not excluded[entries.slot[e], k]:
                weight[p, k] += c
                usual[p, k] += (entries.totals[e, k] - c * usual[p, k]) / weight[p, k]
