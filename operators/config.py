"""The settings of the pure part: one model for each section, with defaults, bounds, and units in the names.

`flows.settings` fills these from its layers; nothing here reads a file or the environment.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from operators.metrics import MEASURES, METRICS, RATES, Direction
from operators.model import DIMENSIONS
from operators.overrides import PRESETS, OverrideConfig, Preset, by_itself, by_preset, over
from operators.section import PlainText, Section, Shown, told


class TimeConfig(Section):
    """Event time: panes, lateness, and partitions on which nothing comes."""

    pane_s: int = Field(
        10, ge=1, le=3600, description="Width of a pane, in seconds. Must divide a minute or be a multiple of one."
    )
    lateness_s: float = Field(10, ge=0, le=3600, description="How long the transport of an event may take, in seconds.")
    future_skew_s: float = Field(60, ge=0, le=86_400, description="How far an event's end may lie after its arrival.")
    correction_s: int = Field(
        600, ge=0, le=86_400, description="How long after its pane a late event still corrects the stored rows."
    )
    idle_s: float = Field(
        30, ge=0.1, le=86_400, description="Polls at the end of a partition for this long make it idle."
    )
    max_ahead_s: float = Field(
        600,
        ge=1,
        description="Largest distance between partitions, in event time: one that is further ahead pauses, and nothing "
        "waits for one that is further behind and has been read to its end.",
    )
    max_age_s: float | None = Field(
        None,
        gt=0,
        description="Events that end longer than this before they arrive are late; without it, age does not count.",
    )
    timestamp_is: Literal["start", "end"] = Field("start", description="Meaning of an event's field `timestamp`.")

    @field_validator("pane_s")
    @classmethod
    def _divides_minute(cls, v: int) -> int:
        if (60 % v and v % 60) or 3600 % v:
            raise ValueError("must divide a minute, or be a multiple of one that divides an hour")
        return v


class EnrichConfig(Section):
    """Values that an event lacks and the flow fills in: its cost, and the family of its model."""

    prices: PlainText | None = Field(
        None,
        min_length=1,
        description="A TOML file of prices (docs/enrich.md), read again when it changes; they win over shipped ones.",
    )
    shipped_prices: bool = Field(
        True,
        description="Whether models without a price of your own get the public price that is shipped, if there is one.",
    )
    dated_versions: bool = Field(
        True,
        description="Whether a model that ends in a date (-2026-01-31, -20260131, @20260131) or in -latest goes by the "
        "name without it.",
    )
    families: dict[PlainText, PlainText] = Field(
        {}, description="Name by pattern (* stands for any text): models that match go by this name, as one series."
    )

    @field_validator("families")
    @classmethod
    def _named(cls, v: dict[str, str]) -> dict[str, str]:
        if not all(v) or not all(v.values()):
            raise ValueError("neither a pattern nor a family may be empty")
        return v


class PanesConfig(Section):
    """The series that are aggregated, and how much of them is kept."""

    dimension_sets: tuple[tuple[PlainText, ...], ...] = Field(
        (("service", "model", "operation"), ("service",), ("model",), ("tenant",)),
        min_length=1,
        description="The dimension sets whose series are watched.",
    )
    series_per_shard: int = Field(5_000, ge=1, description="Series a shard admits; the rest is folded into __other__.")
    expiry_s: int = Field(86_400, ge=60, description="A series without requests for this long is forgotten.")
    breakdown_values: int = Field(50, ge=0, description="Values a breakdown keeps per series, pane and label.")
    evidence: int = Field(2, ge=0, le=20, description="Worst requests kept per series, pane and metric.")

    @field_validator("dimension_sets")
    @classmethod
    def _known(cls, v: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, ...], ...]:
        for s in v:
            unknown = [d for d in s if d not in DIMENSIONS]
            if unknown or not s or len(set(s)) < len(s):
                raise ValueError(f"each set names one or more different dimensions of {', '.join(DIMENSIONS)}")
        if len(set(v)) < len(v):
            raise ValueError("a dimension set is named twice")
        return v


class EpisodesConfig(Section):
    """When a run of anomalous panes becomes an episode, and when it is over."""

    open_panes: int = Field(
        2, ge=1, le=8, description="Anomalous panes, of the last open_of with data, that open an episode."
    )
    open_of: int = Field(3, ge=1, le=8, description="Panes with data that open_panes looks back over.")
    at_once: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="Open at once below this share of the threshold's tail."
    )
    resolve_s: int = Field(300, ge=10, description="Quiet event time after which an episode resolves.")


class GroupsConfig(Section):
    """Which episodes are one incident, told by one alert."""

    settle_s: float = Field(
        60, ge=0, le=3_600, description="Event time from a group's first episode to the choice of its lead."
    )
    join_s: float = Field(900, ge=0, le=86_400, description="Event time in which episodes of any metric join a group.")
    members: bool = Field(False, description="Whether the other members of a group raise alerts of their own too.")


class MetricConfig(Section):
    """How one metric is judged, by whichever detectors."""

    watch: bool = Field(description="Whether the metric is judged at all.")
    direction: Direction = Field(description="Which deviations are anomalies.")
    in_logs: bool = Field(description="Whether the metric is judged by the mean of its logarithms.")
    min_change: float = Field(
        gt=0,
        description="Least deviation: a factor where the metric is judged in logs, else a difference in its unit.",
    )
    min_count: int = Field(ge=1, description="Requests that a horizon must hold to be judged.")

    @model_validator(mode="after")
    def _a_change(self) -> MetricConfig:
        if self.in_logs and self.min_change <= 1:
            raise ValueError(f"min_change = {self.min_change:g} is no change: a factor must be above 1")
        return self


_METRIC_DEFAULTS: dict[str, dict[str, object]] = {
    m.name: {
        "watch": m.watch,
        "direction": m.direction,
        "in_logs": m.in_logs,
        "min_change": m.min_change.balanced,
        "min_count": m.min_count,
    }
    for m in METRICS
}
_RATES = tuple(rate.name for rate in RATES)


class ErrorsConfig(Section):
    """When errors are too many."""

    min_ratio: float = Field(0.1, gt=0, le=1, description="Smaller shares of errors are never an anomaly.")
    min_errors: int = Field(4, ge=1, description="Fewer errors in a horizon are never an anomaly.")
    min_count: int = Field(10, ge=1, description="Requests that a horizon must hold to tell that errors are over.")
    prior_ratio: float = Field(
        0.01, gt=0, lt=1, description="Share of errors taken as usual before anything is learned."
    )
    prior_requests: float = Field(100, gt=0, description="Weight of that share, in requests.")
    dispersion: float = Field(0.03, gt=0, lt=1, description="Correlation of errors in a horizon, until learned.")


class TrafficConfig(Section):
    """When requests are too many or too few."""

    min_surge: float = Field(2.5, gt=1, description="Least factor above the usual.")
    max_drop: float = Field(0.35, ge=0, lt=1, description="Largest share of the usual that counts as a drop.")
    min_horizon_s: int = Field(60, ge=1, description="Shorter horizons do not judge traffic.")
    rate_half_life_s: int = Field(
        3_600, ge=60, description="After this event time, requests weigh half in the recent rate."
    )
    trusted_after_s: int = Field(
        86_400, ge=0, description="Until a series is this old, deviations of its traffic count half."
    )
    time_zone: PlainText = Field(
        "UTC", description="Time zone, by its IANA name, of the hours and weekdays that traffic follows."
    )

    @field_validator("time_zone")
    @classmethod
    def _known_zone(cls, v: str) -> str:
        try:
            if v != "UTC":  # UTC needs no database of zones
                ZoneInfo(v)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError("no such time zone; give an IANA name such as Europe/Berlin, or UTC") from None
        return v


class OutlierConfig(Section):
    """When a single request is too large."""

    min_factor: float = Field(5.0, gt=1, description="Least factor over the 98 % quantile of the series' requests.")


class LimitConfig(Section):
    """A limit that needs no history, on one metric of the series that a pattern matches."""

    metric: PlainText = Field(description="A watched metric, `requests` (a minute) or `error_ratio`.")
    statistic: Literal["mean", "sum", "p50", "p90", "p95", "p99", "max"] = Field(
        "mean", description="The statistic of the horizon's requests; `requests` and `error_ratio` have only one."
    )
    above: float | None = Field(None, ge=0, description="More than this is an anomaly, in the metric's unit.")
    below: float | None = Field(None, ge=0, description="Less than this is an anomaly; one of above and below.")
    horizon_s: int = Field(60, ge=1, description="The horizon that is compared, one of detect.horizons_s.")
    min_count: int = Field(1, ge=1, description="Requests that the horizon must hold; `requests` needs none.")
    series: PlainText = Field("*", min_length=1, description="Pattern of its series, such as service=chat,model=*.")

    @model_validator(mode="after")
    def _one_side(self) -> LimitConfig:
        if (self.above is None) == (self.below is None):
            raise ValueError("give either above or below")
        if self.metric in _RATES:
            if self.statistic != "mean":
                raise ValueError(f"{self.metric} has one value: leave statistic out")
        elif self.metric not in MEASURES:
            raise ValueError(f"no such metric; there are {', '.join(MEASURES)}")
        if self.statistic == "max" and self.below is not None:
            raise ValueError("max can only be above a limit")
        return self


DetectorName = Annotated[str, Shown("detector")]
"""The name of a detector of `operators.detect.registry`, which knows all detectors and their cells."""

_CELLS = (*_METRIC_DEFAULTS, "requests", "error_ratio")


class VotesConfig(Section):
    """How the scores of a metric's detectors become one."""

    combine: Literal["strongest", "agreement"] = Field(
        "strongest", description="The strongest weighted score, or the weighted mean of all that judge the metric."
    )
    weights: dict[DetectorName, Annotated[float, Field(ge=0.01, le=1)]] = Field(
        {}, description="Weight by detector; those not named weigh 1."
    )


