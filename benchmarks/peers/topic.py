"""The topics that all contestants read: the recorded scenario, keyed by series, with event times as record times."""

from __future__ import annotations

from typing import Any

import orjson

from benchmarks.throughput import START_MS, records, send
from tests.brokers import Broker, create_topic

PARTITIONS = 2


def series_of(event: dict[str, Any]) -> str:
    """The series of an event: service and model."""
    return f"{event['service']}|{event['model']}"


def fill(broker: Broker, topic: str, events: int, pace: int) -> int:
    """Make a topic and write events, `pace` a second of event time; returns the last one's time in milliseconds.

    Without the keys Quix Streams would write every record to another topic first, to bring the records of a key
    together.
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
