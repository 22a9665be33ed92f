"""Calibration: a detector's level becomes an empirical tail probability, by the series' own history.

A level is -log10 of a tail probability under a detector's model. If the model were right, levels would have an
exponential distribution with mean 1 / ln 10. Each detector keeps a fading histogram of the levels of ordinary panes for
each cell. That distribution is its prior and weighs `Traits.prior` independent horizons. A pane weighs one over the
panes of its horizon, since panes that share a horizon are hardly two observations. A stretch in the tail counts as one
horizon, however long it is; else a slow drift would be taken for the nature of the series. An exponential tail is
fitted above the 98 % quantile. The tail is believed if it makes a level more frequent than the model does, and never if
it makes it less frequent: no deviation below the metric's least change becomes an anomaly.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import Detector, State, Verdicts, Watch
from operators.kernels.calibration import BUCKETS, STEP, calibrate, learn_levels, tail_of
from operators.model import Bools, Ints


class Calibration:
    """The calibration of one detector. It holds settings only; callers pass the learned state."""

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
        """Learn from the detector's own verdicts, in place."""
        learn_levels(
            verdicts.table, state["levels"], state["high"], self._columns, excluded, self._threshold, self._keep
        )
