"""The metrics of the flow, named once; what counts events comes from the source partitions' own snapshots.

All are of this process. Metrics are fed once a batch, never once an event.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from operators.intake import Balance, Batch
from operators.model import SECOND, Alert


class Balances(Collector):
    """Law 2 as metrics: what became of every record, by source partition, over all crashes of its life."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[Balance, int | None]] = {}

    def total(self) -> Balance:
        """The partitions of this process together."""
        return sum((balance for balance, _ in self.latest.values()), Balance())

    def collect(self) -> Iterator[Metric]:
        records = CounterMetricFamily("sentinel_records", "Records read from the source.", labels=["partition"])
        events = CounterMetricFamily(
            "sentinel_events",
            "Events by what became of them: on_time, late, duplicate or dead_letter.",
            labels=["partition", "outcome"],
        )
        skipped = CounterMetricFamily(
            "sentinel_records_skipped", "Records that the source lost before they were read.", labels=["partition"]
        )
        unpriced = CounterMetricFamily(
            "sentinel_events_unpriced",
            "Events, on time or late, with tokens but with neither a cost nor a price for them.",
            labels=["partition"],
        )
        dead = CounterMetricFamily(
            "sentinel_dead_letters", "Records that could not be used, by reason.", labels=["partition", "reason"]
        )
        mark = GaugeMetricFamily(
            "sentinel_watermark_seconds", "Event time that the partition has reached, Unix time.", labels=["partition"]
        )
        for partition, (balance, at) in sorted(self.latest.items()):
            records.add_metric([partition], balance.records)
            skipped.add_metric([partition], balance.skipped)
            unpriced.add_metric([partition], balance.unpriced)
            outcomes = {
                "on_time": balance.on_time,
                "late": balance.late,
                "duplicate": balance.duplicate,
                "dead_letter": sum(balance.dead.values()),
            }
            for outcome, count in outcomes.items():
                events.add_metric([partition, outcome], count)
            for reason, count in sorted(balance.dead.items()):
                dead.add_metric([partition, reason], count)
            if at is not None:
                mark.add_metric([partition], at / SECOND)
        yield from (records, events, skipped, unpriced, dead, mark)


class Telemetry:
    """All metrics of one process, in a registry of their own; it observes the source, the sinks and the alerts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.balances = Balances()
        self.registry.register(self.balances)
        r = self.registry
        self._written = Counter("sentinel_sink_items", "Items made durable by a sink.", ["sink"], registry=r)
        self._retries = Counter("sentinel_sink_retries", "Writes tried again by a sink.", ["sink"], registry=r)
        self._rejected = Counter(
            "sentinel_sink_rejected", "Items that a sink's store refused.", ["sink", "reason"], registry=r
        )
        self._seconds = Histogram(
            "sentinel_sink_write_seconds",
            "Time until a chunk was durable.",
            ["sink"],
            registry=r,
            buckets=(0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60),
        )
        self._alerts = Counter("sentinel_alerts", "Alert transitions.", ["status", "severity"], registry=r)
        self._series = Gauge("sentinel_series", "Series that a shard watches.", ["shard"], registry=r)
        self._overtaken = Counter(
            "sentinel_events_overtaken",
            "Events counted on time whose pane had been closed while their partition was idle or over.",
            ["shard"],
            registry=r,
        )
        self._polls = Counter("sentinel_source_polls", "Polls of the source that did not fail.", registry=r)
        self._heartbeat = Gauge(
            "sentinel_heartbeat_timestamp_seconds",
            "When the last heartbeat of this process reached its topic, Unix time; 0 until one has.",
            registry=r,
        )
        self._price_loads = Counter(
            "sentinel_price_file_loads",
            "Changes of the price file, by whether they could be used.",
            ["good"],
            registry=r,
        )

    def turned(self) -> None:
        """A source partition was polled without a fault."""
        self._polls.inc()

    def heartbeat(self, at: int) -> None:
        """A heartbeat reached its topic at this time, in microseconds."""
        self._heartbeat.set(at / SECOND)

    def prices_loaded(self, good: bool) -> None:
        """The price file has changed, and could be used or not."""
        self._price_loads.labels(str(good).lower()).inc()

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        """A source partition was polled."""
        kept = copy(balance)
        kept.dead = dict(balance.dead)
        self.balances.latest[partition] = (kept, watermark)

    def written(self, sink: str, items: int, seconds: float) -> None:
        """A chunk is durable."""
        self._written.labels(sink).inc(items)
        self._seconds.labels(sink).observe(seconds)

    def retried(self, sink: str) -> None:
        """A write is tried again."""
        self._retries.labels(sink).inc()

    def rejected(self, sink: str, reason: str) -> None:
        """An item was refused by its store."""
        self._rejected.labels(sink, reason).inc()

    def alerted(self, alert: Alert) -> None:
        """An alert leaves the last step."""
        self._alerts.labels(alert.status, alert.severity).inc()

    def shard(self, shard: int, series: int, overtaken: int) -> None:
        """A shard has closed panes: how many series it watches, and how many events were newly overtaken."""
        self._series.labels(str(shard)).set(series)
        if overtaken:
            self._overtaken.labels(str(shard)).inc(overtaken)
