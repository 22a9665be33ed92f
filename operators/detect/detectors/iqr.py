"""Tukey's fences: the distance of a horizon's mean from the quartiles of its past, in interquartile ranges.

A fence at k ranges lies at 0.6745 (1 + 2 k) standard deviations of a normal distribution, which gives its probability
(J. W. Tukey, Exploratory Data Analysis, 1977). Each side has its own quartile, so the detector suits skewed series.
"""

from __future__ import annotations

from operators.detect.base import Traits, Watch
from operators.detect.context.quantiles import Past
from operators.kernels.robust import score_iqr


class Iqr(Past):
    """Judges every watched metric."""

    name = "iqr"
    traits = Traits(needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True)

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch, score_iqr)
        self.cells = tuple(m.name for m in watch.metrics)
