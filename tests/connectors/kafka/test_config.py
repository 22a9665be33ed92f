"""The settings of Kafka: options that pass, options that are refused, and secrets that stay hidden."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from connectors.kafka.client import make_consumer, make_producer
from connectors.kafka.config import KafkaConfig
from operators.errors import ConfigError

PASSWORD = "hunter2-very-secret"


def test_options_reach_both_clients_and_their_own_go_over_them() -> None:
    config = KafkaConfig.model_validate(
        {
            "options": {"client.id": "a", "socket.keepalive.enable": True, "receive.message.max.bytes": 200_000_000},
            "consumer_options": {"client.id": "b"},
            "producer_options": {"linger.ms": 5},
        }
    )
    consumer, producer = config.consumer(), config.producer()
    assert (consumer["client.id"], producer["client.id"], producer["linger.ms"]) == ("b", "a", "5")
    assert consumer["socket.keepalive.enable"] == producer["socket.keepalive.enable"] == "true"
    assert consumer["isolation.level"] == "read_committed"
    make_consumer(config).close()
    make_producer(config, {})


@pytest.mark.parametrize(
    ("section", "options"),
    [
        ("options", {"no.such.option": "1"}),
        ("consumer_options", {"fetch.min.bytes": "many"}),
        ("options", {"security.protocol": "carrier-pigeon"}),
    ],
)
def test_a_wrong_option_names_its_setting(section: str, options: dict[str, Any]) -> None:
    config = KafkaConfig.model_validate({section: options})
    with pytest.raises(ConfigError, match=rf"^kafka\.{section}: .*{next(iter(options))}"):
        make_consumer(config)


@pytest.mark.parametrize("name", ["bootstrap.servers", "group.id", "transactional.id", "auto.offset.reset"])
def test_options_that_the_reader_sets_itself_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name} cannot be set here: "):
        KafkaConfig.model_validate({"options": {name: "x"}})


def test_no_secret_shows() -> None:
    config = KafkaConfig.model_validate(
        {"options": {"sasl.username": "me", "sasl.password": PASSWORD, "ssl.key.password": PASSWORD + "2"}}
    )
    assert config.consumer()["sasl.password"] == PASSWORD
    shown = [repr(config), str(config), config.model_dump_json(), str(config.model_dump())]
    assert not any(PASSWORD in text for text in shown)
    assert config.masked(f"wrong {PASSWORD}!") == "wrong **********!"
    with pytest.raises(ValidationError) as refused:
        KafkaConfig.model_validate({"options": {"sasl.password": PASSWORD, "group.id": "x"}})
    assert PASSWORD not in str(refused.value)
    with pytest.raises(ConfigError) as wrong:  # librdkafka quotes the value it refuses
        make_consumer(
            KafkaConfig.model_validate({"options": {"sasl.password": PASSWORD, "security.protocol": PASSWORD}})
        )
    assert PASSWORD not in str(wrong.value)


def test_the_start_is_a_word_or_a_time_with_a_zone() -> None:
    assert KafkaConfig().start == "earliest"
    at = KafkaConfig.model_validate({"start": "2026-01-02T03:04:05Z"}).start
    assert at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for wrong in ("yesterday", "2026-01-02T03:04:05"):
        with pytest.raises(ValidationError):
            KafkaConfig.model_validate({"start": wrong})


def test_a_topic_is_named_once_and_is_no_pattern() -> None:
    for topics in (["a", "a"], ["^a.*"], []):
        with pytest.raises(ValidationError):
            KafkaConfig.model_validate({"topics": topics})
