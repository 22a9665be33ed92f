"""Says at once when most of what comes in becomes dead letters, with the reasons, an example and what to do."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from typing import Final

from operators.decode.intake import Balance, Batch
from operators.model import DeadLetter, Reason
from operators.text import printable

LEAST: Final = 20
"""The fewest events that a share is taken of: a handful of bad records among the first ones tells little."""

DATA_EXIT_CODE: Final = 65
"""The exit code of a run over events of which nothing was usable (EX_DATAERR)."""

_SHOWN: Final = 300  # characters of a payload: the whole of it stands in the dead letter
_FORMAT: Final = (
    "`llm-sentinel decode FILE` shows what becomes of a record; JSON of another shape is read by [source.mapping] "
    "(docs/formats.md)"
)
_CLOCK: Final = "the records are understood, but their clocks are ahead of the flow's (docs/bad-input.md, Clocks)"

log = logging.getLogger(__name__)


def nothing_usable(balance: Balance) -> str | None:
    """The sentence about input of which nothing was usable; None where something was, or where nothing came in."""
    if balance.on_time + balance.late + balance.duplicate:
        return None
    parts = []
    if balance.dead:
        parts.append(f"all {balance.events:,} events became dead letters")
    if balance.passed_over:
        listed = ", ".join(f"{name} {n:,}" for name, n in sorted(balance.passed_over.items()))
        parts.append(f"what tells of no call was passed over ({listed})")
    return f"nothing was usable: {'; '.join(parts)}" if parts else None


class DeadLetterWatch:
    """Warns when more than half of the events of some polls are dead letters, and at the end when it is so of all.

    The share is taken of the events since the last one was taken, at least `LEAST` of them, so that a format that
    changes after a month of good records is told as soon as one that never fitted. Half, since a stream with more bad
    than good records is hardly the one that was meant; fewer are counted, as ever. While the flow runs each most
    frequent reason is told once, so there are never more warnings than reasons. Several worker threads may share one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all = _Counts()
        self._recent = _Counts()
        self._told: set[str] = set()

    def polled(self, batch: Batch) -> None:
        """Count the events and dead letters of a poll."""
        with self._lock:
            self._all.add(batch)
            self._recent.add(batch)
            if self._recent.events < LEAST:
                return
            if self._recent.mostly_dead and (reason := self._recent.most_frequent) not in self._told:
                self._told.add(reason)
                log.warning("of the last %s", self._recent.sentence())
            self._recent = _Counts()

    def finish(self) -> None:
        """Say it of all events since the start, however few."""
        with self._lock:
            if self._all.mostly_dead:
                log.warning("in the end, of %s", self._all.sentence())


class _Counts:
    """Events, the reasons of the dead letters among them, and the first letter of each reason."""

    def __init__(self) -> None:
        self.events = 0
        self.reasons: Counter[str] = Counter()
        self.first: dict[str, DeadLetter] = {}

    def add(self, batch: Batch) -> None:
        # The events of the batch hold those that are dead since they end in the future.
        self.events += len(batch.events)
        for letter in batch.dead:
            self.events += letter.reason != Reason.FUTURE_TIME
            self.reasons[letter.reason] += 1
            self.first.setdefault(letter.reason, letter)

    @property
    def mostly_dead(self) -> bool:
        return 2 * self.reasons.total() > self.events

    @property
    def most_frequent(self) -> str:
        return min(self.reasons, key=lambda reason: (-self.reasons[reason], reason))

    def sentence(self) -> str:
        """The share, the reasons, the example and the remedy."""
        dead, letter = self.reasons.total(), self.first[self.most_frequent]
        listed = ", ".join(
            f"{reason} {n:,}" for reason, n in sorted(self.reasons.items(), key=lambda of: (-of[1], of[0]))
        )
        payload = printable(letter.payload)
        shown = payload if len(payload) <= _SHOWN else f"{payload[:_SHOWN]}..."
        return (
            f"{self.events:,} events {dead:,} became dead letters ({100 * dead / self.events:.0f} %): {listed}. "
            f"For example offset {letter.offset} in partition {letter.partition} of {printable(letter.origin)}: "
            f"{letter.reason} ({printable(letter.detail)}){f', payload {shown}' if shown else ''}. "
            f"What to do: {_CLOCK if letter.reason == Reason.FUTURE_TIME else _FORMAT}"
        )
