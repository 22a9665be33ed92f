"""A Bytewax sink of any writer: makes chunks, retries, isolates bad items, flushes with the snapshot, and counts.

Bytewax holds an epoch back only for sinks with a snapshot, so this is a `FixedPartitionedSink`, and all its items are
durable when `snapshot` returns. Otherwise a crash would lose the items in a buffer.
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

from connectors.backoff import pause_s
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
"""The longest sleep without a check of the stop flag, in seconds."""


class Observer(Protocol):
    """Watches sinks, for metrics and traces. Called once for each chunk, try or item; must not raise."""

    def written(self, sink: str, items: int, seconds: float) -> None:
        """A chunk is durable after `seconds`, all tries included."""
        ...

    def retried(self, sink: str) -> None: ...

    def rejected(self, sink: str, reason: str) -> None: ...

    def dropped(self, sink: str, reason: str, items: int) -> None:
        """A sink at best effort dropped items that its system might have taken."""
        ...


class NullObserver:
    """An observer that does nothing."""

    def written(self, sink: str, items: int, seconds: float) -> None: ...

    def retried(self, sink: str) -> None: ...

    def rejected(self, sink: str, reason: str) -> None: ...

    def dropped(self, sink: str, reason: str, items: int) -> None: ...


Rejected = Callable[[str, object, DataError], None]
"""Called with (sink, item, error) for an item that its store refuses; called again when it is replayed."""


def _plain(value: object) -> object:
    return base64.b64encode(value).decode("ascii") if isinstance(value, bytes) else repr(value)


class RejectedFile:
    """Appends each refused item to a file as one JSON line (sink, reason, detail, item), at least once over crashes."""

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


def keeper(config: ReliabilityConfig) -> Rejected:
    """The handler of refused items that the settings ask for: it keeps them in a file, or only logs them."""
    return RejectedFile(config.rejected_file) if config.rejected_file else log_rejected


def never() -> bool:
    """The stop flag of a program that is not stopped."""
    return False


class Retry:
    """Repeats a call while it raises `RetryableError`, with growing waits, until the budget is spent.

    `partition` distinguishes this one from all others of the sink; `pause_s` has the reason.
    """

    def __init__(
        self,
        name: str,
        partition: str,
        config: ReliabilityConfig,
        observer: Observer,
        stopping: Callable[[], bool],
        clock: Clock,
    ) -> None:
        self._name = name
        self._owner = f"sink {name} {partition}"
        self._config = config
        self._observer = observer
        self._stopping = stopping
        self._clock = clock
        self.patient = True  # False: one try only

    def __call__(self, call: Callable[[], T], since: float | None = None) -> T:
        """The result of `call`, which is tried at least once.

        The budget counts from `since`, or else from the first failure. Raises `FatalError` when it is spent, or when
        the program stops first.
        """
        first, failures = since, 0
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
            failures += 1
            wait = pause_s(self._owner, failures, self._config.backoff_first_s, self._config.backoff_most_s)
            log.warning("sink %s: %s; trying again in %.1f s", self._name, error, min(wait, left))
            self._sleep(min(wait, left), error)

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
        singly: bool = False,
    ) -> None:
        self._name = name
        self._writer = writer
        self._chunk = 1 if singly else config.chunk_rows
        self._retry = retry
        self._rejected = rejected
        self._observer = observer
        self._clock = clock
        self._at_once = at_once
        self._buffer: list[X] = []
        self._failed = False

    def write_batch(self, values: list[X]) -> None:
        """Write whole chunks and keep the rest for the next call or the snapshot; if `at_once` is set, write all."""
        self._buffer.extend(values)
        whole = len(self._buffer) if self._at_once else len(self._buffer) // self._chunk * self._chunk
        if whole:
            self._flush(whole)

    def snapshot(self) -> Stored:
        """Make everything durable, then return the state for a successor."""
        self._flush(len(self._buffer))
        return stored((VERSION, self._writer.snapshot()))

    def close(self) -> None:
        """Try once to flush the rest, which a failing flow has in no snapshot, and close the writer.

        Never raises: Bytewax closes sinks while it passes an error on, and a second error would abort the process.
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
        done = 0
        try:
            while done < count:
                chunk = self._buffer[done : min(done + self._chunk, count)]
                begin = self._clock.monotonic()
                good = self._write(chunk)
                done += len(chunk)
                self._observer.written(self._name, good, self._clock.monotonic() - begin)
        finally:
            del self._buffer[:done]

    def _write(self, items: Sequence[X]) -> int:
        """Write the items except those that the store refuses; returns the number of written items."""
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


def resumed(sink: str, partition: str, snapshot: State | None) -> State | None:
    """The writer's state in a sink partition's snapshot. Raises `FatalError` where another version wrote it."""
    if snapshot is None:
        return None
    match restored(snapshot, f"partition {partition} of sink {sink}"):
        case (1, None):
            return None
        case (1, tuple(state)):
            return state
        case other:
            raise FatalError(
                f"the snapshot of sink {sink} has version {other[:1]}, this program reads version {VERSION}: "
                "resume with the program that wrote it, or start with a new recovery folder"
            )


class ReliableSink(FixedPartitionedSink[X, Stored], Generic[X]):
    """A Bytewax sink of (key, item) that writes through the factory's writers.

    `at_once` writes every batch as it comes (alerts); otherwise items wait for a whole chunk or the epoch's snapshot.
    `singly` hands items over one by one, so that items already taken do not come again when another one fails. It is
    for writers that neither undo nor overwrite (`Guarantee`).
    `stopping` is checked at least every 0.2 s of a wait. Writing and opening raise `FatalError` when the budget is
    spent, when the program stops while a neighbour is away, or when the writer raises it.
    """

    def __init__(
        self,
        factory: WriterFactory[X],
        config: ReliabilityConfig,
        *,
        at_once: bool = False,
        singly: bool = False,
        stopping: Callable[[], bool] = never,
        rejected: Rejected | None = None,
        observer: Observer | None = None,
        clock: Clock = time,
    ) -> None:
        self._factory = factory
        self._config = config
        self._at_once = at_once
        self._singly = singly
        self._observer = observer or NullObserver()
        self._clock = clock
        self._stopping = stopping
        self._rejected = rejected or keeper(config)

    def list_parts(self) -> list[str]:
        """The partitions of the factory."""
        return self._factory.partitions()

    def part_fn(self, item_key: str) -> int:
        """The partition that writes this key."""
        return self._factory.route(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> ReliablePartition[X]:
        """Open the writer of the partition. Even without a state something may have been written to it before."""
        state = resumed(self._factory.name, for_part, resume_state)
        retry = Retry(self._factory.name, for_part, self._config, self._observer, self._stopping, self._clock)
        writer = retry(lambda: self._factory.open(for_part, state))
        return ReliablePartition(
            self._factory.name,
            writer,
            self._config,
            retry,
            self._rejected,
            self._observer,
            self._clock,
            self._at_once,
            self._singly,
        )
