"""Makes the heartbeats of this process: whether it reads and closes panes, its watermark, its number of alerts."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import orjson

from flows import __version__
from operators.config import TimeConfig
from operators.incidents.alert_json import rfc3339

SCHEMA: Final = "llm-sentinel.heartbeat/1"


def patience_s(of: TimeConfig) -> float:
    """How long a pane may stay open after some partition has passed it: twice the time until a partition is idle."""
    return 2 * (of.idle_s + of.pane_s)


class Pulse:
    """Counts the work of the flow; `say` gives the next heartbeat.

    It gives None when the source was not polled since the last heartbeat, and when panes do not close: a shard of this
    process has panes that some partition has passed, and has closed none for `patience_s`. A shard that waits for
    nothing need not close any. `now` gives microseconds, `clock` seconds that never go back.
    """

    def __init__(
        self,
        process: int,
        processes: int,
        now: Callable[[], int],
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._waiting: dict[int, tuple[int | None, float]] = {}  # by shard: the pane closed last, and since when
        self._process = process
        self._processes = processes
        self._now = now
        self._lock = threading.Lock()
        self._turns = 0
        self._said = 0
        self._sequence = 0
        self._alerts = 0
        self._records: dict[str, int] = {}
        self._marks: dict[str, int | None] = {}

    def turned(self) -> None:
        """A source partition was polled without a fault, with or without records."""
        with self._lock:
            self._turns += 1

    def polled(self, partition: str, records: int, watermark: int | None) -> None:
        """Note the records that a partition has given so far, and its watermark."""
        with self._lock:
            self._records[partition] = records
            self._marks[partition] = watermark

    def reached(self, shard: int, closed: int | None, newest: int | None) -> None:
        """A shard has closed panes up to `closed`; its fastest partition would allow panes up to `newest`."""
        with self._lock:
            if newest is None or (closed is not None and closed >= newest):
                self._waiting.pop(shard, None)
            elif shard not in self._waiting or self._waiting[shard][0] != closed:
                self._waiting[shard] = (closed, self._clock())

    def _closes(self) -> bool:
        longest = min((since for _, since in self._waiting.values()), default=None)
        return longest is None or self._clock() - longest <= self._patience_s

    def alerted(self) -> None:
        """An alert leaves the flow."""
        with self._lock:
            self._alerts += 1

    def say(self) -> bytes | None:
        """One JSON object; `watermark` is that of the slowest partition, null until each has one."""
        with self._lock:
            if self._turns == self._said or not self._closes():
                return None
            self._said = self._turns
            marks = list(self._marks.values())
            known = [m for m in marks if m is not None]
            text = {
                "schema": SCHEMA,
                "sequence": self._sequence,
                "at": rfc3339(self._now()),
                "process": self._process,
                "processes": self._processes,
                "version": __version__,
                "watermark": rfc3339(min(known)) if known and len(known) == len(marks) else None,
                "partitions": sorted(self._marks),
                "records": sum(self._records.values()),
                "alerts": self._alerts,
            }
            self._sequence += 1
        return orjson.dumps(text)
