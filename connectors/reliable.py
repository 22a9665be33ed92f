"""A Bytewax sink of any writer: chunks, tries again, splits out the bad item, flushes with the snapshot, and counts.

Bytewax holds an epoch back only for sinks with a snapshot, so this is a `FixedPartitionedSink` and everything given to
it is durable when `snapshot` returns. Without that a crash would lose what still stood in a buffer.
"""

from __future__ import annotations

import base64
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

import orjson
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.base import State, Writer, WriterFactory
from connectors.clocks import Clock
from connectors.config import ReliabilityConfig
from operators.errors import DataError, FatalError, RetryableError
from operators.stored import Stored, restored, stored

log = logging.getLogger(__name__)

X = TypeVar("X")
T = TypeVar("T")

VERSION: Final = 1
SLICE_S: Final = 0.2
"""Longest sleep without a look at the stop flag, in seconds."""


class Observer(Protocol):
    """What wants to know how sinks fare. Called once a chunk, try or item; must not raise."""

    def written(self, sink: str, items: int, seconds: float) -> None:
        """A chunk is durable; `seconds` is what it took, all tries included."""
        ...

    def retried(self, sink: str) -> None: ...

    def rejected(self, sink: str, reason: str) -> None: ...


class NullObserver:
    """The observer that looks away."""

    def written(self, sink: str, items: int, seconds: float) -> None: ...

    def retried(self, sink: str) -> None: ...

    def rejected(self, sink: str, reason: str) -> None: ...


Rejected = Callable[[str, object, DataError], None]
"""Called with (sink, item, error) for an item that its store refuses; called again when it is replayed."""


def _plain(value: object) -> object:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else repr(value)


