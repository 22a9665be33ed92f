"""Calibration: a detector's level becomes an empirical tail probability on the series' own history.

A level is -log10 of a tail probability under a detector's model. Were the model right, levels would be distributed
exponentially with mean 1 / ln 10. Per detector and cell a histogram of the levels of ordinary panes is kept, fading,
beside that distribution, which counts as `Traits.prior` independent horizons. A pane's level counts as one over the
panes of its horizon, for panes that share a horizon are hardly two observations; and a stretch in the tail, however
long, counts as one horizon: else a slow drift would be taken for the way the series is. Above the 98 % quantile an
exponential tail is fitted, and where the tail says that a level is more frequent than the model says, the tail is
believed. It is never believed where it says less: no deviation below the metric's least change becomes an anomaly.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import Detector, State, Verdicts, Watch
from operators.kernels.calibration import BUCKETS, STEP, calibrate, learn_levels, tail_of
from operators.model import Bools, Ints


class Calibration:
    """The calibration of one detector. Holds settings only; what it learns is in the state that it is handed."""

    def __init__(self, watch: Watch, detector: Detector) -> None:
        self._threshold = watch.threshold
        self._keep = watch.keep
        self._columns: Ints = np.array([watch.cells.index(c) for c in detector.cells], np.int64)
        edges = [10.0 ** -((b * STEP) ** 2) for b in range(BUCKETS)] + [0.0]
        self._prior = np.array([detector.traits.prior * (edges[b] - edges[b + 1]) for b in range(BUCKETS)])
        self._blank = tail_of(np.zeros((1, 1, BUCKETS), np.float32), self._prior, 0, 0)

    def state(self, slots: int) -> State:
        cells = (slots, len(self._columns))
        return {"levels": np.zeros((*cells, BUCKETS), np.float32), "high": np.zeros(cells, np.int32)}

    def score(self, state: State, verdicts: Verdicts) -> Verdicts:
        """The verdicts with calibrated scores and bands. Changes neither argument."""
        out = np.empty_like(verdicts.table)
        calibrate(verdicts.table, state["levels"], self._prior, self._blank, self._threshold, out)
        return Verdicts(out)

    def learn(self, state: State, verdicts: Verdicts, excluded: Bools) -> None:
        """Learn from the verdicts as the detector gave them, in place."""
        learn_levels(
            verdicts.table, state["levels"], state["high"], self._columns, excluded, self._threshold, self._keep
        )
