"""The meaning of the client's errors for the flow, by their code and flags alone."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException

from connectors.kafka.client import meaning, patiently
from connectors.kafka.config import KafkaConfig
from operators.errors import ConfigError, FatalError, RetryableError

CONFIG = KafkaConfig(start_budget_s=5)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (KafkaError(KafkaError._ALL_BROKERS_DOWN), RetryableError),
        (KafkaError(KafkaError.LEADER_NOT_AVAILABLE), RetryableError),
        (KafkaError(KafkaError._STATE, retriable=True), RetryableError),
        (KafkaError(KafkaError._TRANSPORT, fatal=True), FatalError),
        (KafkaError(KafkaError._STATE), FatalError),
        (KafkaError(KafkaError.INVALID_MSG), FatalError),
        (KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED), ConfigError),
        (KafkaError(KafkaError._AUTHENTICATION), ConfigError),
        (KafkaError(KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, fatal=True), ConfigError),
    ],
)
def test_errors_by_code_and_flag(error: KafkaError, kind: type[Exception]) -> None:
    found = meaning(error, "reading t/0", CONFIG)
    assert type(found) is kind
    assert str(found).startswith("reading t/0: ")
    assert error.name() in str(found)


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
    ],
)
def test_a_neighbour_that_was_there_at_the_start_may_come_back(code: int) -> None:
    assert type(meaning(KafkaError(code), "writing t/0", CONFIG, started=True)) is RetryableError
    assert type(meaning(KafkaError(code), "writing t/0", CONFIG)) is not RetryableError


def test_only_transient_errors_are_tried_again() -> None:
    left = [KafkaError(KafkaError._TRANSPORT), KafkaError(KafkaError._TIMED_OUT)]

    def attempt(timeout: float) -> float:
        if left:
            raise KafkaException(left.pop())
        return timeout

    assert 0 < patiently("asking", attempt, CONFIG) <= 5
    left.append(KafkaError(KafkaError._STATE))
    with pytest.raises(FatalError, match="asking"):
        patiently("asking", attempt, CONFIG)
    assert not left
