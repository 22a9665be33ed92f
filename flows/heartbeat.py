"""What a heartbeat says of this process: that it reads, how far it is, and how many alerts it has sent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import orjson

from flows import __version__
from operators.alert_json import rfc3339

SCHEMA: Final = "llm-sentinel.heartbeat/1"


class Pulse:
    """Counts what the flow does; `say` gives the next heartbeat, or None where the source was not polled since."""

    def __init__(self, process: int, processes: int, now: Callable[[], int]) -> None:
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
        """A source partition was polled without a fault, whether anything came or not."""
        with self._lock:
            self._turns += 1

    def polled(self, partition: str, records: int, watermark: int | None) -> None:
        """All that a partition has given so far, and how far it is."""
        with self._lock:
            self._records[partition] = records
            self._marks[partition] = watermark

    def alerted(self) -> None:
        """An alert leaves the flow."""
        with self._lock:
            self._alerts += 1

    def say(self) -> bytes | None:
        """One JSON object; `watermark` is that of the partition that is least far, null until each has one."""
        with self._lock:
            if self._turns == self._said:
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
