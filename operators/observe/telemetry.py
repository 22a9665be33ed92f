"""Feeds the metrics of `instruments`; counts of events come from the source partitions' own snapshots.

All metrics are those of this process. They are fed once a batch, never once an event.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from operators.decode.base import add_counts
from operators.decode.intake import Balance, Batch
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Alert, Reason
from operators.observe import instruments as names
from operators.observe.instruments import Instrument
from operators.panes.watermark import Watermark
from operators.series import OTHER

_SERVICE = LABELS.index("service")
MAX_UNKNOWN = 100
"""Most names of unknown attributes that are told apart."""


def _family(of: Instrument) -> CounterMetricFamily | GaugeMetricFamily:
    made = CounterMetricFamily if of.kind == "counter" else GaugeMetricFamily
    return made(of.name, of.help, labels=list(of.labels))


class Balances(Collector):
    """Law 2 as metrics: the outcomes of all records, by source partition, over its whole life with all crashes."""

    def __init__(self) -> None:
        self.latest: dict[str, tuple[Balance, int | None]] = {}
        self._began: dict[str, int] = {}  # events accounted for before this process had any
        self._came: dict[str, int] = {}
        self.formats: dict[tuple[str, str], int] = {}  # records read by this process, by partition and format
        self.unknown: dict[str, int] = {}  # attributes that look like usage and that no convention knows
        self.told = np.zeros(len(METRICS), np.int64)  # events of this process that tell each metric

    def total(self) -> Balance:
        """The sum over the partitions of this process."""
        return sum((balance for balance, _ in self.latest.values()), Balance())

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        """Keep a copy of the balance; count the events that came by the batch, not by the balance."""
        kept = copy(balance)
        kept.dead, kept.passed_over = dict(balance.dead), dict(balance.passed_over)
        came = len(batch.events) + sum(letter.reason != Reason.FUTURE_TIME for letter in batch.dead) + batch.repeats
        for name, count in batch.formats.items():
            self.formats[partition, name] = self.formats.get((partition, name), 0) + count
        for name, count in sorted(batch.unknown.items()):
            known = name in self.unknown or len(self.unknown) < MAX_UNKNOWN
            add_counts(self.unknown, {name if known else OTHER: count})
        told = (batch.events.values != MISSING).sum(axis=1)
        self.told += told
        self._began.setdefault(partition, kept.events - came)
        self._came[partition] = self._came.get(partition, 0) + came
        self.latest[partition] = (kept, watermark)

    def collect(self) -> Iterator[Metric]:
        records, events, skipped = _family(names.RECORDS), _family(names.EVENTS), _family(names.SKIPPED)
        unpriced, dead, mark = _family(names.UNPRICED), _family(names.DEAD_LETTERS), _family(names.WATERMARK)
        difference, passed, formats = _family(names.DIFFERENCE), _family(names.PASSED_OVER), _family(names.FORMATS)
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
            for kind, count in sorted(balance.passed_over.items()):
                passed.add_metric([partition, kind], count)
            if at is not None:
                mark.add_metric([partition], at / SECOND)
            if partition in self._came:
                difference.add_metric([partition], self._came[partition] + self._began[partition] - balance.events)
        for of, count in sorted(self.formats.items()):
            formats.add_metric(of, count)
        unknown, told = _family(names.UNKNOWN_ATTRIBUTES), _family(names.TOLD)
        for name, count in sorted(self.unknown.items()):
            unknown.add_metric([name], count)
        for metric, count in zip(METRICS, self.told.tolist(), strict=True):
            told.add_metric([metric.name], count)
        yield from (records, events, skipped, unpriced, dead, passed, formats, unknown, told, mark, difference)


class Telemetry:
    """All metrics of one process, in a registry of their own; it observes the source, the steps, the sinks, the alerts.

    `services`: most services that are told apart. `now` gives microseconds; without it no delay is measured.
    """

    def __init__(self, services: int = 50, now: Callable[[], int] | None = None) -> None:
        self.registry = CollectorRegistry()
        self.balances = Balances()
        self.registry.register(self.balances)
        self._now = now
        self._most_services = services
        self._services: set[str] = set()
        self._build = self._gauge(names.BUILD)
        self._waited_for = self._gauge(names.WAITED_FOR)
        self._partitions = self._gauge(names.PARTITIONS)
        self._behind = self._gauge(names.BEHIND)
        self._polls = self._counter(names.POLLS)
        self._poll_retries = self._counter(names.POLL_RETRIES)
        self._clock_steps = self._counter(names.CLOCK_STEPS)
        self._replaced = self._counter(names.REPLACED)
        self._unread = self._gauge(names.UNREAD)
        self._heartbeat: Gauge | None = None
        self._closed = self._counter(names.CLOSED)
        self._price_loads = self._counter(names.PRICE_LOADS)
        self._requests = self._counter(names.REQUESTS)
        self._tokens = self._counter(names.TOKENS)
        self._cost = self._counter(names.COST)
        self._series = self._gauge(names.SERIES)
        self._folded = _Totals(names.FOLDED)
        self.registry.register(self._folded)
        self._overtaken = self._counter(names.OVERTAKEN)
        self._step_seconds = self._histogram(names.STEP_SECONDS)
        self._detector_seconds = self._counter(names.DETECTOR_SECONDS)
        self._step_faults = self._counter(names.STEP_FAULTS)
        self._snapshot_seconds = self._histogram(names.SNAPSHOT_SECONDS)
        self._snapshot_bytes = self._histogram(names.SNAPSHOT_BYTES)
        self._judged_delay = self._histogram(names.JUDGED_DELAY)
        self._alert_delay = self._histogram(names.ALERT_DELAY)
        self._episodes = self._gauge(names.EPISODES)
        self._alerts = self._counter(names.ALERTS)
        self._written = self._counter(names.SINK_ITEMS)
        self._retries = self._counter(names.SINK_RETRIES)
        self._rejected = self._counter(names.SINK_REJECTED)
        self._dropped = self._counter(names.SINK_DROPPED)
        self._seconds = self._histogram(names.SINK_SECONDS)
        self._unused = self._gauge(names.UNUSED)

    def _counter(self, of: Instrument) -> Counter:
        return Counter(of.name, of.help, list(of.labels), registry=self.registry)

    def _gauge(self, of: Instrument) -> Gauge:
        return Gauge(of.name, of.help, list(of.labels), registry=self.registry)

    def _histogram(self, of: Instrument) -> Histogram:
        return Histogram(of.name, of.help, list(of.labels), registry=self.registry, buckets=of.buckets)

    def configured(self, series_limit: int, error_ratio: float, cost_usd: float | None) -> None:
        """Show the objectives and limits of the settings beside the measured values."""
        self._gauge(names.SERIES_LIMIT).set(series_limit)
        self._gauge(names.ERROR_OBJECTIVE).set(error_ratio)
        if cost_usd is not None:
            self._gauge(names.COST_OBJECTIVE).set(cost_usd)

    def built(self, version: str, python: str) -> None:
        """Show the release that runs."""
        self._build.labels(version, python).set(1)

    def turned(self) -> None:
        """A source partition was polled without a fault."""
        self._polls.inc()

    def polls_again(self) -> None:
        """A source partition failed and will be polled again."""
        self._poll_retries.inc()

    def replaced(self, partition: str) -> None:
        """The log of a source partition is another one than before."""
        self._replaced.labels(partition).inc()

    def unread(self, topic: str, partitions: int) -> None:
        """`partitions` of a topic of the source wait for a restart."""
        self._unread.labels(topic).set(partitions)

    def heartbeats(self, since: int) -> None:
        """Heartbeats begin at this time, in microseconds; without this call they have no metric."""
        self._heartbeat = self._gauge(names.HEARTBEAT)
        self.heartbeat(since)

    def heartbeat(self, at: int) -> None:
        """A heartbeat reached its topic at this time, in microseconds."""
        if self._heartbeat is not None:
            self._heartbeat.set(at / SECOND)

    def closed(self, reason: str) -> None:
        """The listener has closed a client without an answer."""
        self._closed.labels(reason).inc()

    def prices_loaded(self, good: bool) -> None:
        """The price file has changed, and could be used or not."""
        self._price_loads.labels(str(good).lower()).inc()

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        """A source partition was polled."""
        self.balances.polled(partition, batch, balance, watermark)
        self._partitions.set(len(batch.partitions))
        if batch.progress is not None:
            waited_for = isinstance(batch.progress, Watermark) and not batch.progress.at_end
            self._waited_for.labels(partition).set(waited_for)
        if len(batch.events):
            self._count_traffic(batch)

    def lagging(self, partition: str, records: int) -> None:
        """A source partition still has `records` to read."""
        self._behind.labels(partition).set(records)

    def clock_stepped(self) -> None:
        """The host's clock was set."""
        self._clock_steps.inc()

    def _count_traffic(self, batch: Batch) -> None:
        events = batch.events
        services = list(dict.fromkeys(labels[_SERVICE] for labels in events.combos))
        place = {service: i for i, service in enumerate(services)}
        of_combo = np.array([place[labels[_SERVICE]] for labels in events.combos])
        used = np.flatnonzero(batch.on_time | batch.late)
        of = of_combo[events.combo[used]]
        asked = np.bincount(of, minlength=len(services))
        failed = np.bincount(of[events.error[used]], minlength=len(services))

        def summed(metric: str) -> list[float]:
            m = METRIC_INDEX[metric]
            values = np.maximum(events.values[m, used], 0) / METRICS[m].scale  # MISSING is below 0
            return [float(total) for total in np.bincount(of, values, len(services))]

        rows = zip(
            services, asked.tolist(), failed.tolist(), summed("prompt_tokens"), summed("completion_tokens"),
            summed("cost"), strict=True,
        )  # fmt: skip
        for name, requests, errors, prompt, completion, cost in rows:
            if not requests:
                continue
            service = self._service(name)
            self._requests.labels(service, "ok").inc(requests - errors)
            self._requests.labels(service, "error").inc(errors)
            self._tokens.labels(service, "prompt").inc(prompt)
            self._tokens.labels(service, "completion").inc(completion)
            self._cost.labels(service).inc(cost)

    def _service(self, service: str) -> str:
        """The service as a label: the first ones that come are told apart, all others are `__other__`."""
        if service not in self._services:
            if len(self._services) >= self._most_services:  # workers that ask at once may exceed it by their number
                return OTHER
            self._services.add(service)
        return service

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

    def dropped(self, sink: str, reason: str, items: int) -> None:
        """A sink at best effort gave up items."""
        self._dropped.labels(sink, reason).inc(items)

    def unused(self, topic: str, partitions: int) -> None:
        """`partitions` of a topic that is written get nothing."""
        self._unused.labels(topic).set(partitions)

    def alerted(self, alert: Alert) -> None:
        """An alert leaves the last step."""
        self._alerts.labels(alert.status, alert.severity).inc()
        if self._now is not None:
            self._alert_delay.observe((self._now() - alert.at) / SECOND)

    def shard(self, shard: int, series: int, overtaken: int) -> None:
        """A shard has closed panes: it watches `series`, and `overtaken` events are new since the last call."""
        self._series.labels(str(shard)).set(series)
        if overtaken:
            self._overtaken.labels(str(shard)).inc(overtaken)

    def worked(self, step: str, seconds: float) -> None:
        """A stateful step has finished a batch."""
        self._step_seconds.labels(step).observe(seconds)

    def failed(self, step: str) -> None:
        """A stateful step has failed."""
        self._step_faults.labels(step).inc()

    def saved(self, step: str, seconds: float, size: int) -> None:
        """The state of one key was made ready for a snapshot."""
        self._snapshot_seconds.labels(step).observe(seconds)
        self._snapshot_bytes.labels(step).observe(size)

    def folded(self, shard: int, requests: int) -> None:
        """`requests` of the shard have gone to its overflow series over its whole life."""
        self._folded.values[str(shard)] = requests

    def detected(self, seconds: Mapping[str, float]) -> None:
        """The seconds that each detector has taken since the last call."""
        for detector, taken in seconds.items():
            self._detector_seconds.labels(detector).inc(taken)

    def judged(self, shard: int, upto: int, episodes: int) -> None:
        """A shard has judged all panes before `upto`, in microseconds; `episodes` are open."""
        self._episodes.labels(str(shard)).set(episodes)
        if self._now is not None:
            self._judged_delay.observe((self._now() - upto) / SECOND)


class _Totals(Collector):
    """A counter by one label that is kept elsewhere, in snapshots."""

    def __init__(self, of: Instrument) -> None:
        self._of = of
        self.values: dict[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        family = _family(self._of)
        for label, value in sorted(self.values.items()):
            family.add_metric([label], value)
        yield family
