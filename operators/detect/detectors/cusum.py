"""Cumulative sums of a pane's mean, above and below: for small changes that last.

S = max(0, S + d / sigma - k) on each side (E. S. Page, Continuous inspection schemes, 1954), with k = 0.5 and sigma the
largest of what panes vary by, the error of sampling, and the metric's least change; so nothing accumulates below half
of that. A stationary sum of normal values lies above h in about exp(-2 k h) of the panes, which is its tail. The
sums stand still while the cell is anomalous and begin anew when it is not any more.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import Block, State, Traits, Verdicts, Watch
from operators.detect.context.quantiles import directions, least_changes
from operators.kernels import cusum as kernels
from operators.model import Bools


class Cusum:
    """Judges every watched metric."""

    name = "cusum"
    traits = Traits(needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True, prior=500.0)

    def __init__(self, watch: Watch) -> None:
        self.cells = tuple(m.name for m in watch.metrics)
        self._watch = watch
        self._direction = directions(watch)
        self._least = least_changes(watch)

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
        watch = self._watch
        return Verdicts(
            kernels.score_cusum(
                block.used, block.pane, block.born, block.now,
                state["mean"], state["between"], state["within"], state["learned"],
                state["sums"], state["panes"], state["length"], state["shift"],
                watch.config.warm_up_panes, self._direction, self._least, watch.threshold,
            )
        )  # fmt: skip

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        watch = self._watch
        kernels.learn_cusum(
            block.used, block.pane, block.born, block.now, block.square, excluded,
            state["mean"], state["between"], state["within"], state["learned"],
            state["sums"], state["panes"], state["length"], state["shift"], state["dirty"],
            watch.config.warm_up_panes, self._least, 1.0 - watch.keep,
        )  # fmt: skip
