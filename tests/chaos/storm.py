"""Law 3 at large: `python -m tests.chaos.storm` disturbs a supervised cluster on Apache Kafka in many ways.

A topic is written once, with aborted transactions between its records. An undisturbed run reads it to its end, and so
do clusters of two and three processes, in rounds. These are disturbed at random moments, also while they start. The
kinds of disturbances are in `tests.chaos.disturbances`; --kinds selects among them. Two kinds have rounds with a topic
of their own: with `input-hung` a transaction stays open for a while in the middle of that topic, and with `input-anew`
the topic is deleted when its first half is read, and made again with the second half. Then alerts and dead letters as a
read_committed reader sees them, and the rows of the store, are compared record by record with the undisturbed run. The
last line is one JSON object. The exit code is 1 if anything was lost or doubled; then the log, store and snapshots of
the round, the lost and doubled records, and the files of the undisturbed run are kept (--keep). With `--volumes` each
process has a volume of its own and comes back by itself, like a pod (`tests.chaos.pods`); the supervisor then stands
for their node.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from uuid import uuid4

import orjson
from confluent_kafka import Producer

from connectors.tables import TABLES
from tests.brokers import Broker, create_topic, delete_topic, kafka_broker, kafka_pair
from tests.chaos.disturbances import KINDS, hanging
from tests.chaos.disturbed import Disturbed, Place, Seen, without_ids, written
from tests.chaos.test_kill import SETTINGS
from tests.flows.test_laws import dealt, spoil, traffic
from tests.processes import Job
from tests.stepped_clock import SteppedClock

PARTITIONS = 3
BLOCK_MINUTES = 12
TRANSACTION = 200
"""Records that are committed together; after each such transaction another one is aborted."""
ROUNDS = {"input-hung": 4, "input-anew": 4}
"""Kinds that need a round of their own, and how often they come relative to the others."""
LIVE: dict[str, object] = {"kafka.stop_at_end": False, "time.idle_s": 600}
"""Settings while such a round is disturbed: the run waits for more records, and the clock closes no pane meanwhile."""
HUNG: dict[str, object] = {**LIVE, "time.idle_s": 5, "time.max_ahead_s": 86_400}
"""Settings with an open transaction: other partitions are read to their end, however far ahead, and are then idle."""
HUNG_S = 15.0
"""How long a transaction stays open after a start with nothing to read, in seconds: the start and the idleness of the
other partitions need this time."""
IN_VAIN = 5
"""The storm fails after this many rounds in a row that ended before any disturbance."""


@dataclass
class Figures:
    """The fields of the last line; `lost` and `doubled` count alerts, dead letters and rows over all rounds."""

    events: int = 0
    panes: int = 0
    alerts: int = 0
    kills: int = 0
    lost: int = 0
    doubled: int = 0
    befell: dict[str, int] = field(default_factory=dict)


def planned(random: Random, kinds: Sequence[str], kills: int) -> list[str]:
    """Random kinds that kill at least this many processes; if none of the kinds kills, this many of them."""
    weights = [KINDS[kind].weight if kind in KINDS else ROUNDS[kind] for kind in kinds]
    deadly = [kind for kind in kinds if kind in KINDS and KINDS[kind].kills]
    found: list[str] = []
    while sum(kind in deadly or not deadly for kind in found) < kills:
        found += random.choices(kinds, weights)
    return found


@dataclass
class Storm:
    """A topic, and rounds over it until all planned disturbances have happened."""

    place: Place
    folder: Path
    say: Callable[[str], None]
    blocks: int
    keep: Path | None = None
    topic: str = field(default_factory=lambda: f"storm-{uuid4().hex[:8]}")
    expected: Seen = field(default_factory=Counter)
    figures: Figures = field(default_factory=Figures)
    rounds: int = 0

    def __post_init__(self) -> None:
        self._halves = [halves(values) for values in dealt(stretched(self.blocks), PARTITIONS, 1).values()]

    def job(self, name: str, topic: str) -> Job:
        """A job over the topic with output topics, store and snapshots of its own."""
        alerts, dead = self._outputs(name)
        source = {
            "kafka.brokers": self.place.address, "kafka.topics": [topic], "kafka.group_id": f"{self.topic}-{name}",
            "kafka.alert_topic": alerts, "kafka.dead_letter_topic": dead, "kafka.on_expired": "earliest",
        }  # fmt: skip
        return Job(self.folder / name, {**SETTINGS, **source})

    def _outputs(self, name: str) -> tuple[str, str]:
        return f"{self.topic}-{name}.alerts", f"{self.topic}-{name}.dead"

    def _make(self, topic: str) -> None:
        create_topic(self.place.brokers[0], topic, PARTITIONS, replicas=len(self.place.brokers))

    def _write(self, topic: str, half: int) -> int:
        for number, values in enumerate(self._halves):
            in_transactions(self.place.brokers[0], topic, number, values[half])
        return sum(len(values[half]) for values in self._halves)

    def run(self, plan: Sequence[str]) -> Figures:
        """Run rounds until all disturbances of the plan have happened, in its order; first the undisturbed run."""
        figures, left, in_vain = self.figures, deque(plan), 0
        if not self.expected:
            self._make(self.topic)
            figures.events = self._write(self.topic, 0) + self._write(self.topic, 1)
            job = self.job("undisturbed", self.topic)
            job.run(seconds=900)
            self.expected = self._seen("undisturbed", job)
            panes, alerts = (sum(what == name for what, _ in self.expected) for name in ("llm_panes", "alerts"))
            figures.panes, figures.alerts = panes, alerts
            self.say(f"undisturbed: {figures.events} events, {panes} panes, {alerts} alerts")
        while left:
            self.rounds += 1
            before = len(left)
            kind = left.popleft() if left[0] in ROUNDS else ""
            play = {"input-hung": self._hung, "input-anew": self._anew}.get(kind, self._plain)
            befell = [kind] if kind else []
            with play(f"round-{self.rounds}", left, befell) as run:
                run.finish()
                self._compare(run, befell)
            in_vain = in_vain + 1 if len(left) == before else 0
            if in_vain == IN_VAIN:
                raise RuntimeError("each run ends before any disturbance: give it more to read (--blocks)")
        return figures

    @contextmanager
    def _plain(self, name: str, left: deque[str], befell: list[str]) -> Iterator[Disturbed]:
        with self._disturbed(name, self.topic) as run:
            self._befall(run, left, befell, len(left))
            yield run

    @contextmanager
    def _hung(self, name: str, left: deque[str], befell: list[str]) -> Iterator[Disturbed]:
        """A round in which half of a partition stands behind an open transaction."""
        topic = f"{self.topic}-{name}.in"
        self._make(topic)
        first = self._write(topic, 0)
        give_up = hanging(self.place.brokers[0], [(topic, 0)])
        second = self._write(topic, 1)
        with self._disturbed(name, topic, HUNG) as run:
            self._befall(run, left, befell, 2)
            self._read_to(run, first + second - len(self._halves[0][1]))
            run.start()
            time.sleep(HUNG_S)
            give_up()
            yield run

    @contextmanager
    def _anew(self, name: str, left: deque[str], befell: list[str]) -> Iterator[Disturbed]:
        """A round whose topic is deleted when all of its first half is read and in a snapshot."""
        topic = f"{self.topic}-{name}.in"
        self._make(topic)
        first = self._write(topic, 0)
        with self._disturbed(name, topic, LIVE) as run:
            self._befall(run, left, befell, 2)
            self._read_to(run, first)
            delete_topic(self.place.brokers[0], topic)
            self._make(topic)
            self._write(topic, 1)
            run.start()
            self._befall(run, left, befell, 2)
            yield run

    @staticmethod
    def _read_to(run: Disturbed, records: int) -> None:
        """Stop it when this many records are read and in a snapshot."""
        run.stop()
        while run.read() < records:
            run.start()
            run.wait()
            run.stop()

    def _disturbed(self, name: str, topic: str, changes: Mapping[str, object] | None = None) -> Disturbed:
        return Disturbed(self.place, self.job(name, topic), topic, self._outputs(name), changes or {}, name)

    @staticmethod
    def _befall(run: Disturbed, left: deque[str], befell: list[str], most: int) -> None:
        """Disturb the run by the next `most` kinds of the plan, unless it ends or a kind needs its own round."""
        while left and left[0] not in ROUNDS and most and run.wait():
            befell.append(left.popleft())
            KINDS[befell[-1]].befall(run)
            most -= 1

    def _seen(self, name: str, job: Job) -> Seen:
        """All records and rows that users of the job see, each as often as it is there."""
        seen = written(self.place.brokers[0], self._outputs(name))
        for table in TABLES:
            seen.update((table, row) for row in job.rows(table).values())
        return seen

    def _compare(self, run: Disturbed, befell: Sequence[str]) -> None:
        seen, expected = self._seen(run.name, run.job) | run.gone, self.expected
        if run.source != self.topic:
            seen, expected = without_ids(seen), without_ids(expected)
        missing, more = expected - seen, seen - expected
        lost, doubled = missing.total(), more.total()
        figures = self.figures
        figures.lost += lost
        figures.doubled += doubled
        figures.kills += run.kills
        for kind in befell:
            figures.befell[kind] = figures.befell.get(kind, 0) + 1
        if (lost or doubled) and self.keep is not None:
            self._keep_all_of(run, {"lost": missing, "doubled": more})
        told = f"{figures.kills} kills so far, {lost} lost, {doubled} doubled"
        self.say(f"{run.name}: {', '.join(befell) or 'nothing'}; {told}")
        for what, found in (("lost", missing), ("doubled", more)):
            if found:
                self.say(f"  {what}: {dict(Counter(where for where, _ in found.elements()))}")

    def _keep_all_of(self, run: Disturbed, found: Mapping[str, Seen]) -> None:
        assert self.keep is not None
        for name in ("undisturbed", run.name):
            shutil.copytree(self.folder / name, self.keep / name, dirs_exist_ok=True)
        for what, seen in found.items():
            lines = sorted(f"{where} {told!r}" for where, told in seen.elements())
            (self.keep / run.name / f"{what}.txt").write_text("\n".join(lines) + "\n")
        self.say(f"{run.name} is kept in {self.keep / run.name}")


def halves(values: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """The two halves, the second without the values of the first: ids of a deleted topic are not remembered."""
    first = values[: len(values) // 2]
    known = set(first)
    return first, [value for value in values[len(first) :] if value not in known]


def stretched(blocks: int) -> list[bytes]:
    """Twelve minutes of traffic with two incidents, this many times, with some records broken, repeated or late."""
    out = []
    for block in range(blocks):
        for record in traffic(block, BLOCK_MINUTES):
            event = orjson.loads(record)
            event["event_id"] = f"b{block}-{event['event_id']}"
            event["timestamp"] = round(event["timestamp"] + block * BLOCK_MINUTES * 60, 3)
            out.append(orjson.dumps(event))
    return spoil(out, 1)


def in_transactions(broker: Broker, topic: str, number: int, values: Sequence[bytes]) -> None:
    """Write the values to the partition in transactions, and other values between them in aborted transactions."""
    producer = Producer({"bootstrap.servers": broker.address, "transactional.id": f"{topic}-{number}-in"})
    producer.init_transactions(30)
    for low in range(0, len(values), TRANSACTION):
        wanted = values[low : low + TRANSACTION]
        given_up = [b"given up", *(value.replace(b'"event_id":"', b'"event_id":"given-up-') for value in wanted[:5])]
        for chunk, end in ((wanted, producer.commit_transaction), (given_up, producer.abort_transaction)):
            producer.begin_transaction()
            for value in chunk:
                producer.produce(topic, value, partition=number)
            if producer.flush(30):
                raise RuntimeError(f"not everything was delivered to {topic}")
            end(30)


def main() -> int:
    """Run the command."""
    kinds = [*KINDS, *ROUNDS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="the least number of kills (50)")
    parser.add_argument("--blocks", type=int, default=10, help="blocks of twelve minutes of traffic on the topic (10)")
    parser.add_argument("--kinds", help=f"the disturbances, separated by commas: {', '.join(kinds)} (all)")
    parser.add_argument("--volumes", action="store_true", help="a volume for each process, as pods have")
    parser.add_argument("--keep", type=Path, default=Path("build/storm"), help="folder for bad rounds (build/storm)")
    parser.add_argument("--seed", type=int, default=1, help="seed of kinds and moments (1)")
    args = parser.parse_args()
    chosen = args.kinds.split(",") if args.kinds else kinds
    if unknown := sorted(set(chosen) - set(kinds)):
        parser.error(f"there is no kind {', '.join(unknown)}")
    random = Random(args.seed)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        brokers = kafka_pair(folder) if any(KINDS[kind].brokers > 1 for kind in chosen) else [kafka_broker(folder)]
        for broker in brokers:
            stack.callback(broker.kill)
            broker.start()
        clock = SteppedClock(folder) if "clock" in chosen else None
        place = Place(brokers, random, args.volumes, clock)
        storm = Storm(place, folder, lambda text: print(text, flush=True), args.blocks, args.keep)
        figures = storm.run(planned(random, chosen, args.kills))
    print(json.dumps(asdict(figures)))
    return 1 if figures.lost or figures.doubled else 0


if __name__ == "__main__":
    sys.exit(main())
