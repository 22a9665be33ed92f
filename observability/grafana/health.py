"""Pipeline health: whether the flow itself works, from its metrics."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard as build

from observability.grafana.parts import board, prom_chart, prom_stat

RATE = "[$__rate_interval]"


def quantiles(name: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """The median and the 95th percentile of a histogram."""
    legend = f"{{{{{by}}}}}, " if by else ""
    labels = f"le, {by}" if by else "le"
    return tuple(
        (f"histogram_quantile({q}, sum by ({labels}) (rate({name}_bucket{RATE})))", f"{legend}p{q * 100:.0f}")
        for q in (0.5, 0.95)
    )


def dashboard() -> build.Dashboard:
    """The dashboard."""
    made = board(
        "sentinel-health", "Pipeline health", "Whether the flow itself works; the runbook says what to do if not."
    )
    numbers = (
        prom_stat("Processes", "none", "count(sentinel_build_info)"),
        prom_stat("Records a second", "none", "sum(rate(sentinel_records_total[5m]))"),
        prom_stat("Event time is behind by", "s", "time() - min(sentinel_watermark_timestamp_seconds)"),
        prom_stat("Open episodes", "none", "sum(sentinel_episodes_open)"),
        prom_stat("Series", "none", "sum(sentinel_series)"),
        prom_stat(
            "Unaccounted events",
            "none",
            "sum(abs(sentinel_balance_difference))",
            "Anything but 0 means that events were lost in silence.",
        ),
    )
    charts = (
        prom_chart(
            "Events by outcome",
            "none",
            (f"sum by (outcome) (rate(sentinel_events_total{RATE}))", "{{outcome}}"),
        ),
        prom_chart(
            "Dead letters by reason",
            "none",
            (f"sum by (reason) (rate(sentinel_dead_letters_total{RATE}))", "{{reason}}"),
        ),
        prom_chart(
            "Records not read yet", "none", ("sum by (partition) (sentinel_consumer_lag_records)", "{{partition}}")
        ),
        prom_chart(
            "Age of event time",
            "s",
            ("time() - max by (partition) (sentinel_watermark_timestamp_seconds)", "{{partition}}"),
        ),
        prom_chart("From the end of a pane until it is judged", "s", *quantiles("sentinel_judged_delay_seconds")),
        prom_chart("From the time of an alert until it is sent", "s", *quantiles("sentinel_alert_delay_seconds")),
        prom_chart("Time of a batch, by step", "s", *quantiles("sentinel_step_seconds", "step")),
        prom_chart(
            "Work, by step",
            "percentunit",
            (f"sum by (step) (rate(sentinel_step_seconds_sum{RATE}))", "{{step}}"),
            (f"sum(rate(process_cpu_seconds_total{RATE}))", "whole process"),
            about="1 is one processor, busy all the time.",
        ),
        prom_chart(
            "Work, by detector",
            "percentunit",
            (f"sum by (detector) (rate(sentinel_detector_seconds_total{RATE}))", "{{detector}}"),
            about="1 is one processor, busy all the time.",
        ),
        prom_chart(
            "Written to snapshots, by step",
            "Bps",
            (f"sum by (step) (rate(sentinel_snapshot_bytes_sum{RATE}))", "{{step}}"),
        ),
        prom_chart("Time to make a snapshot of one key", "s", *quantiles("sentinel_snapshot_seconds", "step")),
        prom_chart("Time of a write, by sink", "s", *quantiles("sentinel_sink_write_seconds", "sink")),
        prom_chart(
            "Items, tries and refusals, by sink; tries of the source",
            "none",
            (f"sum by (sink) (rate(sentinel_sink_items_total{RATE}))", "{{sink}}: items"),
            (f"sum by (sink) (rate(sentinel_sink_retries_total{RATE}))", "{{sink}}: tried again"),
            (f"sum by (sink, reason) (rate(sentinel_sink_rejected_total{RATE}))", "{{sink}}: refused, {{reason}}"),
            (f"sum by (sink, reason) (rate(sentinel_sink_dropped_total{RATE}))", "{{sink}}: given up, {{reason}}"),
            (f"sum(rate(sentinel_source_retries_total{RATE}))", "source: tried again"),
        ),
        prom_chart(
            "Series of a shard, and its limit",
            "none",
            ("max by (shard) (sentinel_series)", "shard {{shard}}"),
            ("max(sentinel_series_limit)", "limit"),
        ),
        prom_chart(
            "Requests without a series of their own; events that were overtaken, unpriced or lost",
            "none",
            (f"sum(rate(sentinel_series_overflow_requests_total{RATE}))", "overflow"),
            (f"sum(rate(sentinel_events_overtaken_total{RATE}))", "overtaken"),
            (f"sum(rate(sentinel_events_unpriced_total{RATE}))", "unpriced"),
            (f"sum(rate(sentinel_records_skipped_total{RATE}))", "lost"),
        ),
        prom_chart(
            "Partitions that wait for a restart or are not written; logs that were replaced or cut in the last hour",
            "none",
            ("max by (topic) (sentinel_source_partitions_unread)", "{{topic}}: not read"),
            ("max by (topic) (sentinel_sink_partitions_unused)", "{{topic}}: not written"),
            ("sum by (partition) (increase(sentinel_source_logs_replaced_total[1h]))", "{{partition}}: replaced"),
        ),
        prom_chart(
            "Alerts",
            "none",
            ("sum by (status, severity) (increase(sentinel_alerts_total[5m]))", "{{status}}, {{severity}}"),
        ),
        prom_chart(
            "Traffic as the flow reads it",
            "none",
            (f"sum by (service, outcome) (rate(sentinel_requests_total{RATE}))", "{{service}}, {{outcome}}"),
        ),
        prom_chart(
            "Memory", "bytes", ("process_resident_memory_bytes and on (instance) sentinel_build_info", "{{instance}}")
        ),
        prom_chart(
            "Starts",
            "none",
            ("changes(process_start_time_seconds[1h]) and on (instance) sentinel_build_info", "{{instance}}"),
        ),
    )
    for panel in (*numbers, *charts):
        made = made.with_panel(panel)
    return made
