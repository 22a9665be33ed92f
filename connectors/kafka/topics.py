"""What the brokers say of topics: which one of that name it is, and its partitions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient

from connectors.kafka.client import UNKNOWN_TOPIC, error_of, make_admin
from connectors.kafka.config import KafkaConfig

log = logging.getLogger(__name__)

_NO_ID: Final = "A" * 22
"""How the client writes the id of all zeros, which stands for none."""


@dataclass(frozen=True, slots=True)
class Topic:
    """`id` tells a topic from another of the same name, before or after it; "" where the brokers tell none."""

    id: str
    partitions: tuple[int, ...]


class Topics:
    """Asks the brokers, with a client of its own. `options` are those of a consumer or of a producer."""

    def __init__(self, config: KafkaConfig, options: Mapping[str, str]) -> None:
        self._admin: AdminClient = make_admin(config, options)
        self._brokers = config.brokers
        self._told = False

    def describe(self, names: Iterable[str], timeout: float) -> dict[str, Topic]:
        """Those of `names` that exist. KafkaException where that is not known within `timeout` seconds."""
        found: dict[str, Topic] = {}
        for name, answer in self._admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout).items():
            try:
                described: Any = answer.result()
            except KafkaException as error:
                if error_of(error).code() not in UNKNOWN_TOPIC:
                    raise
            else:
                found[name] = Topic(topic_id(described.topic_id), tuple(sorted(p.id for p in described.partitions)))
        self.tell_of_missing_ids(found)
        return found

    def tell_of_missing_ids(self, found: Mapping[str, Topic]) -> None:
        """Warn, once, where a topic has no id."""
        if self._told or all(topic.id for topic in found.values()):
            return
        self._told = True
        log.warning(
            "Kafka at %s tells no ids of topics: that a topic was made anew is noticed only where it is shorter than "
            "before", self._brokers,
        )  # fmt: skip


def topic_id(uuid: Uuid | None) -> str:
    """The id as text; "" where there is none."""
    text = "" if uuid is None else str(uuid)
    return "" if text == _NO_ID else text
