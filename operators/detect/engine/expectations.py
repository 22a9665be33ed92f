"""What detection expects of its series, once a minute, for the store: the bands that are drawn beside what came.

At the pane that a minute ends with, the detectors that judge more than single requests are asked once more, as though
that pane held all requests of its minute: so a series with one request a minute has its band too. It is the band that
an alert of this pane would tell, in the same units; of the number of requests and the share of errors that of the
minute itself, for bands of a minute and of half an hour in turn could not be read. Nothing is remembered of it: it
follows from what was learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from operators.detect.base import Block, Watch
from operators.detect.context.mix import Mix
from operators.detect.engine.variants import Panels
from operators.kernels.bands import CellUnits, bands_in_units
from operators.kernels.detect import SPAN, Floats
from operators.metrics import ERROR_RATIO, REQUESTS
from operators.model import SECOND, Bools, Ints

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
        self._panel = panel
        self._mix = mix
        self._panes = max(MINUTE_S // watch.pane_s, 1)
        self._horizon = watch.horizons.index_of(MINUTE_S, watch.pane_s)
        self._busy = watch.config.errors.min_errors
        self._cells = watch.cells
        self._start = watch.pane_s * SECOND
        others = len(watch.cells) - len(watch.metrics)
        in_logs: Bools = np.array([s.in_logs for s in watch.settings] + [False] * others, np.bool_)
        self._units = CellUnits(
            in_logs=in_logs,
            offset=np.array([m.offset for m in watch.metrics] + [0.0] * others),
            factor=np.where(np.array(watch.cells) == REQUESTS, 60.0 / watch.pane_s, 1.0),
            # A band is as wide below as above, whatever can be.
            least=np.where(in_logs | np.isin(watch.cells, (REQUESTS, ERROR_RATIO)), 0.0, -np.inf),
            most=np.where(np.array(watch.cells) == ERROR_RATIO, 1.0, np.inf),
        )
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
        verdicts = self._panel.expect(self._minute(block))
        slots = slots[(verdicts[slots, :, SPAN] > 0.0).any(axis=1)]
        if len(slots):
            bands = bands_in_units(verdicts, slots, self._mix.references, self._units)
            series = tuple(texts[s] for s in slots.tolist())
            self._found.append(Expected(first * self._start, self._cells, series, bands))

    def _minute(self, block: Block) -> Block:
        """The block as though the pane were its minute; without longer horizons for the requests of a busy one."""
        sums, at = block.seen.sums[: block.used].copy(), self._horizon
        now = sums[:, at].copy()
        sums[:, :at, 0] = 0.0
        sums[now[:, 0] >= self._busy, at + 1 :, 0] = 0.0
        sums[:, :, 1] = 0.0  # the shortest horizon with requests enough is the one that is told
        return replace(block, seen=block.seen._replace(now=now, sums=sums))

    def taken(self) -> list[Expected]:
        """What was noted since the last call, in order."""
        found, self._found = self._found, []
        return found
