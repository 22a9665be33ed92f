"""Makes librdkafka clients, waits for brokers, and translates the errors of librdkafka into ours."""

from __future__ import annotations

import logging
import os
import platform
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from connectors.backoff import pause_s
from connectors.kafka.config import KafkaConfig
from operators.errors import ConfigError, FatalError, RetryableError, SentinelError

logger = logging.getLogger(__name__)

T = TypeVar("T")
OnError = Callable[[KafkaError], None]
OnStatistics = Callable[[str], None]

_PAUSES_S: Final = (0.1, 1.0)
"""Before brokers that do not answer the start are asked again: the first time, and at most."""

_RETRIABLE: Final = frozenset({
    KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._RESOLVE,
    KafkaError._MSG_TIMED_OUT, KafkaError._TIMED_OUT_QUEUE, KafkaError._WAIT_COORD, KafkaError._WAIT_CACHE,
    KafkaError._QUEUE_FULL, KafkaError._RETRY, KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT,
    KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.REQUEST_TIMED_OUT,
    KafkaError.BROKER_NOT_AVAILABLE, KafkaError.REPLICA_NOT_AVAILABLE, KafkaError.NETWORK_EXCEPTION,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND, KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.FENCED_LEADER_EPOCH, KafkaError.UNKNOWN_LEADER_EPOCH, KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.NOT_CONTROLLER, KafkaError.CONCURRENT_TRANSACTIONS, KafkaError.THROTTLING_QUOTA_EXCEEDED,
    KafkaError._UNKNOWN_PARTITION,  # the topic is very new
})  # fmt: skip
"""Codes of passing errors; librdkafka sets its own flag `retriable` for requests of transactions only."""

_REFUSED: Final = frozenset({
    KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM, KafkaError.ILLEGAL_SASL_STATE, KafkaError.SECURITY_DISABLED,
})  # fmt: skip

_NO_ANSWER: Final = frozenset({
    KafkaError._TRANSPORT, KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._ALL_BROKERS_DOWN,
})  # fmt: skip
"""Codes of an unanswered request, which do not tell the reason."""

_TLS_ALERT: Final = re.compile(r"SSL alert number (4[2-689]|116)\b")
"""Matches the alert of a broker that refuses the client's certificate, or asks for one (RFC 8446, section 6.2).

librdkafka reports it as a lost connection, so the number stands in the text alone.
"""

UNKNOWN_TOPIC: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
)


def error_of(exception: KafkaException) -> KafkaError:
    """The error inside an exception of the client."""
    error = exception.args[0]
    return error if isinstance(error, KafkaError) else KafkaError(KafkaError._FAIL, str(exception))


def refuses(error: KafkaError) -> bool:
    """Whether the error is a refusal: the brokers reject this client or its request, or it does not trust them."""
    return error.code() in _REFUSED or (error.code() == KafkaError._TRANSPORT and bool(_TLS_ALERT.search(error.str())))


def meaning(error: KafkaError, doing: str, config: KafkaConfig, *, started: bool = False) -> SentinelError:
    """Our error for this one, chosen by code and flags; TLS alerts alone are told by their text.

    A refusal at the start is wrong configuration. After a flow has `started`, its rights, certificate or topic were
    taken away and may come back.
    """
    text = f"{doing}: {config.masked(error.str())} ({error.name()})"
    if refuses(error):
        text = f"{text}: {_refusal(error, config)}"
        return RetryableError(text) if started else ConfigError(text)
    if started and error.code() in UNKNOWN_TOPIC:
        return RetryableError(text)
    if not error.fatal() and (error.retriable() or error.code() in _RETRIABLE):
        return RetryableError(text)
    return FatalError(text)


def _refusal(error: KafkaError, config: KafkaConfig) -> str:
    if _TLS_ALERT.search(error.str()):
        return (
            f"Kafka at {config.brokers} does not accept the certificate of this client: none is set, it is expired, or "
            "not of a CA that the brokers trust (ssl.certificate.location in kafka.options)"
        )
    if error.code() == KafkaError._SSL and "certificate verify failed" in error.str():
        return (
            f"the certificate of Kafka at {config.brokers} is not accepted: it is expired, of another host name, or "
            "not of a CA in ssl.ca.location (kafka.options)"
        )
    return f"Kafka at {config.brokers} refuses this client; see its rights and kafka.options"


