"""The expected bands of the series, once a minute, for the store: dashboards draw them beside the observed values.

At the last pane of a minute the detectors of deviations judge once more, as if that pane held all requests of the
minute; so a series with one request a minute has a band too. It is the band that an alert of this pane would tell, in
the same units. For the number of requests and the share of errors it is always the band of the minute, since bands that
alternate between a minute and half an hour would be unreadable. No state is kept: bands follow from the learned state.
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
"""The values of a band, in order."""


class Expected(NamedTuple):
    """The bands of R series in the minute that begins at `start`, or in the pane if it is longer than a minute.

    Series without requests in it, and series of which nothing is known, have no bands.
    """

    start: int  # microseconds
    cells: tuple[str, ...]
    series: tuple[str, ...]
    bands: Floats  # [R, C, BAND] in the cells' units, NaN where nothing is known


class Expectations:
    """Finds the bands at the end of each minute, if it is `on`. It holds only the bands that were not yet taken."""

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
            # Detectors do not limit their bands to possible values.
            least=np.where(in_logs | np.isin(watch.cells, (REQUESTS, ERROR_RATIO)), 0.0, -np.inf),
            most=np.where(np.array(watch.cells) == ERROR_RATIO, 1.0, np.inf),
        )
        self._found: list[Expected] = []

    def note(self, block: Block, seen: Ints, texts: Sequence[str]) -> None:
        """Note the bands of the block's series if a minute ends with its pane; to be called before the pane is learned.

        By slot: `seen` is the last pane with requests, and `texts` the series.
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
        """The block as if the pane held its whole minute; a busy series has no requests in longer horizons."""
        sums, at = block.seen.sums[: block.used].copy(), self._horizon
        now = sums[:, at].copy()
        sums[:, :at, 0] = 0.0
        sums[now[:, 0] >= self._busy, at + 1 :, 0] = 0.0
        sums[:, :, 1] = 0.0  # without errors the shortest horizon with enough requests gives the band
        return replace(block, seen=block.seen._replace(now=now, sums=sums))

    def taken(self) -> list[Expected]:
        """The bands noted since the last call, in order."""
        found, self._found = self._found, []
        return found
