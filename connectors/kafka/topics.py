"""Asks the brokers for the ids and the partitions of topics."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException, TopicCollection, Uuid
from confluent_kafka.admin import AdminClient

from connectors.kafka.client import UNKNOWN_TOPIC, error_of, make_admin
from connectors.kafka.config import KafkaConfig

log = logging.getLogger(__name__)

_LAST_S: Final = 1.0
_NO_ID: Final = "A" * 22
"""The all-zero id as the client writes it; it stands for no id."""


@dataclass(frozen=True, slots=True)
class Topic:
    """`id` tells a topic from an earlier or later one of the same name; "" where the brokers have no ids."""

    id: str
    partitions: tuple[int, ...]


class Topics:
    """Asks the brokers with a client of its own; `found` keeps the last answer for each topic ever found.

    `options` are those of a consumer or of a producer. Several threads may ask.
    """

    def __init__(self, config: KafkaConfig, options: Mapping[str, str]) -> None:
        self._admin: AdminClient = make_admin(config, options)
        self.found: dict[str, Topic] = {}
        self._brokers = config.brokers
        self._told = False

    def describe(self, names: Iterable[str], timeout: float) -> dict[str, Topic]:
        """Those of `names` that exist; raises `KafkaException` without an answer within `timeout` seconds."""
        found: dict[str, Topic] = {}
        for name, answer in self._admin.describe_topics(TopicCollection(list(names)), request_timeout=timeout).items():
            try:
                described: Any = answer.result()
            except KafkaException as error:
                if error_of(error).code() not in UNKNOWN_TOPIC:
                    raise
            else:
                found[name] = Topic(topic_id(described.topic_id), tuple(sorted(p.id for p in described.partitions)))
        self.found |= found
        self.tell_of_missing_ids(found)
        return found

    def tell_of_missing_ids(self, found: Mapping[str, Topic]) -> None:
        """Warn once of a topic without an id."""
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


class TopicWatch:
    """Looks at `topics` every `every_s` seconds from a thread of its own until `close`, and calls `looked` after each.

    A topic that is gone stays as it was: whoever reads it says so. Brokers that do not answer within `request_s` are
    asked again at the next turn.
    """

    def __init__(self, topics: Topics, every_s: float, request_s: float, looked: Callable[[], None]) -> None:
        self._topics = topics
        self._every_s = every_s
        self._request_s = request_s
        self._looked = looked
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="topics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._every_s):
            try:
                self._topics.describe(list(self._topics.found), self._request_s)
            except KafkaException as error:
                log.debug("looking at topics: %s", error_of(error).name())
                continue
            self._looked()

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()
        self._thread.join(_LAST_S)
