"""A run with a new recovery folder begins where the settings say, and does not send again the alerts on the topic."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tests.brokers import Broker, create_topic, produce, read_all
from tests.chaos.test_kill import SETTINGS
from tests.flows.test_laws import START, traffic
from tests.processes import Job

RECORDS = traffic(1)
PARTITIONS = 2


@pytest.fixture(scope="module")
def topic(kafka: Broker) -> str:
    """A topic whose records have timestamps a second apart in each partition, from an hour after START on."""
    name = f"t-{uuid4().hex[:8]}"
    create_topic(kafka, name, PARTITIONS)
    for number in range(PARTITIONS):
        values = RECORDS[number::PARTITIONS]
        produce(kafka, name, values, number, [(START + 60 * 60 + i) * 1000 for i in range(len(values))])
    return name


def started(kafka: Broker, topic: str, folder: Path, name: str, **settings: object) -> Job:
    job = Job(folder, {
        **SETTINGS, "kafka.brokers": kafka.address, "kafka.topics": [topic], "kafka.group_id": topic,
        "kafka.alert_topic": f"{topic}.alerts", "kafka.dead_letter_topic": f"{topic}.dead", "decode.dedupe_s": 0,
        **{f"kafka.{key}": value for key, value in settings.items()},
    })  # fmt: skip
    job.run("-r", str(folder / name), "-s", "1", "-b", "0")
    return job


def test_from_the_start_of_the_topic_alerts_are_there_once(kafka: Broker, topic: str, tmp_path: Path) -> None:
    started(kafka, topic, tmp_path, "first")
    before = [m.value() for m in read_all(kafka, f"{topic}.alerts")]
    job = started(kafka, topic, tmp_path, "second")
    assert job.balance()["records"] == len(RECORDS)
    assert len(before) >= 5
    assert [m.value() for m in read_all(kafka, f"{topic}.alerts")] == before


def test_from_offsets_of_some_and_a_time(kafka: Broker, topic: str, tmp_path: Path) -> None:
    job = started(
        kafka, topic, tmp_path, "state", start_offsets={f"{topic}/1": 37}, start="2025-12-31T01:03:20Z"
    )  # 200 s after the first record
    assert job.balance()["records"] == len(RECORDS) - 237


@pytest.mark.parametrize(
    ("partition", "offset", "why"),
    [
        ("other/0", 3, "kafka.start_offsets: there is no partition other/0 to read"),
        ("{topic}/1", 1_000_000, "kafka.start_offsets want 1000000"),
    ],
)
def test_offsets_that_are_not_there_are_refused(
    kafka: Broker, topic: str, tmp_path: Path, partition: str, offset: int, why: str
) -> None:
    with pytest.raises(AssertionError) as refused:
        started(kafka, topic, tmp_path, "state", start_offsets={partition.format(topic=topic): offset})
    assert why in str(refused.value)
