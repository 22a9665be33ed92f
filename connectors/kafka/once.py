"""Writes to a topic exactly once: it fences the writer before, reads back, skips, and makes one transaction a write.

Readers need `isolation.level=read_committed`. `connectors.once` has the rules of skipping.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from connectors.base import Message, State
from connectors.kafka.client import (
    UNKNOWN_TOPIC,
    Refusals,
    check_options,
    error_of,
    hear_why,
    look_up,
    make_consumer,
    make_producer,
    make_topic,
    make_topic_again,
    meaning,
)
from connectors.kafka.config import KafkaConfig
from connectors.kafka.end import LogEnd
from connectors.kafka.topics import Topics
from connectors.once import Once
from operators.errors import ConfigError, DataError, FatalError, RetryableError, SentinelError
from operators.model import SECOND

DeliveryCallback = Callable[[KafkaError | None, KafkaMessage], None]
logger = logging.getLogger(__name__)

ID_HEADER: Final = "ce_id"
"""The header with the record's id, so that reading back need not parse the value."""
TIME_HEADER: Final = "ce_time"
MOST_READ_BACK: Final = 200_000
"""How many offsets before the end of a partition are read back without a position. A transaction takes one, too."""

_READ_BACK: Final = {
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",  # even if the configured readers see more
    "fetch.wait.max.ms": "50",  # time that the broker waits for more records before it reports the end
}
_REFUSED: Final = {
    KafkaError.MSG_SIZE_TOO_LARGE: "record_too_large",
    KafkaError.RECORD_LIST_TOO_LARGE: "record_too_large",
    KafkaError.INVALID_RECORD: "invalid_record",
}
_GIVEN_UP: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})
"""The errors of a record whose transaction the client has given up for any reason."""
_FENCED: Final = frozenset({
    KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.TRANSACTION_COORDINATOR_FENCED,
})  # fmt: skip


class KafkaOnce:
    """A topic as a sink of records; keeps the contract `WriterFactory`. Each partition of the topic is one of ours.

    `first` is the number of partitions at the first start of the recovery store, None where this is the first one. It
    routes for ever: records from before a crash are looked for in the partition to which they were routed.
    """

    def __init__(self, config: KafkaConfig, topic: str, name: str, first: int | None = None) -> None:
        self.name = name
        self.topic = topic
        self.added = 0
        """How many partitions the topic has got since the first start; they get nothing. Known after `partitions`."""
        self._config = config
        self._first = first
        self._partitions: list[str] = []

    def partitions(self) -> list[str]:
        """`topic/number` in order; makes the topic where that is configured. Waits within the start budget."""
        if not self._partitions:
            numbers = self._numbers()
            first = self._first or len(numbers)
            if len(numbers) < first:
                raise ConfigError(
                    f"topic {self.topic} had {first} partitions at the first start with this recovery folder, now it "
                    f"has {len(numbers)}: give it {first}, or give -r a new folder to start over"
                )
            self.added = len(numbers) - first
            if self.added:
                logger.warning(
                    "topic %s has %d partitions: only the first %d are written, as at the first start with this "
                    "recovery folder", self.topic, len(numbers), first,
                )  # fmt: skip
            self._partitions = [f"{self.topic}/{number}" for number in numbers[:first]]
        return self._partitions

    def route(self, key: str) -> int:
        """Routes by a checksum of the key, which is the same in every process."""
        return zlib.crc32(key.encode()) % len(self.partitions())

    def open(self, partition: str, resume: State | None) -> KafkaOnceWriter:
        """Fences the writer before and reads back its records, without a snapshot those at the end of the topic."""
        number = int(partition.rpartition("/")[2])
        return KafkaOnceWriter(self._config, self.topic, number, len(self.partitions()), resume)

    def ask(self) -> str:
        """Ask for the partitions; no writer is opened, for that would fence the one of a running flow."""
        number = len(self.partitions())
        return f"{number} partition{'' if number == 1 else 's'}"

    def _numbers(self) -> list[int]:
        check_options(self._config)
        if numbers := look_up(self._config, (self.topic,)).topics.get(self.topic):
            return numbers
        if not self._config.create_topics:
            raise ConfigError(
                f"topic {self.topic} does not exist on {self._config.brokers}: create it, or set kafka.create_topics"
            )
        make_topic(self._config, self.topic, self._first or self._config.partitions)
        deadline = time.monotonic() + max(self._config.start_budget_s, 5)
        while time.monotonic() < deadline:
            if numbers := look_up(self._config, (self.topic,)).topics.get(self.topic):
                return numbers
            time.sleep(0.1)
        raise FatalError(f"topic {self.topic} was made on {self._config.brokers}, but is not listed there")


