"""Cumulative sums of the deviations of a pane's mean, above and below: for small changes that last.

On each side the sum is S = max(0, S + d / sigma - k) with k = 0.5 (E. S. Page, Continuous inspection schemes, 1954).
Here d is the deviation of the pane's mean, and sigma is the largest of the spread of such means, the sampling error,
and the metric's least change. So a deviation below half of sigma does not accumulate. The stationary sum of normal
values lies above h in about exp(-2 k h) of the panes, which is its tail. The sums stand still while the cell is
anomalous and begin anew afterwards.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import Block, State, Traits, Verdicts, Watch
from operators.detect.context.rules import mean_rules
from operators.kernels import cusum as kernels
from operators.model import Bools


class Cusum:
    """Judges every watched metric."""

    name = "cusum"
    traits = Traits(needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True, prior=500.0)

    def __init__(self, watch: Watch) -> None:
        self.cells = tuple(m.name for m in watch.metrics)
        self._rules = mean_rules(watch)

    def state(self, slots: int) -> State:
        shape = (slots, len(self.cells))
        return {
            "mean": np.zeros(shape),
            "between": np.zeros(shape),
            "within": np.zeros(shape),
            "learned": np.zeros(shape, np.int64),
            "sums": np.zeros((*shape, 2)),
            "panes": np.zeros((*shape, 2)),
            "length": np.zeros((*shape, 2)),
            "shift": np.zeros((*shape, 2)),
            "dirty": np.zeros(shape, np.int64),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        return Verdicts(kernels.score_cusum(block.seen, kernels.Cusums(**state), self._rules))

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        kernels.learn_cusum(block.seen, kernels.Cusums(**state), self._rules, excluded)
