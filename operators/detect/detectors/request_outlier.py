"""A single monstrous request: the largest request of a pane, against the tail of all earlier ones of the series.

The detector keeps a fading histogram of the logarithms of the requests' values. Above its 98 % quantile u it fits an
exponential tail with mean excess b, which is a Pareto tail of the values themselves (B. M. Hill, A simple general
approach to inference about the tail of a distribution, 1975). The probability that one of n requests has a logarithm as
large as x is n 0.02 exp(-(x - u) / b). Everyday stragglers are part of that tail. The detector judges only metrics in
logarithms whose large values are anomalies.
"""

from __future__ import annotations

from math import log

import numpy as np

from operators.detect.base import Block, State, Traits, Verdicts, Watch
from operators.kernels import outlier as kernels
from operators.model import Bools


class RequestOutlier:
    """Judges the watched metrics; one that is not in logarithms, or is watched only downwards, is never an anomaly."""

    name = "request_outlier"
    traits = Traits(
        needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True, prior=3000.0, upward=True,
        votes_on=("latency", "ttft", "cost"), finds="outlier",
    )  # fmt: skip

    def __init__(self, watch: Watch) -> None:
        self.cells = tuple(m.name for m in watch.metrics)
        self._rules = kernels.OutlierRules(
            judged=np.array([s.in_logs and s.direction != "down" for s in watch.settings], np.bool_),
            warm=watch.config.warm_up_panes,
            least=log(watch.config.outlier.min_factor),
            threshold=watch.threshold,
            keep=watch.keep,
        )

    def state(self, slots: int) -> State:
        shape = (slots, len(self.cells))
        return {
            "past": np.zeros((*shape, kernels.BUCKETS), np.float32),
            "low": np.zeros(shape),
            "requests": np.zeros(shape),
            "learned": np.zeros(shape, np.int64),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        tails = kernels.Tails(**state)
        return Verdicts(kernels.score_outliers(block.seen, block.counts, block.most, tails, self._rules))

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        tails = kernels.Tails(**state)
        kernels.learn_requests(block.seen, block.counts, block.requests, tails, self._rules, excluded)
