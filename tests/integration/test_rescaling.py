"""A run that goes on with another number of pods with a volume each, or with more partitions of its topic."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM
from uuid import uuid4

import orjson
import pytest
from confluent_kafka.cimpl import NewPartitions

from flows.recovery.rescale import rescale
from tests.brokers import Broker, create_topic, free_port, produce, read_all
from tests.chaos.test_kill import SETTINGS
from tests.flows.test_laws import dealt, spoil, traffic
from tests.processes import Job, Process

MINUTES = 12


def first_half(records: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    return records[: len(records) // 2], records[len(records) // 2 :]


def settings(broker: Broker, topic: str, name: str) -> dict[str, object]:
    return {
        **SETTINGS, "kafka.brokers": broker.address, "kafka.topics": [topic], "kafka.group_id": name,
        "kafka.alert_topic": f"{name}.alerts", "kafka.dead_letter_topic": f"{name}.dead",
    }  # fmt: skip


def outcome(broker: Broker, job: Job, name: str) -> tuple[object, ...]:
    alerts, letters = ([m.value() for m in read_all(broker, f"{name}.{what}")] for what in ("alerts", "dead"))
    return alerts, sorted(map(str, letters)), *job.tables()


class Pods:
    """Processes with a recovery folder each, as `k8s/` runs them."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def volumes(self, count: int) -> list[Path]:
        return [self._job.folder / f"volume-{number}" for number in range(count)]

    def run(self, count: int, stop: bool) -> None:
        """Run this many pods to the end, or stop them after the first reading."""
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(count))
        with ExitStack() as stack:
            pods: list[Process] = []
            for number, volume in enumerate(self.volumes(count)):
                arguments = ["-r", str(volume), "-s", "10", "-b", "0"]
                arguments += ["-i", str(number), "-a", addresses] if count > 1 else []
                changes = {"metrics.balance_file": self._job.folder / f"balance-{number}.json"}
                pods.append(stack.enter_context(self._job.start(*arguments, changes=changes, log=f"pod-{number}")))
            if stop:
                pods[0].wait_for(" events")
                for pod in pods:
                    pod.send(SIGTERM)
            for pod in pods:
                assert pod.finish() == 0, pod.said()


@pytest.fixture(scope="module")
def records() -> list[list[bytes]]:
    return list(dealt(spoil(traffic(1, MINUTES), 1), 3, 1).values())


def test_pods_with_a_volume_each_become_more_and_fewer(
    kafka: Broker, records: list[list[bytes]], tmp_path: Path
) -> None:
    topic = f"t-{uuid4().hex[:8]}"
    create_topic(kafka, topic, 3)
    for number, values in enumerate(records):
        produce(kafka, topic, values, number)
    undisturbed = Job(tmp_path / "undisturbed", settings(kafka, topic, f"{topic}-u"))
    undisturbed.run()
    own = {"recovery.layout": "own", "recovery.partitions": 4, "source.batch_size": 30}
    job = Job(tmp_path / "job", {**settings(kafka, topic, f"{topic}-p"), **own})
    pods = Pods(job)
    pods.run(2, stop=True)
    rescale(pods.volumes(3), 3)
    pods.run(3, stop=True)
    rescale(pods.volumes(3), 1)
    pods.run(1, stop=False)
    assert len(read_all(kafka, f"{topic}-p.alerts")) >= 6
    assert outcome(kafka, job, f"{topic}-p") == outcome(kafka, undisturbed, f"{topic}-u")


def test_a_topic_that_grew_is_read_whole(kafka: Broker, records: list[list[bytes]], tmp_path: Path) -> None:
    """Partitions 1 and 2 come while the flow is stopped and share the later events: none is lost or counted twice."""
    topic = f"t-{uuid4().hex[:8]}"
    create_topic(kafka, topic, 1)
    every = sorted((r for values in records for r in values if r.startswith(b'{"event_id"')), key=when)
    before, after = first_half(every)
    produce(kafka, topic, before, 0)
    job = Job(tmp_path, settings(kafka, topic, topic))
    job.run(*job.recovered(10))
    admin = kafka.admin()  # kept: a request dies with its client
    admin.create_partitions([NewPartitions(topic, 3)])[topic].result(30)
    for number in range(3):
        produce(kafka, topic, after[number::3], number)
    with job.cluster(2, *job.recovered(10)) as process:
        assert process.finish() == 0, process.said()
    balances = [orjson.loads((tmp_path / f"balance-{n}.json").read_bytes()) for n in range(2)]
    assert sum(b["records"] for b in balances) == len(every)
    on_time = sum(b["on_time"] for b in balances)
    assert job.requests("tenant")[10] == on_time > len(before)


def when(record: bytes) -> float:
    at = orjson.loads(record)["timestamp"]
    return at if isinstance(at, float) else float("inf")
