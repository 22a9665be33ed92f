"""A reader and a writer while a broker is killed and comes back with its data."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from connectors.kafka.source import KafkaSource
from operators.errors import RetryableError
from tests.brokers import create_topic, kafka_broker, produce
from tests.integration.test_kafka_once import alerts, ids, opened, persist
from tests.integration.test_kafka_reader import config, read, values


def test_a_broker_that_dies_and_comes_back_costs_nothing(tmp_path: Path) -> None:
    broker = kafka_broker(tmp_path)
    broker.start()
    try:
        create_topic(broker, "calls")
        create_topic(broker, "alerts")
        produce(broker, "calls", [b"1", b"2"])
        reader = KafkaSource(config(broker, "calls")).open("calls/0", None)
        before = values(read(reader))
        writer = opened(broker, "alerts", request_s=2)
        writer.write(alerts(1))

        broker.kill()
        with pytest.raises(RetryableError, match=r"calls/0: no broker of"):  # noqa: PT012
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                assert not reader.poll(10).values
                time.sleep(0.01)
        with pytest.raises(RetryableError):
            reader.poll(10)  # each later poll fails too
        with pytest.raises(RetryableError):
            writer.write(alerts(2))

        broker.start()
        produce(broker, "calls", [b"3"])
        persist(writer, alerts(2))
        writer.write(alerts(3))
        assert ids(broker, "alerts") == ["id-1", "id-2", "id-3"]
        after: list[bytes] = []
        deadline = time.monotonic() + 20
        while not after and time.monotonic() < deadline:
            try:
                after = reader.poll(10).values
            except RetryableError:
                time.sleep(0.1)
        assert before + after == [b"1", b"2", b"3"]
        writer.close()
        reader.close()
    finally:
        broker.kill()
