"""Law 3 at large: `python -m tests.chaos.storm`, kills at random moments over a supervised cluster on Apache Kafka.

A topic is written once and read to its end by a run that nobody disturbs, and by clusters of two and three processes.
Of these a process dies by SIGKILL at a random moment (also while it starts, now and then the supervisor itself), the
number of processes changes over a stop, and the broker dies and comes back. Then alerts and dead letters as a
read_committed reader sees them, and the rows of the store, are compared record by record. The last line is one JSON
object; exit code 1 where anything was lost or doubled. With `--volumes` each process has a volume of its own and is
brought back by itself, as pods are (`tests.chaos.pods`), and the supervisor is the node that they are on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from signal import SIGKILL, SIGSTOP, SIGTERM
from uuid import uuid4

import orjson

from connectors.tables import TABLES
from flows.rescale import rescale
from tests.brokers import Broker, create_topic, kafka_broker, produce, read_all
from tests.chaos.test_kill import SETTINGS
from tests.flows.test_laws import dealt, spoil, traffic
from tests.processes import Job, Process

PARTITIONS = 3
BLOCK_MINUTES = 12
UNTIL_S = 3.0
"""The latest moment of a disturbance, in seconds after the one before it, or after the first reading since then."""
WAIT_S = 180.0
"""How long a life may take to come, or to its first reading, on a machine that is busy."""
AT_WORK = 0.7
"""The share of disturbances that wait for the first reading."""
CLUSTER: dict[str, object] = {
    "cluster.restarts": 1_000,
    "cluster.backoff_first_s": 0.05,
    "cluster.backoff_most_s": 0.2,
    "source.batch_size": 20,
}
Seen = Counter[tuple[str, Hashable]]


@dataclass
class Figures:
    """What the last line says; `lost` and `doubled` count alerts, dead letters and rows, each over all rounds."""

    events: int
    panes: int = 0
    alerts: int = 0
    kills: int = 0
    lost: int = 0
    doubled: int = 0


@dataclass
class Storm:
    """A topic, and rounds over it until there were enough kills."""

    broker: Broker
    folder: Path
    random: Random
    say: Callable[[str], None]
    blocks: int
    volumes: bool = False
    topic: str = field(default_factory=lambda: f"storm-{uuid4().hex[:8]}")
    records: int = 0
    expected: Seen = field(default_factory=Counter)
    rounds: int = 0
    rescalings: int = 0
    restarts: int = 0
    supervisors: int = 0

    def written(self) -> int:
        """Fill the topic; how many records it has."""
        create_topic(self.broker, self.topic, PARTITIONS)
        records = 0
        for number, values in enumerate(dealt(stretched(self.blocks), PARTITIONS, 1).values()):
            produce(self.broker, self.topic, values, number)
            records += len(values)
        return records

    def job(self, name: str) -> Job:
        """A job over the topic with output topics, store and snapshots of its own."""
        source = {
            "kafka.brokers": self.broker.address, "kafka.topics": [self.topic],
            "kafka.group_id": f"{self.topic}-{name}",
            "kafka.alert_topic": f"{self.topic}-{name}.alerts",
            "kafka.dead_letter_topic": f"{self.topic}-{name}.dead",
        }  # fmt: skip
        return Job(self.folder / name, {**SETTINGS, **source}, measured=False)

    def seen(self, name: str, job: Job) -> Seen:
        """All that users of the job see, each record and row as often as it is there."""
        seen: Seen = Counter()
        for what in ("alerts", "dead"):
            seen.update((what, m.value()) for m in read_all(self.broker, f"{self.topic}-{name}.{what}"))
        for table in TABLES:
            seen.update((table, row) for row in job.rows(table).values())
        return seen

    def run(self, kills: int) -> Figures:
        """Rounds until so many processes were killed; first, unless that was done, the run that nobody disturbs."""
        if not self.expected:
            self.records = self.written()
            job = self.job("undisturbed")
            job.run(seconds=900)
            self.expected = self.seen("undisturbed", job)
        panes, alerts = (sum(what == name for what, _ in self.expected) for name in ("llm_panes", "alerts"))
        figures = Figures(self.records, panes, alerts)
        self.say(f"undisturbed: {figures.events} events, {figures.panes} panes, {figures.alerts} alerts")
        while figures.kills < kills:
            self.rounds += 1
            name = f"round-{self.rounds}"
            job = self.job(name)
            figures.kills += self.round(job, kills - figures.kills)
            seen = self.seen(name, job)
            lost, doubled = (self.expected - seen).total(), (seen - self.expected).total()
            figures.lost += lost
            figures.doubled += doubled
            self.say(f"{name}: {figures.kills} kills so far, {lost} lost, {doubled} doubled")
        return figures

    def round(self, job: Job, most: int) -> int:
        """Disturb one run until it ends, or `most` processes were killed, and bring it to its end; the kills."""
        kills, workers = 0, self.random.choice((2, 3))
        process = self._started(job, workers)
        pids: list[int] = []
        try:
            while kills < most:
                self._wait(process)
                pids = self._children(process)
                if not pids:
                    break  # it has ended, or is between two lives; `finish` tells
                match self.random.choices(("kill", "rescale", "broker", "supervisor"), (70, 12, 10, 8))[0]:
                    case "kill":
                        lives = process.said().count("started ")
                        with suppress(ProcessLookupError):
                            os.kill(self.random.choice(pids), SIGKILL)
                            kills += 1
                        if not self._again(process, lives):
                            break
                    case "supervisor":
                        process.send(SIGSTOP)  # it starts nobody whom we do not know of
                        pids = self._children(process)
                        process.send(SIGKILL)
                        process.finish()
                        self._gone(pids)
                        kills += 1
                        self.supervisors += 1
                        process = self._started(job, workers)
                    case "rescale":
                        workers = 5 - workers
                        process.send(SIGTERM)
                        if process.finish() not in (0, 1):
                            raise RuntimeError(process.said())
                        if self.volumes:
                            rescale([job.folder / "recovery" / str(number) for number in range(3)], workers)
                        self.rescalings += 1
                        process = self._started(job, workers)
                    case _:
                        self.broker.kill()
                        time.sleep(self.random.uniform(0, 2))
                        self.broker.start()
                        self.restarts += 1
            with suppress(AssertionError):
                process.send(SIGTERM)
                process.finish()
        finally:
            process.send(SIGKILL)
            process.finish()
            self._gone(pids)
        with self._cluster(job, workers, 1, {**CLUSTER, "source.batch_size": 2_000}) as last:
            if last.finish(600) != 0:
                raise RuntimeError(last.said())
        return kills

    def _started(self, job: Job, workers: int) -> Process:
        process = self._cluster(job, workers, self.random.choice((0, 0, 1)), CLUSTER)
        process.wait_for("started ")
        return process

    def _cluster(self, job: Job, workers: int, snapshot_s: int, changes: dict[str, object]) -> Process:
        if not self.volumes:
            return job.cluster(workers, *job.recovered(snapshot_s), changes=changes)
        command = [sys.executable, "-m", "tests.chaos.pods", "--pods", str(workers), *job.recovered(snapshot_s)]
        own = {"recovery.layout": "own", "recovery.partitions": 4}
        return Process(command, job.environment({**changes, **own}), job.folder / "log")

    def _wait(self, process: Process) -> None:
        """Until a random moment: more often than not one at work."""
        deadline = time.monotonic() + WAIT_S
        at_work = self.random.random() < AT_WORK
        while at_work and process.alive() and " events" not in process.said().rpartition("started ")[2]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"it reads nothing:\n{process.said()}")
            time.sleep(0.02)
        time.sleep(self.random.uniform(0, UNTIL_S))

    @staticmethod
    def _children(process: Process) -> list[int]:
        with suppress(OSError):
            return process.children()
        return []

    @staticmethod
    def _again(process: Process, lives: int) -> bool:
        """Wait for the next life; false where there is none, for all was read."""
        deadline = time.monotonic() + WAIT_S
        while process.said().count("started ") == lives:
            if not process.alive():
                return False
            if time.monotonic() > deadline:
                raise RuntimeError(f"it did not start again:\n{process.said()}")
            time.sleep(0.02)
        return True

    @staticmethod
    def _gone(pids: list[int]) -> None:
        """Wait until the kernel has ended them; nobody may outlive the supervisor."""
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
            if time.monotonic() > deadline:
                raise RuntimeError("a process outlived its supervisor")
            time.sleep(0.02)


def stretched(blocks: int) -> list[bytes]:
    """Twelve minutes of traffic with its two incidents, over and over, some records broken, repeated or late."""
    out = []
    for block in range(blocks):
        for record in traffic(block, BLOCK_MINUTES):
            event = orjson.loads(record)
            event["event_id"] = f"b{block}-{event['event_id']}"
            event["timestamp"] = round(event["timestamp"] + block * BLOCK_MINUTES * 60, 3)
            out.append(orjson.dumps(event))
    return spoil(out, 1)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="how many processes are to die, at least (50)")
    parser.add_argument("--blocks", type=int, default=10, help="times twelve minutes of traffic on the topic (10)")
    parser.add_argument("--volumes", action="store_true", help="a volume for each process, as pods have")
    parser.add_argument("--seed", type=int, default=1, help="of what happens when (1)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        broker = kafka_broker(Path(folder))
        broker.start()
        try:
            random = Random(args.seed)
            storm = Storm(broker, Path(folder), random, lambda t: print(t, flush=True), args.blocks, args.volumes)
            figures = storm.run(args.kills)
        finally:
            broker.kill()
    print(
        f"{storm.rescalings} rescalings, {storm.restarts} restarts of the broker, "
        f"{storm.supervisors} of the kills were of the supervisor"
    )
    print(json.dumps(asdict(figures)))
    return 1 if figures.lost or figures.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
