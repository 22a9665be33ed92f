"""How many partitions each topic had at the first start of the recovery store, and what has come since.

What alerts and dead letters are routed by must never change, and a partition of the source that came later must be read
from its first record on: both are told by what the manifest of the store remembers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from connectors.base import ReaderFactory, WriterFactory
from connectors.kafka.once import KafkaOnce
from connectors.kafka.source import KafkaSource
from flows.recovery.store import Held
from operators.errors import FatalError
from operators.observe.telemetry import Telemetry


def keep_read(held: Held | None, source: ReaderFactory) -> None:
    """Remember how many partitions each topic of the source has, and let those that came later begin at their first."""
    if held is not None and isinstance(source, KafkaSource):
        held.keep(source.began_with(held.topics))


def keep_written(held: Held | None, sinks: Iterable[WriterFactory[Any]], telemetry: Telemetry) -> None:
    """Remember how many partitions each topic has that is written; tell of those that have come since."""
    for sink in sinks:
        if isinstance(sink, KafkaOnce):
            number = len(sink.partitions())
            telemetry.unused(sink.topic, sink.added)
            if held is not None and held.keep({sink.topic: number})[sink.topic] != number:
                raise FatalError(f"topic {sink.topic} was given more partitions while the flow started: start again")
