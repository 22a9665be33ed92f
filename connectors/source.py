"""The Bytewax source of any reader: one item a poll, its state beside the offset, its progress with the rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.base import Chunk, Reader, ReaderFactory, State
from connectors.config import ReliabilityConfig
from operators.config import DecodeConfig, TimeConfig
from operators.decode.base import Decoder
from operators.enrich import Enrich
from operators.errors import ConfigError, FatalError, RetryableError
from operators.intake import Balance, Batch, Intake
from operators.model import SECOND
from operators.watermark import Idle, Progress, Watermark

log = logging.getLogger(__name__)

_NAP = timedelta(milliseconds=20)


class SourceObserver(Protocol):
    """What wants to know how the source fares; called once a poll."""

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None: ...


@dataclass(slots=True)
class Pace:
    """How far the partitions of this process are, in event time: who is too far ahead of the slowest live one waits."""

    max_ahead: int
    at: dict[str, int] = field(default_factory=dict)

    def ahead(self, partition: str) -> bool:
        mine = self.at.get(partition)
        return mine is not None and mine - min(self.at.values()) > self.max_ahead


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """All that a source partition is made with.

    `now` gives microseconds; `stopping` is true once a stop was asked for. `traced` is called with (partition, seconds,
    records) for each poll that brought some; `turned` after every poll that did not fail, empty ones too; `retried`
    after one that did and will be made again; `replaced` with the name of a partition whose log is another one than
    before; `connected` when Bytewax asks for the partitions, which it does once it has connected all processes.
    """

    factory: ReaderFactory
    decoder: Decoder
    enrich: Enrich
    time: TimeConfig
    decode: DecodeConfig
    retry: ReliabilityConfig
    batch_size: int
    now: Callable[[], int]
    stopping: Callable[[], bool]
    observer: SourceObserver
    traced: Callable[[str, float, int], None] | None = None
    turned: Callable[[], None] = lambda: None
    retried: Callable[[], None] = lambda: None
    replaced: Callable[[str], None] = lambda partition: None
    connected: Callable[[], None] = lambda: None


class TelemetryPartition(StatefulSourcePartition[Batch, State]):
    """One partition: polls its reader, judges what came, and says how far it is.

    A stop ends it without a word (a stop is not an end); a finite source ends with the item `End`. It is idle once
    polls that were really made have stood at the end for the idle timeout; it says so again every pane until something
    comes. After a resume it first reads again, batch by batch, what its memory for duplicates must hold; what is gone
    of that by now only shortens the memory.
    """

    VERSION = 2

    def __init__(
        self, key: str, parts: Sequence[str], settings: SourceSettings, pace: Pace, resume: State | None
    ) -> None:
        self._key = key
        self._parts = tuple(parts)
        self._s = settings
        self._pace = pace
        self._intake = Intake(
            settings.factory.origin(key),
            settings.decoder,
            settings.enrich,
            settings.time,
            settings.decode,
            settings.now(),
        )
        position, opened = (None, None) if resume is None else self._restore(resume)
        self._log = opened
        self._reader: Reader = settings.factory.open(key, position, opened)
        self._again: Reader | None = None  # reads what came before `_position` for the memory for duplicates
        self._position = 0
        if position is not None:
            self._position = position
            self._read_again()
        self._announced = False
        self._saved: int | None = None  # the position in the last snapshot, until it is known to be durable
        self._quiet_since: int | None = None
        self._said_idle: int | None = None
        self._failing_since: int | None = None
        self._wait = 0.0
        self._awake: datetime | None = None

    def _restore(self, resume: State) -> tuple[int, State]:
        """The position, and the log that it counts in: of that the release before said nothing."""
        match resume:
            case (1, int() as position, tuple() as intake):
                self._intake.restore(intake)
                return position, ()
            case (self.VERSION, int() as position, tuple() as log, tuple() as intake):
                self._intake.restore(intake)
                return position, log
        raise FatalError(
            f"the snapshot of source partition {self._key} has version {resume[0]!r}; this release reads {self.VERSION}"
        )

    def _read_again(self) -> None:
        """Open a reader for what came before the position, as far back as the memory for duplicates reaches."""
        if self._again is not None:
            self._again.close()
        start = self._intake.remember_from
        older = start is not None and start < self._position
        self._again = self._s.factory.open(self._key, start, self._log) if older else None

    def _remember(self, reader: Reader) -> bool:
        """Take one poll of what came before into the memory for duplicates; whether anything came."""
        try:
            chunk = reader.poll(self._s.batch_size)
        except (ConfigError, FatalError) as error:
            self._intake.forget_older()
            log.warning(
                "source partition %s: duplicates of some earlier records will not be noticed, "
                "for these cannot be read again: %s", self._key, error,
            )  # fmt: skip
            self._read_again()
            return True
        if chunk.replaced:  # what the memory would hold is gone, and other records have its offsets
            self._intake.forget_offsets()
            self._read_again()
            return True
        if chunk.skipped:
            log.warning(
                "source partition %s: duplicates of %d earlier records will not be noticed, for these are gone",
                self._key, chunk.skipped,
            )  # fmt: skip
        before = int((chunk.offsets < self._position).sum())
        arrivals = None if chunk.arrivals is None else chunk.arrivals[:before]
        self._intake.remember(chunk.values[:before], chunk.offsets[:before], arrivals)
        if reader.position() >= self._position or chunk.finished or (chunk.at_end and not chunk.values):
            reader.close()
            self._again = None
        return bool(chunk.values)

    def next_batch(self) -> list[Batch]:
        self._awake = None
        if self._saved is not None:
            self._reader.durable(self._saved)
            self._saved = None
        if self._announced or self._s.stopping():
            raise StopIteration
        if self._pace.ahead(self._key):
            return self._nap()
        try:
            if self._again is not None:
                came = self._remember(self._again)
                self._failing_since, self._wait = None, 0.0
                return [] if came else self._nap()
            began = self._s.now()
            chunk = self._reader.poll(self._s.batch_size)
        except RetryableError as error:
            return self._back_off(error)
        self._failing_since, self._wait = None, 0.0
        self._s.turned()
        batches = self._judge(chunk)
        if self._s.traced is not None and chunk.values:
            self._s.traced(self._key, (self._s.now() - began) / SECOND, len(chunk.values))
        return batches

    def _judge(self, chunk: Chunk) -> list[Batch]:
        intake = self._intake
        intake.balance.skipped += chunk.skipped
        if chunk.replaced:
            intake.forget_offsets()
            self._s.replaced(self._key)
        events, on_time, late, dead = intake.take(chunk.values, chunk.offsets, chunk.arrivals)
        progress = self._progress(chunk)
        if not chunk.values and progress is None:
            return self._nap()
        batch = Batch(self._key, self._parts, progress, events, on_time, late, dead, chunk.behind)
        mark = intake.watermark
        self._s.observer.polled(self._key, batch, intake.balance, mark.at if isinstance(mark, Watermark) else None)
        return [batch]

    def _progress(self, chunk: Chunk) -> Progress:
        """What the partition says of itself after this poll; None where there is nothing new to say."""
        if chunk.finished:
            self._announced = True
            self._pace.at.pop(self._key, None)
            return self._intake.end
        if chunk.values:
            self._quiet_since = self._said_idle = None
            mark = self._intake.watermark
            if isinstance(mark, Watermark):
                self._pace.at[self._key] = mark.at
            return mark
        now = self._s.now()
        if not chunk.at_end:
            self._quiet_since = None
            return None
        if self._quiet_since is None:
            self._quiet_since = now
        if now - self._quiet_since < self._s.time.idle_s * SECOND:
            return None
        self._pace.at.pop(self._key, None)
        if self._said_idle is not None and now - self._said_idle < self._s.time.pane_s * SECOND:
            return None
        self._said_idle = now
        return Idle(now - round((self._s.time.lateness_s + self._s.time.pane_s) * SECOND))

    def _nap(self) -> list[Batch]:
        self._awake = datetime.now(UTC) + _NAP
        return []

    def _back_off(self, error: RetryableError) -> list[Batch]:
        """Come back later, until the budget is spent; the flow goes on meanwhile."""
        now, retry = self._s.now(), self._s.retry
        self._failing_since = self._failing_since if self._failing_since is not None else now
        failing = (now - self._failing_since) / SECOND
        if failing > retry.budget_s:
            raise FatalError(
                f"source partition {self._key} failed for {failing:.0f} s (budget_s = {retry.budget_s:g}); "
                f"the last error: {error}"
            ) from error
        self._s.retried()
        self._wait = min(max(retry.backoff_first_s, self._wait * 2), retry.backoff_most_s)
        log.warning("source partition %s: %s; trying again in %.1f s", self._key, error, self._wait)
        self._quiet_since = None
        self._awake = datetime.now(UTC) + timedelta(seconds=self._wait)
        return []

    def next_awake(self) -> datetime | None:
        return self._awake

    def snapshot(self) -> State:
        self._saved = self._reader.position()
        return (self.VERSION, self._saved, self._reader.log(), self._intake.save())

    def close(self) -> None:
        if self._again is not None:
            self._again.close()
        self._reader.close()


class TelemetrySource(FixedPartitionedSource[Batch, State]):
    """The partitions of a configured source; every partition says with each item how many there are."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._parts = settings.factory.partitions()
        self._pace = Pace(round(settings.time.max_ahead_s * SECOND))

    def list_parts(self) -> list[str]:
        self._settings.connected()
        return self._parts

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> TelemetryPartition:
        return TelemetryPartition(for_part, self._parts, self._settings, self._pace, resume_state)