class RejectedFile:
    """Appends each refused item to a file as one JSON line (sink, reason, detail, item); at least once over crashes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, sink: str, item: object, error: DataError) -> None:
        line = {"sink": sink, "reason": error.reason, "detail": error.detail, "item": item}
        try:
            text = orjson.dumps(line, default=_plain)
        except TypeError:  # an integer beyond 64 bits, a lone surrogate
            text = orjson.dumps(
                {**line, "item": ascii(item), "detail": error.detail.encode("ascii", "backslashreplace").decode()}
            )
        try:
            with self._path.open("ab") as file:
                file.write(text + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as e:
            raise FatalError(f"the file of rejected items {self._path} cannot be written: {e.strerror}") from e


def log_rejected(sink: str, item: object, error: DataError) -> None:
    """Log that an item was refused, without its values."""
    log.warning("%s refused an item (%s); set rejected_file to keep such items", sink, error.reason)


def never() -> bool:
    """The stop flag of a program that is not stopped."""
    return False


class Retry:
    """Calls something again while it raises RetryableError, with doubled waits, until the budget is spent."""

    def __init__(
        self, name: str, config: ReliabilityConfig, observer: Observer, stopping: Callable[[], bool], clock: Clock
    ) -> None:
        self._name = name
        self._config = config
        self._observer = observer
        self._stopping = stopping
        self._clock = clock
        self.patient = True  # whether it tries again at all

    def __call__(self, call: Callable[[], T]) -> T:
        """The result of `call`; FatalError when the budget is spent or the program stops first."""
        wait = self._config.backoff_first_s
        first: float | None = None
        while True:
            try:
                return call()
            except RetryableError as e:
                error = e
            self._observer.retried(self._name)
            now = self._clock.monotonic()
            first = now if first is None else first
            left = self._config.budget_s - (now - first)
            if left <= 0 or not self.patient:
                raise FatalError(
                    f"sink {self._name} failed for {now - first:.0f} s (budget_s = {self._config.budget_s:g}); "
                    f"the last error: {error}"
                ) from error
            log.warning("sink %s: %s; trying again in %.1f s", self._name, error, min(wait, left))
            self._sleep(min(wait, left), error)
            wait = min(wait * 2, self._config.backoff_most_s)

    def _sleep(self, seconds: float, error: RetryableError) -> None:
        until = self._clock.monotonic() + seconds
        while True:
            if self._stopping():
                raise FatalError(f"sink {self._name}: stopped while trying again; the last error: {error}") from error
            left = until - self._clock.monotonic()
            if left <= 0:
                return
            self._clock.sleep(min(left, SLICE_S))


class ReliablePartition(StatefulSinkPartition[X, Stored], Generic[X]):
    """One open partition of a `ReliableSink`."""

    def __init__(
        self,
        name: str,
        writer: Writer[X],
        config: ReliabilityConfig,
        retry: Retry,
        rejected: Rejected,
        observer: Observer,
        clock: Clock,
        at_once: bool,
    ) -> None:
        self._name = name
        self._writer = writer
        self._chunk = config.chunk_rows
        self._retry = retry
        self._rejected = rejected
        self._observer = observer
        self._clock = clock
        self._at_once = at_once
        self._buffer: list[X] = []
        self._failed = False

    def write_batch(self, values: list[X]) -> None:
        """Write whole chunks, keep the rest for the next call or the snapshot; write all where `at_once` is set."""
        self._buffer.extend(values)
        whole = len(self._buffer) if self._at_once else len(self._buffer) // self._chunk * self._chunk
        if whole:
            self._flush(whole)

    def snapshot(self) -> Stored:
        """Make everything durable, then say what a successor needs."""
        self._flush(len(self._buffer))
        return stored((VERSION, self._writer.snapshot()))

    def close(self) -> None:
        """Try once to flush what is left, which a flow that fails has not in a snapshot, and close the writer.

        Never raises: Bytewax closes sinks while an error is on its way, and a second one would abort the process.
        """
        self._retry.patient = False
        for part in (self._flush_rest, self._writer.close):
            try:
                part()
            except Exception as e:  # noqa: BLE001 - whatever it is, it must not be raised here
                log.warning("closing sink %s: %s", self._name, e)

    def _flush_rest(self) -> None:
        if not self._failed:
            self._flush(len(self._buffer))

    def _flush(self, count: int) -> None:
        for low in range(0, count, self._chunk):
            chunk = self._buffer[low : min(low + self._chunk, count)]
            begin = self._clock.monotonic()
            good = self._write(chunk)
            self._observer.written(self._name, good, self._clock.monotonic() - begin)
        del self._buffer[:count]

    def _write(self, items: Sequence[X]) -> int:
        """Write the items, those its store refuses aside; how many were written."""
        try:
            self._failed = True
            self._retry(lambda: self._writer.write(items))
            self._failed = False
            return len(items)
        except DataError as error:
            if len(items) > 1:
                half = len(items) // 2
                return self._write(items[:half]) + self._write(items[half:])
            self._rejected(self._name, items[0], error)
            self._failed = False
            self._observer.rejected(self._name, error.reason)
            return 0


class ReliableSink(FixedPartitionedSink[X, Stored], Generic[X]):
    """A Bytewax sink of (key, item) that writes through the factory's writers.

    `at_once` writes every batch as it comes (alerts); otherwise items wait for a whole chunk or the epoch's snapshot.
    `stopping` is asked between slices of at most 0.2 s of every wait. Writing and opening raise FatalError when the
    budget is spent, when the program stops while a neighbour is away, or where the writer says that nothing helps.
    """

    def __init__(
        self,
        factory: WriterFactory[X],
        config: ReliabilityConfig,
        *,
        at_once: bool = False,
        stopping: Callable[[], bool] = never,
        rejected: Rejected | None = None,
        observer: Observer | None = None,
        clock: Clock = time,
    ) -> None:
        self._factory = factory
        self._config = config
        self._at_once = at_once
        self._observer = observer or NullObserver()
        self._clock = clock
        self._retry = Retry(factory.name, config, self._observer, stopping, clock)
        if rejected is None:
            rejected = RejectedFile(config.rejected_file) if config.rejected_file else log_rejected
        self._rejected = rejected

    def list_parts(self) -> list[str]:
        """The partitions of the factory."""
        return self._factory.partitions()

    def part_fn(self, item_key: str) -> int:
        """The partition that writes this key."""
        return self._factory.route(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> ReliablePartition[X]:
        """Open the writer of the partition; None as the state does not mean that nothing was written."""
        state: State | None = None
        owner = f"partition {for_part} of sink {self._factory.name}"
        resume = None if resume_state is None else restored(resume_state, owner)
        match resume:
            case None:
                pass
            case (1, None):
                pass
            case (1, tuple(inner)):
                state = inner
            case _:
                raise FatalError(
                    f"the snapshot of sink {self._factory.name} has version {resume[:1]}, this program reads "
                    f"version {VERSION}: resume with the program that wrote it, or start with a new recovery folder"
                )
        writer = self._retry(lambda: self._factory.open(for_part, state))
        return ReliablePartition(
            self._factory.name,
            writer,
            self._config,
            self._retry,
            self._rejected,
            self._observer,
            self._clock,
            self._at_once,
        )
