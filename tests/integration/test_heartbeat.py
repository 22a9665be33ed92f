"""Heartbeats of a running flow on a real broker: sent while it reads, and not while it stands still."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from signal import SIGTERM
from uuid import uuid4

import pytest

from connectors.kafka.config import KafkaConfig
from connectors.kafka.heartbeat import Heartbeats
from tests.brokers import Broker, create_topic, free_port, read_all
from tests.processes import Job


def test_each_process_that_reads_beats_also_where_nothing_comes(tansu: Broker, tmp_path: Path) -> None:
    name = f"t-{uuid4().hex[:8]}"
    create_topic(tansu, name, 2)
    settings = {
        "source.kind": "kafka", "kafka.brokers": tansu.address, "kafka.topics": [name], "kafka.group_id": name,
        "kafka.alert_topic": f"{name}.alerts", "kafka.heartbeat_topic": f"{name}.beat", "kafka.heartbeat_s": 0.1,
        "alerts.kafka": True, "alerts.jsonl": "",
    }  # fmt: skip
    job = Job(tmp_path, settings)
    with job.cluster(2, *job.recovered(1)) as process:
        process.wait_for("made the topic")
        deadline = time.monotonic() + 60
        seen: set[int] = set()
        while seen != {0, 1}:
            assert time.monotonic() < deadline, process.said()
            time.sleep(0.2)
            try:
                beats = [json.loads(m.value() or b"") for m in read_all(tansu, f"{name}.beat")]
            except KeyError:  # the topic does not exist yet
                continue
            seen = {beat["process"] for beat in beats}
        process.send(SIGTERM)
        assert process.finish() == 0, process.said()
    beats = [json.loads(m.value() or b"") for m in read_all(tansu, f"{name}.beat")]
    for number in (0, 1):
        mine = [beat for beat in beats if beat["process"] == number]
        assert [beat["sequence"] for beat in mine] == list(range(len(mine)))
        assert {beat["processes"] for beat in mine} == {2}


def test_nothing_is_sent_while_nothing_moves(tansu: Broker) -> None:
    topic = f"h-{uuid4().hex[:8]}"
    create_topic(tansu, topic)
    said = iter([b"1", None, None, b"2"])
    delivered = threading.Semaphore(0)
    config = KafkaConfig(brokers=tansu.address, heartbeat_topic=topic)
    beats = Heartbeats(config, "k", 0.02, lambda: next(said, None), delivered.release)
    assert delivered.acquire(timeout=30) and delivered.acquire(timeout=30)
    beats.close()
    assert [(m.key(), m.value()) for m in read_all(tansu, topic)] == [(b"k", b"1"), (b"k", b"2")]


def test_a_broker_that_is_away_is_told_once_and_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    config = KafkaConfig(brokers=f"127.0.0.1:{free_port()}", producer_options={"queue.buffering.max.messages": 1})
    with caplog.at_level(logging.WARNING):
        beats = Heartbeats(config, "k", 0.01, lambda: b"x", lambda: None)
        deadline = time.monotonic() + 30
        while "no heartbeat reaches" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.1)
        beats.close()
    assert caplog.text.count("no heartbeat reaches llm.heartbeat") == 1
