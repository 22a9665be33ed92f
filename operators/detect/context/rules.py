"""The rules for the means of the watched metrics, as the kernels of the detectors of means take them."""

from __future__ import annotations

from math import log
from typing import Final

import numpy as np

from operators.detect.base import Watch
from operators.kernels.means import MeanRules

DIRECTION: Final = {"up": 1, "down": -1, "both": 0}


def mean_rules(watch: Watch) -> MeanRules:
    """The rules for the watched metrics, in their order; changes are on the scale that the metric is judged in."""
    least = np.array([log(s.min_change) if s.in_logs else s.min_change for s in watch.settings])
    return MeanRules(
        warm=watch.config.warm_up_panes,
        patience=watch.panes(watch.config.adopt_after_s),
        direction=np.array([DIRECTION[s.direction] for s in watch.settings], np.int64),
        least=least,
        floor=least / watch.boundary,
        min_count=np.array([s.min_count for s in watch.settings], np.int64),
        boundary=watch.boundary,
        threshold=watch.threshold,
        keep=watch.keep,
    )
