"""The work on the records of one source partition before the exchange: decode, deduplicate, judge, count.

The state (running maximum, counts, the beginning of the memory for duplicates) is part of the partition's own snapshot,
beside the offset, and depends on the partition's content alone: not on batches, workers or crashes. Every event that
comes in is exactly one of on time, late, duplicate, dead letter. What a record holds beside events, such as spans of
agents, is passed over and counted apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from operators.config import TimeConfig
from operators.decode.base import Decoder
from operators.decode.config import DecodeConfig
from operators.decode.seen import Seen
from operators.enrich.enricher import Enrich
from operators.enrich.pricing import unpriced
from operators.errors import FatalError
from operators.model import NO_ARRIVAL, SECOND, Bools, DeadLetter, Events, Ints, Reason
from operators.panes.watermark import End, Progress, judge
from operators.series import OTHER, sent


@dataclass(slots=True)
class Balance:
    """Law 2 in numbers: `events` = `on_time` + `late` + `duplicate` + dead letters, over the partition's whole life.

    On time or late is the partition's own judgement. Events whose pane a shard had closed while the partition was idle
    or over stay `on_time` here; the metric `sentinel_events_overtaken` counts them. They correct stored rows as late
    events do, and like these are never judged.
    """

    records: int = 0
    on_time: int = 0
    late: int = 0
    duplicate: int = 0
    skipped: int = 0  # records that the source lost before they could be read
    unpriced: int = 0  # events, on time or late, with tokens but with neither a cost nor a price for them
    dead: dict[str, int] = field(default_factory=dict)
    passed_over: dict[str, int] = field(default_factory=dict)  # what tells of no call, by what it is; no events

    @property
    def events(self) -> int:
        """All events that came in."""
        return self.on_time + self.late + self.duplicate + sum(self.dead.values())

    def __add__(self, other: Balance) -> Balance:
        """The sum of both."""
        return Balance(
            self.records + other.records,
            self.on_time + other.on_time,
            self.late + other.late,
            self.duplicate + other.duplicate,
            self.skipped + other.skipped,
            self.unpriced + other.unpriced,
            _sum(self.dead, other.dead),
            _sum(self.passed_over, other.passed_over),
        )


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in sorted({**a, **b})}


@dataclass(slots=True)
class Batch:
    """One judged poll of one partition, which the source hands on.

    `on_time` and `late` are masks over `events`; an event in neither is a duplicate, or too late to correct anything.
    `repeats` counts calls that a record told more than once, which are no events here; `formats` counts the records by
    their format where that was found out; `unknown` counts attributes that look like usage and that nobody knows.
    `partitions` are all partitions of the source. Progress travels with the rows, since a separate stream would have no
    order relative to them.
    """

    partition: str
    partitions: tuple[str, ...]
    progress: Progress
    events: Events
    on_time: Bools
    late: Bools
    dead: list[DeadLetter]
    repeats: int = 0
    formats: Mapping[str, int] = field(default_factory=dict)
    unknown: Mapping[str, int] = field(default_factory=dict)


class Taken(NamedTuple):
    """The judged events of some records, as in `Batch`."""

    events: Events
    on_time: Bools
    late: Bools
    dead: list[DeadLetter]
    repeats: int
    formats: Mapping[str, int]
    unknown: Mapping[str, int]


class Intake:
    """The pure state of one source partition, between its reader and the flow.

    `began` is the time at which the run began, in microseconds: the arrival of all records if the source gives none.
    The snapshot keeps it. A single record without an arrival takes the highest one before it in its partition; if there
    is none, its events are not judged by arrival.
    """

    VERSION = 3

    def __init__(
        self,
        origin: tuple[str, int],
        decoder: Decoder,
        enrich: Enrich,
        time: TimeConfig,
        decode: DecodeConfig,
        began: int,
    ) -> None:
        self._origin = origin
        self._decoder = decoder
        self._enrich = enrich
        self._time = time
        self._decode = decode
        self._began = began
        self._width = time.pane_s * SECOND
        self._lateness = round(time.lateness_s * SECOND)
        self._correction = time.correction_s // time.pane_s
        self._skew = round(time.future_skew_s * SECOND)
        self._max_age = None if time.max_age_s is None else round(time.max_age_s * SECOND)
        self._arrived = NO_ARRIVAL  # the highest arrival so far
        self._max_start: int | None = None
        self._max_end: int | None = None
        self.balance = Balance()
        self._horizon = round(decode.dedupe_s * SECOND)
        self._seen = Seen(self._horizon, decode.dedupe_max_ids) if decode.dedupe_s else None
        # (offset, running maximum, highest arrival), a minute apart, from which to read again
        self._marks: list[tuple[int, int, int]] = []
        self._rebuilt = 0  # the running maximum up to which the memory was read again
        self._rebuilt_arrived = NO_ARRIVAL

    @property
    def watermark(self) -> int | None:
        """No event before this time is expected any more; None until the partition has shown an event."""
        return None if self._max_start is None else self._max_start - self._lateness

    @property
    def end(self) -> End:
        """The report of the partition when its finite source is over."""
        return End(self._max_start, self._max_end)

    def take(self, values: Sequence[bytes], offsets: Ints, arrivals: Ints | None, log: str = "") -> Taken:
        """Judge the next records.

        `log` is the id of the log that the offsets count in, "" if it has none.
        """
        decoded = self._decoder.decode(values, self._decode, self._time.timestamp_is)
        events = self._enrich(decoded.events)
        events.combos = [tuple(map(sent, of)) if OTHER in "".join(of) else of for of in events.combos]
        dead = [self._dead(int(offsets[f.record]), f.reason, f.detail, f.payload, log, f.call) for f in decoded.faults]
        arrived, highest = self._arrivals(len(values), arrivals, self._arrived)
        arrival = arrived[events.record]
        good = self._not_ahead(events, arrival)
        for i in np.flatnonzero(~good).tolist():
            ahead = (int(events.end[i]) - int(arrival[i])) / SECOND
            detail = f"ends {ahead:.0f} s after it arrived; time.future_skew_s allows {self._time.future_skew_s:g}"
            call = int(events.call[i])
            dead.append(self._dead(int(offsets[events.record[i]]), Reason.FUTURE_TIME, detail, "", log, call))
        dead.sort(key=lambda letter: (letter.offset, letter.call))

        aged = self._aged(events.end, arrival)
        chosen = np.flatnonzero(good)
        if self._seen is not None and len(chosen):
            running = self._running(events.start[chosen], aged[chosen], self._max_start or 0)
            self._mark(offsets[events.record[chosen]], running, highest[events.record[chosen]])
            chosen = chosen[~self._seen.repeats(events.keys[chosen], running)]
        duplicates = int(good.sum()) - len(chosen) + decoded.repeats
        judged = judge(
            events.start[chosen], events.end[chosen], self._max_start, self._lateness, self._width, self._correction,
            aged[chosen],
        )  # fmt: skip
        self._max_start = judged.max_start
        self._arrived = int(highest[-1])
        if len(chosen):
            last = int(events.end[chosen].max())
            self._max_end = last if self._max_end is None else max(last, self._max_end)
        masks = np.zeros((2, len(events)), np.bool_)
        masks[0, chosen[judged.on_time]] = True
        masks[1, chosen[judged.late]] = True

        balance = self.balance
        balance.records += len(values)
        on_time = int(judged.on_time.sum())
        balance.on_time += on_time
        balance.late += len(chosen) - on_time
        balance.unpriced += int(unpriced(events)[chosen].sum())
        balance.duplicate += duplicates
        for letter in dead:
            balance.dead[letter.reason] = balance.dead.get(letter.reason, 0) + 1
        balance.passed_over = _sum(balance.passed_over, decoded.passed_over)
        return Taken(events, masks[0], masks[1], dead, decoded.repeats, decoded.formats, decoded.unknown)

    def _dead(self, offset: int, reason: str, detail: str, payload: str, log: str, call: int) -> DeadLetter:
        return DeadLetter(self._origin[0], self._origin[1], offset, reason, detail, payload, log, call)

    def _arrivals(self, records: int, arrivals: Ints | None, before: int) -> tuple[Ints, Ints]:
        """The arrival of each record, and the highest arrival before each of them and after the last."""
        if arrivals is None:
            return np.full(records, self._began), np.full(records + 1, before)
        highest = np.maximum.accumulate(np.concatenate(([before], arrivals)))
        return np.where(arrivals == NO_ARRIVAL, highest[:-1], arrivals), highest

    def _not_ahead(self, events: Events, arrival: Ints) -> Bools:
        """Whether each event ends no later after its arrival than clocks may differ."""
        not_ahead: Bools = (events.end <= arrival + self._skew) | (arrival == NO_ARRIVAL)
        return not_ahead

    def _aged(self, end: Ints, arrival: Ints) -> Bools:
        """Whether each event ended too long before it arrived."""
        if self._max_age is None:
            return np.zeros(len(end), np.bool_)
        aged: Bools = (end < arrival - self._max_age) & (arrival != NO_ARRIVAL)
        return aged

    @staticmethod
    def _running(start: Ints, aged: Bools, before: int) -> Ints:
        """The running maximum of starts that move time, up to each event."""
        return np.maximum(np.maximum.accumulate(np.where(aged, 0, start)), before)

    def _mark(self, offsets: Ints, running: Ints, highest: Ints) -> None:
        """Keep the offsets from which a successor must read again to know the recent ids."""
        minute = 60 * SECOND
        for k in np.flatnonzero(np.diff(running // minute, prepend=-1)).tolist():
            if not self._marks or int(running[k]) // minute > self._marks[-1][1] // minute:
                self._marks.append((int(offsets[k]), int(running[k]), int(highest[k])))
        oldest = int(running[-1]) - self._horizon
        if self._seen is not None and self._seen.full and self._seen.oldest is not None:
            oldest = max(oldest, self._seen.oldest)
        while len(self._marks) > 1 and self._marks[1][1] < oldest:
            self._marks.pop(0)

    @property
    def remember_from(self) -> int | None:
        """The offset from which `remember` must be fed after a resume; None if there is nothing to remember."""
        return self._marks[0][0] if self._seen is not None and self._marks else None

    def forget_older(self) -> None:
        """The records from `remember_from` on are gone: begin half as far back, or with nothing."""
        self._marks = self._marks[(len(self._marks) + 1) // 2 :]
        self._begin_rebuilding()

    def _begin_rebuilding(self) -> None:
        _, self._rebuilt, self._rebuilt_arrived = self._marks[0] if self._marks else (0, 0, NO_ARRIVAL)

    def forget_offsets(self) -> None:
        """Forget all offsets, since they count in another log from now on."""
        self._marks = []
        self._begin_rebuilding()

    def remember(self, values: Sequence[bytes], offsets: Ints, arrivals: Ints | None) -> None:
        """Rebuild the memory for duplicates from records judged before: nothing is counted or handed on."""
        if self._seen is None:
            return
        decoded = self._decoder.decode(values, self._decode, self._time.timestamp_is).events
        arrived, highest = self._arrivals(len(values), arrivals, self._rebuilt_arrived)
        self._rebuilt_arrived = int(highest[-1])
        arrival = arrived[decoded.record]
        good = np.flatnonzero(self._not_ahead(decoded, arrival))
        if not len(good):
            return
        running = self._running(decoded.start[good], self._aged(decoded.end, arrival)[good], self._rebuilt)
        self._rebuilt = int(running[-1])
        self._seen.repeats(decoded.keys[good], running)

    def save(self) -> tuple[object, ...]:
        return (
            self.VERSION,
            self._began,
            self._max_start,
            self._max_end,
            tuple(sorted(asdict(self.balance).items())),
            tuple(self._marks),
            self._arrived,
        )

    def restore(self, state: tuple[object, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for a version that this release does not read."""
        if state[0] == 1:
            *before, marks = state[1:]
            assert isinstance(marks, tuple)
            state = (2, *before, tuple((*mark, NO_ARRIVAL) for mark in marks), NO_ARRIVAL)
        if state[0] == 2:  # without what was passed over, which was nothing
            state = (self.VERSION, *state[1:])
        match state:
            case (self.VERSION, int() as began, max_start, max_end, tuple() as balance, tuple() as marks, int(arrived)):
                self._began = began
                self._max_start = max_start if isinstance(max_start, int) else None
                self._max_end = max_end if isinstance(max_end, int) else None
                self.balance = Balance(**dict(balance))
                self._marks = list(marks)
                self._arrived = arrived
                self._begin_rebuilding()
            case _:
                raise FatalError(
                    f"a source partition's state in the snapshot has version {state[0]!r}; "
                    f"this release reads {self.VERSION}"
                )
