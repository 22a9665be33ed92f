"""What detection expects of its series, once a minute, for the store: the bands that are drawn beside what came.

At the pane that a minute ends with, the detectors that judge more than single requests are asked once more, as though
that pane held all requests of its minute: so a series with one request a minute has its band too. It is the band that
an alert of this pane would tell, in the same units. Nothing is remembered of it: it follows from what was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from operators import explain
from operators.detect.base import ERROR_RATIO, REQUESTS, Block, Watch
from operators.detect.mix import Mix
from operators.detect.variants import Panels
from operators.kernels.detect import EXPECTED, LOWER, SPAN, UPPER, Floats
from operators.model import SECOND, Ints

MINUTE_S: Final = 60
BAND: Final = ("expected", "lower", "upper")
"""What is said of a cell, in this order."""


class Expected(NamedTuple):
    """What was expected of R series in the minute, or in the pane where that is longer, that begins at `start`.

    Only of series that had requests in it and of which anything is known.
    """

    start: int  # microseconds
    cells: tuple[str, ...]
    series: tuple[str, ...]
    bands: Floats  # [R, C, BAND] in the cells' units, NaN where nothing was expected


class Expectations:
    """Asks what is expected where a minute ends, if it is `on`. Holds nothing but what was not yet taken away."""

    def __init__(self, watch: Watch, panel: Panels, mix: Mix, *, on: bool) -> None:
        self._on = on
        self._watch = watch
        self._panel = panel
        self._mix = mix
        self._panes = max(MINUTE_S // watch.pane_s, 1)
        self._horizon = watch.horizons.index_of(MINUTE_S, watch.pane_s)
        self._counts = watch.cells.index(REQUESTS)
        self._shares = watch.cells.index(ERROR_RATIO)
        self._found: list[Expected] = []

    def note(self, block: Block, seen: Ints, texts: Sequence[str]) -> None:
        """Note what is expected of the block's series if a minute ends with its pane, before the pane is learned.

        By slot: `seen`, the last pane with requests, and `texts`, the series.
        """
        if not self._on or (block.pane + 1) % self._panes:
            return
        first = block.pane + 1 - self._panes
        slots = np.flatnonzero((block.born[: block.used] >= 0) & (seen[: block.used] >= first))
        if not len(slots):
            return
        minute = replace(block, now=np.ascontiguousarray(block.sums[: block.used, self._horizon]))
        verdicts = self._panel.expect(minute)[slots]
        known = verdicts[:, :, SPAN] > 0.0
        some = known.any(axis=1)
        slots, known, judged = slots[some], known[some], verdicts[some][:, :, (EXPECTED, LOWER, UPPER)]
        if not len(slots):
            return
        judged[:, : len(self._watch.metrics)] += self._mix.references(slots)[:, :, np.newaxis]
        bands = explain.in_units(self._watch, judged)
        # A band is as wide below as above, whatever can be.
        np.maximum(bands[:, self._counts], 0.0, out=bands[:, self._counts])
        np.clip(bands[:, self._shares], 0.0, 1.0, out=bands[:, self._shares])
        bands[~known] = np.nan
        start = first * self._watch.pane_s * SECOND
        self._found.append(Expected(start, self._watch.cells, tuple(texts[s] for s in slots.tolist()), bands))

    def taken(self) -> list[Expected]:
        """What was noted since the last call, in order."""
        found, self._found = self._found, []
        return found