class DetectConfig(Section):
    """How panes are judged, and how many false alarms are accepted."""

    preset: Preset = Field(
        "balanced",
        description="Sets false_alarms_per_series_day and the least deviations; a value that is set by itself wins.",
    )
    false_alarms_per_series_day: float = Field(
        default_factory=lambda known: PRESETS[known["preset"]].get("false_alarms_per_series_day", 0.02),
        gt=0,
        le=100,
        description="Accepted false episodes of a series in a day, over all its cells.",
    )
    detectors: dict[PlainText, tuple[DetectorName, ...]] = Field(
        {}, description="Detectors by metric; metrics that are not named keep their default."
    )
    votes: dict[PlainText, VotesConfig] = Field({}, description="How detectors vote, by metric.")
    limits: tuple[LimitConfig, ...] = Field((), max_length=64, description="Static limits.")
    horizons_s: tuple[int, ...] = Field(
        (10, 60, 300, 1800),
        min_length=1,
        max_length=6,
        description="Lengths of time over which a pane is judged with those before it.",
    )
    mix_by: Literal["", "service", "model", "operation", "provider", "tenant", "region", "agent"] = Field(
        "tenant",
        description="Each request is judged against the usual of its value of this dimension within its series, so "
        'another mix is no anomaly; "" for none.',
    )
    half_life_s: float = Field(43_200, ge=60, description="After this event time, learned values weigh half.")
    adopt_after_s: int = Field(
        7_200, ge=60, description="A change that lasts for this event time is taken for the new normal."
    )
    silent_until: AwareDatetime | None = Field(
        None,
        description="Panes before this RFC 3339 time are learned as usual, but nothing is told about them: "
        "for a start that reads an older range.",
    )
    warm_up_panes: int = Field(48, ge=2, description="Panes with data that a detector learns before it judges.")
    metrics: dict[PlainText, MetricConfig] = Field(
        default_factory=dict, validate_default=True, description="Settings by metric."
    )
    errors: ErrorsConfig = Field(default=ErrorsConfig(), validate_default=True, description="The share of errors.")
    traffic: TrafficConfig = Field(
        default=TrafficConfig(), validate_default=True, description="The number of requests."
    )
    outlier: OutlierConfig = Field(default=OutlierConfig(), description="Single requests.")
    overrides: tuple[OverrideConfig, ...] = Field(
        (),
        max_length=16,
        description="Other settings for some series; if several patterns match, only the last override counts.",
    )

    @field_validator("horizons_s")
    @classmethod
    def _ascending(cls, v: tuple[int, ...]) -> tuple[int, ...]:
        if any(h < 1 or h > 86_400 for h in v) or any(a >= b for a, b in pairwise(v)):
            raise ValueError("horizons must ascend, from 1 s to a day")
        return v

    @field_validator("detectors", "votes")
    @classmethod
    def _of_what_is_judged(cls, v: dict[str, Any]) -> dict[str, Any]:
        if unknown := sorted(set(v) - set(_CELLS)):
            raise ValueError(f"no such metric: {', '.join(map(told, unknown))}; there are {', '.join(_CELLS)}")
        return v

    @model_validator(mode="after")
    def _limits_fit(self) -> DetectConfig:
        for limit in self.limits:
            if limit.horizon_s not in self.horizons_s:
                raise ValueError(
                    f"the limit on {limit.metric} looks back {limit.horizon_s} s, which is none of detect.horizons_s"
                )
            if limit.metric in self.metrics and not self.metrics[limit.metric].watch:
                raise ValueError(f"there is a limit on {limit.metric}, which is not watched")
        return self

    @model_validator(mode="after")
    def _overrides_fit(self) -> DetectConfig:
        """Refuse overrides that make invalid settings, here and not when a series comes."""
        for number in range(len(self.overrides)):
            try:
                self.of_override(number)
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise ValueError(f"overrides, entry {number + 1}: {where}: {first['msg']}") from None
        return self

    @field_validator("metrics", mode="before")
    @classmethod
    def _over_defaults(cls, v: object, info: ValidationInfo) -> object:
        """Put the given settings of a metric over those of the preset and its defaults, key by key."""
        if not isinstance(v, dict):
            return v
        unknown = sorted(set(v) - set(_METRIC_DEFAULTS))
        if unknown:
            raise ValueError(
                f"no such metric: {', '.join(map(told, unknown))}; there are {', '.join(_METRIC_DEFAULTS)}"
            )
        preset = _preset(info, "metrics")
        return {
            name: {**default, **preset.get(name, {}), **given}
            if isinstance(given := _plain(v.get(name, {})), dict)
            else given
            for name, default in _METRIC_DEFAULTS.items()
        }

    @field_validator("errors", "traffic", mode="before")
    @classmethod
    def _over_preset(cls, v: object, info: ValidationInfo) -> object:
        given = v.model_dump(exclude_unset=True) if isinstance(v, BaseModel) else v
        return {**_preset(info, info.field_name or ""), **given} if isinstance(given, dict) else given

    @field_validator("overrides")
    @classmethod
    def _on_what_is_watched(cls, v: tuple[OverrideConfig, ...], info: ValidationInfo) -> tuple[OverrideConfig, ...]:
        watched = [name for name, metric in info.data.get("metrics", {}).items() if metric.watch]
        for number, override in enumerate(v, 1) if watched else ():
            for key, names, allowed in (
                ("metrics", override.metrics, watched),
                ("ignore", override.ignore, [*watched, *_RATES]),
            ):
                if not set(names) <= set(allowed):
                    raise ValueError(
                        f"entry {number}, {key}: names a metric that is not watched; {', '.join(allowed)} are watched"
                    )
        return v

    def of_override(self, number: int) -> DetectConfig:
        """The settings for the series of this override."""
        override = self.overrides[number]
        own = over(self.model_dump(exclude={"overrides"}), by_preset(override, DetectConfig().model_dump()))
        own["votes"] = {metric: votes for metric, votes in own["votes"].items() if metric not in override.ignore}
        return DetectConfig.model_validate(over(own, by_itself(override)))


def _preset(info: ValidationInfo, key: str) -> dict[str, Any]:
    """The preset's settings in a table of `detect`."""
    found: dict[str, Any] = PRESETS[info.data.get("preset", "balanced")].get(key, {})
    return found


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value
