"""Topics as a source: lists their partitions, opens readers, and watches topics while the flow reads them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from connectors.base import State
from connectors.kafka.client import Cluster, check_options, look_up, patiently
from connectors.kafka.config import KafkaConfig
from connectors.kafka.reader import KafkaReader
from connectors.kafka.topics import Topics, TopicWatch
from operators.errors import ConfigError

logger = logging.getLogger(__name__)


class KafkaSource:
    """The configured topics as a source; keeps the contract `ReaderFactory`."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._cluster: Cluster | None = None
        self._topics: Topics | None = None
        self._first: Mapping[str, int] = {}

    def began_with(self, first: Mapping[str, int]) -> dict[str, int]:
        """The number of partitions of each topic at the `first` start of the recovery store, now where that is unknown.

        One that came later has no snapshot because it is new, and begins at its first record, not at the configured
        start: with `latest` its first records would be lost. ConfigError if there are fewer.
        """
        numbers = {topic: len(found) for topic, found in self._found().topics.items()}
        for topic, number in numbers.items():
            if number < first.get(topic, number):
                raise ConfigError(
                    f"topic {topic} had {first[topic]} partitions at the first start with this recovery folder, now it "
                    f"has {number}: give it {first[topic]}, or give -r a new folder to start over"
                )
        self._first = {**numbers, **{topic: n for topic, n in first.items() if topic in numbers}}
        return dict(self._first)

    def watch(self, every_s: float, unread: Callable[[str, int], None]) -> TopicWatch:
        """Check now and then whether topics were made anew, which the readers handle, and whether they have grown.

        `unread` gets the number of partitions of a topic that wait for a restart; the log tells of topics that grew.
        """
        read = {topic: len(numbers) for topic, numbers in self._found().topics.items()}
        topics, told = self._asking(), dict.fromkeys(read, 0)

        def looked() -> None:
            for topic, listed in read.items():
                found = topics.found.get(topic)
                new = 0 if found is None else max(len(found.partitions) - listed, 0)
                if new > told[topic]:
                    logger.warning(
                        "topic %s has %d partitions, %d more than are read: restart all processes, which loses nothing",
                        topic, listed + new, new,
                    )  # fmt: skip
                told[topic] = new
                unread(topic, new)

        looked()
        return TopicWatch(topics, every_s, self._config.request_s, looked)

    def partitions(self) -> list[str]:
        """`topic/number`, by topic and number; asks the brokers once and waits for them within the start budget."""
        return [f"{topic}/{number}" for topic, numbers in sorted(self._found().topics.items()) for number in numbers]

    def origin(self, partition: str) -> tuple[str, int]:
        """(topic, partition number)."""
        topic, _, number = partition.rpartition("/")
        return topic, int(number)

    def open(self, partition: str, position: int | None, log: State | None = None) -> KafkaReader:
        """Blocks only if `position` is None, to turn the configured start into an offset.

        Raises `ConfigError` where the topic is not the one in `log` and `on_expired` is fail.
        """
        config, (topic, number) = self._config, self.origin(partition)
        if position is None:
            position = config.start_offsets.get(partition)
        if position is None and number >= self._first.get(topic, number + 1):
            config = config.model_copy(update={"start": "earliest"})

        return KafkaReader(config, topic, number, position, log, self._asking())

    def identity(self) -> str:
        """The cluster and the topics."""
        return f"kafka {self._found().id} {' '.join(sorted(self._config.topics))}"

    def _found(self) -> Cluster:
        if self._cluster is None:
            check_options(self._config)
            cluster = look_up(self._config, self._config.topics)
            for topic in self._config.topics:
                if topic not in cluster.topics:
                    raise ConfigError(
                        f"kafka.topics: topic {topic} does not exist on {self._config.brokers}: "
                        "create it, or name another one"
                    )
            listed = {f"{topic}/{number}" for topic, numbers in cluster.topics.items() for number in numbers}
            if unknown := sorted(set(self._config.start_offsets) - listed):
                raise ConfigError(
                    f"kafka.start_offsets: there is no partition {unknown[0]} to read; they are named as topic/number"
                )
            self._topics = topics = Topics(self._config, self._config.consumer())
            doing = f"asking for the ids of {', '.join(cluster.topics)}"
            patiently(doing, lambda timeout: topics.describe(cluster.topics, timeout), self._config)
            self._cluster = cluster
        return self._cluster

    def _asking(self) -> Topics:
        self._found()
        assert self._topics is not None
        return self._topics
