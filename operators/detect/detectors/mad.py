"""Hampel's identifier: the distance from the median of a horizon's mean, in median absolute deviations.

1.4826 MAD stands for a standard deviation (F. R. Hampel, The influence curve and its role in robust estimation, 1974).
Half of the past may be anything at all before it is misled, which is what it is for: series that are abnormal often.
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
