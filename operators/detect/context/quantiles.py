"""What `mad` and `iqr` have in common: a fading histogram of each horizon's mean, per series and metric."""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Final

import numpy as np

from operators.detect.base import Block, State, Verdicts, Watch
from operators.kernels import robust as kernels
from operators.kernels.detect import Floats
from operators.model import Bools, Ints

DIRECTION: Final = {"up": 1, "down": -1, "both": 0}


def least_changes(watch: Watch) -> Floats:
    """The least change of each watched metric, on the scale it is judged in."""
    return np.array([log(s.min_change) if s.in_logs else s.min_change for s in watch.settings])


def directions(watch: Watch) -> Ints:
    """1 where up is an anomaly, -1 where down is, 0 for both; by watched metric."""
    return np.array([DIRECTION[s.direction] for s in watch.settings], np.int64)


class Past:
    """The past of every horizon's mean, and a kernel that judges by it.

    A bucket is a quarter of the metric's least change wide. 3.6 kB a series with the default horizons and metrics.
    """

    def __init__(self, watch: Watch, kernel: Callable[..., Floats]) -> None:
        self._watch = watch
        self._kernel = kernel
        self._direction = directions(watch)
        self._floor = least_changes(watch) / watch.boundary
        self._bucket = least_changes(watch) / 4.0
        self._min_count: Ints = np.array([s.min_count for s in watch.settings], np.int64)

    def state(self, slots: int) -> State:
        shape = (slots, len(self._watch.metrics), len(self._watch.horizons))
        return {
            "past": np.zeros((*shape, kernels.BUCKETS), np.float32),
            "low": np.zeros(shape),
            "width": np.zeros(shape[:2]),
            "learned": np.zeros(shape),
            "dirty": np.zeros(shape[:2], np.int64),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        watch = self._watch
        return Verdicts(
            self._kernel(
                block.used, block.pane, block.born, block.now, block.sums, watch.horizons.widths,
                state["past"], state["low"], state["learned"], watch.config.warm_up_panes,
                self._direction, self._floor, state["width"], self._min_count, watch.boundary, watch.threshold,
            )
        )  # fmt: skip

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        watch = self._watch
        kernels.learn_past(
            block.used, block.pane, block.born, block.now, block.sums, watch.horizons.widths, excluded,
            state["past"], state["low"], state["learned"], state["dirty"],
            state["width"], self._bucket, self._min_count, watch.keep,
        )  # fmt: skip
