"""Presets lie under the settings of detection, and overrides lie over them for some series.

A preset stands for a few numbers of `detect`; an explicit setting wins over it. An override counts for the series that
its pattern matches; if several match a series, only the last one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from operators import patterns
from operators.metrics import METRICS, Direction
from operators.section import PlainText, Section

Preset = Literal["quiet", "balanced", "sensitive"]

PRESETS: Final[dict[Preset, dict[str, Any]]] = {
    "quiet": {
        "false_alarms_per_series_day": 0.002,
        "metrics": {m.name: {"min_change": m.min_change.quiet} for m in METRICS},
        "errors": {"min_ratio": 0.2},
        "traffic": {"min_surge": 4.0, "max_drop": 0.2},
    },
    "balanced": {},
    "sensitive": {
        "false_alarms_per_series_day": 0.2,
        "metrics": {m.name: {"min_change": m.min_change.sensitive} for m in METRICS},
        "errors": {"min_ratio": 0.05},
        "traffic": {"min_surge": 2.0, "max_drop": 0.5},
    },
}
"""The settings in which a preset differs from the defaults, as a tree of `detect`. All differ in the same settings."""


class MetricOverride(Section):
    """Settings of a metric that some series may have for themselves."""

    direction: Direction | None = Field(None, description="Which deviations are anomalies.")
    min_change: float | None = Field(None, gt=0, description="Least deviation.")
    min_count: int | None = Field(None, ge=1, description="Requests that a horizon must hold to be judged.")


class ErrorsOverride(Section):
    """Settings of errors that some series may have for themselves."""

    min_ratio: float | None = Field(None, gt=0, le=1, description="Smaller shares of errors are never an anomaly.")
    min_errors: int | None = Field(None, ge=1, description="Fewer errors in a horizon are never an anomaly.")


class TrafficOverride(Section):
    """Settings of traffic that some series may have for themselves."""

    min_surge: float | None = Field(None, gt=1, description="Least factor above the usual.")
    max_drop: float | None = Field(None, ge=0, lt=1, description="Largest share of the usual that counts as a drop.")


class OverrideConfig(Section):
    """Other settings of detection for the series that a pattern matches."""

    series: PlainText = Field(min_length=1, description="Pattern of its series, such as service=batch-*.")
    mute: bool = Field(False, description="Whether nothing is told about the series; it is still learned.")
    ignore: tuple[PlainText, ...] = Field(
        (), description="Watched metrics, `requests` or `error_ratio` not to be judged."
    )
    preset: Preset | None = Field(None, description="A preset for these series, under what the override sets itself.")
    false_alarms_per_series_day: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="Episodes such a series may open by chance in a day."
    )
    metrics: dict[PlainText, MetricOverride] = Field({}, description="Settings by metric.")
    errors: ErrorsOverride = Field(default=ErrorsOverride(), description="The share of errors.")
    traffic: TrafficOverride = Field(default=TrafficOverride(), description="The number of requests.")


def matching_override(overrides: tuple[OverrideConfig, ...], series: str) -> int | None:
    """The number of the override that counts for the series; None for none."""
    for number in range(len(overrides) - 1, -1, -1):
        if patterns.matches(series, overrides[number].series):
            return number
    return None


def by_preset(override: OverrideConfig, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the override's preset, as a tree of `detect`; `defaults` are the settings if nothing is set."""
    if override.preset == "balanced":
        return _picked(defaults, PRESETS["quiet"])
    return PRESETS[override.preset] if override.preset else {}


def by_itself(override: OverrideConfig) -> dict[str, Any]:
    """The override's own settings, as a tree of `detect`; they go over those of its preset."""
    tree = override.model_dump(exclude_none=True, exclude={"series", "mute", "ignore"})
    return {**tree, "detectors": dict.fromkeys(override.ignore, ())}


def over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two trees as one; if both have a value, that of `above` counts."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _picked(values: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _picked(values[key], inner) if isinstance(inner, Mapping) else values[key] for key, inner in like.items()
    }
