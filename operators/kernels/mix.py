"""What the mix of a series' requests explains: loops over the values of one dimension within a row."""

from __future__ import annotations

from operators.kernels import compiled
from operators.kernels.detect import Learned
from operators.kernels.sketch import Floats
from operators.model import Bools, Ints


@compiled
def less_the_usual(
    row: Ints,  # [E] of the entry, ascending
    slot: Ints,  # [E] the series of that row
    part: Ints,  # [E] what the entry is of
    count: Floats,  # [E, K]
    total: Floats,  # [E, K] on the scale that is judged
    usual: Learned,  # [P, K]
    weight: Learned,  # [P, K]
    known: float,  # least weight
    stats: Floats,  # [R, V], changed: counts and totals of the metrics
    square: Floats,  # [R, K], changed
    reference: Floats,  # [slots, K], changed: the usual value of the recent mix
    recent: float,  # requests that it is the mean of, about
) -> None:
    """Take from each row's totals what is usual for its parts, and leave out the parts of which too little was seen."""
    metrics = count.shape[1]
    first = 0
    while first < len(row):
        r = row[first]
        last = first
        while last < len(row) and row[last] == r:
            last += 1
        for k in range(metrics):
            if stats[r, 2 + 2 * k] == 0.0:
                continue
            n = 0.0
            above = 0.0
            expected = 0.0
            squares = square[r, k]
            for e in range(first, last):
                c = count[e, k]
                if c == 0.0:
                    continue
                p = part[e]
                t = total[e, k]
                if weight[p, k] < known:
                    squares -= t * t / c
                    continue
                u = usual[p, k]
                n += c
                above += t - c * u
                expected += c * u
                squares += c * u * u - 2.0 * u * t
            stats[r, 2 + 2 * k] = n
            stats[r, 3 + 2 * k] = above
            square[r, k] = max(squares, 0.0)
            if n > 0.0:
                s = slot[first]
                share = 1.0 if reference[s, k] == 0.0 else min(1.0, n / recent)
                reference[s, k] += share * (expected / n - reference[s, k])
        first = last


@compiled
def learn_the_usual(
    pane: int,
    slot: Ints,  # [E] the series of the entry
    part: Ints,
    count: Floats,
    total: Floats,
    excluded: Bools,  # [slots, C]; metric k is column k
    keep: float,  # what one pane leaves of a weight
    usual: Learned,  # changed, as are weight and last
    weight: Learned,
    last: Ints,  # [P] the pane of the entry before
) -> None:
    """Move what is usual for the parts towards this pane's, without what is excluded."""
    for e in range(len(part)):
        p = part[e]
        fade = keep ** (pane - last[p]) if last[p] >= 0 else 0.0
        last[p] = pane
        for k in range(count.shape[1]):
            weight[p, k] *= fade
            c = count[e, k]
            if c > 0.0 and not excluded[slot[e], k]:
                weight[p, k] += c
                usual[p, k] += (total[e, k] - c * usual[p, k]) / weight[p, k]
