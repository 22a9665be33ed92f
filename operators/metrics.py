"""The measures: one entry for each metric of an event and for each rate of a series.

Everything that the packages know about a metric follows from its entry: the fields that decoders read, the columns of
the store, the settings and their references, the kinds and sentences of alerts, the names in labels. The work of a
single step on a metric, such as the price of its tokens, stands in that step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

Direction = Literal["up", "down", "both"]

REQUESTS: Final = "requests"
ERROR_RATIO: Final = "error_ratio"


class LeastChange(NamedTuple):
    """The least deviation by preset: a factor where a metric is judged in logs, else a difference in its unit."""

    quiet: float
    balanced: float
    sensitive: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A quantity that is judged for a series: a metric of its events, or a rate of the series itself.

    `title` begins the sentences of alerts. `kind_up` and `kind_down` are the kinds of alerts, "" if no deviation in
    that direction is told. `rank` orders causes before effects. `follows` names the measures that this one is made of,
    or that show the same more plainly: if one of them stands out in the same series, it is told instead. A group treats
    all measures with `slowness` as one. A measure `of_callers` depends on the caller rather than on the service or the
    model.

    `field` is its name in a native event, "" if events do not carry it. Labels of incidents call it `label`, by default
    the field, or one of `aliases`.
    """

    name: str
    title: str
    unit: str
    kind_up: str
    kind_down: str = ""
    rank: int
    follows: tuple[str, ...] = ()
    slowness: bool = False
    of_callers: bool = False
    field: str = ""
    label: str = ""
    aliases: tuple[str, ...] = ()

    @property
    def in_labels(self) -> str:
        """The name under which labels of incidents count it."""
        return self.label or self.field or self.name

    def kind(self, up: bool) -> str:
        """The kind of an alert that tells of a deviation in this direction."""
        return self.kind_up if up else self.kind_down


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Measure):
    """One measured value of an event.

    `scale` is the number of fixed-point steps in one `unit`; `limit` is the largest accepted value, in units.
    `worst` is the bad end of the values, which chooses the evidence of a pane. `offset`, in units, is added before a
    logarithm is taken, so that small values weigh little. With `of_good` the values of failed requests do not count.
    The others are the defaults of `detect.metrics` (`operators.config.MetricConfig`).
    """

    scale: int
    limit: float
    worst: Literal["high", "low"]
    offset: float
    of_good: bool = False
    watch: bool = True
    direction: Direction
    in_logs: bool = True
    min_change: LeastChange
    min_count: int = 20

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return self.scale == 1


