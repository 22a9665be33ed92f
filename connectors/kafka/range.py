"""Reads a part of a topic, from an offset or a time up to another, without committing any offset."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from confluent_kafka import TopicPartition
from pydantic import ValidationError

from connectors.base import Chunk, Reader, State
from connectors.kafka.client import make_consumer, patiently
from connectors.kafka.config import KafkaConfig
from connectors.kafka.source import KafkaSource
from operators.decode.times import BadTime, parse_time
from operators.errors import ConfigError
from operators.model import SECOND
from operators.section import told

_EXAMPLE: Final = "kafka://localhost:9092/llm.telemetry?from=2025-03-03T00:00:00Z&to=2025-03-04T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in every partition: an offset, or a record timestamp in microseconds."""

    offset: int | None = None
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """A part of a topic: by default from its first record to its present end."""

    brokers: str
    topic: str
    start: Mark | None = None
    stop: Mark | None = None


def parse_address(text: str) -> Address:
    """Parse `kafka://BROKERS/TOPIC?from=..&to=..`; `from` is included, `to` is not. Raises `ConfigError`.

    A whole number is an offset in each partition; anything else is an RFC 3339 time.
    """
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ConfigError(f"the address of a topic cannot be read: write it as {_EXAMPLE}") from None
    topic = parts.path.strip("/")
    if "@" in parts.netloc:
        raise ConfigError("an address of a topic holds no user or password: set them in [kafka] options")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(set(query) - {"from", "to"}):
        raise ConfigError(f"the address of a topic: there is no {told(unknown[0])}; from and to can be set")
    marks = {name: _mark(name, value) for name, value in query.items()}
    try:
        KafkaConfig(brokers=parts.netloc, topics=(topic,))
    except ValidationError:
        raise ConfigError(f"the address names no brokers and topic: write it as {_EXAMPLE}") from None
    return Address(parts.netloc, topic, marks.get("from"), marks.get("to"))


def _mark(name: str, value: str) -> Mark:
    if value.isdecimal():
        return Mark(offset=int(value))
    try:
        return Mark(time=parse_time(value.replace(" ", "+")))  # a plus sign in a query is a space
    except BadTime as error:
        raise ConfigError(f"the address of a topic: {name} is no offset and no time: {error}") from None


class KafkaRange:
    """A part of a topic as a source; keeps the contract `ReaderFactory` with the partitions and offsets of Kafka."""

    def __init__(self, config: KafkaConfig, address: Address) -> None:
        """Take the brokers and the topic from the address, and everything else from `config`."""
        start = address.start
        begin: datetime | str = "earliest"
        if start is not None and start.time is not None:
            begin = datetime.fromtimestamp(start.time / SECOND, UTC)
        self._config = KafkaConfig.model_validate({
            **{name: getattr(config, name) for name in KafkaConfig.model_fields},
            "brokers": address.brokers, "topics": (address.topic,), "start": begin,
            "start_offsets": {}, "stop_at_end": True,
        })  # fmt: skip
        self._source = KafkaSource(self._config)
        self._address = address

    def partitions(self) -> list[str]:
        """The partitions of `KafkaSource`."""
        return self._source.partitions()

    def origin(self, partition: str) -> tuple[str, int]:
        """(topic, partition number)."""
        return self._source.origin(partition)

    def open(self, partition: str, position: int | None, log: State | None = None) -> RangeReader:
        """Open at `position`, or at the start of the range; a partition that ends earlier has no records of it."""
        start = self._address.start
        if position is not None or start is None or start.offset is None:
            return RangeReader(self._source.open(partition, position, log), self._address.stop)
        # A fetch from behind the end may wait for long.
        position = min(start.offset, self._end(partition))
        return RangeReader(self._source.open(partition, position), self._address.stop, start.offset)

    def _end(self, partition: str) -> int:
        """The offset behind the last record, according to the brokers; some give one that is too low."""
        consumer = make_consumer(self._config)
        place = TopicPartition(*self.origin(partition))

        def asked(timeout: float) -> int:
            _, high = consumer.get_watermark_offsets(place, timeout=timeout)
            return high

        try:
            return patiently(f"looking for the end of {partition}", asked, self._config)
        finally:
            consumer.close()

    def identity(self) -> str:
        """The identity of the source, and the bounds."""
        return f"{self._source.identity()} {self._address.start} {self._address.stop}"


class RangeReader:
    """A reader that ends before the first record at or behind `stop`, or with the reader that it wraps.

    It leaves out records before the offset `start`.
    """

    def __init__(self, reader: Reader, stop: Mark | None, start: int = 0) -> None:
        self._reader = reader
        self._start = start
        self._stop = stop or Mark()
        self._position: int | None = None  # where it was cut

    def poll(self, most: int) -> Chunk:
        """Poll the wrapped reader, and leave out everything behind the stop."""
        if self._position is not None:
            return Chunk([], np.zeros(0, np.int64), at_end=True, finished=True)
        chunk = self._after_start(self._reader.poll(most))
        stop, beyond = self._stop, np.zeros(len(chunk.values), np.bool_)
        if stop.offset is not None:
            beyond |= chunk.offsets >= stop.offset
        if stop.time is not None and chunk.arrivals is not None:
            beyond |= chunk.arrivals >= stop.time
        if beyond.any():
            n = int(beyond.argmax())
            self._position = int(chunk.offsets[n])
            arrivals = None if chunk.arrivals is None else chunk.arrivals[:n]
            return replace(
                chunk, values=chunk.values[:n], offsets=chunk.offsets[:n], arrivals=arrivals, at_end=True, finished=True
            )
        if stop.offset is not None and self._reader.position() >= stop.offset:
            self._position = self._reader.position()
            chunk.at_end = chunk.finished = True
        return chunk

    def _after_start(self, chunk: Chunk) -> Chunk:
        n = int(np.searchsorted(chunk.offsets, self._start))
        if not n:
            return chunk
        arrivals = None if chunk.arrivals is None else chunk.arrivals[n:]
        return replace(chunk, values=chunk.values[n:], offsets=chunk.offsets[n:], arrivals=arrivals)

    def position(self) -> int:
        """The offset of the first record that was not handed out."""
        return self._reader.position() if self._position is None else self._position

    def behind(self) -> int | None:
        """The records up to the end of the partition, not of the range."""
        return self._reader.behind()

    def log(self) -> State:
        """The log of the wrapped reader."""
        return self._reader.log()

    def durable(self, position: int) -> None:
        """Does nothing: reading a range leaves no trace on the brokers."""

    def close(self) -> None:
        self._reader.close()