class KafkaOnceWriter:
    """One open partition; keeps the contract `Writer`.

    A failure may leave open whether the transaction was committed, or may end the client. Then the next `write` begins
    with a new producer and reads back. Each request blocks for at most about `request_s`. A write costs one
    transaction. Missing rights and a lost topic are worth another try.
    """

    def __init__(self, config: KafkaConfig, topic: str, number: int, partitions: int, resume: State | None) -> None:
        self._config = config
        self._topic = topic
        self._number = number
        self._partitions = partitions
        self._name = f"{topic}/{number}"
        self._id = f"{config.group_id}/{topic}/{number}"  # no topic has a slash: no other partition has this id
        self._once = Once.load(resume)
        self._older = resume is None or resume[0] == 1  # the writer before may have used the older form of the id
        self._refusals = Refusals()
        self._producer: Producer | None = self._opened()

    def write(self, items: Sequence[Message]) -> None:
        """See `Writer.write`. Raises `DataError` where the broker refuses a record for its size or form, and writes
        nothing of `items` then; raises `FatalError` where another process has taken this partition over.
        """
        if self._producer is None:
            self._producer = self._opened()
        fresh = self._once.fresh(items)
        end, failure = self._once.end, None
        try:
            if fresh:
                end = self._transaction(self._producer, fresh)
        except KafkaException as e:
            failure = self._failed(self._producer, error_of(e))
        except SystemError:  # the client ran a callback after a fatal error; aborting tells which one
            failure = self._failed(self._producer, KafkaError(KafkaError._FAIL, "the client failed"))
        if failure is not None:  # raised here, where no traceback holds a discarded producer
            raise failure
        self._once.wrote(items, end)

    def snapshot(self) -> State | None:
        """(version, position to read back from, ids that were read back and are still to come)."""
        return self._once.state()

    def close(self) -> None:
        if self._producer is not None:
            self._discard(self._producer)

    def _opened(self) -> Producer:
        """Fence the producer before, and read back everything after the known end; returns the new producer."""
        producer = make_producer(self._config, {"transactional.id": self._id}, self._refusals)
        failure: BaseException | None = None
        try:
            producer.init_transactions(self._config.request_s)
            self._fence_older()
            self._read_back()
        except KafkaException as e:
            hear_why(producer)
            failure = self._meaning(error_of(e), f"taking over {self._name}")
        except BaseException as e:  # noqa: BLE001 - raised again below
            failure = e
        if failure is None:
            return producer
        self._discard(producer)
        del producer  # a living one would go on taking over, and fence the next one
        raise failure

    def _fence_older(self) -> None:
        """Fence a writer with the transactional id of the release before, and end its transaction."""
        if not self._older:
            return
        older = f"{self._config.group_id}-{self._topic}-{self._number}"
        producer = make_producer(self._config, {"transactional.id": older})
        try:
            producer.init_transactions(self._config.request_s)
        except KafkaException as e:
            if error_of(e).code() != KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
                raise
            logger.info("%s: no right to the transactional id %s of the release before", self._name, older)
        self._older = False

    def _discard(self, producer: Producer) -> None:
        """Give up the producer with the records that it has not sent yet."""
        self._producer = None
        try:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
            producer.flush(0)
        except (KafkaException, RuntimeError) as e:
            logger.debug("producer of %s: %s", self._name, type(e).__name__)

    def _read_back(self) -> None:
        doing = f"reading back {self._name}"
        consumer = make_consumer(self._config, self._refusals, _READ_BACK)
        log_end = LogEnd(self._topic, self._number)
        try:
            if self._once.counts_in(self._topic_id()):
                self._tell_replaced()
            consumer.assign([TopicPartition(self._topic, self._number, self._once.end or self._bounded(consumer))])
            first, failure, hidden = True, None, 0
            deadline = time.monotonic() + self._config.request_s
            while time.monotonic() < deadline:
                messages = consumer.consume(1000, 0.05)
                if messages:
                    deadline = time.monotonic() + self._config.request_s  # go on while records come
                for message in messages:
                    error = message.error()
                    offset = message.offset()
                    end = -1 if offset is None else offset
                    if error is None or error.code() == KafkaError._PARTITION_EOF:
                        if first and end < self._once.end:
                            self._tell_replaced()
                        first = False
                    if error is None:
                        self._saw(message, end + 1)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        high = log_end.high(consumer)
                        self._once.passed(end)
                        if high is not None and high <= end:
                            return
                        hidden = 0 if high is None else high - end  # ours may be among them
                    elif not isinstance(failure := self._meaning(error, doing), RetryableError):
                        raise failure
            if hidden:
                raise RetryableError(
                    f"{doing}: another producer has left a transaction open on it, which hides the {hidden} records "
                    f"from offset {self._once.end} on. End that transaction, or wait for its transaction.timeout.ms"
                )
            raise failure or RetryableError(f"{doing}: its end was not reached within {self._config.request_s:g} s")
        except KafkaException as e:
            hear_why(consumer)
            raise self._meaning(error_of(e), doing) from None
        finally:
            consumer.close()

    def _tell_replaced(self) -> None:
        logger.warning("%s was made anew since it was written; reading it from its start", self._name)

    def _bounded(self, consumer: Consumer) -> int:
        """The offset at which reading back begins without a position."""
        place = TopicPartition(self._topic, self._number)
        low, high = consumer.get_watermark_offsets(place, timeout=self._config.request_s)
        if high - low > MOST_READ_BACK:
            logger.warning(
                "%s: reading back its last %d offsets; what came before them may be written again",
                self._name, MOST_READ_BACK,
            )  # fmt: skip
        return max(low, high - MOST_READ_BACK)

    def _topic_id(self) -> str:
        """The present id of the topic; makes a lost topic anew if the settings allow it.

        Raises `RetryableError` where the partition is gone. A client that writes or reads hides that for half a minute.
        """
        topics = Topics(self._config, self._config.producer())
        found = topics.describe([self._topic], self._config.request_s).get(self._topic)
        if found is None and self._config.create_topics:
            make_topic_again(self._config, self._topic, self._partitions)
            found = topics.describe([self._topic], self._config.request_s).get(self._topic)
        if found is None or self._number not in found.partitions:
            raise RetryableError(
                f"{self._name} is gone from {self._config.brokers}: make it anew (partitions: {self._partitions})"
            )
        return found.id

    def _meaning(self, error: KafkaError, doing: str) -> SentinelError:
        return meaning(self._refusals.behind(error), doing, self._config, started=True)

    def _saw(self, message: KafkaMessage, end: int) -> None:
        headers = dict(message.headers() or [])
        item_id = headers.get(ID_HEADER)
        if isinstance(item_id, bytes):
            self._once.saw(item_id.decode(errors="replace"), end, _microseconds(headers.get(TIME_HEADER)))
        else:
            self._once.passed(end)  # not ours

    def _transaction(self, producer: Producer, items: Sequence[Message]) -> int:
        """Write and commit the items; returns the position after the last one."""
        # Each transaction has its own list, since reports of an aborted one can come later.
        reports: list[tuple[KafkaError | None, KafkaMessage]] = []

        def on_delivery(error: KafkaError | None, message: KafkaMessage) -> None:
            reports.append((error, message))

        producer.begin_transaction()
        for item in items:
            self._produce(producer, item, on_delivery)
        left = producer.flush(self._config.request_s)
        for error, _ in reports:
            if error is not None:
                if error.code() in _GIVEN_UP:
                    producer.commit_transaction(self._config.request_s)  # raises the reason
                    self._discard(producer)
                raise KafkaException(error)
        if left:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{left} records were not acknowledged"))
        producer.commit_transaction(self._config.request_s)
        return max(message.offset() or 0 for _, message in reports) + 1

    def _produce(self, producer: Producer, item: Message, on_delivery: DeliveryCallback) -> None:
        headers: list[tuple[str, str | bytes | None]] = [(name, text) for name, text in item.headers.items()]
        if ID_HEADER not in item.headers:
            headers.append((ID_HEADER, item.id))
        while True:
            try:
                producer.produce(
                    self._topic,
                    item.value,
                    key=item.key,
                    partition=self._number,
                    headers=headers,
                    on_delivery=on_delivery,
                )
                return
            except BufferError:
                if producer.flush(self._config.request_s):
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "the queue stays full")) from None

    def _failed(self, producer: Producer, error: KafkaError) -> SentinelError:
        """Abort, and return what the failure means; if aborting fails the outcome is open, and the producer goes."""
        doing = f"writing {self._name}"
        worst = error
        try:
            if error.code() == KafkaError._TIMED_OUT:  # an abort would time out too, or come after the commit
                self._discard(producer)
            elif not error.fatal():
                producer.abort_transaction(self._config.request_s)
        except KafkaException as e:
            worst = error_of(e)
        if worst is not error or error.fatal() or error.code() in UNKNOWN_TOPIC:
            # A new client ends the transaction and looks for the topic; this one cannot.
            self._discard(producer)
        if worst.code() in _FENCED or error.code() in _FENCED:
            return FatalError(
                f"{doing}: another process has taken over the transactional id {self._id}. If two deployments share "
                "this cluster, give each its own kafka.group_id"
            )
        if (reason := _REFUSED.get(error.code())) is not None:
            return DataError(reason, f"{self._name} refuses a record: {error.name()}")
        failure = self._meaning(worst if error.code() == KafkaError._FAIL else error, doing)
        if self._producer is None or error.txn_requires_abort():
            return RetryableError(str(failure))
        return failure


def _microseconds(header: object) -> int:
    """The microseconds of a header with an RFC 3339 time; 0 without one."""
    if not isinstance(header, bytes):
        return 0
    try:
        moment = datetime.fromisoformat(header.decode())
    except ValueError:
        return 0
    return round(moment.timestamp() * SECOND) if moment.tzinfo else 0