METRICS: Final[tuple[Metric, ...]] = (
    Metric(
        name="latency",
        title="Latency",
        field="latency_ms",
        unit="ms",
        scale=1_000,
        limit=86_400_000.0,
        worst="high",
        offset=1.0,
        of_good=True,
        direction="up",
        min_change=LeastChange(2.0, 1.5, 1.3),
        kind_up="latency_spike",
        kind_down="latency_drop",
        rank=10,
        follows=("prompt_tokens", "tokens_per_second"),
        slowness=True,
    ),
    Metric(
        name="ttft",
        title="Time to first token",
        field="ttft_ms",
        unit="ms",
        scale=1_000,
        limit=86_400_000.0,
        worst="high",
        offset=1.0,
        of_good=True,
        direction="up",
        min_change=LeastChange(2.0, 1.5, 1.3),
        kind_up="ttft_spike",
        kind_down="ttft_drop",
        rank=11,
        follows=("prompt_tokens", "tokens_per_second", "latency"),
        slowness=True,
    ),
    Metric(
        name="tokens_per_second",
        title="Output speed",
        label="latency_ms",
        aliases=("output_tokens_per_second",),
        unit="1/s",
        scale=1_000,
        limit=1_000_000.0,
        worst="low",
        offset=0.1,
        direction="down",
        min_change=LeastChange(2.0, 1.5, 1.3),
        kind_up="speed_surge",
        kind_down="speed_drop",
        rank=9,
        follows=("prompt_tokens",),
        slowness=True,
    ),
    Metric(
        name="prompt_tokens",
        title="Prompt length",
        field="prompt_tokens",
        aliases=("input_tokens",),
        unit="tokens",
        scale=1,
        limit=1_000_000_000.0,
        worst="high",
        offset=30.0,
        direction="up",
        min_change=LeastChange(5.0, 3.0, 2.0),
        kind_up="prompt_spike",
        kind_down="prompt_drop",
        rank=2,
        of_callers=True,
    ),
    Metric(
        name="completion_tokens",
        title="Completion length",
        field="completion_tokens",
        aliases=("output_tokens",),
        unit="tokens",
        scale=1,
        limit=1_000_000_000.0,
        worst="high",
        offset=10.0,
        of_good=True,
        direction="both",
        min_change=LeastChange(5.0, 3.0, 2.0),
        kind_up="completion_spike",
        kind_down="completion_drop",
        rank=6,
    ),
    Metric(
        name="cached_tokens",
        title="Cached part of the prompt",
        field="cached_tokens",
        unit="tokens",
        scale=1,
        limit=1_000_000_000.0,
        worst="high",
        offset=30.0,
        watch=False,
        direction="both",
        min_change=LeastChange(5.0, 3.0, 2.0),
        kind_up="cached_tokens_spike",
        kind_down="cached_tokens_drop",
        rank=3,
        of_callers=True,
    ),
    Metric(
        name="reasoning_tokens",
        title="Reasoning length",
        field="reasoning_tokens",
        unit="tokens",
        scale=1,
        limit=1_000_000_000.0,
        worst="high",
        offset=10.0,
        watch=False,
        direction="up",
        min_change=LeastChange(5.0, 3.0, 2.0),
        kind_up="reasoning_spike",
        kind_down="reasoning_drop",
        rank=5,
    ),
    Metric(
        name="cost",
        title="Cost per request",
        field="cost_usd",
        aliases=("cost_per_request", "spend", "budget"),
        unit="USD",
        scale=1_000_000_000,
        limit=10_000.0,
        worst="high",
        offset=1e-6,
        direction="up",
        min_change=LeastChange(4.0, 2.5, 1.75),
        kind_up="cost_spike",
        kind_down="cost_drop",
        rank=8,
        follows=("prompt_tokens", "completion_tokens"),
    ),
    Metric(
        name="quality",
        title="Quality score",
        field="quality_score",
        unit="1",
        scale=1_000_000,
        limit=1_000_000.0,
        worst="low",
        offset=0.0,
        of_good=True,
        direction="down",
        in_logs=False,
        min_change=LeastChange(0.12, 0.08, 0.05),
        kind_up="quality_rise",
        kind_down="quality_drop",
        rank=7,
    ),
    Metric(
        name="cache_write_tokens",
        title="Part of the prompt that was cached anew",
        field="cache_write_tokens",
        unit="tokens",
        scale=1,
        limit=1_000_000_000.0,
        worst="high",
        offset=30.0,
        watch=False,
        direction="both",
        min_change=LeastChange(5.0, 3.0, 2.0),
        kind_up="cache_write_tokens_spike",
        kind_down="cache_write_tokens_drop",
        rank=4,
        of_callers=True,
    ),
)
"""The metrics of an event, in the order of every metric axis."""

METRIC_INDEX: Final[dict[str, int]] = {metric.name: i for i, metric in enumerate(METRICS)}

RATES: Final[tuple[Measure, ...]] = (
    Measure(
        name=REQUESTS,
        title="Traffic",
        label="request_count",
        aliases=("request_rate", "rate", "traffic", "silence"),
        unit="1/min",
        kind_up="traffic_surge",
        kind_down="traffic_drop",
        rank=0,
    ),
    Measure(
        name=ERROR_RATIO,
        title="Share of errors",
        label="error_rate",
        aliases=("errors",),
        unit="1",
        kind_up="error_burst",
        rank=1,
        follows=(REQUESTS,),
    ),
)
"""The rates of a series, judged beside the metrics of its events; the settings have a section for each."""

MEASURES: Final[dict[str, Measure]] = {measure.name: measure for measure in (*METRICS, *RATES)}
"""All measures by name: the metrics in their order, then the rates."""
