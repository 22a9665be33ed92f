"""The settings of Kafka, and the options of librdkafka clients that follow from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, Field, SecretStr, StringConstraints, field_validator

from connectors.config import Brokers
from operators.section import Hidden, PlainText, Section, without

Topic = Annotated[PlainText, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
Partition = Annotated[PlainText, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,249}/[0-9]{1,9}$")]
Value = PlainText | SecretStr | bool | int | float
Option = Annotated[PlainText, StringConstraints(pattern=r"^[a-z]+([._][a-z]+)*$", max_length=64)]
Options = dict[Option, Value]

_SECRET: Final = re.compile(r"passw|passphrase|secret|token|credential|key|jaas|oauthbearer\.config")
_SIZE: Final = re.compile(r"acks|log_level|retries|.+\.(ms|bytes|kbytes|messages|max|min|size)")
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,6})?")
_WORDS: Final = frozenset({
    "true", "false", "none", "all", "any", "v4", "v6", "plaintext", "ssl", "sasl_plaintext", "sasl_ssl",
    "gssapi", "plain", "scram-sha-256", "scram-sha-512", "oauthbearer", "inherit", "gzip", "snappy", "lz4", "zstd",
    "read_committed", "read_uncommitted", "range", "roundrobin", "cooperative-sticky", "classic", "consumer",
})  # fmt: skip
"""Words that may be shown as values of options, beside sizes and times; any other word may be a secret."""

_OURS: Final = {
    "bootstrap.servers": "set kafka.brokers",
    "metadata.broker.list": "set kafka.brokers",
    "group.id": "set kafka.group_id",
    "auto.offset.reset": "set kafka.start and kafka.on_expired",
    "enable.auto.commit": "offsets are committed from the recovery snapshots",
    "enable.auto.offset.store": "offsets are committed from the recovery snapshots",
    "enable.partition.eof": "the reader needs it",
    "statistics.interval.ms": "the reader needs it",
    "transactional.id": "it is made of kafka.group_id, topic and partition",
    "enable.idempotence": "exactly-once writing needs it",
}
"""Options that the reader and the writers decide, and what to do instead."""

_LOG_LEVEL: Final = "2"  # we get errors as errors; the client would also log each failed attempt to connect


class KafkaConfig(Section):
    """Kafka as source and as sink."""

    brokers: Brokers = Field("localhost:9092", description="host:port of one or more brokers, separated by commas.")
    topics: tuple[Topic, ...] = Field(("llm.telemetry",), min_length=1, description="The topics that are read.")
    alert_topic: Topic = Field("llm.alerts", description="The topic of alerts.")
    dead_letter_topic: Topic = Field("llm.dead_letters", description="The topic of records that could not be used.")
    heartbeat_topic: Topic = Field(
        "llm.heartbeat", description="The topic of heartbeats of each process that reads (with alerts.kafka)."
    )
    heartbeat_s: float = Field(
        10,
        ge=0,
        le=30,
        description="Seconds between two heartbeats; 0 for none, and no topic for them. The rule of Prometheus pages "
        "after two minutes without one.",
    )
    group_id: PlainText = Field(
        "llm-sentinel",
        min_length=1,
        description="Names this deployment on the cluster: its offsets (for lag tools), and its transactional ids. "
        "Two deployments that share it fence each other.",
    )
    start: Literal["earliest", "latest"] | AwareDatetime = Field(
        "earliest", description="Where reading starts without a snapshot: earliest, latest, or an RFC 3339 time."
    )
    start_offsets: dict[Partition, Annotated[int, Field(ge=0)]] = Field(
        {}, description='Offsets to start at instead, by partition: { "llm.telemetry/0" = 81000 }; without a snapshot.'
    )
    on_expired: Literal["fail", "earliest", "latest"] = Field(
        "fail",
        description="Reaction if the position to resume from has been deleted, the topic was made anew, or its log "
        "was cut: the gap is counted.",
    )
    stop_at_end: bool = Field(
        False, description="Read each partition to the end it had at the start, then end. For backtests."
    )
    create_topics: bool = Field(True, description="Make missing topics that the flow writes.")
    partitions: int = Field(1, ge=1, le=1000, description="Partitions of a topic that is made.")
    replication: int = Field(-1, ge=-1, description="Replicas of a topic that is made; -1 is the broker's default.")
    start_budget_s: float = Field(60, ge=0, le=3600, description="How long the start waits for the brokers.")
    request_s: float = Field(10, gt=0, le=300, description="How long one request may take.")
    options: Options = Field({}, description="Any option of librdkafka, for consumers and producers.")
    consumer_options: Options = Field({}, description="Any option of librdkafka, for consumers alone.")
    producer_options: Options = Field({}, description="Any option of librdkafka, for producers alone.")

    @field_validator("topics")
    @classmethod
    def _different(cls, v: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(v)) < len(v):
            raise ValueError("a topic is named twice")
        return v

    @field_validator("options", "consumer_options", "producer_options", mode="after")
    @classmethod
    def _guarded(cls, v: Options) -> Options:
        for name in v:
            if name in _OURS:
                raise ValueError(f"{name} cannot be set here: {_OURS[name]}")
        return {name: _veiled(name, value) for name, value in v.items()}

    def consumer(self) -> dict[str, str]:
        """Every option of a consumer, secrets in the clear; only the client may see it, never a log."""
        return {
            "enable.partition.eof": "true",
            "fetch.queue.backoff.ms": "20",  # the default of 1 s starves a consumer whose queue was full once
            "queued.max.messages.kbytes": "32768",
            "isolation.level": "read_committed",
            "log_level": _LOG_LEVEL,
            **_clear(self.options),
            **_clear(self.consumer_options),
            "bootstrap.servers": self.brokers,
            "group.id": self.group_id,
            "auto.offset.reset": "error",
            "enable.auto.commit": "false",
            "enable.auto.offset.store": "false",
        }

    def producer(self) -> dict[str, str]:
        """Every option of a producer but `transactional.id`, secrets in the clear; only the client may see it."""
        return {
            "linger.ms": "0",  # a write is one whole transaction, so waiting for more gains nothing
            "compression.type": "lz4",
            "log_level": _LOG_LEVEL,
            **_clear(self.options),
            **_clear(self.producer_options),
            "bootstrap.servers": self.brokers,
        }

    def masked(self, text: str) -> str:
        """`text`, a message of the client, without the secrets of the options."""
        values = [value for options in self._options() for value in options.values() if isinstance(value, SecretStr)]
        return without(text, (value.get_secret_value() for value in values))

    def refused(self, message: str) -> str:
        """The refusal of an option in a message of librdkafka, without any value of an option."""
        name = next(
            (n for n in re.findall(r'"([^"]*)"', message) if any(n in options for options in self._options())), ""
        )
        if name and message.startswith("No such configuration property"):
            return f"librdkafka has no option {name}"
        if name and message.startswith(("Invalid value", "Configuration property")):
            between = re.search(r"range (-?\d+\.\.-?\d+)\W*$", message)
            return f"librdkafka does not accept the value of {name}" + (
                f": it goes from {between[1]}" if between else ""
            )
        for options in self._options():
            for value in options.values():
                parts = [_text(value), *re.split(r"[\s,;=\"']+", _text(value))]
                message = without(message, (part for part in parts if part not in options))
        return message

    def _options(self) -> tuple[Options, Options, Options]:
        return self.consumer_options, self.producer_options, self.options

    def setting_of(self, message: str) -> str:
        """The setting that holds the option named in quotes in a message of librdkafka."""
        quoted = set(re.findall(r'"([^"]*)"', message))
        for section in ("consumer_options", "producer_options", "options"):
            if quoted & set(getattr(self, section)):
                return f"kafka.{section}"
        return "kafka.options"


def _veiled(name: str, value: Value) -> Value:
    """The value, made a secret unless it may be shown."""
    text = _text(value)
    if _SECRET.search(name) and not name.endswith(".location"):
        return SecretStr(text)
    return value if text.lower() in _WORDS or (_SIZE.fullmatch(name) and _NUMBER.fullmatch(text)) else Hidden(text)


def _text(value: Value) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _clear(options: Mapping[str, Value]) -> dict[str, str]:
    return {name: _text(value) for name, value in options.items()}
