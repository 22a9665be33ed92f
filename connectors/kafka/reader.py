"""Reads topics with one consumer for each partition, by position and without a consumer group.

Positions come from recovery snapshots alone; offsets committed to the group serve lag tools.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from operator import itemgetter
from typing import Final, TypeVar

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from connectors.base import Chunk, State
from connectors.kafka.client import (
    UNKNOWN_TOPIC,
    error_of,
    make_consumer,
    meaning,
    patiently,
    refuses,
)
from connectors.kafka.config import KafkaConfig
from connectors.kafka.end import STATISTICS, LogEnd
from connectors.kafka.epochs import end_of_epoch
from connectors.kafka.topics import Topics
from operators.errors import ConfigError, FatalError, RetryableError, SentinelError
from operators.model import NO_ARRIVAL, Ints

logger = logging.getLogger(__name__)
T = TypeVar("T")

_PROBE_S: Final = 0.1
_CLOSE_S: Final = 2.0


class KafkaReader:
    """One open partition; keeps the contract `Reader`.

    The position also moves over offsets without records (marks of transactions, compacted records). Only records that
    retention deleted before they were read count as skipped.

    `log` is the result of `log()` at the time of the position: the topic's id, the offset after the last record, and
    that record's leader epoch, by which the client notices that the log was cut since. `topics` knows the topic's
    present id. An unknown id is "", an unknown epoch -1.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topic: str,
        number: int,
        position: int | None,
        log: State | None,
        topics: Topics,
    ) -> None:
        self._config = config
        self._topic = topic
        self._number = number
        self._name = f"{topic}/{number}"
        self._down: KafkaError | None = None
        self._failure: SentinelError | None = None
        self._refused: RetryableError | None = None  # until the leader answers a fetch again
        self._out_of_range = False
        self._log_end = LogEnd(topic, number)
        self._passed = 0  # the last poll found no record before this offset, at its end
        self._end: int | None = None  # with stop_at_end: the first end that a fetch reported
        self._finished = False
        self._skipped = 0
        self._replaced = False
        self._topics = topics
        self._configured = log is None  # the offset comes from the settings and may not exist
        self._id, self._last = _log(log)
        if self._made_anew() and config.on_expired == "fail":
            raise self._refusal(position)
        self._consumer = make_consumer(config, self._on_error, STATISTICS, self._log_end.on_statistics)
        try:
            self._next = self._first() if position is None else position
            if self._last[0] > self._next:  # it reads earlier records again
                self._last = (self._next, -1)
            self._go_on()
        except BaseException:
            self._consumer.close()
            raise

    def poll(self, most: int) -> Chunk:
        """See `Reader.poll`. A record without a value is b"". Raises ConfigError where the position has expired and
        `on_expired` is fail.
        """
        self._raise_failure()
        if self._made_anew():
            self._go_on_anew()
        if self._out_of_range:
            self._move_into_range()
        chunk = self._chunk([]) if self._finished else self._chunk(self._consumed(most))
        if not chunk.values and not chunk.finished:
            self._raise_failure()
            if self._down is not None:
                self._probe(self._down)
            if self._refused is not None:
                self._go_on()  # the client reports a refusal once for each assignment
                raise self._refused
        return chunk

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def position(self) -> int:
        return self._next

    def behind(self) -> int | None:
        return 0 if self._finished else self._log_end.behind(self._consumer, self._next)

    def log(self) -> State:
        """(the topic's id, the offset after the last record handed out, its leader epoch)."""
        return (self._id, *self._last)

    def durable(self, position: int) -> None:
        if self._down is not None:
            return
        try:
            self._consumer.commit(offsets=[self._at(position)], asynchronous=True)
        except (KafkaException, RuntimeError) as e:  # RuntimeError: closed
            logger.debug("offset of %s not committed: %s", self._name, type(e).__name__)

    def close(self) -> None:
        """Returns within `_CLOSE_S`, at once while the brokers are away.

        The client would wait up to a minute for them, to commit an offset that only lag tools use.
        """
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(_CLOSE_S if self._down is None else 0)

    def _at(self, offset: int) -> TopicPartition:
        return TopicPartition(self._topic, self._number, offset)

    def _assign(self, offset: int) -> None:
        self._consumer.assign([self._at(offset)])

    def _go_on(self) -> None:
        """Read on from the position; the epoch of the last record lets the client notice a cut of the log."""
        end, epoch = self._last
        self._log_end.forget()
        if epoch >= 0 and end <= self._next:
            self._consumer.assign([TopicPartition(self._topic, self._number, end, leader_epoch=epoch)])
        else:
            self._assign(self._next)

    def _consumed(self, most: int) -> list[Message]:
        try:
            return self._consumer.consume(most, 0)
        except KafkaException as e:
            raise meaning(error_of(e), f"reading {self._name}", self._config) from None

    def _chunk(self, messages: list[Message]) -> Chunk:
        records = messages if not any(map(Message.error, messages)) else [m for m in messages if m.error() is None]
        self._log_end.polled(bool(messages))
        self._passed = 0
        if len(records) < len(messages):
            for message in messages:
                self._event(message)
        if records and self._config.stop_at_end:
            records = self._before_end(records)
        if records:
            self._refused, self._configured = None, False
            self._next = max(_offset(records[-1]) + 1, self._passed)
            epoch = records[-1].leader_epoch()
            self._last = (self._next, -1 if epoch is None else epoch)
        if self._end is not None and self._next >= self._end and not self._finished:
            self._finished = True
            self._consumer.unassign()
        skipped, self._skipped = self._skipped, 0
        replaced, self._replaced = self._replaced, False
        return Chunk(
            values=[value or b"" for value in map(Message.value, records)],
            offsets=_offsets(records),
            arrivals=_arrivals(records),
            at_end=self._stands_at_end(),
            finished=self._finished,
            skipped=skipped,
            replaced=replaced,
            log=self._id,
        )

    def _stands_at_end(self) -> bool:
        return self._finished or (self._down is None and self._log_end.stands_at(self._consumer, self._next))

    def _event(self, message: Message) -> None:
        """Take note of an event that the consumer reports between records."""
        error = message.error()
        if error is None:
            return
        if error.code() == KafkaError._PARTITION_EOF:
            self._passed = _offset(message)
            self._next = max(self._next, self._passed)
            self._refused = None
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
            self._end = self._log_end.after(self._consumer, _offset(records[0]))
        if self._end is None:
            return records
        return records if _offset(records[-1]) < self._end else [m for m in records if _offset(m) < self._end]

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = meaning(error, f"reading {self._name}", self._config)
        elif refuses(error) or (self._down is None and error.code() == KafkaError._ALL_BROKERS_DOWN):
            self._down = error

    def _probe(self, why: KafkaError) -> None:
        """After a poll without records and a report of lost brokers: raises `RetryableError` unless one answers."""
        try:
            self._consumer.get_watermark_offsets(self._at(0), timeout=_PROBE_S)
            self._down = None
        except KafkaException:
            doing = f"reading {self._name}: no broker of {self._config.brokers} answers"
            raise RetryableError(str(meaning(why, doing, self._config, started=True))) from None

    def _made_anew(self) -> bool:
        """Whether the topic is another one than before, as far as its ids are known."""
        found = self._topics.found.get(self._topic)
        now = "" if found is None else found.id
        self._id = self._id or now
        return bool(now) and now != self._id

    def _refusal(self, position: int | None) -> ConfigError:
        return ConfigError(
            f"the topic {self._topic} was made anew (its id is {self._topics.found[self._topic].id}, it was "
            f"{self._id}): offset {position} of partition {self._number} means nothing in it. Set kafka.on_expired to "
            "earliest or latest to go on in the new one"
        )

    def _go_on_anew(self) -> None:
        """Go on in the new topic, at the place that `on_expired` names."""
        if self._config.on_expired == "fail":
            raise self._refusal(self._next)
        low, high = self._bounds()
        before, self._id = self._id, self._topics.found[self._topic].id
        self._replace(low, low, high, f"the topic was made anew (its id is {self._id}, it was {before})")
        self._go_on()
        self._out_of_range = False

    def _bounds(self) -> tuple[int, int]:
        doing = f"asking for the offsets of {self._name}"
        return self._asked(doing, lambda seconds: self._consumer.get_watermark_offsets(self._at(0), timeout=seconds))

    def _asked(self, doing: str, ask: Callable[[float], T]) -> T:
        try:
            return ask(self._config.request_s)
        except KafkaException as e:
            raise meaning(error_of(e), doing, self._config, started=True) from None

    def _replace(self, new: int, low: int, high: int, why: str) -> None:
        """Go on in a log in which earlier positions mean nothing; `new` is its first unread offset."""
        target = max(new, low) if self._config.on_expired == "earliest" else high
        self._skipped += target - new
        logger.warning("%s: %s; going on at %d (kafka.on_expired)", self._name, why, target)
        self._next, self._last, self._replaced = target, (target, -1), True

    def _move_into_range(self) -> None:
        """Leave a position that the partition no longer has for the one that `on_expired` names; count the gap."""
        doing = f"asking for the id of {self._topic}"
        self._asked(doing, lambda seconds: self._topics.describe([self._topic], seconds))
        if self._made_anew():
            self._go_on_anew()
            return
        low, high = self._bounds()
        end, epoch = self._last
        if self._next > high and self._configured:
            raise ConfigError(
                f"{self._name} ends at offset {high}, kafka.start_offsets want {self._next}: name an offset that is "
                "there, or none"
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
        elif self._id and epoch >= 0 and end >= low:
            kept = end_of_epoch(self._config, self._topic, self._number, epoch, low, min(end, high))
            if kept < end:
                self._go_on_where_cut(kept, low, high)
        elif self._next > high:
            self._go_on_where_cut(low, low, high)
        if self._last[0] < low:  # no record of that epoch is left
            self._last = (self._next, -1)
        self._go_on()
        self._out_of_range = False

    def _go_on_where_cut(self, kept: int, low: int, high: int) -> None:
        """Go on after the log has lost records that were read: other records stand, or will stand, from `kept` on."""
        cut = f"the log was cut, and has lost records that were read before offset {self._next}"
        if self._config.on_expired == "fail":
            raise ConfigError(
                f"{self._name}: {cut}. Set kafka.on_expired to earliest or latest to go on with those that came instead"
            )
        self._replace(kept, low, high, cut)

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
        """`offset`, corrected by a fetch from there: some brokers list an offset that is too low.

        With a time the result is the first record that is not older, otherwise the end that the fetch reports.
        """
        self._assign(offset)
        deadline = time.monotonic() + self._config.start_budget_s
        while time.monotonic() < deadline:
            for message in self._consumer.consume(1000, 0.1):
                error = message.error()
                if error is None:
                    if at >= 0:
                        if message.timestamp()[1] >= at:
                            return _offset(message)
                    elif (end := self._log_end.after(self._consumer, _offset(message))) is not None:
                        return end
                elif error.code() == KafkaError._PARTITION_EOF:
                    return _offset(message)
                elif not isinstance(failure := meaning(error, doing, self._config), RetryableError):
                    raise failure
        raise FatalError(f"{doing}: nothing came for {self._config.start_budget_s:g} s (kafka.start_budget_s)")


def _log(state: State | None) -> tuple[str, tuple[int, int]]:
    """(id of the topic, (offset after the last record, its leader epoch)); an unknown one is "" or -1."""
    match state:
        case None | ():
            return "", (0, -1)
        case (str(topic), int(end), int(epoch)):
            return topic, (end, epoch)
    raise FatalError(
        f"the snapshot of a topic's partition tells its log as {state!r}, which this release does not read"
    )


def _offset(message: Message) -> int:
    offset = message.offset()
    if offset is None:
        raise FatalError("a record without an offset")
    return offset


def _offsets(records: list[Message]) -> Ints:
    """The offsets of records in order; without a gap the first and the last one tell them all."""
    if not records:
        return np.empty(0, np.int64)
    first, last = _offset(records[0]), _offset(records[-1])
    if last - first == len(records) - 1:
        return np.arange(first, last + 1)
    return np.array([m.offset() for m in records], np.int64)


def _milliseconds(at: datetime) -> int:
    return -int(-at.timestamp() * 1000 // 1)


def _arrivals(records: list[Message]) -> Ints:
    stamps = np.fromiter(map(itemgetter(1), map(Message.timestamp, records)), np.int64, len(records))
    return np.where(stamps < 0, NO_ARRIVAL, stamps * 1000)
