"""Presets and overrides: their order, and the settings that follow."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators import patterns
from operators.config import DetectConfig
from operators.overrides import PRESETS, OverrideConfig, matching_override


def leaves(tree: Mapping[str, Any], key: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for name, value in tree.items():
        found |= leaves(value, (*key, name)) if isinstance(value, Mapping) and value else {(*key, name): value}
    return found


def values(config: DetectConfig) -> dict[tuple[str, ...], Any]:
    return leaves(config.model_dump(exclude={"preset", "overrides"}))


def config(**detect: Any) -> DetectConfig:
    return DetectConfig.model_validate(detect)


def test_a_preset_changes_its_numbers_alone_and_in_one_direction() -> None:
    quiet, balanced, sensitive = (values(config(preset=p)) for p in PRESETS)
    assert balanced == values(DetectConfig())
    behind = leaves(PRESETS["quiet"]).keys()
    assert behind == leaves(PRESETS["sensitive"]).keys()
    for key in balanced:
        if key in behind:
            up = (quiet[key] - balanced[key]) * (balanced[key] - sensitive[key])
            assert up > 0, key
        else:
            assert quiet[key] == balanced[key] == sensitive[key]


def test_an_explicit_setting_wins_over_a_preset() -> None:
    found = config(
        preset="quiet",
        false_alarms_per_series_day=0.5,
        metrics={"latency": {"min_change": 1.1}, "ttft": {"min_count": 3}},
        errors={"min_ratio": 0.01},
        traffic={"rate_half_life_s": 600},
    )
    assert found.false_alarms_per_series_day == 0.5
    assert found.metrics["latency"].min_change == 1.1
    assert found.metrics["ttft"].min_change == PRESETS["quiet"]["metrics"]["ttft"]["min_change"]
    assert (found.errors.min_ratio, found.errors.min_errors) == (0.01, DetectConfig().errors.min_errors)
    assert found.traffic.min_surge == PRESETS["quiet"]["traffic"]["min_surge"]
    assert found.traffic.rate_half_life_s == 600


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("base", PRESETS)
def test_a_preset_of_an_override_gives_the_same_numbers_over_any_base(base: str, preset: str) -> None:
    over = config(preset=base, overrides=[{"series": "*", "preset": preset}])
    assert values(over.of_override(0)) == values(config(preset=preset))


def test_an_override_lies_over_its_preset_and_that_over_the_rest() -> None:
    over = config(
        half_life_s=600,
        metrics={"cost": {"min_change": 9, "min_count": 5}, "latency": {"min_change": 8}},
        overrides=[
            {
                "series": "*",
                "preset": "sensitive",
                "ignore": ["quality", "requests"],
                "metrics": {"cost": {"direction": "both"}, "latency": {"min_change": 7}},
                "errors": {"min_errors": 2},
            }
        ],
    ).of_override(0)
    assert over.half_life_s == 600
    assert over.metrics["latency"].min_change == 7
    assert (over.metrics["cost"].min_change, over.metrics["cost"].min_count) == (1.75, 5)
    assert over.metrics["cost"].direction == "both"
    assert (over.errors.min_errors, over.errors.min_ratio) == (2, 0.05)
    assert over.detectors["quality"] == over.detectors["requests"] == ()
    assert "cost" not in over.detectors
    assert over.metrics["quality"].watch


def test_the_last_override_that_matches_counts() -> None:
    overrides = tuple(OverrideConfig(series=s) for s in ("*", "service=batch-*", "*model=m?"))
    assert matching_override(overrides, "service=chat") == 0
    assert matching_override(overrides, "service=batch-x") == 1
    assert matching_override(overrides, "service=batch-x,model=m1") == 2
    assert matching_override(overrides[1:], "service=chat") is None


@pytest.mark.parametrize(
    "override",
    [
        {"metrics": {"cached_tokens": {"min_change": 2.0}}},
        {"metrics": {"requests": {"min_change": 2.0}}},
        {"ignore": ["latncy"]},
        {"metrics": {"latency": {"watch": True}}},
        {"horizons_s": [10]},
    ],
)
def test_an_override_of_unknown_or_unwatched_metrics_or_settings_is_refused(override: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        config(overrides=[{"series": "*", **override}])


PATTERNS = st.text("ab*?", max_size=5)
NAMES = ["".join(letters) for n in range(11) for letters in product("ab", repeat=n)]
"""All names that matter for two such patterns: the shortest common name has no more letters than both together."""


@given(one=PATTERNS, other=PATTERNS)
@example(one="*bb?", other="??a*?")
def test_patterns_meet_where_a_name_matches_both(one: str, other: str) -> None:
    both = any(patterns.matches(name, one) and patterns.matches(name, other) for name in NAMES)
    assert patterns.may_meet(one, other) == both


def test_sets_of_characters_may_meet_anything() -> None:
    assert patterns.may_meet("m[12]", "m3")
    assert not patterns.may_meet("m[12]", "m33")
