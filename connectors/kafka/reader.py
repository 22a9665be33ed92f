"""Reading topics: one consumer a partition, by position, without a consumer group.

Positions come from recovery snapshots alone; offsets committed to the group are for lag tools.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime
from operator import itemgetter
from typing import Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from connectors.base import Chunk
from connectors.kafka.client import (
    UNKNOWN_TOPIC,
    Cluster,
    check_options,
    error_of,
    look_up,
    make_consumer,
    meaning,
    patiently,
    refuses,
)
from connectors.kafka.config import KafkaConfig
from operators.errors import ConfigError, FatalError, RetryableError, SentinelError
from operators.model import Ints

logger = logging.getLogger(__name__)

_PROBE_S: Final = 0.1
_CLOSE_S: Final = 2.0


class KafkaSource:
    """The configured topics as a source; keeps the contract `ReaderFactory`."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._cluster: Cluster | None = None

    def partitions(self) -> list[str]:
        """`topic/number` by topic and number; asks the brokers once, and waits for them within the start budget."""
        return [f"{topic}/{number}" for topic, numbers in sorted(self._found().topics.items()) for number in numbers]

    def origin(self, partition: str) -> tuple[str, int]:
        """(topic, partition number)."""
        topic, _, number = partition.rpartition("/")
        return topic, int(number)

    def open(self, partition: str, position: int | None) -> KafkaReader:
        """Blocks only where `position` is None: the configured start becomes an offset here."""
        if position is None:
            position = self._config.start_offsets.get(partition)
        return KafkaReader(self._config, *self.origin(partition), position)

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
            self._cluster = cluster
        return self._cluster


