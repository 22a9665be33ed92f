"""Shows how far a running flow has come: one line that is rewritten, or without a terminal a line now and then."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from operators.units import moment


class Progress:
    """Adds up the reports of the polls and shows them. The clock serves the display alone.

    On a terminal the line is rewritten at most once a second, and the cursor is left at its start, so that the next
    output takes its place. Elsewhere a new line is written every five seconds. The first update is shown at once.
    Several worker threads may share one.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._tty = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._every = 1.0 if self._tty else 5.0
        self._lock = threading.Lock()
        self._began: float | None = None
        self._shown = 0.0
        self._broken = False
        self.events = self.dead = self.late = self.alerts = 0
        self.event_time_us: int | None = None

    def update(
        self, events: int = 0, event_time_us: int | None = None, dead: int = 0, late: int = 0, alerts: int = 0
    ) -> None:
        """Add the counts since the last call, and take the newest event time."""
        with self._lock:
            now = self._clock()
            first = self._began is None
            if self._began is None:
                self._began = now
            self.events += events
            self.dead += dead
            self.late += late
            self.alerts += alerts
            if event_time_us is not None:
                self.event_time_us = max(event_time_us, self.event_time_us or event_time_us)
            if first or now - self._shown >= self._every:
                self._shown = now
                self._show("\r" if self._tty else "\n", now - self._began)

    def finish(self) -> None:
        """Show the last state as a line that stays."""
        with self._lock:
            if self._began is not None:
                self._show("\n", self._clock() - self._began)

    def line(self, seconds: float) -> str:
        """The state after this number of seconds, as text."""
        parts = [f"{self.events:,} events"]
        if seconds >= 0.5:
            parts.append(f"{self.events / seconds:,.0f}/s")
        if self.event_time_us is not None:
            parts.append(f"at {moment(self.event_time_us)}")
        parts.append(f"{self.alerts:,} alerts")
        parts.append(f"{self.late:,} late")
        parts.append(f"{self.dead:,} dead letters")
        return ", ".join(parts)

    def _show(self, end: str, seconds: float) -> None:
        if self._broken:
            return
        text = self.line(seconds)
        if self._tty:
            # A line that wraps could not be rewritten.
            text = "\x1b[2K" + text[: max(1, shutil.get_terminal_size().columns - 1)]
        try:
            self._stream.write(text + end)
            self._stream.flush()
        except (OSError, ValueError):
            self._broken = True  # the reader has gone; the flow goes on
