"""The registry's knowledge of its detectors, and the settings that it refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from operators.config import DetectConfig
from operators.detect import registry
from operators.detect.base import CELLS, LEARNED, Watch
from operators.errors import ConfigError
from tests.watching import monitor

EVERY = {name: {"watch": True} for name in DetectConfig().metrics}
LIMITS = [{"metric": "latency", "above": 4000.0}]

detectors = pytest.mark.parametrize("name", sorted(registry.DETECTORS))


def config(**detect: Any) -> DetectConfig:
    return DetectConfig.model_validate(detect)


def able(cell: str) -> str:
    return ", ".join(name for name in registry.choices() if cell in registry.DETECTORS[name].traits.judges)


@detectors
def test_a_detector_judges_those_of_its_cells_that_are_watched(name: str) -> None:
    traits = registry.DETECTORS[name].traits
    assert set(traits.votes_on) <= set(traits.judges) <= set(CELLS)
    for metrics in (DetectConfig().metrics, EVERY, {"latency": {"watch": False}}):
        watch = Watch(config(metrics=metrics, limits=[]), 10)
        assert registry.DETECTORS[name](watch).cells == tuple(c for c in watch.cells if c in traits.judges)


@detectors
def test_the_second_axis_of_learned_arrays_is_the_cell(name: str) -> None:
    detector = registry.DETECTORS[name](Watch(config(limits=LIMITS), 10))
    state = detector.state(3)
    if len(detector.cells) > 1:
        assert {array.shape[:2] for array in state.values()} <= {(3, len(detector.cells))}
    assert (LEARNED in state) >= detector.traits.needs_warm_up
    assert set(detector.traits.keeps) <= set(state)


def test_every_cell_is_judged_by_default_and_settings_decide_cell_by_cell() -> None:
    assert all(registry.judging(DetectConfig(), cell) for cell in CELLS)
    chosen = config(detectors={"latency": ["mad"], "cost": []})
    assert (registry.judging(chosen, "latency"), registry.judging(chosen, "cost")) == (("mad",), ())
    assert registry.judging(chosen, "ttft") == registry.judging(DetectConfig(), "ttft")
    assert registry.completed(chosen).detectors == {cell: registry.judging(chosen, cell) for cell in CELLS}


def test_a_limit_brings_a_detector_that_votes_on_all_cells() -> None:
    of_limits = {name for name in registry.DETECTORS if registry.finds(name) == "limit"}
    assert of_limits.isdisjoint(registry.choices())
    for limits, found in (([], set()), (LIMITS, of_limits)):
        watch = Watch(config(limits=limits), 10)
        built = [d for d in registry.build(watch) if d.name in of_limits]
        assert {d.name for d in built} == found
        assert all((registry.votes(watch, d) == 1.0).all() for d in built)


def test_findings_of_an_unknown_name_are_deviations() -> None:
    assert registry.finds("of another release") == "deviation"


@pytest.mark.parametrize(
    ("detect", "said"),
    [
        (
            {"detectors": {"latency": ["zscore", "zscor"]}},
            f"detect.detectors.latency: there is no detector zscor; {able('latency')} can judge latency",
        ),
        (
            {"detectors": {"cost": ["traffic"]}},
            f"detect.detectors.cost: traffic cannot judge cost; {able('cost')} can judge cost",
        ),
        (
            {"detectors": {"requests": ["static_limits"]}},
            "detect.detectors.requests: static_limits cannot judge requests; ",
        ),
        (
            {"detectors": {"latency": ["zscore", "iqr"]}, "votes": {"latency": {"weights": {"mad": 1.0}}}},
            "detect.votes.latency.weights: mad has no vote on latency; zscore, iqr have a vote on latency",
        ),
        (
            {"votes": {"latency": {"weights": {"zscor": 1.0}}}},
            "votes.latency.weights: there is no detector zscor; ",
        ),
        ({"detectors": {"latency": ["hunter2 and more"]}}, "there is no detector (a name that is not shown); "),
        (
            {"detectors": {"cost": []}, "votes": {"cost": {"weights": {"zscore": 0.5}}}},
            "zscore has no vote on cost; none have a vote on cost",
        ),
    ],
)
def test_a_panel_refuses_detectors_that_cannot_judge_or_vote(detect: Mapping[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        monitor(DetectConfig.model_validate(detect))
    assert said in str(refused.value)
