"""The brokers' answers about topics, as the program understands them."""

from __future__ import annotations

import logging
from uuid import uuid4

import pytest
from confluent_kafka import Uuid

from connectors.kafka.config import KafkaConfig
from connectors.kafka.topics import Topic, Topics, topic_id
from tests.brokers import Broker, create_topic


def test_no_id_is_no_text() -> None:
    assert (topic_id(None), topic_id(Uuid(0, 0))) == ("", "")
    assert topic_id(Uuid(1, 2)) == str(Uuid(1, 2)) != ""


def test_topics_have_ids_and_partitions_where_they_exist(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    config = KafkaConfig(brokers=broker.address)
    names = [f"t-{uuid4().hex[:8]}" for _ in range(3)]
    for number, name in enumerate(names[:2], 1):
        create_topic(broker, name, number)
    for options in (config.consumer(), config.producer()):
        found = Topics(config, options).describe(names, 5)
        assert [found[name].partitions for name in names[:2]] == [(0,), (0, 1)]
        assert len({topic.id for topic in found.values()} - {""}) == len(found) == 2
    assert caplog.text == ""


def test_brokers_that_tell_no_ids_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    topics = Topics(KafkaConfig(brokers="127.0.0.1:1"), {"bootstrap.servers": "127.0.0.1:1", "log_level": "0"})
    for _ in range(2):
        topics.tell_of_missing_ids({"a": Topic("", (0,)), "b": Topic("x", (0,))})
    assert caplog.text.count("Kafka at 127.0.0.1:1 tells no ids of topics") == 1
