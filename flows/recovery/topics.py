"""Keeps the number of partitions that each topic had at the first start of the recovery store.

The routing of alerts and dead letters must never change, and a partition that a topic of the source gained later must
be read from its first record on. Both follow from the numbers in the manifest.
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
    """Remember the number of partitions of each topic of the source; later ones begin at their first record."""
    if held is not None and isinstance(source, KafkaSource):
        held.keep(source.began_with(held.topics))


def keep_written(held: Held | None, sinks: Iterable[WriterFactory[Any]], telemetry: Telemetry) -> None:
    """Remember the number of partitions of each topic that is written, and report the unused ones."""
    for sink in sinks:
        if isinstance(sink, KafkaOnce):
            number = len(sink.partitions())
            telemetry.unused(sink.topic, sink.added)
            if held is not None and held.keep({sink.topic: number})[sink.topic] != number:
                raise FatalError(f"topic {sink.topic} was given more partitions while the flow started: start again")