class Refusals:
    """The last refusal that a client reported to its `error_cb`; it explains unanswered requests."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None

    def __call__(self, error: KafkaError) -> None:
        if refuses(error):
            self._last = error
        else:
            logger.debug("kafka: %s", error.name())

    def behind(self, error: KafkaError) -> KafkaError:
        """The last refusal if `error` is only a missing answer, else `error`; forgets the refusal."""
        last, self._last = self._last, None
        return last if last is not None and error.code() in _NO_ANSWER else error


def hear_why(client: Consumer | Producer) -> None:
    """Let a failed client report its errors to `error_cb`; records that it returns meanwhile are lost."""
    with suppress(KafkaException):  # a producer raises its fatal error here once more
        client.poll(0)


def make_consumer(
    config: KafkaConfig,
    on_error: OnError | None = None,
    changes: Mapping[str, str] | None = None,
    on_statistics: OnStatistics | None = None,
) -> Consumer:
    """A consumer with `changes` over the configured options; raises `ConfigError` where librdkafka refuses one.

    `on_statistics` gets the client's JSON about itself at the interval of the option `statistics.interval.ms`.
    """
    return _made(Consumer, {**config.consumer(), **(changes or {})}, config, on_error, on_statistics)


def make_producer(config: KafkaConfig, extra: Mapping[str, str], on_error: OnError | None = None) -> Producer:
    """A producer with `extra` options over the configured ones; raises `ConfigError` where librdkafka refuses one."""
    return _made(Producer, {**config.producer(), **extra}, config, on_error)


def make_admin(config: KafkaConfig, options: Mapping[str, str]) -> AdminClient:
    """A client for asking about topics and making them, with the options of a consumer or of a producer."""
    return _made(AdminClient, options, config, None)


def check_options(config: KafkaConfig) -> None:
    """Raises `ConfigError` where librdkafka refuses an option: a start must not find out at its first alert."""
    make_consumer(config).close()
    make_producer(config, {})


def _made(
    client: Callable[..., T],
    options: Mapping[str, str],
    config: KafkaConfig,
    on_error: OnError | None,
    on_statistics: OnStatistics | None = None,
) -> T:
    callbacks: dict[str, Any] = {"error_cb": on_error or Refusals(), "logger": logging.getLogger("librdkafka")}
    if on_statistics is not None:
        callbacks["stats_cb"] = on_statistics
    try:
        return client({**options, **callbacks})
    except KafkaException as e:
        message = error_of(e).str()
        raise ConfigError(f"{config.setting_of(message)}: {config.refused(message)}") from None


def patiently(doing: str, attempt: Callable[[float], T], config: KafkaConfig) -> T:
    """The result of `attempt(timeout)`, which is repeated within `start_budget_s` while its KafkaException may pass.

    It blocks, and serves the start only. Raises `ConfigError` or `FatalError`, the latter also after the budget.
    """
    deadline = time.monotonic() + config.start_budget_s
    owner, failures, timeout = f"{platform.node()} {os.getpid()} {doing}", 0, 1.0
    while True:
        left = deadline - time.monotonic()
        try:
            return attempt(max(0.1, min(config.request_s, timeout, left)))
        except KafkaException as e:
            failure = meaning(error_of(e), doing, config)
        if not isinstance(failure, RetryableError):
            raise failure
        left = deadline - time.monotonic()
        if left <= 0:
            raise FatalError(
                f"{failure}: gave up after {config.start_budget_s:g} s (kafka.start_budget_s). "
                f"Is Kafka running at {config.brokers} (kafka.brokers), and is that the port for security.protocol "
                "(kafka.options)?"
            )
        logger.warning("%s; trying again for %.0f s", failure, left)
        failures += 1
        time.sleep(min(pause_s(owner, failures, *_PAUSES_S), left))
        timeout *= 2


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster as the brokers describe it: its id, and the partition numbers of each topic in question."""

    id: str
    topics: dict[str, list[int]]


def look_up(config: KafkaConfig, topics: tuple[str, ...]) -> Cluster:
    """The partitions of those of `topics` that exist; waits for the brokers as `patiently` does."""
    refusals = Refusals()
    consumer = make_consumer(config, refusals)
    try:

        def attempt(timeout: float) -> Cluster:
            found: dict[str, list[int]] = {}
            cluster_id = ""
            for topic in topics:
                try:
                    metadata = consumer.list_topics(topic, timeout=timeout)
                except KafkaException as e:
                    hear_why(consumer)
                    raise KafkaException(refusals.behind(error_of(e))) from None
                cluster_id = metadata.cluster_id or ""
                of_topic = metadata.topics[topic]
                if of_topic.error is None:
                    found[topic] = sorted(of_topic.partitions)
                elif of_topic.error.code() not in UNKNOWN_TOPIC:
                    raise KafkaException(of_topic.error)
            return Cluster(cluster_id, found)

        return patiently(f"asking for the partitions of {', '.join(topics)}", attempt, config)
    finally:
        consumer.close()


def make_topic(config: KafkaConfig, topic: str, partitions: int) -> None:
    """Make a topic as configured, unless it exists by then; waits for the brokers as `patiently` does."""
    patiently(f"making the topic {topic}", _making(config, topic, partitions), config)
    logger.info("made the topic %s with %d partitions", topic, partitions)


def make_topic_again(config: KafkaConfig, topic: str, partitions: int) -> None:
    """Make a lost topic with as many partitions as it had at the start; does not wait for the brokers."""
    try:
        _making(config, topic, partitions)(config.request_s)
    except KafkaException as e:
        raise meaning(error_of(e), f"making the topic {topic}", config, started=True) from None
    logger.warning("the topic %s was gone; made it anew with %d partitions", topic, partitions)


def _making(config: KafkaConfig, topic: str, partitions: int) -> Callable[[float], None]:
    """An attempt to make the topic; its argument is the timeout in seconds."""
    admin = make_admin(config, config.producer())

    def attempt(timeout: float) -> None:
        new = NewTopic(topic, partitions, config.replication)
        try:
            admin.create_topics([new], request_timeout=timeout, operation_timeout=timeout)[topic].result()
        except KafkaException as e:
            if error_of(e).code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    return attempt
