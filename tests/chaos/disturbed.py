"""A run of the main job as a cluster that is disturbed: its lives from start to death, and its end."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGSTOP, SIGTERM
from types import TracebackType

import orjson

from tests.brokers import Broker, read_all
from tests.processes import Job, Process
from tests.stepped_clock import SteppedClock

UNTIL_S = 3.0
"""The longest wait before a disturbance, in seconds after the previous one, or after the first reading since then."""
WAIT_S = 180.0
"""How long a life may take to begin, or to read its first records, on a busy machine, in seconds."""
AT_WORK = 0.7
"""The share of disturbances that wait for the first reading."""
CLUSTER: dict[str, object] = {
    "cluster.restarts": 1_000,
    "cluster.backoff_first_s": 0.05,
    "cluster.backoff_most_s": 0.2,
    "source.batch_size": 20,
    "kafka.request_s": 5,
}
Seen = Counter[tuple[str, Hashable]]


@dataclass
class Place:
    """The surroundings that all runs of a storm share."""

    brokers: Sequence[Broker]
    random: Random
    volumes: bool = False
    clock: SteppedClock | None = None
    until_s: float = UNTIL_S

    @property
    def address(self) -> str:
        return ",".join(broker.address for broker in self.brokers)


@dataclass
class Disturbed:
    """One run, with output topics, store and snapshots of its own. Leaving the context kills its processes."""

    place: Place
    job: Job
    source: str
    outputs: Sequence[str]
    changes: Mapping[str, object]
    name: str
    kills: int = 0
    gone: Seen = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.workers = self.place.random.choice((2, 3))
        self._pids: list[int] = []
        self.start()

    def __enter__(self) -> Disturbed:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fall()

    # --- its lives ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the run, or go on from its snapshots."""
        for path in self.job.folder.glob("balance-*.json"):  # of a life with another number of processes
            path.unlink()
        snapshot_s = self.place.random.choice((0, 0, 1))
        self._process = self._started(snapshot_s, {**CLUSTER, **self.changes})
        self._process.wait_for("started ")

    def _started(self, snapshot_s: int, changes: Mapping[str, object]) -> Process:
        program = ["flows.cluster", "--workers"]
        if self.place.volumes:
            program = ["tests.chaos.pods", "--pods"]
            changes = {**changes, "recovery.layout": "own", "recovery.partitions": 4}
        command = [sys.executable, "-m", *program, str(self.workers), *self.job.recovered(snapshot_s)]
        clock = self.place.clock.environment if self.place.clock else {}
        return Process(command, {**self.job.environment(changes), **clock}, self.job.folder / "log")

    def said(self) -> str:
        return self._process.said()

    def pids(self) -> list[int]:
        """The ids of the flow's living processes, without the supervisor; none if the run has ended."""
        with suppress(OSError):
            self._pids = self._process.children()
            return self._pids
        return []

    def wait(self) -> bool:
        """Wait until a random moment, usually one after the first reading; false if the run has ended by then."""
        if self.place.random.random() < AT_WORK:
            self.reading()
        time.sleep(self.place.random.uniform(0, self.place.until_s))
        return bool(self.pids())

    def reading(self) -> None:
        """Wait until the last life has read something or has ended."""
        deadline = time.monotonic() + WAIT_S
        while self._process.alive() and " events" not in self.said().rpartition("started ")[2]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"it reads nothing:\n{self.said()}")
            time.sleep(0.02)

    def again(self, lives: int) -> None:
        """Wait until the run has had more lives than this many, or has ended because everything is read."""
        deadline = time.monotonic() + WAIT_S
        while self.said().count("started ") == lives and self._process.alive():
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not start again:\n{self.said()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9 of one process; all come back."""
        lives = self.said().count("started ")
        with suppress(ProcessLookupError, IndexError):
            os.kill(self.place.random.choice(self.pids()), SIGKILL)
            self.kills += 1
        self.again(lives)

    def fall(self) -> None:
        """kill -9 of the supervisor, and so of all processes; returns when they are gone."""
        self._process.send(SIGSTOP)  # so that it starts no process that is missing in `pids`
        pids = self.pids() or self._pids
        self._process.send(SIGKILL)
        self._process.finish()
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
            if time.monotonic() > deadline:
                raise RuntimeError("a process outlived its supervisor")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop it with a last snapshot."""
        self._process.send(SIGTERM)
        if self._process.finish() not in (0, 1):
            raise RuntimeError(self.said())

    def read(self) -> int:
        """The number of records that all lives together have read, from the balance that the last life has left."""
        return sum(int(orjson.loads(p.read_bytes())["records"]) for p in self.job.folder.glob("balance-*.json"))

    def finish(self, **changes: object) -> None:
        """Run it to its end without a disturbance."""
        with suppress(RuntimeError):
            self.stop()
        self._process = self._started(1, {**CLUSTER, "source.batch_size": 2_000, **changes})
        if self._process.finish(600) != 0:
            raise RuntimeError(self.said())


def written(broker: Broker, outputs: Sequence[str]) -> Seen:
    """The alerts and dead letters that are on these two topics now, each as often as it is there."""
    alerts, letters = outputs
    seen: Seen = Counter(("alerts", message.value()) for message in read_all(broker, alerts))
    for message in read_all(broker, letters):
        told = orjson.loads(message.value() or b"")
        seen["dead", tuple(told[name] for name in ("id", "partition", "reason", "payload"))] += 1
    return seen


def without_ids(seen: Seen) -> Seen:
    """The same with dead letters without their ids, which depend on the topic that was read and an offset in it."""
    found: Seen = Counter()
    for (what, told), often in seen.items():
        found[what, told[1:] if what == "dead" and isinstance(told, tuple) else told] += often
    return found
