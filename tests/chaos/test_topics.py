"""Topics that grow or are made anew between a kill -9 and the start after it; alerts are still there once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from confluent_kafka.cimpl import NewPartitions

from tests.brokers import Broker, create_topic, delete_topic, read_all
from tests.chaos.test_kill import Chaos, killed
from tests.processes import Job

pytestmark = pytest.mark.timeout(300)
ONE_EPOCH = 600
"""Seconds between two snapshots, so that there is none before the kill."""


@pytest.fixture(scope="module")
def chaos(kafka: Broker) -> Chaos:
    return Chaos(kafka)


@pytest.fixture(scope="module")
def undisturbed(chaos: Chaos, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The alerts of a run to the end."""
    job, topic = alerting(chaos, tmp_path_factory.mktemp("undisturbed"))
    job.run()
    return alerts(chaos, topic)


def alerting(chaos: Chaos, folder: Path) -> tuple[Job, str]:
    """A job, and the topic of its alerts."""
    job = chaos.job(folder)
    return job, chaos.outputs["kafka.alert_topic"]


def alerts(chaos: Chaos, topic: str) -> list[bytes]:
    """The alerts in order of partitions and offsets, which must have no id twice."""
    found = [message.value() or b"" for message in read_all(chaos.broker, topic)]
    ids = [json.loads(value)["alert_id"] for value in found]
    assert len(ids) == len(set(ids)), f"{len(ids) - len(set(ids))} of {len(ids)} alerts are there twice"
    return found


def grow(broker: Broker, topic: str, partitions: int) -> None:
    admin = broker.admin()
    admin.create_partitions([NewPartitions(topic, partitions)])[topic].result()


def test_topics_that_grow_over_a_kill(chaos: Chaos, undisturbed: list[bytes], tmp_path: Path) -> None:
    """Alerts from before the growth are looked for on the partition that they were routed to then."""
    job, topic = alerting(chaos, tmp_path)
    letters = chaos.outputs["kafka.dead_letter_topic"]
    killed(job, "after alerts_kafka.write_batch", 3, snapshot_s=ONE_EPOCH)
    assert len(alerts(chaos, topic)) >= 3
    for grown in (topic, letters):
        grow(chaos.broker, grown, 3)
    said = job.run(*job.recovered())
    assert alerts(chaos, topic) == undisturbed
    for grown in (topic, letters):
        assert f"topic {grown} has 3 partitions: only the first 1 are written" in said


def test_a_topic_that_is_made_anew_and_written_beyond_the_snapshot(
    chaos: Chaos, undisturbed: list[bytes], tmp_path: Path
) -> None:
    job, topic = alerting(chaos, tmp_path)
    killed(job, "after alerts_kafka.snapshot", 2)
    before = alerts(chaos, topic)
    delete_topic(chaos.broker, topic)
    create_topic(chaos.broker, topic)
    killed(job, "after alerts_kafka.write_batch", 3, snapshot_s=ONE_EPOCH)
    assert len(alerts(chaos, topic)) >= 3
    said = job.run(*job.recovered())
    after = alerts(chaos, topic)
    assert after == undisturbed[-len(after) :]
    assert before + after[len(before) + len(after) - len(undisturbed) :] == undisturbed
    assert f"{topic}/0 was made anew since it was written; reading it from its start" in said
