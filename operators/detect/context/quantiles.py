"""The common part of `mad` and `iqr`: a fading histogram of each horizon's mean, per series and metric."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from operators.detect.base import Block, State, Verdicts, Watch
from operators.detect.context.rules import mean_rules
from operators.kernels import robust as kernels
from operators.kernels.detect import Floats, Seen
from operators.kernels.means import MeanRules
from operators.model import Bools

Kernel = Callable[[Seen, kernels.MeanHistograms, MeanRules], Floats]


class Past:
    """Judges every horizon's mean by its past, with one of the kernels.

    The past takes 3.6 kB a series with the default horizons and metrics.
    """

    def __init__(self, watch: Watch, kernel: Kernel) -> None:
        self._watch = watch
        self._kernel = kernel
        self._rules = mean_rules(watch)

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
        return Verdicts(self._kernel(block.seen, kernels.MeanHistograms(**state), self._rules))

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        kernels.learn_past(block.seen, kernels.MeanHistograms(**state), self._rules, excluded)
