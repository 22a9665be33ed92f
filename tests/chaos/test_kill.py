"""Law 3 in small: kill -9 in each step, over a real broker; in the end everything is there once.

Each test compares with an undisturbed run: alerts as a read_committed reader sees them (in order, each id once), dead
letters, the rows of the store, and in runs of one process the balance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from uuid import uuid4

import pytest

from tests.brokers import Broker, create_topic, free_port, produce, read_all
from tests.flows.test_laws import dealt, spoil, traffic
from tests.processes import Job, Process

SETTINGS: dict[str, object] = {
    "source.kind": "kafka",
    "source.batch_size": 20,
    "kafka.stop_at_end": True,
    "alerts.kafka": True,
    "alerts.jsonl": "",
    "dead_letters.kafka": True,
    "decode.dedupe_s": 300,
    "recovery.shards": 3,
    "time.correction_s": 120,
    "panes.dimension_sets": [["service", "model"], ["tenant"]],
    "detect.warm_up_panes": 12,
    "detect.false_alarms_per_series_day": 14,
    "detect.metrics.latency.min_count": 3,
    "detect.metrics.ttft.min_count": 3,
    "episodes.resolve_s": 60,
}

CHAINS = {
    "source": [
        ("before source.next_batch", 1),
        ("after source.next_batch", 5),
        ("before source.snapshot", 9),
        ("after source.snapshot", 20),
    ],
    "steps": [("closed", 2), ("closed", 41), ("alerted", 2)],
    "alerts": [
        ("after alerts_kafka.build_part", 1),
        ("before alerts_kafka.write_batch", 1),
        ("after alerts_kafka.write_batch", 1),
        ("before alerts_kafka.snapshot", 2),
        ("after alerts_kafka.snapshot", 2),
    ],
    "dead letters": [
        ("before dead_letters_kafka.write_batch", 1),
        ("before dead_letters_kafka.snapshot", 2),
        ("after dead_letters_kafka.snapshot", 2),
    ],
    "store": [
        ("before store.write_batch", 1),
        ("after store.write_batch", 3),
        ("before store.snapshot", 4),
        ("after store.snapshot", 5),
    ],
}
"""The kills of each chain, one after the other on one recovery folder: the place, and which passing of it is fatal."""


class Chaos:
    """Jobs over one topic, each with output topics of its own."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._topic = f"t-{uuid4().hex[:8]}"
        records = list(dealt(spoil(traffic(1), 1), 2, 1).values())
        create_topic(broker, self._topic, len(records))
        for number, values in enumerate(records):
            produce(broker, self._topic, values, number)
        self.records = sum(len(values) for values in records)

    def job(self, folder: Path) -> Job:
        name = f"o-{uuid4().hex[:8]}"
        self.outputs = {"kafka.alert_topic": f"{name}.alerts", "kafka.dead_letter_topic": f"{name}.dead"}
        source = {"kafka.brokers": self.broker.address, "kafka.topics": [self._topic], "kafka.group_id": name}
        return Job(folder, {**SETTINGS, **source, **self.outputs})

    def outcome(self, job: Job) -> tuple[object, ...]:
        """All results of the job that a user sees, in a form that can be compared; only for the job made last."""
        alerts, letters = (
            [message.value() or b"" for message in read_all(self.broker, topic)] for topic in self.outputs.values()
        )
        ids = [json.loads(value)["alert_id"] for value in alerts]
        assert len(ids) == len(set(ids))
        return alerts, sorted(letters), job.letters(), *job.tables()


@pytest.fixture(scope="module")
def chaos(kafka: Broker) -> Chaos:
    return Chaos(kafka)


@pytest.fixture(scope="module")
def undisturbed(chaos: Chaos, tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[object, ...], dict[str, object]]:
    """(outcome, balance) of a run to the end."""
    job = chaos.job(tmp_path_factory.mktemp("undisturbed"))
    job.run()
    alerts, letters, *_ = outcome = chaos.outcome(job)
    assert isinstance(alerts, list) and len(alerts) >= 6, "without alerts this shows nothing"
    assert isinstance(letters, list) and len(letters) >= 6
    assert job.balance()["records"] == chaos.records
    assert job.balance()["duplicate"] > 0
    return outcome, job.balance()


def killed(job: Job, place: str, calls: int, snapshot_s: int = 0, **settings: object) -> None:
    """Run it until it dies at this passing of the place."""
    flow = f"tests.chaos.failing_flow:flow({place!r}, {calls})"
    with job.start(*job.recovered(snapshot_s), flow=flow, changes=settings) as process:
        code = process.finish()
    assert code == -SIGKILL, f"{place} was not passed {calls} times:\n{process.said()}"


@pytest.mark.parametrize("chain", CHAINS)
def test_killed_in_each_steps_life(
    chaos: Chaos, undisturbed: tuple[tuple[object, ...], dict[str, object]], tmp_path: Path, chain: str
) -> None:
    job = chaos.job(tmp_path)
    for place, calls in CHAINS[chain]:
        killed(job, place, calls)
    job.run(*job.recovered())
    assert (chaos.outcome(job), job.balance()) == undisturbed


def test_killed_again_before_all_that_was_sent_has_come_by_again(
    chaos: Chaos, undisturbed: tuple[tuple[object, ...], dict[str, object]], tmp_path: Path
) -> None:
    """The first run sends everything in one epoch. The second repeats it in many: its snapshots must know the rest."""
    job = chaos.job(tmp_path)
    for sink in ("alerts_kafka", "dead_letters_kafka"):
        killed(job, f"before {sink}.snapshot", 1, **{"source.batch_size": 5_000})
        killed(job, f"before {sink}.snapshot", 3)
    job.run(*job.recovered())
    assert (chaos.outcome(job), job.balance()) == undisturbed


def test_killed_from_outside_at_any_moment(
    chaos: Chaos, undisturbed: tuple[tuple[object, ...], dict[str, object]], tmp_path: Path
) -> None:
    job = chaos.job(tmp_path)
    kills = 0
    for pause in (0.0, 0.05, 0.1, 0.2):
        with job.start(*job.recovered()) as process:
            process.wait_for(" events")
            time.sleep(pause)
            process.send(SIGKILL)
            kills += process.finish() == -SIGKILL
    assert kills >= 2, "the machine was too slow or too fast for this test"
    job.run(*job.recovered())
    assert (chaos.outcome(job), job.balance()) == undisturbed


def test_one_of_two_processes_killed(
    chaos: Chaos, undisturbed: tuple[tuple[object, ...], dict[str, object]], tmp_path: Path
) -> None:
    job = chaos.job(tmp_path)
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))

    def started() -> Iterator[Process]:
        for number in range(2):
            balance = {"metrics.balance_file": job.folder / f"balance-{number}.json"}
            arguments = (*job.recovered(), "-i", str(number), "-a", addresses)
            yield job.start(*arguments, changes=balance, log=f"log-{number}")

    for victim in (0, 1):
        first, second = processes = list(started())
        with first, second:
            for process in processes:
                process.wait_for(" events")
            processes[victim].send(SIGKILL)
            assert processes[1 - victim].finish() == 1  # it cannot go on alone: both are started again
    first, second = started()
    with first, second:
        assert (first.finish(), second.finish()) == (0, 0), first.said() + second.said()
    outcome, _ = undisturbed
    assert chaos.outcome(job) == outcome
