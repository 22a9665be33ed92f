"""Traces by OTLP over HTTP: a span for each write of a sink, and for every nth poll of a partition.

Off unless `traces.endpoint` is set; only then are the packages of the extra `otel` imported. Spans are roots: panes
add up the events of many polls, so a write belongs to no single poll. A span holds names and numbers, and nothing from
an event. The exporter has a thread and a bounded queue; while the collector is away, spans are dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from connectors.config import TracesConfig
from connectors.reliable import Observer
from operators.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE: Final = "llm-sentinel"
_QUEUE: Final = 2_048
_EVERY_MS: Final = 2_000


class Seldom(logging.Filter):
    """Passes one line and then none for `seconds`, since an absent collector is no news every other second."""

    def __init__(self, seconds: float = 60, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._until = float("-inf")

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._clock()
        if now < self._until:
            return False
        self._until = now + self._seconds
        return True


def _name_exceptions(record: logging.LogRecord) -> bool:
    """Replaces exceptions in a record by their type: the text has the whole address, whose query may be a secret."""
    if isinstance(record.args, tuple):
        record.args = tuple(type(arg).__name__ if isinstance(arg, Exception) else arg for arg in record.args)
    return True


def _provider(config: TracesConfig, version: str, run: str, process: int) -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"traces.endpoint is set, but {error.name} is not installed: install llm-sentinel with its extra `otel` "
            "(pip install 'llm-sentinel[otel]'), or leave traces.endpoint unset"
        ) from error
    headers = {} if config.token is None else {"authorization": f"Bearer {config.token.get_secret_value()}"}
    exporting = logging.getLogger(OTLPSpanExporter.__module__)
    exporting.addFilter(_name_exceptions)
    if not any(isinstance(f, Seldom) for f in exporting.filters):
        exporting.addFilter(Seldom())
    assert config.endpoint is not None
    exporter = OTLPSpanExporter(config.endpoint.get_secret_value(), headers=headers, timeout=config.timeout_s)
    resource = Resource.create(
        {
            "service.name": SERVICE,
            "service.version": version,
            "service.instance.id": run,
            "sentinel.process": process,
        }
    )
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=_QUEUE,
            schedule_delay_millis=_EVERY_MS,
            export_timeout_millis=config.timeout_s * 1_000,
        )
    )
    return provider


class Traces:
    """Makes spans of polls and writes. Several worker threads may share it. `now` gives nanoseconds since 1970.

    Raises `ConfigError` where the packages are not installed.
    """

    def __init__(
        self, config: TracesConfig, version: str, run: str, process: int, now: Callable[[], int] = time.time_ns
    ) -> None:
        self._provider = _provider(config, version, run, process)
        self._tracer = self._provider.get_tracer(SERVICE, version)
        self._every = round(1 / config.batches) if config.batches else 0
        self._now = now
        self._polls: Counter[str] = Counter()
        self._timeout = config.timeout_s
        self._over = threading.Event()
        self._closing = threading.Thread(target=self._end, name="traces", daemon=True)
        self._closing.start()  # now, since no thread can be started at the end of the process

    def polled(self, partition: str, seconds: float, records: int) -> None:
        """A poll has brought records, and they were judged; the first and then every nth poll becomes a span."""
        count = self._polls[partition]
        self._polls[partition] += 1
        if self._every and count % self._every == 0:
            self._span("poll", seconds, {"sentinel.partition": partition, "sentinel.records": records})

    def wrote(self, sink: str, seconds: float, items: int, retries: int) -> None:
        """A sink has made a chunk durable."""
        self._span("write", seconds, {"sentinel.sink": sink, "sentinel.items": items, "sentinel.retries": retries})

    def _span(self, name: str, seconds: float, attributes: Mapping[str, str | int]) -> None:
        end = self._now()
        span = self._tracer.start_span(name, attributes=attributes, start_time=end - round(seconds * 1e9))
        span.end(end)

    def close(self) -> None:
        """Send the remaining spans, for at most the timeout of the settings."""
        self._over.set()
        self._closing.join(self._timeout)

    def _end(self) -> None:
        self._over.wait()
        self._provider.shutdown()


class TracedSinks:
    """An observer of sinks that makes a span of each chunk, and passes everything on to another observer."""

    def __init__(self, traces: Traces, observer: Observer) -> None:
        self._traces = traces
        self._observer = observer
        self._retries: Counter[str] = Counter()

    def written(self, sink: str, items: int, seconds: float) -> None:
        """A chunk is durable."""
        self._traces.wrote(sink, seconds, items, self._retries.pop(sink, 0))
        self._observer.written(sink, items, seconds)

    def retried(self, sink: str) -> None:
        """A write is tried again."""
        self._retries[sink] += 1
        self._observer.retried(sink)

    def rejected(self, sink: str, reason: str) -> None:
        """An item was refused by its store."""
        self._observer.rejected(sink, reason)

    def dropped(self, sink: str, reason: str, items: int) -> None:
        """A sink at best effort dropped items."""
        self._observer.dropped(sink, reason, items)