class KafkaReader:
    """One open partition; keeps the contract `Reader`.

    The position also moves over what has no records (the marks of transactions, what compaction removed): only records
    that retention deleted before they were read count as skipped.
    """

    def __init__(self, config: KafkaConfig, topic: str, number: int, position: int | None) -> None:
        self._config = config
        self._topic = topic
        self._number = number
        self._name = f"{topic}/{number}"
        self._down: KafkaError | None = None
        self._failure: SentinelError | None = None
        self._refused: RetryableError | None = None  # until a fetch is answered again
        self._out_of_range = False
        self._at_end = False
        self._end: int | None = None  # with stop_at_end: the end that the first fetch reported
        self._finished = False
        self._skipped = 0
        self._consumer = make_consumer(config, self._on_error)
        try:
            self._next = self._first() if position is None else position
            self._assign(self._next)
        except BaseException:
            self._consumer.close()
            raise

    def poll(self, most: int) -> Chunk:
        """See `Reader.poll`. `arrivals` is None where any record of the chunk has no timestamp; a record without a
        value is b"". Raises ConfigError where the position has expired and `on_expired` is fail.
        """
        self._raise_failure()
        if self._out_of_range:
            self._move_into_range()
        chunk = self._chunk([]) if self._finished else self._chunk(self._consumed(most))
        if not chunk.values and not chunk.finished:
            self._raise_failure()
            if self._down is not None:
                self._probe(self._down)
            if self._refused is not None:
                self._assign(self._next)  # the client says once what a fetch is refused for, and so again
                raise self._refused
        return chunk

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def position(self) -> int:
        return self._next

    def durable(self, position: int) -> None:
        if self._down is not None:
            return
        try:
            self._consumer.commit(offsets=[self._at(position)], asynchronous=True)
        except (KafkaException, RuntimeError) as e:  # RuntimeError: closed
            logger.debug("offset of %s not committed: %s", self._name, type(e).__name__)

    def close(self) -> None:
        """Returns within `_CLOSE_S`, at once where the brokers are away.

        The client would wait for them for up to a minute, for the sake of an offset that is for lag tools alone.
        """
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S if self._down is None else 0)

    def _at(self, offset: int) -> TopicPartition:
        return TopicPartition(self._topic, self._number, offset)

    def _assign(self, offset: int) -> None:
        self._consumer.assign([self._at(offset)])

    def _consumed(self, most: int) -> list[Message]:
        try:
            return self._consumer.consume(most, 0)
        except KafkaException as e:
            raise meaning(error_of(e), f"reading {self._name}", self._config) from None

    def _chunk(self, messages: list[Message]) -> Chunk:
        records = messages if not any(map(Message.error, messages)) else [m for m in messages if m.error() is None]
        if messages:  # which may have waited here since before the brokers went: only an answer says that they are back
            self._at_end = False
        if len(records) < len(messages):
            for message in messages:
                self._event(message)
        if records and self._config.stop_at_end:
            records = self._before_end(records)
        if records:
            self._refused = None
            self._next = max(self._next, _offset(records[-1]) + 1)
        if self._end is not None and self._next >= self._end and not self._finished:
            self._finished = True
            self._consumer.unassign()
        skipped, self._skipped = self._skipped, 0
        return Chunk(
            values=[value or b"" for value in map(Message.value, records)],
            offsets=_offsets(records),
            arrivals=_arrivals(records),
            at_end=self._at_end and self._down is None,
            finished=self._finished,
            skipped=skipped,
            behind=self._behind(),
        )

    def _behind(self) -> int | None:
        """Records after the position, by the end that the last fetch reported; None before the first one."""
        if self._at_end or self._finished:
            return 0
        _, high = self._consumer.get_watermark_offsets(self._at(0), cached=True)
        return max(high - self._next, 0) if high >= 0 else None

    def _event(self, message: Message) -> None:
        """What a consumer says between the records."""
        error = message.error()
        if error is None:
            self._at_end = False
        elif error.code() == KafkaError._PARTITION_EOF:
            self._next = max(self._next, _offset(message))
            self._refused = None
            self._at_end = True
            if self._config.stop_at_end:
                self._end = self._next
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._out_of_range = True
        elif error.code() in UNKNOWN_TOPIC:
            self._failure = FatalError(f"reading {self._name}: the partition is gone ({error.name()})")
        else:
            failure = meaning(error, f"reading {self._name}", self._config, started=True)
            if isinstance(failure, RetryableError):
                self._refused = failure
            else:
                self._failure = failure

    def _before_end(self, records: list[Message]) -> list[Message]:
        if self._end is None:
            _, high = self._consumer.get_watermark_offsets(self._at(0), cached=True)
            self._end = max(high, _offset(records[0]) + 1)
        return records if _offset(records[-1]) < self._end else [m for m in records if _offset(m) < self._end]

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = meaning(error, f"reading {self._name}", self._config)
        elif refuses(error) or (self._down is None and error.code() == KafkaError._ALL_BROKERS_DOWN):
            self._down = error
            self._at_end = False

    def _probe(self, why: KafkaError) -> None:
        """Nothing came and the brokers were seen down: RetryableError unless one answers now."""
        try:
            _, high = self._consumer.get_watermark_offsets(self._at(0), timeout=_PROBE_S)
            self._down = None
            self._at_end = self._next >= high
        except KafkaException:
            doing = f"reading {self._name}: no broker of {self._config.brokers} answers"
            raise RetryableError(str(meaning(why, doing, self._config, started=True))) from None

    def _move_into_range(self) -> None:
        """The position is not in the partition any more: goes where `on_expired` says, and counts the gap."""
        try:
            low, high = self._consumer.get_watermark_offsets(self._at(0), timeout=self._config.request_s)
        except KafkaException as e:
            doing = f"asking for the offsets of {self._name}"
            raise meaning(error_of(e), doing, self._config, started=True) from None
        if self._next > high:
            raise ConfigError(
                f"{self._name} ends at offset {high}, kafka.start_offsets or the snapshot want {self._next}: the topic "
                "was made anew or has lost records. Start with a new recovery folder"
            )
        if self._next < low:
            lost = f"{self._name}: records {self._next} to {low - 1} were deleted before they were read"
            if self._config.on_expired == "fail":
                raise ConfigError(
                    f"{lost}. Set kafka.on_expired to earliest or latest to go on from there (the gap is counted)"
                )
            target = low if self._config.on_expired == "earliest" else high
            logger.warning("%s; going on at %d (kafka.on_expired)", lost, target)
            self._skipped += target - self._next
            self._next = target
        self._assign(self._next)
        self._out_of_range = False

    def _first(self) -> int:
        """The configured start as an offset; leaves the consumer assigned."""
        start = self._config.start
        doing = f"looking for the start of {self._name}"
        at = -1 if isinstance(start, str) else _milliseconds(start)

        def listed(timeout: float) -> int:
            if at >= 0:
                (found,) = self._consumer.offsets_for_times([self._at(at)], timeout=timeout)
                if found.error is not None:
                    raise KafkaException(found.error)
                if found.offset >= 0:
                    return found.offset
            low, high = self._consumer.get_watermark_offsets(self._at(0), timeout=timeout)
            return low if start == "earliest" else high

        offset = patiently(doing, listed, self._config)
        return offset if start == "earliest" else self._confirmed(offset, at, doing)

    def _confirmed(self, offset: int, at: int, doing: str) -> int:
        """`offset`, moved on by what a fetch from there shows: some brokers list an offset that is too low.

        With a time, to the first record that is not older; otherwise to the end that the fetch reports.
        """
        self._assign(offset)
        deadline = time.monotonic() + self._config.start_budget_s
        while time.monotonic() < deadline:
            for message in self._consumer.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    if at < 0:
                        _, high = self._consumer.get_watermark_offsets(self._at(0), cached=True)
                        return max(high, _offset(message))
                    if message.timestamp()[1] >= at:
                        return _offset(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    return _offset(message)
                elif not isinstance(failure := meaning(error, doing, self._config), RetryableError):
                    raise failure
        raise FatalError(f"{doing}: nothing came for {self._config.start_budget_s:g} s (kafka.start_budget_s)")


def _offset(message: Message) -> int:
    offset = message.offset()
    if offset is None:
        raise FatalError("a record without an offset")
    return offset


def _offsets(records: list[Message]) -> Ints:
    """Of records in order; where none is missing between the first and the last, those two tell all."""
    if not records:
        return np.empty(0, np.int64)
    first, last = _offset(records[0]), _offset(records[-1])
    if last - first == len(records) - 1:
        return np.arange(first, last + 1)
    return np.array([m.offset() for m in records], np.int64)


def _milliseconds(at: datetime) -> int:
    return -int(-at.timestamp() * 1000 // 1)


def _arrivals(records: list[Message]) -> Ints | None:
    if not records:
        return None
    stamps = np.fromiter(map(itemgetter(1), map(Message.timestamp, records)), np.int64, len(records))
    return stamps * 1000 if stamps.min() >= 0 else None  # -1 where a record has none
