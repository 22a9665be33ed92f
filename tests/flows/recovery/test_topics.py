"""The numbers of partitions of topics in the manifest."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import KafkaOnce
from flows.recovery.topics import keep_written
from operators.errors import FatalError
from operators.observe.telemetry import Telemetry
from tests.brokers import Broker, create_topic
from tests.flows.recovery.test_store import take
from tests.operators.observe.test_telemetry import samples


def test_partitions_added_since_the_first_start_are_reported(tansu: Broker, tmp_path: Path) -> None:
    topic, telemetry, held = f"a-{uuid4().hex[:8]}", Telemetry(), take(tmp_path / "state")
    create_topic(tansu, topic, 3)
    config = KafkaConfig(brokers=tansu.address)
    held.keep({topic: 1})
    keep_written(held, [KafkaOnce(config, topic, "alerts", held.topics[topic])], telemetry)
    assert samples(telemetry)[f'sentinel_sink_partitions_unused{{topic="{topic}"}}'] == 2
    with pytest.raises(FatalError, match=f"topic {topic} was given more partitions while the flow started"):
        keep_written(held, [KafkaOnce(config, topic, "alerts")], telemetry)
    keep_written(None, [KafkaOnce(config, topic, "alerts")], telemetry)
    assert samples(telemetry)[f'sentinel_sink_partitions_unused{{topic="{topic}"}}'] == 0
    held.release()
