"""The Kafka writer under the laws of writers, on Tansu, with a topic for each example."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from connectors.base import Message
from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import ID_HEADER, KafkaOnce
from tests.brokers import Broker, create_topic, delete_topic, read_all, tansu_broker
from tests.contracts.systems import Alerts, Maker, after


class KafkaSystem(Alerts):
    fails = "opening"  # opening reports a missing topic at once, a write only after half a minute

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.topic = f"laws-{uuid4().hex}"
        self.config = KafkaConfig(brokers=broker.address, start_budget_s=10, create_topics=False)
        create_topic(broker, self.topic)

    def factory(self) -> KafkaOnce:
        return KafkaOnce(self.config, self.topic, "kafka_alerts")

    def bad(self) -> Message:
        return Message("bad", "bad", {}, bytes(2_000_000))

    def contents(self) -> list[object]:
        headers = (dict(m.headers() or []) for m in read_all(self.broker, self.topic))
        return [value.decode() for found in headers if isinstance(value := found[ID_HEADER], bytes)]

    def trouble(self, tries: int) -> Callable[[], None]:
        delete_topic(self.broker, self.topic)
        return after(tries, lambda: create_topic(self.broker, self.topic))


@contextmanager
def systems() -> Iterator[Maker]:
    """The systems for the laws of writers."""
    with tempfile.TemporaryDirectory() as folder:
        broker = tansu_broker(Path(folder))
        broker.start()
        try:
            yield lambda folder: KafkaSystem(broker)
        finally:
            broker.kill()
