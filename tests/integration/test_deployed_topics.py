"""The topics of compose.yaml and of the documents on a real broker, which stamps each record that arrives."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME

from flows.settings.model import Settings, load
from tests.brokers import Broker, create_topic, delete_topic, produce, read_all
from tests.conftest import ROOT

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PROD = ROOT / "k8s" / "overlays" / "prod" / "sentinel.toml"
TOOL = re.compile(r"(?:/\S+/)?kafka-topics\.sh")


def calls(script: str, folder: Path) -> list[list[str]]:
    """The arguments of each call of kafka-topics.sh in a shell script."""
    tool = folder / "kafka-topics.sh"
    tool.write_text('#!/bin/sh\nprintf "%s " "$@"\necho\n')
    tool.chmod(0o755)
    script = TOOL.sub(str(tool), script.replace("$$", "$"))
    done = subprocess.run(["/bin/sh", "-ec", script], capture_output=True, text=True, timeout=20, check=True)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def made(broker: Broker, arguments: list[str]) -> str:
    """Create the topic of one call, with one replica and with a suffix to its name; returns the name."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    for name, kind in (
        ("--bootstrap-server", str),
        ("--topic", str),
        ("--partitions", int),
        ("--replication-factor", int),
    ):
        parser.add_argument(name, type=kind)
    for flag in ("--create", "--if-not-exists"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--config", action="append", default=[])
    known = parser.parse_args(arguments)
    assert known.create
    topic = f"{known.topic}.{time.monotonic_ns()}"
    create_topic(broker, topic, known.partitions, dict(option.split("=", 1) for option in known.config))
    return topic


def from_compose() -> tuple[str, Settings]:
    environment = COMPOSE["flow-0"]["environment"]
    return COMPOSE["topics"]["command"][0], load(environment, Path("/nonexistent")).settings


def from_documents() -> tuple[str, Settings]:
    lines = (ROOT / "docs" / "deployment.md").read_text().splitlines()
    script = "\n".join(line for line in lines if line.startswith("kafka-topics.sh"))
    return script, load({"SENTINEL_CONFIG": str(PROD)}, ROOT).settings


@pytest.mark.parametrize("place", [from_compose, from_documents])
def test_of_a_topic_that_is_read_the_broker_says_when_a_record_arrived(
    place: Any, kafka: Broker, tmp_path: Path
) -> None:
    script, settings = place()
    by_topic = {call[call.index("--topic") + 1]: call for call in calls(script, tmp_path)}
    ours = {settings.kafka.alert_topic, settings.kafka.dead_letter_topic, settings.kafka.heartbeat_topic}
    read = by_topic.keys() - ours
    assert set(settings.kafka.topics) <= read
    for topic in sorted(read):
        name = made(kafka, by_topic[topic])
        began = time.time()
        produce(kafka, name, [b"{}"], timestamps=[1_000_000_000_000])
        (message,) = read_all(kafka, name)
        kind, at = message.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert abs(at / 1000 - began) < 60
        delete_topic(kafka, name)
