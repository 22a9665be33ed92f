"""Handles a host clock that is set while the flow runs: all durations go by the monotonic clock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from operators.errors import FatalError
from operators.model import SECOND

log = logging.getLogger(__name__)

STEP_S: Final = 1.0
"""The least step of the clock in seconds; a smaller difference is drift, or the time between two readings."""


class Clock(Protocol):
    """A clock for waiting and measuring; the module `time` is one."""

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


HOST: Final[Clock] = time
"""The clock of this host."""


class SteadyClock:
    """The host's time of day without its steps, in microseconds; it never goes back.

    It runs like the monotonic clock. If the host's clock is ahead, it runs at most twice as fast until it has caught
    up; if the host's clock is behind, it stands still. A host clock that is an hour wrong for a minute makes it a
    minute wrong.
    """

    def __init__(self, now: Callable[[], int], clock: Clock) -> None:
        self._now = now
        self._clock = clock
        self._at = now()
        self._read = clock.monotonic()

    def __call__(self) -> int:
        read = self._clock.monotonic()
        passed = round((read - self._read) * SECOND)
        self._read = read
        self._at = min(max(self._now(), self._at), self._at + 2 * passed)
        return self._at


class ClockWatch:
    """Reports steps of the host's clock, and ends a flow that takes no snapshots because of one.

    Bytewax ends its epochs by the host's clock: after a step back by an hour it takes no snapshot for an hour. A
    restarted process takes snapshots at once, so `look` raises `FatalError` after `patience_s` without one.
    """

    def __init__(self, now: Callable[[], int], clock: Clock, patience_s: float, stepped: Callable[[], None]) -> None:
        self._now = now
        self._clock = clock
        self._patience_s = patience_s
        self._stepped = stepped
        self._lock = threading.Lock()
        self._ahead = self._difference()  # of the host's clock against the monotonic one
        self._back = 0.0  # seconds that the clock was set back
        self._behind_until = 0.0  # the monotonic time at which it has caught up
        self._since = 0.0  # the monotonic time of the step, or of the last snapshot after it

    def _difference(self) -> float:
        return self._now() / SECOND - self._clock.monotonic()

    def look(self) -> None:
        """Check the clock; the source calls this with each poll."""
        with self._lock:
            ahead = self._difference()
            step, self._ahead = ahead - self._ahead, ahead
            if abs(step) > STEP_S:
                self._tell(step)
            if self._behind_until:
                self._wait()

    def saved(self) -> None:
        """A snapshot was taken."""
        self._since = self._clock.monotonic()

    def _tell(self, step: float) -> None:
        self._stepped()
        if step > 0:
            log.warning("the host's clock went forward by %.0f s", step)
            self._behind_until -= min(step, self._behind_until)
            return
        log.warning(
            "the host's clock went back by %.0f s: the flow reads on, but there is no snapshot until it has caught up",
            -step,
        )
        self._back, self._since = -step, self._clock.monotonic()
        self._behind_until = max(self._behind_until, self._since) - step

    def _wait(self) -> None:
        now = self._clock.monotonic()
        if now > self._behind_until:
            self._behind_until = 0.0
        elif now - self._since > self._patience_s:
            raise FatalError(
                f"the host's clock went back by {self._back:.0f} s, and for {now - self._since:.0f} s there was no "
                "snapshot: start the flow again, it goes on from the last one"
            )
