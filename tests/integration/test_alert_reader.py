"""The example consumer of docs/alerts.md on a real broker."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from connectors.base import Message
from connectors.kafka.config import KafkaConfig
from connectors.kafka.once import KafkaOnce
from operators.incidents import alert_json
from operators.model import Alert
from tests.brokers import Broker, create_topic, read_all
from tests.conftest import ROOT
from tests.operators.incidents.test_alert_json import ALERT

(SCRIPT,) = re.findall(r"(?ms)^```python\n(.*?)^```$", (ROOT / "docs" / "alerts.md").read_text())
Status = Literal["firing", "updated", "resolved"]
STEPS: list[tuple[str, int, Status]] = [
    ("a", 0, "firing"),
    ("b", 0, "firing"),
    ("a", 1, "updated"),
    ("b", 1, "updated"),
    ("a", 2, "resolved"),
]


def alert(episode: str, sequence: int, status: Status) -> Alert:
    return replace(ALERT, alert_id=f"{episode}-{sequence}", episode_id=episode, sequence=sequence, status=status)


def records(alerts: list[Alert]) -> list[Message]:
    return [
        Message(a.alert_id, a.episode_id, alert_json.headers(a, False), alert_json.to_json(a), a.at) for a in alerts
    ]


@pytest.fixture(scope="module")
def topic(kafka: Broker) -> str:
    """A topic of two partitions with five alerts, and with copies of them in aborted transactions."""
    name = f"r-{uuid4().hex[:8]}"
    create_topic(kafka, name, 2)
    every = [alert(*step) for step in STEPS]
    factory = KafkaOnce(KafkaConfig(brokers=kafka.address, group_id=name), name, "alerts")
    for partition in factory.partitions():
        number = int(partition[-1])
        mine = [m for m in records(every) if factory.route(m.key) == number]
        writer = factory.open(partition, None)
        writer.write(mine[:2])
        dying = Producer({"bootstrap.servers": kafka.address, "transactional.id": f"{name}/{name}/{number}"})
        dying.init_transactions(10)
        dying.begin_transaction()
        for message in mine:
            dying.produce(name, message.value, key=message.key, partition=number)
        dying.flush(10)
        again = factory.open(partition, None)  # aborts the open transaction, reads back the committed records
        again.write(mine)
        again.close()
        writer.close()
    return name


def tables(broker: Broker, topic: str, folder: Path, isolation: str) -> Iterator[dict[str, list[str]]]:
    """The lines that the script prints, parsed; closing the generator kills the script."""
    script = folder / "reader.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), broker.address, topic, isolation]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                yield json.loads(line)
        finally:
            process.kill()


@pytest.mark.parametrize("isolation", ["read_committed", "read_uncommitted"])
def test_the_table_of_open_episodes(kafka: Broker, topic: str, tmp_path: Path, isolation: str) -> None:
    found = tables(kafka, topic, tmp_path, isolation)
    seen = [next(found) for _ in STEPS]  # one line for each alert, however often it is on the topic
    found.close()  # type: ignore[attr-defined]
    assert seen[-1] == {"b": ["updated", ALERT.severity, ALERT.text]}
    assert ["firing", ALERT.severity, ALERT.text] in [table.get("a") for table in seen]


def test_a_plain_reader_sees_more_and_a_committed_one_each_once(kafka: Broker, topic: str) -> None:
    committed = [m.value() for m in read_all(kafka, topic)]
    plain = [m.value() for m in read_all(kafka, topic, "read_uncommitted")]
    assert sorted(map(str, committed)) == sorted(str(alert_json.to_json(alert(*step))) for step in STEPS)
    assert len(plain) > len(committed) and set(plain) == set(committed)


def test_the_script_is_short() -> None:
    assert len([line for line in SCRIPT.splitlines() if line]) <= 24
