"""The topics that all contestants read: the recorded scenario, keyed by series, the event's time as the record's."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson
from confluent_kafka import Producer

from benchmarks.throughput import records
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
    producer = Producer({
        "bootstrap.servers": broker.address, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000,
    })  # fmt: skip
    at_ms = 0
    for i, value in enumerate(records(events, pace)):
        event = orjson.loads(value)
        at_ms = round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1_000)
        while True:
            try:
                producer.produce(topic, value, series_of(event), timestamp=at_ms)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise SystemExit("the broker did not take all records")
    return at_ms
