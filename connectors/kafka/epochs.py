"""Finds the offset at which a log was cut: the records after it are of a newer leader epoch."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import Consumer, KafkaError, TopicPartition

from connectors.kafka.client import make_consumer
from connectors.kafka.config import KafkaConfig
from operators.errors import RetryableError

_LOOK: Final = {
    "auto.offset.reset": "earliest",
    "isolation.level": "read_uncommitted",
    "fetch.wait.max.ms": "10",
}


def end_of_epoch(config: KafkaConfig, topic: str, number: int, epoch: int, low: int, high: int) -> int:
    """The first offset from `low` to `high` at which no record of this epoch or of an older one follows.

    Looks at single records by bisection. Raises `RetryableError` where that takes longer than `request_s`.
    """
    deadline = time.monotonic() + config.request_s
    consumer = make_consumer(config, changes=_LOOK)
    try:
        while low < high:
            middle = (low + high) // 2
            consumer.assign([TopicPartition(topic, number, middle)])
            if _newer(consumer, epoch, deadline):
                high = middle
            else:
                low = middle + 1
        return low
    finally:
        consumer.close()


def _newer(consumer: Consumer, epoch: int, deadline: float) -> bool:
    """Whether the next record is of a newer epoch, or there is none."""
    while time.monotonic() < deadline:
        for message in consumer.consume(1, 0.1):
            error = message.error()
            if error is None:
                return (message.leader_epoch() or 0) > epoch
            if error.code() == KafkaError._PARTITION_EOF:
                return True
    raise RetryableError("the brokers did not say in time where the log was cut")
