"""Sends telemetry to a topic as a service would: in order, each record at least once, without transactions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Final

from confluent_kafka import KafkaError
from confluent_kafka import Message as KafkaMessage

from connectors.kafka.client import check_options, make_producer, meaning
from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import KafkaOnce
from operators.errors import FatalError
from operators.model import Ints

_OPTIONS: Final = {"linger.ms": "20", "enable.idempotence": "true"}
_LAST_S: Final = 30.0


class Feed:
    """A producer for one topic, which it makes if it is missing; records go to its partitions in turn.

    Waits for the brokers at the start as `patiently` does. Raises `ConfigError`, or `FatalError` where a record could
    not be delivered within librdkafka's own time (`message.timeout.ms`).
    """

    def __init__(self, config: KafkaConfig, topic: str) -> None:
        check_options(config)
        self._config = config
        self._topic = topic
        self.partitions = [int(p.rpartition("/")[2]) for p in KafkaOnce(config, topic, "feed").partitions()]
        self._turn = cycle(self.partitions)
        self._producer = make_producer(config, _OPTIONS)
        self._error: KafkaError | None = None
        self.delivered = 0

    def _done(self, error: KafkaError | None, message: KafkaMessage) -> None:
        if error is None:
            self.delivered += 1
        else:
            self._error = error

    def send(self, values: Sequence[bytes], times: Ints) -> None:
        """Hand over the records with these timestamps (microseconds); waits while the queue is full."""
        produce, poll = self._producer.produce, self._producer.poll
        for value, at in zip(values, (times // 1000).tolist(), strict=True):
            partition = next(self._turn)
            while True:
                try:
                    produce(self._topic, value, partition=partition, timestamp=at, on_delivery=self._done)
                    break
                except BufferError:
                    poll(0.1)
                    self._check()
        poll(0)
        self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise meaning(self._error, f"writing to {self._topic}", self._config)

    def close(self) -> None:
        """Wait until everything is delivered."""
        left = self._producer.flush(_LAST_S)
        self._check()
        if left:
            raise FatalError(f"{left:,} records were not delivered to {self._topic} within {_LAST_S:.0f} s")
