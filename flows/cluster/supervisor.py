"""The supervisor of a cluster: starts the members, waits, and starts them all again from the last snapshot."""

from __future__ import annotations

import logging
import platform
import signal
import time
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Final

from connectors.backoff import pause_s
from flows.cluster.members import Members, ended_by
from flows.settings.model import CONFIG_EXIT_CODE, ClusterConfig

log = logging.getLogger(__name__)

GIVEN_UP_EXIT_CODE: Final = 75
"""The exit code when there were too many restarts (EX_TEMPFAIL of sysexits.h)."""
FALL_S: Final = 0.5
"""How long the other processes may take to log why they end after one has died, in seconds."""
_NAP_S: Final = 0.05


class Restarts:
    """The recent restarts of the cluster, and the pause before the next one."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._times: deque[float] = deque()

    def pause(self, now: float) -> float | None:
        """Seconds to wait before a restart that is due at `now`; None after too many within the window."""
        while self._times and self._times[0] <= now - self._config.window_s:
            self._times.popleft()
        if len(self._times) >= self._config.restarts:
            return None
        self._times.append(now)
        first_s, most_s = self._config.backoff_first_s, self._config.backoff_most_s
        return pause_s(f"cluster on {platform.node()}", len(self._times), first_s, most_s)

    def __str__(self) -> str:
        return f"restart {len(self._times)} of at most {self._config.restarts} within {self._config.window_s:g} s"


class Stop:
    """The signals that came: the first asks for an end, the second for an immediate end."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def install(self) -> None:
        """Handle SIGTERM, SIGINT and SIGHUP (unless ignored, as under nohup); SIGUSR1 is only for the members."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._handle)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came and number == signal.SIGHUP:
            return  # when a terminal closes, both its shell and the kernel send SIGHUP
        self.came.append(number)


class Supervisor:
    """Starts the members and restarts them, until they are finished, stopped, misconfigured, or restarted too often."""

    def __init__(self, start: Callable[[], Members], config: ClusterConfig, stop: Stop) -> None:
        self._start = start
        self._config = config
        self._stop = stop

    def run(self) -> int:
        """Run to the end and return the exit code.

        0: all have a last snapshot; 78: wrong settings; 75: too many restarts; 1: a stop left no last snapshot;
        128 + n: a second signal.
        """
        restarts = Restarts(self._config)
        while True:
            codes = self._life()
            if len(self._stop.came) > 1:
                return 128 + self._stop.came[1]
            if CONFIG_EXIT_CODE in codes:
                log.error("the set-up is wrong, as said above; another start would not help")
                return CONFIG_EXIT_CODE
            if not any(codes):
                log.info("all %d processes have ended well", len(codes))
                return 0
            if self._stop.came:
                return self._no_snapshot()
            pause = restarts.pause(time.monotonic())
            if pause is None:
                log.error(
                    "given up after %d restarts within %g s (cluster.restarts, cluster.window_s); "
                    "the next start goes on from the last snapshot",
                    self._config.restarts, self._config.window_s,
                )  # fmt: skip
                return GIVEN_UP_EXIT_CODE
            log.warning("all %d start again from the last snapshot in %.1f s: %s", len(codes), pause, restarts)
            if not self._waited(pause):
                return self._no_snapshot()

    def _no_snapshot(self) -> int:
        log.warning("stopped without a last snapshot; the next start goes on from the one before")
        return 1

    def _waited(self, seconds: float) -> bool:
        """Wait this long; returns False as soon as a stop is asked for, else True."""
        until = time.monotonic() + seconds
        while not self._stop.came and time.monotonic() < until:
            time.sleep(_NAP_S)
        return not self._stop.came

    def _life(self) -> list[int]:
        """Start all, and return their codes when all have ended; after one has died the others are ended too."""
        members = self._start()
        log.info("started %d processes: %s", len(members.pids), ", ".join(map(str, members.pids)))
        deadline: float | None = None
        told, dead = False, set[int]()
        try:
            while True:
                codes = members.codes()
                for number, code in enumerate(codes):
                    if code and number not in dead:
                        dead.add(number)
                        log.warning("process %d of %d %s", number, len(codes), ended_by(code))
                        deadline = deadline if len(dead) > 1 else time.monotonic() + FALL_S
                ended = [code for code in codes if code is not None]
                if len(ended) == len(codes):
                    return ended
                if self._stop.came and not told:
                    log.info("%s: all stop after a last snapshot", signal.Signals(self._stop.came[0]).name)
                    members.stop()
                    told, deadline = True, deadline or time.monotonic() + self._config.stop_s
                if len(self._stop.came) > 1 or (deadline is not None and time.monotonic() > deadline):
                    log.warning("%d of %d processes are killed", codes.count(None), len(codes))
                    members.kill()
                    return [code if code is not None else -signal.SIGKILL for code in codes]
                time.sleep(_NAP_S)
        finally:
            members.kill()
