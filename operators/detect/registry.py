"""The detectors there are, by name: the only list of them. A new one is its file, its line here, and its test.

Settings name detectors by text. This file says which names there are, which cells each can judge, and which detectors
judge a cell where the settings do not say.
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
"""The key of a setting below `detect`, and what is wrong with its value."""


def choices() -> tuple[str, ...]:
    """The names that settings may choose from: all but those of detectors that judge where a limit is set."""
    return tuple(name for name, detector in DETECTORS.items() if detector.traits.finds != "limit")


def finds(name: str) -> Finds:
    """What a finding of this detector is; a deviation for a name that only a snapshot still knows."""
    return DETECTORS[name].traits.finds if name in DETECTORS else "deviation"


def judging(config: DetectConfig, cell: str) -> tuple[str, ...]:
    """The names of the detectors that judge the cell: those that the settings name, else those that do by default."""
    default = (name for name in choices() if cell in DETECTORS[name].traits.votes_on)
    return config.detectors[cell] if cell in config.detectors else tuple(default)


def completed(config: DetectConfig) -> DetectConfig:
    """The settings with the detectors of every cell, those that judge by default too."""
    return config.model_copy(update={"detectors": {cell: judging(config, cell) for cell in CELLS}})


def faults(config: DetectConfig) -> list[Fault]:
    """What is wrong with the names of detectors in the settings."""
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
    """Those that something is judged by, and `others`, in the order of the registry: of equals the earlier is named.

    Raises `ConfigError` where the settings name a detector that is not there or cannot judge what it is named for.
    """
    if wrong := faults(watch.config):
        raise ConfigError("; ".join(f"detect.{'.'.join(map(told, key))}: {what}" for key, what in wrong))
    wanted: set[str] = {*others} | {name for cell in watch.cells for name in judging(watch.config, cell)}
    if watch.config.limits:
        wanted.update(name for name in DETECTORS if finds(name) == "limit")
    return tuple(make(watch) for name, make in DETECTORS.items() if name in wanted)


def votes(watch: Watch, detector: Detector) -> Floats:
    """What the detector's vote weighs on each of its cells, in 0..1; 0 where it has none."""
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
