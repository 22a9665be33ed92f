"""The only list of the detectors, by name. A new detector takes a file, a line here, and a test.

Settings name detectors by text. This module knows the names, the cells that each detector can judge, and the detectors
that judge a cell by default.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from operators.config import DetectConfig
from operators.detect.base import CELLS, Detector, Finds, Watch
from operators.detect.detectors.cusum import Cusum
from operators.detect.detectors.error_ratio import ErrorRatio
from operators.detect.detectors.iqr import Iqr
from operators.detect.detectors.mad import Mad
from operators.detect.detectors.request_outlier import RequestOutlier
from operators.detect.detectors.static_limits import StaticLimits
from operators.detect.detectors.traffic import Traffic
from operators.detect.detectors.zscore import ZScore
from operators.errors import ConfigError
from operators.kernels.detect import Floats
from operators.section import told

DETECTORS: Final[dict[str, type[Detector]]] = {
    ZScore.name: ZScore,
    Traffic.name: Traffic,
    ErrorRatio.name: ErrorRatio,
    Mad.name: Mad,
    Iqr.name: Iqr,
    Cusum.name: Cusum,
    RequestOutlier.name: RequestOutlier,
    StaticLimits.name: StaticLimits,
}

Fault = tuple[tuple[str, ...], str]
"""The key of a setting below `detect`, and the fault in its value."""


def choices() -> tuple[str, ...]:
    """The detectors that settings may name: all but the detectors of limits."""
    return tuple(name for name, detector in DETECTORS.items() if detector.traits.finds != "limit")


def finds(name: str) -> Finds:
    """The kind of this detector's findings; a deviation if only a snapshot still knows the name."""
    return DETECTORS[name].traits.finds if name in DETECTORS else "deviation"


def judging(config: DetectConfig, cell: str) -> tuple[str, ...]:
    """The names of the detectors that judge the cell: those of the settings, else the default ones."""
    default = (name for name in choices() if cell in DETECTORS[name].traits.votes_on)
    return config.detectors[cell] if cell in config.detectors else tuple(default)


def completed(config: DetectConfig) -> DetectConfig:
    """The settings with the detectors of every cell, the default ones filled in."""
    return config.model_copy(update={"detectors": {cell: judging(config, cell) for cell in CELLS}})


def faults(config: DetectConfig) -> list[Fault]:
    """The faults in the names of detectors in the settings."""
    found: list[Fault] = []
    for cell, names in config.detectors.items():
        able = tuple(name for name in choices() if cell in DETECTORS[name].traits.judges)
        if wrong := [name for name in names if name not in able]:
            found.append((("detectors", cell), _fault(wrong, "cannot judge", able, "can judge", cell)))
    for cell, votes in config.votes.items():
        voters = judging(config, cell)
        if wrong := [name for name in votes.weights if name not in voters]:
            found.append((("votes", cell, "weights"), _fault(wrong, "has no vote on", voters, "have a vote on", cell)))
    return found


def _fault(wrong: Sequence[str], cannot: str, able: Sequence[str], can: str, cell: str) -> str:
    unknown = [told(name) for name in wrong if name not in DETECTORS]
    what = f"there is no detector {', '.join(unknown)}" if unknown else f"{', '.join(wrong)} {cannot} {cell}"
    return f"{what}; {', '.join(able) or 'none'} {can} {cell}"


def build(watch: Watch, others: Collection[str] = ()) -> tuple[Detector, ...]:
    """The detectors that judge any cell, and `others`, in the order of the registry.

    The order decides between equal verdicts: the first one counts. Raises `ConfigError` if the settings name a detector
    that does not exist or cannot judge its cell.
    """
    if wrong := faults(watch.config):
        raise ConfigError("; ".join(f"detect.{'.'.join(map(told, key))}: {what}" for key, what in wrong))
    wanted: set[str] = {*others} | {name for cell in watch.cells for name in judging(watch.config, cell)}
    if watch.config.limits:
        wanted.update(name for name in DETECTORS if finds(name) == "limit")
    return tuple(make(watch) for name, make in DETECTORS.items() if name in wanted)


def votes(watch: Watch, detector: Detector) -> Floats:
    """The weight of the detector's vote on each of its cells, in 0..1; 0 where it has no vote."""
    if detector.traits.finds == "limit":
        return np.ones(len(detector.cells))
    config = watch.config
    return np.array(
        [
            (config.votes[c].weights.get(detector.name, 1.0) if c in config.votes else 1.0)
            if detector.name in judging(config, c)
            else 0.0
            for c in detector.cells
        ]
    )
