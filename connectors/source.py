"""Makes a Bytewax source of any reader: each poll gives one item with its rows and the progress of the partition."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Protocol

import numpy as np
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.backoff import pause_s
from connectors.base import Chunk, Reader, ReaderFactory, State
from connectors.clocks import HOST, Clock, ClockWatch, SteadyClock
from connectors.config import ReliabilityConfig
from connectors.pace import Pace, Rest
from operators.config import TimeConfig
from operators.decode.base import Decoder
from operators.decode.config import DecodeConfig
from operators.decode.intake import Balance, Batch, Intake
from operators.enrich.enricher import Enrich
from operators.errors import ConfigError, FatalError, RetryableError
from operators.model import SECOND, Bools
from operators.panes.watermark import Idle, Progress, Watermark
from operators.stored import Stored, restored, stored

log = logging.getLogger(__name__)

_NAP_S: Final = 0.02
_TELL_S: Final = 1.0
"""How often at most a partition reports without new records that it stands at its end, or its lag, in seconds."""
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final = Chunk([], np.empty(0, np.int64))
"""The result of a poll that was not made, or failed."""


class SourceObserver(Protocol):
    """Watches the source, for metrics and progress."""

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        """Called once a poll."""
        ...

    def lagging(self, partition: str, records: int) -> None:
        """Note the records that the partition still has; called about once a second, also while it pauses."""
        ...


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Everything that a source partition is made with.

    `now` gives microseconds of the host's time of day; `clock` serves all waiting and measuring; `stopping` tells
    whether a stop was asked for. The others are callbacks. `traced` gets (partition, seconds, records) of each poll
    with records. `turned` follows every poll that did not fail, even an empty one; `retried` follows one that failed
    and will be repeated. `replaced` gets the name of a partition whose log is another one than before. `connected` is
    called when Bytewax asks for the partitions, once it has connected all processes; `stepped` when the host's clock
    was set. `decoders` are those of single topics or files, by name.
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
    stepped: Callable[[], None] = lambda: None
    clock: Clock = HOST
    decoders: Mapping[str, Decoder] = field(default_factory=dict)


class TelemetryPartition(StatefulSourcePartition[Batch, Stored]):
    """One partition: it polls its reader, judges the events, and reports its progress.

    A stop ends it silently (a stop is not an end); a finite source ends with the item `End`. The partition is idle when
    its real polls have stood at the end for the idle timeout without an event that is on time. It reports that every
    pane until such an event comes. After a resume it first reads again, batch by batch, the records that its memory for
    duplicates must hold. Records that are gone by now only shorten that memory.
    """

    VERSION = 2

    def __init__(
        self,
        key: str,
        parts: Sequence[str],
        settings: SourceSettings,
        pace: Pace,
        rest: Rest,
        watch: ClockWatch,
        resume: State | None,
    ) -> None:
        self._key = key
        self._parts = tuple(parts)
        self._s = settings
        self._pace = pace
        self._rest = rest
        self._watch = watch
        self._clock = settings.clock
        origin = settings.factory.origin(key)
        self._intake = Intake(
            origin,
            settings.decoders.get(origin[0], settings.decoder),
            settings.enrich,
            settings.time,
            settings.decode,
            settings.now(),
        )
        position, opened = (None, None) if resume is None else self._restore(resume)
        self._log = opened
        self._reader: Reader = settings.factory.open(key, position, opened)
        self._again: Reader | None = None  # fills the memory for duplicates with earlier records
        self._position = 0
        if position is not None:
            self._position = position
            self._read_again()
        self._announced = False
        self._saved: int | None = None  # the position in the last snapshot, until that is durable
        self._steady = SteadyClock(settings.now, settings.clock)  # for idleness alone
        self._quiet_since: float | None = None
        self._said_idle: float | None = None
        self._pace.tell(key, self._intake.watermark, at_end=False)
        self._said_at_end: bool | None = None  # None until the partition has reported for the first time
        self._told = self._lag_told = -_TELL_S
        self._failing_since: float | None = None
        self._failures = 0  # in a row
        self._due = 0.0

    def _restore(self, resume: State) -> tuple[int, State]:
        """The position, and the log that it counts in; a snapshot of the release before has no log."""
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
        """Open a reader at the oldest record that the memory for duplicates must hold."""
        if self._again is not None:
            self._again.close()
        start = self._intake.remember_from
        older = start is not None and start < self._position
        self._again = self._s.factory.open(self._key, start, self._log) if older else None

    def _remember(self, reader: Reader) -> bool:
        """Take one poll of earlier records into the memory for duplicates; returns whether any came."""
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
        if chunk.replaced:  # the earlier records are gone, and other records have their offsets
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
        if self._saved is not None:
            self._reader.durable(self._saved)
            self._saved = None
        if self._announced:  # the others wait until the flow has worked on the last records of this one
            self._pace.leave(self._key)
            raise StopIteration
        if self._s.stopping():
            raise StopIteration
        self._watch.look()
        batches = [] if self._clock.monotonic() < self._due else self._polled()
        self._rest.until(self._key, self._due)
        return batches

    def _polled(self) -> list[Batch]:
        """The items of one poll; `_due` becomes the time of the next poll if there are none."""
        self._due = 0.0
        self._steady()  # at each poll, so that a step of the host's clock does not pass for the time between two
        if self._again is None:
            self._tell_lag()
        if self._pace.ahead(self._key):
            return self._nap() if self._said_at_end is not None else self._judge(_NOTHING)
        try:
            if self._again is not None:
                came = self._remember(self._again)
                self._failing_since, self._failures = None, 0
                return [] if came else self._nap()
            began = self._clock.monotonic()
            chunk = self._reader.poll(self._s.batch_size)
        except RetryableError as error:
            return self._back_off(error)
        self._failing_since, self._failures = None, 0
        self._s.turned()
        batches = self._judge(chunk)
        if self._s.traced is not None and chunk.values:
            self._s.traced(self._key, self._clock.monotonic() - began, len(chunk.values))
        return batches

    def _judge(self, chunk: Chunk) -> list[Batch]:
        intake = self._intake
        intake.balance.skipped += chunk.skipped
        if chunk.replaced:
            intake.forget_offsets()
            self._s.replaced(self._key)
        taken = intake.take(chunk.values, chunk.offsets, chunk.arrivals, chunk.log)
        progress = self._progress(chunk, taken.on_time)
        if not chunk.values and progress is None:
            return self._nap()
        batch = Batch(self._key, self._parts, progress, *taken)
        self._s.observer.polled(self._key, batch, intake.balance, intake.watermark)
        return [batch]

    def _progress(self, chunk: Chunk, on_time: Bools) -> Progress:
        """The progress to report after this poll; None without news."""
        if chunk.finished:
            self._announced = True
            return self._intake.end
        at = self._intake.watermark
        self._pace.tell(self._key, at, chunk.at_end)
        now = self._clock.monotonic()
        was_idle = self._said_idle is not None
        if on_time.any() or not chunk.at_end:
            self._quiet_since = self._said_idle = None
        elif self._quiet_since is None:
            self._quiet_since = now
        if self._quiet_since is not None and now - self._quiet_since >= self._s.time.idle_s:
            return self._idle(now)
        if not (chunk.values or was_idle or self._turned(chunk.at_end, now)):
            return None
        self._said_at_end, self._told = chunk.at_end, now
        return Watermark(at, chunk.at_end)

    def _turned(self, at_end: bool, now: float) -> bool:
        """Whether to report without new records that the partition has reached its end, or left it.

        A partition reports once in any case, even if it waits or hangs from its start on. Its balance is then in the
        metrics, and the process is ready.
        """
        if self._said_at_end is None:
            return self._failing_since is None
        return at_end != self._said_at_end and (not at_end or now - self._told >= _TELL_S)

    def _idle(self, now: float) -> Idle | None:
        """The report, once a pane, that no event on time has come."""
        if self._said_idle is not None and now - self._said_idle < self._s.time.pane_s:
            return None
        self._said_idle = now
        self._said_at_end = False  # the next watermark is news
        return Idle(self._steady() - round((self._s.time.lateness_s + self._s.time.pane_s) * SECOND))

    def _tell_lag(self) -> None:
        now = self._clock.monotonic()
        if now - self._lag_told < _TELL_S:
            return
        self._lag_told = now
        behind = self._reader.behind()
        if behind is not None:
            self._s.observer.lagging(self._key, behind)

    def _nap(self) -> list[Batch]:
        self._due = self._clock.monotonic() + _NAP_S
        return []

    def _back_off(self, error: RetryableError) -> list[Batch]:
        """Come back later, until the budget is spent; the flow goes on meanwhile.

        A partition that has reported its end takes that back: it cannot know any more.
        """
        now, retry = self._clock.monotonic(), self._s.retry
        self._failing_since = self._failing_since if self._failing_since is not None else now
        failing = now - self._failing_since
        if failing > retry.budget_s:
            raise FatalError(
                f"source partition {self._key} failed for {failing:.0f} s (budget_s = {retry.budget_s:g}); "
                f"the last error: {error}"
            ) from error
        self._s.retried()
        self._failures += 1
        wait = pause_s(f"source {self._key}", self._failures, retry.backoff_first_s, retry.backoff_most_s)
        log.warning("source partition %s: %s; trying again in %.1f s", self._key, error, wait)
        batches = self._judge(_NOTHING)
        self._due = now + wait
        return batches

    def next_awake(self) -> datetime:
        """Always due: Bytewax would wait by the host's clock, which may be set back. `Rest` waits instead."""
        return _LONG_AGO

    def snapshot(self) -> Stored:
        self._watch.saved()
        self._saved = self._reader.position()
        return stored((self.VERSION, self._saved, self._reader.log(), self._intake.save()))

    def close(self) -> None:
        self._rest.leave(self._key)
        if self._again is not None:
            self._again.close()
        self._reader.close()


class TelemetrySource(FixedPartitionedSource[Batch, Stored]):
    """The partitions of a configured source; each item names all of them."""

    def __init__(self, settings: SourceSettings) -> None:
        self._settings = settings
        self._parts = settings.factory.partitions()
        self._pace = Pace(round(settings.time.max_ahead_s * SECOND))
        self._rest = Rest(settings.clock)
        self._watch = ClockWatch(settings.now, settings.clock, settings.retry.budget_s, settings.stepped)

    def heard(self, shard: int, reading: Callable[[], Mapping[str, int | None]]) -> None:
        """A shard of this process has heard of all partitions, see `Pace.heard`."""
        self._pace.heard(shard, reading)

    def list_parts(self) -> list[str]:
        self._settings.connected()
        return self._parts

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> TelemetryPartition:
        resume = None if resume_state is None else restored(resume_state, f"source partition {for_part}")
        return TelemetryPartition(for_part, self._parts, self._settings, self._pace, self._rest, self._watch, resume)
