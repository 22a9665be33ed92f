"""The detectors there are, by name. A new one is its file, its line here, and its test."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

import numpy as np

from operators.detect.base import Detector, Watch
from operators.detect.detectors.cusum import Cusum
from operators.detect.detectors.error_ratio import ErrorRatio
from operators.detect.detectors.iqr import Iqr
from operators.detect.detectors.mad import Mad
from operators.detect.detectors.request_outlier import RequestOutlier
from operators.detect.detectors.static_limits import StaticLimits
from operators.detect.detectors.traffic import Traffic
from operators.detect.detectors.zscore import ZScore
from operators.kernels.detect import Floats

DETECTORS: Final[dict[str, Callable[[Watch], Detector]]] = {
    ZScore.name: ZScore,
    Traffic.name: Traffic,
    ErrorRatio.name: ErrorRatio,
    Mad.name: Mad,
    Iqr.name: Iqr,
    Cusum.name: Cusum,
    RequestOutlier.name: RequestOutlier,
    StaticLimits.name: StaticLimits,
}


def build(watch: Watch, others: Collection[str] = ()) -> tuple[Detector, ...]:
    """Those that something is judged by, and `others`, in the order of the registry: of equals the earlier is named."""
    wanted: set[str] = {*others} | {name for cell in watch.cells for name in watch.config.detectors[cell]}
    if watch.config.limits:
        wanted.add(StaticLimits.name)
    return tuple(make(watch) for name, make in DETECTORS.items() if name in wanted)


def votes(watch: Watch, detector: Detector) -> Floats:
    """What the detector's vote weighs on each of its cells, in 0..1; 0 where it has none."""
    if detector.name == StaticLimits.name:
        return np.ones(len(detector.cells))
    config = watch.config
    return np.array(
        [
            (config.votes[c].weights.get(detector.name, 1.0) if c in config.votes else 1.0)
            if detector.name in config.detectors[c]
            else 0.0
            for c in detector.cells
        ]
    )
