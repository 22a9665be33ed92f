"""The share of errors against a learned base rate, by the tail of an over-dispersed binomial.

The base rate is the faded share of errors, drawn towards a prior while few requests were seen. Errors come in clusters,
so n requests count as n / (1 + (n - 1) rho). Here rho is the correlation of errors within a horizon, learned per series
and horizon by the method of moments. The tail is Chernoff's bound exp(-n KL(share, base)), which has a closed form, is
cheap at any n, and is never too small.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import Block, State, Traits, Verdicts, Watch
from operators.kernels import errors as kernels
from operators.metrics import ERROR_RATIO
from operators.model import Bools


class ErrorRatio:
    """Judges `error_ratio`."""

    name = "error_ratio"
    traits = Traits(
        needs_warm_up=True, scale_free=False, shift_free=False, answers_step=True,
        judges=(ERROR_RATIO,), votes_on=(ERROR_RATIO,),
    )  # fmt: skip
    cells: tuple[str, ...] = (ERROR_RATIO,)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        errors = watch.config.errors
        self._rules = kernels.ErrorRules(
            column=watch.cells.index(ERROR_RATIO),
            warm=watch.config.warm_up_panes,
            min_ratio=errors.min_ratio,
            min_errors=errors.min_errors,
            min_count=errors.min_count,
            prior_ratio=errors.prior_ratio,
            prior_requests=errors.prior_requests,
            dispersion=errors.dispersion,
            threshold=watch.threshold,
            keep=watch.keep,
        )

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
        return Verdicts(kernels.score_errors(block.seen, kernels.Errors(**state), self._rules))

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        kernels.learn_errors(block.seen, kernels.Errors(**state), self._rules, excluded)
