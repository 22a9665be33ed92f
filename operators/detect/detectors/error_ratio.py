"""The share of errors against a learned base rate, by the tail of an over-dispersed binomial.

The base rate is the faded share of errors, drawn towards a prior while little was seen. Errors come in clusters, so n
requests count as n / (1 + (n - 1) rho), with rho, the correlation of errors within a horizon, learned per series and
horizon by the method of moments. The tail is Chernoff's bound exp(-n KL(share, base)): closed, cheap at any n, never
too small.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import ERROR_RATIO, Block, State, Traits, Verdicts, Watch
from operators.kernels import detect as kernels
from operators.model import Bools


class ErrorRatio:
    """Watches `error_ratio`."""

    name = "error_ratio"
    traits = Traits(
        needs_warm_up=True, scale_free=False, shift_free=False, answers_step=True,
        judges=(ERROR_RATIO,), votes_on=(ERROR_RATIO,),
    )  # fmt: skip
    cells: tuple[str, ...] = (ERROR_RATIO,)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._column = watch.cells.index(ERROR_RATIO)

    def state(self, slots: int) -> State:
        horizons = len(self._watch.horizons)
        return {
            "errors": np.zeros(slots),
            "requests": np.zeros(slots),
            "excess": np.zeros((slots, horizons)),
            "pairs": np.zeros((slots, horizons)),
            "learned": np.zeros(slots, np.int64),
            "dirty": np.zeros(slots, np.int64),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        watch, errors = self._watch, self._watch.config.errors
        return Verdicts(
            kernels.score_errors(
                block.used, block.pane, block.born, block.now, block.sums, watch.horizons.widths,
                state["errors"], state["requests"], state["excess"], state["pairs"], state["learned"],
                watch.config.warm_up_panes, errors.min_ratio, errors.min_errors, errors.min_count, errors.prior_ratio,
                errors.prior_requests, errors.dispersion, watch.threshold,
            )
        )  # fmt: skip

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        watch, errors = self._watch, self._watch.config.errors
        kernels.learn_errors(
            block.used, block.pane, block.born, block.now, block.sums, watch.horizons.widths, excluded, self._column,
            state["errors"], state["requests"], state["excess"],
            state["pairs"], state["learned"], state["dirty"],
            errors.prior_ratio, errors.prior_requests, watch.keep,
        )  # fmt: skip
