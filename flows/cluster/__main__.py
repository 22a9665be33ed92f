"""`python -m flows.cluster --workers N`: one flow in N processes, which fall together and come back together.

What a crash leaves is the last snapshot, and from there all go on: one alone cannot, for its peers stand elsewhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import secrets
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from connectors.backoff import pause_s
from flows.cluster.members import Members, ended_by, free_addresses
from flows.process.logs import set_up_logging
from flows.recovery.store import place
from flows.run import variable
from flows.settings.model import CONFIG_EXIT_CODE, ClusterConfig, Settings, load
from flows.settings.schema import secrets_of
from operators.errors import ConfigError

log = logging.getLogger("flows.cluster")  # __name__ is __main__

GIVEN_UP_EXIT_CODE: Final = 75
"""The exit code when there were too many restarts (EX_TEMPFAIL of sysexits.h)."""
SNAPSHOT_S: Final = "10"
FALL_S: Final = 0.5
"""How long the others may take to say why they end, when one has died."""
_NAP_S: Final = 0.05


class Restarts:
    """How often the cluster came back of late, and how long to wait before it does again."""

    def __init__(self, config: ClusterConfig) -> None:
        self._config = config
        self._times: deque[float] = deque()

    def pause(self, now: float) -> float | None:
        """Seconds to wait before the restart that is due at `now`; None where there were too many within the window."""
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
    """The signals that came: the first asks for an end, the second for one at once."""

    def __init__(self) -> None:
        self.came: list[int] = []

    def install(self) -> None:
        """Take SIGTERM, SIGINT and, unless it is ignored as under nohup, SIGHUP; SIGUSR1 is for the members alone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._handle)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.came and number == signal.SIGHUP:
            return  # a terminal that closes sends it twice: by its shell and by the kernel
        self.came.append(number)


class Supervisor:
    """Starts the members, waits, and starts them again until they are finished, stopped, misconfigured or hopeless."""

    def __init__(self, start: Callable[[], Members], config: ClusterConfig, stop: Stop) -> None:
        self._start = start
        self._config = config
        self._stop = stop

    def run(self) -> int:
        """The exit code: 0 (all have a last snapshot), 78, 75, 1 (a stop left none), 128 + n (a second signal)."""
        restarts = Restarts(self._config)
        while True:
            codes = self._life()
            if len(self._stop.came) > 1:
                return 128 + self._stop.came[1]
            if CONFIG_EXIT_CODE in codes:
                log.error("what is wrong with the set-up is said above; that does not pass by itself")
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
        """Wait; false as soon as a stop is asked for."""
        until = time.monotonic() + seconds
        while not self._stop.came and time.monotonic() < until:
            time.sleep(_NAP_S)
        return not self._stop.came

    def _life(self) -> list[int]:
        """Start all and return their codes when all have ended; when one has died the others are ended too."""
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


def environments(settings: Settings, environ: Mapping[str, str], workers: int) -> list[dict[str, str]]:
    """The environment of each process: with a metrics port and a balance file of its own, where these are set.

    All have one token, made up where none is set.
    """
    found = []
    token = {} if settings.recovery.token else {variable("recovery.token"): secrets.token_hex(32)}
    for number in range(workers):
        own = dict(token)
        if settings.metrics.port:
            own[variable("metrics.port")] = str(settings.metrics.port + number)
        if (path := settings.metrics.balance_file) is not None and workers > 1:
            own[variable("metrics.balance_file")] = str(path.with_stem(f"{path.stem}-{number}"))
        found.append({**environ, **own})
    return found


def arguments_of(rest: Sequence[str], environ: Mapping[str, str], workers: int) -> tuple[list[str], list[str] | None]:
    """(arguments of each `bytewax.run`, the addresses that were given); `ConfigError` where they make no cluster."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-i", "--process-id")
    parser.add_argument("-a", "--addresses")
    parser.add_argument("-s", "--snapshot-interval", default=environ.get("BYTEWAX_SNAPSHOT_INTERVAL", SNAPSHOT_S))
    parser.add_argument("-b", "--backup-interval", default=environ.get("BYTEWAX_RECOVERY_BACKUP_INTERVAL", "0"))
    known, others = parser.parse_known_args(list(rest))
    if known.process_id is not None:
        raise ConfigError("-i is not for a cluster: its processes are numbered by it")
    if place(others, environ).folder is None:
        raise ConfigError("a cluster comes back from its snapshots: give it a recovery folder with -r")
    addresses = known.addresses.split(";") if known.addresses else None
    if addresses is not None and len(addresses) != workers:
        raise ConfigError(f"-a names {len(addresses)} addresses for {workers} processes: give one for each, or none")
    return [*others, "-s", known.snapshot_interval, "-b", known.backup_interval], addresses


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.cluster",
        description="Run one flow in several processes on this host. When one dies the others are ended, and all start "
        "again from the last snapshot, after a pause that doubles with each restart of late. SIGTERM, SIGHUP or Ctrl-C "
        "ends all with a last snapshot, a second one at once. The limits are settings: cluster.* "
        "(`python -m flows.check --explain cluster`). Any other argument is for bytewax.run: -r FOLDER (needed), "
        f"-s SECONDS between snapshots ({SNAPSHOT_S}), -b, -a ADDRESSES (free ports on loopback where not given).",
        epilog="Process i serves metrics at metrics.port + i, and writes its balance to a file with -i in its name. "
        f"Exit code: 0 when all ended with a last snapshot, {CONFIG_EXIT_CODE} where the settings are wrong, "
        f"{GIVEN_UP_EXIT_CODE} after too many restarts, 1 where a stop left no last snapshot, 128 + n "
        "after a second signal. "
        "Example: python -m flows.cluster --workers 2 -r recovery",
        allow_abbrev=False,
    )
    parser.add_argument("--workers", type=int, required=True, metavar="N", help="how many processes")
    parser.add_argument("--flow", default="flows.main", help="what bytewax.run is to run. Default: flows.main")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if args.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        settings = load(os.environ, Path.cwd()).settings
        arguments, addresses = arguments_of(rest, os.environ, args.workers)
        if settings.recovery.layout == "own":
            raise ConfigError(
                'recovery.layout = "own" is for pods with a volume each; the processes of one host share their folder'
            )
    except ConfigError as error:
        print(f"flows.cluster: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    set_up_logging(settings.log.level, settings.log.format, None, secrets_of(settings))
    stop = Stop()
    stop.install()
    own = environments(settings, os.environ, args.workers)

    def start() -> Members:
        return Members(args.flow, arguments, addresses or free_addresses(args.workers), own)

    return Supervisor(start, settings.cluster, stop).run()


if __name__ == "__main__":
    sys.exit(main())
