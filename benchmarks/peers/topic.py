"""The topics that all contestants read: the recorded scenario, keyed by series, the event's time as the record's."""

from __future__ import annotations

from typing import Any

import orjson

from benchmarks.throughput import START_MS, records, send
from tests.brokers import Broker, create_topic

PARTITIONS = 2


def series_of(event: dict[str, Any]) -> str:
    """What a pane is of: service and model."""
    return f"{event['service']}|{event['model']}"


def fill(broker: Broker, topic: str, events: int, pace: int) -> int:
    """Make a topic and write so many events, `pace` a second of event time; the last one's time in milliseconds.

    The keys are for Quix Streams, which would else write every record to a topic of its own to bring a key together.
    """
    create_topic(broker, topic, PARTITIONS)
    times = [START_MS + number * 1_000 // pace for number in range(events)]
    send(
        broker.address,
        topic,
        (
            {"value": value, "key": series_of(orjson.loads(value)), "timestamp": at_ms}
            for value, at_ms in zip(records(events, pace), times, strict=True)
        ),
    )
    return times[-1]
