"""The standard score of a metric's mean, against exponentially weighted moments of that same mean.

For each series, metric and horizon the detector learns the mean of the requests' values (or of their logarithms) and
its spread, separately above and below. It judges a pane over the shortest horizon that holds enough requests, and over
each longer one if all shorter ones show at least half of its deviation. The spread is at least the sampling error of
the horizon's mean, and at least the metric's least change over the boundary. So a series that never varied neither
fires on every change nor is blind, and a deviation below the metric's least change never reaches 0.5.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import METRIC_CELLS, Block, State, Traits, Verdicts, Watch
from operators.detect.context.rules import mean_rules
from operators.kernels import moments as kernels
from operators.model import Bools


class ZScore:
    """Judges every watched metric."""

    name = "zscore"
    traits = Traits(
        needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True, prior=3000.0, votes_on=METRIC_CELLS
    )  # fmt: skip

    def __init__(self, watch: Watch) -> None:
        self.cells = tuple(m.name for m in watch.metrics)
        self._watch = watch
        self._rules = mean_rules(watch)

    def state(self, slots: int) -> State:
        shape = (slots, len(self.cells), len(self._watch.horizons))
        return {
            "mean": np.zeros(shape, np.float32),
            "above": np.zeros(shape, np.float32),
            "below": np.zeros(shape, np.float32),
            "learned": np.zeros(shape, np.float32),
            "request": np.zeros(shape[:2]),
            "dirty": np.zeros(shape[:2], np.int64),
            "far": np.zeros(shape, np.int32),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        return Verdicts(kernels.score_moments(block.seen, kernels.Moments(**state), self._rules))

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        kernels.learn_moments(block.seen, kernels.Moments(**state), self._rules, excluded)
