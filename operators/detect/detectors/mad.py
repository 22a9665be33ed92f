"""Hampel's identifier: the distance of a horizon's mean from the median of its past, in median absolute deviations.

1.4826 median absolute deviations stand for a standard deviation (F. R. Hampel, The influence curve and its role in
robust estimation, 1974). Up to half of the past may be abnormal before the detector is misled, so it suits series that
are abnormal often.
"""

from __future__ import annotations

from operators.detect.base import Traits, Watch
from operators.detect.context.quantiles import Past
from operators.kernels.robust import score_mad


class Mad(Past):
    """Judges every watched metric."""

    name = "mad"
    traits = Traits(needs_warm_up=True, scale_free=False, shift_free=True, answers_step=True)

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch, score_mad)
        self.cells = tuple(m.name for m in watch.metrics)
