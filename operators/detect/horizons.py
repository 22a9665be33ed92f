"""Sliding horizons: each series' statistics over the last 10 s, minute, 5 minutes and half an hour, in little memory.

A horizon of many panes is a ring of at most six aligned buckets; the youngest fills up while the oldest is still
whole, so a horizon of width W spans between 5/6 W and W. All horizons of at most one pane become a single one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from operators.kernels.detect import Floats, Learned, Seen
from operators.kernels.horizons import Rings, advance_horizons
from operators.model import Ints

MAX_BUCKETS = 6


class Horizons:
    """The plan of the rings; the arrays (`blank`) belong to the caller, which saves them with the rest.

    `widths` are in panes, ascending and distinct.
    """

    def __init__(self, seconds: Sequence[int], pane_s: int) -> None:
        whole = sorted({max(1, -(-s // pane_s)) for s in seconds})
        step: Ints = np.array([-(-w // MAX_BUCKETS) for w in whole], np.int64)
        buckets: Ints = np.array([-(-w // s) for w, s in zip(whole, step.tolist(), strict=True)], np.int64)
        self.rings = Rings(step, buckets, np.cumsum(buckets) - buckets)
        self.widths: Ints = step * buckets
        self.spans: Ints = self.widths.copy()

    def __len__(self) -> int:
        return len(self.widths)

    def index_of(self, seconds: int, pane_s: int) -> int:
        """The index of the shortest horizon that spans this time, or of the longest one if all are shorter."""
        enough = self.widths >= -(-seconds // pane_s)
        return int(np.argmax(enough)) if enough.any() else len(self) - 1

    def blank(self, slots: int, columns: int) -> Learned:
        """Empty rings: [slots, buckets of all horizons, columns]."""
        return np.zeros((slots, int(self.rings.buckets.sum()), columns), np.float32)

    def advance(self, seen: Seen, last: int, slots: Ints, stats: Floats, squares: Floats, ring: Learned) -> None:
        """Enter the pane's rows into the rings, and write the sums of the pane and of each horizon to `seen`.

        `last` is the pane entered before, -1 for none; panes in between count as empty.
        """
        advance_horizons(seen, last, slots, stats, squares, self.rings, ring)
