"""Errors of librdkafka that mean a refusal; their texts are those that it gave with Apache Kafka."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from connectors.kafka.client import Refusals, meaning, refuses
from connectors.kafka.config import KafkaConfig
from operators.errors import ConfigError, RetryableError

ALERT = "ssl://k:9095/bootstrap: Receive failed: error:0A000416:SSL routines::ssl/tls alert certificate unknown: SSL alert number 46 (after 1ms in state APIVERSION_QUERY)"  # noqa: E501
VERIFY = "sasl_ssl://k:9094/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: broker certificate could not be verified"  # noqa: E501
CONFIG = KafkaConfig(brokers="k:9095", options={"security.protocol": "SSL", "sasl.password": "hunter2"})


@pytest.mark.parametrize(
    ("code", "text", "why"),
    [
        (KafkaError._TRANSPORT, ALERT, "Kafka at k:9095 does not accept the certificate of this client"),
        (KafkaError._SSL, ALERT, "Kafka at k:9095 does not accept the certificate of this client"),
        (KafkaError._SSL, VERIFY, "the certificate of Kafka at k:9095 is not accepted: it is expired, of another host"),
        (KafkaError._SSL, "SSL handshake failed: wrong version", "Kafka at k:9095 refuses this client"),
        (KafkaError._AUTHENTICATION, "hunter2", r"\*{10} \(_AUTHENTICATION\): Kafka at k:9095 refuses this client"),
    ],
)
def test_a_refusal_is_wrong_configuration_at_the_start_and_may_pass_later(code: int, text: str, why: str) -> None:
    error = KafkaError(code, text)
    assert refuses(error)
    with pytest.raises(ConfigError, match=why):
        raise meaning(error, "reading t/0", CONFIG)
    with pytest.raises(RetryableError, match=why):
        raise meaning(error, "reading t/0", CONFIG, started=True)


@pytest.mark.parametrize("text", ["Connection refused", "Disconnected", "read 46 bytes", "SSL alert number 80"])
def test_a_lost_connection_is_no_refusal(text: str) -> None:
    error = KafkaError(KafkaError._TRANSPORT, text)
    assert not refuses(error)
    assert isinstance(meaning(error, "reading t/0", CONFIG), RetryableError)


def test_the_last_refusal_explains_once_why_nobody_answered() -> None:
    refusals, silence = Refusals(), KafkaError(KafkaError._TIMED_OUT, "timed out")
    assert refusals.behind(silence) is silence
    refused = KafkaError(KafkaError._SSL, VERIFY)
    refusals(refused)
    refusals(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    assert refusals.behind(silence) is refused
    assert refusals.behind(silence) is silence
    refusals(refused)
    other = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large")
    assert refusals.behind(other) is other, "this error has its own reason"


def test_a_message_hides_the_password_and_not_the_protocol() -> None:
    assert CONFIG.masked("SSL handshake failed with hunter2") == "SSL handshake failed with **********"
