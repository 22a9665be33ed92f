"""Compiled loop of the sliding horizons, which are rings of buckets."""

from __future__ import annotations

from typing import NamedTuple

from operators.kernels import compiled
from operators.kernels.detect import Floats, Learned, Seen
from operators.model import Ints


class Rings(NamedTuple):
    """The plan of the rings, by horizon."""

    step: Ints  # panes in a bucket
    buckets: Ints
    offset: Ints  # where the horizon's buckets begin


@compiled
def advance_horizons(
    seen: Seen, last: int, slots: Ints, stats: Floats, squares: Floats, rings: Rings, ring: Learned
) -> None:
    """Enter the pane's rows, `stats` [R, V] and `squares` [R, K] of the `slots` [R], into every horizon's ring.

    Clears the buckets that have left the ring and sums up the others. Writes `now`, `square`, `sums` and `spans`, and
    `ring` [slots, B, V]. `last` is the pane before, -1 for none.
    """
    step, buckets, offset = rings.step, rings.buckets, rings.offset
    used, pane, spans, sums = seen.used, seen.pane, seen.spans, seen.sums
    horizons = len(step)
    width = ring.shape[2]
    now, square = seen.now, seen.square
    now[:used] = 0.0
    square[:used] = 0.0
    for r in range(len(slots)):
        now[slots[r]] = stats[r]
        square[slots[r]] = squares[r]
    for h in range(horizons):
        current = pane // step[h]
        entered = min(current - last // step[h], buckets[h]) if last >= 0 else buckets[h]
        for b in range(entered):
            index = offset[h] + (current - b) % buckets[h]
            for s in range(used):
                for v in range(width):
                    ring[s, index, v] = 0.0
        index = offset[h] + current % buckets[h]
        for r in range(len(slots)):
            for v in range(width):
                ring[slots[r], index, v] += stats[r, v]
        spans[h] = (buckets[h] - 1) * step[h] + pane % step[h] + 1
    for s in range(used):
        for h in range(horizons):
            for v in range(width):
                t = 0.0
                for b in range(offset[h], offset[h] + buckets[h]):
                    t += ring[s, b, v]
                sums[s, h, v] = t
