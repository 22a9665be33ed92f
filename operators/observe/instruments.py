"""The metrics that the flow emits, named once; `telemetry` feeds them, `docs/metrics.md` is made from them.

Names and units follow the rules of Prometheus: `sentinel_` first, base units, `_total` on counters. Every label is
bounded (`LABELS`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

LABELS: Final = {
    "detector": "the [detectors](detectors.md)",
    "format": "the formats of records",
    "good": "true, false",
    "kind": "of tokens prompt, completion; of what is passed over no_call, metric, cache_hit, stream_opening",
    "metric": "the metrics of events",
    "name": "the first attributes that were met; the others together are `__other__`",
    "outcome": "for events on_time, late, duplicate, dead_letter; for requests ok, error",
    "partition": "the partitions of the source",
    "python": "one a process",
    "reason": "for dead letters the codes of [bad input](bad-input.md); for sinks and the listener a few codes each",
    "service": "`metrics.services`; the others together are `__other__`",
    "severity": "low, medium, high, critical",
    "shard": "`recovery.shards`",
    "sink": "the configured sinks",
    "status": "firing, updated, resolved",
    "step": "the stateful steps: merge, detect, rollup, groups",
    "topic": "the topics of the settings",
    "version": "one a process",
}
"""The bound on the values of each label."""

_SHORT: Final = (0.0001, 0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
_WRITES: Final = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)
_DELAYS: Final = (1, 2, 5, 10, 20, 30, 60, 120, 300, 900, 3600)
_SIZES: Final = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9)


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name in queries, with `_total` for a counter; histograms have `_bucket`, `_sum` and `_count` after it."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its samples."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return tuple(self.exposed + end for end in ends)


BUILD: Final = Instrument(
    "sentinel_build_info",
    "gauge",
    "1; the labels name the release and the version of Python.",
    ("version", "python"),
)

RECORDS: Final = Instrument("sentinel_records", "counter", "Records read from the source.", ("partition",))
EVENTS: Final = Instrument(
    "sentinel_events",
    "counter",
    "Events by outcome: on_time, late, duplicate or dead_letter.",
    ("partition", "outcome"),
)
DIFFERENCE: Final = Instrument(
    "sentinel_balance_difference",
    "gauge",
    "Events that this process was given less those that it accounts for: 0, or something was lost in silence.",
    ("partition",),
)
SKIPPED: Final = Instrument(
    "sentinel_records_skipped", "counter", "Records that the source lost before they were read.", ("partition",)
)
REPLACED: Final = Instrument(
    "sentinel_source_logs_replaced",
    "counter",
    "Times that a partition was found made anew, or cut, and was read on by `kafka.on_expired`.",
    ("partition",),
)
UNREAD: Final = Instrument(
    "sentinel_source_partitions_unread",
    "gauge",
    "Partitions that a topic of the source has got since the start: they are read after a restart.",
    ("topic",),
)
UNPRICED: Final = Instrument(
    "sentinel_events_unpriced",
    "counter",
    "Events, on time or late, with tokens but with neither a cost nor a price for them.",
    ("partition",),
)
DEAD_LETTERS: Final = Instrument(
    "sentinel_dead_letters",
    "counter",
    "Records that could not be used, by reason.",
    ("partition", "reason"),
)
PASSED_OVER: Final = Instrument(
    "sentinel_passed_over",
    "counter",
    "What tells of no call: spans of agents and tools and other logs (no_call), metrics, answers from a cache.",
    ("partition", "kind"),
)
FORMATS: Final = Instrument(
    "sentinel_records_by_format",
    "counter",
    "Records by the format that was found out, where `source.format` is auto.",
    ("partition", "format"),
)
UNKNOWN_ATTRIBUTES: Final = Instrument(
    "sentinel_unknown_attributes",
    "counter",
    "Attributes of calls that look like usage and that no convention knows, by name: a library has changed.",
    ("name",),
)
TOLD: Final = Instrument(
    "sentinel_events_told", "counter", "Events of this process that tell a value of the metric.", ("metric",)
)
WATERMARK: Final = Instrument(
    "sentinel_watermark_timestamp_seconds",
    "gauge",
    "Event time that the partition has reached, Unix time.",
    ("partition",),
)
WAITED_FOR: Final = Instrument(
    "sentinel_partition_waited_for",
    "gauge",
    "1 if panes wait for records of the partition; 0 if it stands at its end, is idle or over.",
    ("partition",),
)
PARTITIONS: Final = Instrument(
    "sentinel_source_partitions",
    "gauge",
    "Partitions of the whole source; no pane closes before each has reported; then the metric above covers all.",
)
BEHIND: Final = Instrument(
    "sentinel_consumer_lag_records",
    "gauge",
    "Records of the partition after its position, those of open transactions included; Kafka only.",
    ("partition",),
)
POLLS: Final = Instrument("sentinel_source_polls", "counter", "Polls of the source that did not fail.")
POLL_RETRIES: Final = Instrument(
    "sentinel_source_retries", "counter", "Polls of the source that failed and are made again."
)
CLOCK_STEPS: Final = Instrument(
    "sentinel_clock_steps", "counter", "Times that the host's clock was set by more than a second."
)
HEARTBEAT: Final = Instrument(
    "sentinel_heartbeat_timestamp_seconds",
    "gauge",
    "Unix time at which the last heartbeat of this process reached its topic; before the first, its start.",
)
CLOSED: Final = Instrument(
    "sentinel_listener_closed",
    "counter",
    "Clients of the metrics listener that were closed without an answer: crowded, slow or large.",
    ("reason",),
)
PRICE_LOADS: Final = Instrument(
    "sentinel_price_file_loads", "counter", "Changes of the price file, by whether they could be used.", ("good",)
)

REQUESTS: Final = Instrument(
    "sentinel_requests",
    "counter",
    "Calls of models that were read, on time or late, by outcome: ok or error.",
    ("service", "outcome"),
)
TOKENS: Final = Instrument(
    "sentinel_tokens",
    "counter",
    "Tokens of these calls: prompt or completion.",
    ("service", "kind"),
)
COST: Final = Instrument("sentinel_cost_usd", "counter", "Cost of these calls, in US dollars.", ("service",))
ERROR_OBJECTIVE: Final = Instrument(
    "sentinel_objective_error_ratio", "gauge", "The share of a service's calls that may fail: `objectives.error_ratio`."
)
COST_OBJECTIVE: Final = Instrument(
    "sentinel_objective_cost_usd",
    "gauge",
    "The most that a service may cost in 30 days, in US dollars: `objectives.cost_usd`; absent if that is not set.",
)

SERIES: Final = Instrument("sentinel_series", "gauge", "Series that a shard watches.", ("shard",))
SERIES_LIMIT: Final = Instrument(
    "sentinel_series_limit", "gauge", "Most series that a shard watches: `panes.series_per_shard`."
)
FOLDED: Final = Instrument(
    "sentinel_series_overflow_requests",
    "counter",
    "Requests that went to the overflow series, since there was no room for a series of their own.",
    ("shard",),
)
OVERTAKEN: Final = Instrument(
    "sentinel_events_overtaken",
    "counter",
    "Events counted on time whose pane had been closed while their partition was idle or over.",
    ("shard",),
)
STEP_SECONDS: Final = Instrument(
    "sentinel_step_seconds", "histogram", "Time that a stateful step took for a batch.", ("step",), _SHORT
)
DETECTOR_SECONDS: Final = Instrument(
    "sentinel_detector_seconds", "counter", "Time that a detector took to judge and to learn.", ("detector",)
)
STEP_FAULTS: Final = Instrument(
    "sentinel_step_faults", "counter", "Batches on which a stateful step failed; the process then ends.", ("step",)
)
SNAPSHOT_SECONDS: Final = Instrument(
    "sentinel_snapshot_seconds",
    "histogram",
    "Time to make the state of one key ready for a snapshot and to compress it, without the writing.",
    ("step",),
    _SHORT,
)
SNAPSHOT_BYTES: Final = Instrument(
    "sentinel_snapshot_bytes", "histogram", "Size of the state of one key in a snapshot, compressed.", ("step",), _SIZES
)
JUDGED_DELAY: Final = Instrument(
    "sentinel_judged_delay_seconds",
    "histogram",
    "Time from the end of a pane, in event time, until a shard has judged it.",
    buckets=_DELAYS,
)
ALERT_DELAY: Final = Instrument(
    "sentinel_alert_delay_seconds",
    "histogram",
    "Time from the event time of an alert until it goes to the sinks.",
    buckets=_DELAYS,
)
EPISODES: Final = Instrument("sentinel_episodes_open", "gauge", "Episodes that are open.", ("shard",))
ALERTS: Final = Instrument("sentinel_alerts", "counter", "Alert transitions.", ("status", "severity"))

SINK_ITEMS: Final = Instrument("sentinel_sink_items", "counter", "Items made durable by a sink.", ("sink",))
SINK_RETRIES: Final = Instrument("sentinel_sink_retries", "counter", "Writes tried again by a sink.", ("sink",))
SINK_REJECTED: Final = Instrument(
    "sentinel_sink_rejected",
    "counter",
    "Items that a sink's store refused.",
    ("sink", "reason"),
)
SINK_DROPPED: Final = Instrument(
    "sentinel_sink_dropped",
    "counter",
    "Items that a sink at best effort gave up: full (too many waited), budget, fault, or closed (the flow ended).",
    ("sink", "reason"),
)
SINK_SECONDS: Final = Instrument(
    "sentinel_sink_write_seconds",
    "histogram",
    "Time until a chunk was durable, all tries included.",
    ("sink",),
    _WRITES,
)

UNUSED: Final = Instrument(
    "sentinel_sink_partitions_unused",
    "gauge",
    "Partitions that a topic of alerts or dead letters has got since the first start: nothing is written to them.",
    ("topic",),
)

INSTRUMENTS: Final = (
    BUILD,
    RECORDS, EVENTS, DIFFERENCE, SKIPPED, UNPRICED, DEAD_LETTERS, PASSED_OVER, FORMATS,
    UNKNOWN_ATTRIBUTES, TOLD, WATERMARK, WAITED_FOR, PARTITIONS, BEHIND,
    POLLS, POLL_RETRIES, REPLACED, UNREAD, CLOCK_STEPS, HEARTBEAT, CLOSED, PRICE_LOADS,
    REQUESTS, TOKENS, COST, ERROR_OBJECTIVE, COST_OBJECTIVE,
    SERIES, SERIES_LIMIT, FOLDED, OVERTAKEN,
    STEP_SECONDS, DETECTOR_SECONDS, STEP_FAULTS, SNAPSHOT_SECONDS, SNAPSHOT_BYTES,
    JUDGED_DELAY, ALERT_DELAY, EPISODES, ALERTS,
    SINK_ITEMS, SINK_RETRIES, SINK_REJECTED, SINK_DROPPED, SINK_SECONDS, UNUSED,
)  # fmt: skip

PROCESS: Final = (
    "process_cpu_seconds_total", "process_max_fds", "process_open_fds", "process_resident_memory_bytes",
    "process_start_time_seconds", "process_virtual_memory_bytes",
)  # fmt: skip
"""The metrics of the process that the Prometheus client itself adds, on Linux."""
