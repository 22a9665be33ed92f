"""Two brokers: while the leader of one partition is gone, no pane closes, and the heartbeat and metrics show it."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import SIGCONT, SIGSTOP, SIGTERM

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.cimpl import NewTopic

from tests.brokers import Broker, free_port, kafka_broker, second_broker
from tests.processes import Job
from tests.waiting import wait_until

TOPIC = "calls"
PANE_S = IDLE_S = 1


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Broker, Broker]]:
    """The first leads partition 0 and every other topic, the second partition 1."""
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    first = kafka_broker(folders[0])
    second = second_broker(folders[1], folders[0])
    try:
        first.start()
        second.start()
        admin = first.admin()
        topics = [NewTopic(TOPIC, 2, replica_assignment=[[1], [2]])]
        topics += [NewTopic(name, 1, replica_assignment=[[1]]) for name in ("alerts", "beats")]
        wait_until(lambda: len(admin.list_topics(timeout=5).brokers) == 2, seconds=30, ignore=Exception)
        for done in admin.create_topics(topics).values():
            done.result()
        yield first, second
    finally:
        second.kill()
        first.kill()


class Sender:
    """Sends an event to each partition twenty times a second, whether or not it arrives."""

    def __init__(self, broker: Broker) -> None:
        self._ended = threading.Event()
        options = {"bootstrap.servers": broker.address, "log_level": "0", "linger.ms": "5"}
        self._producer = Producer(options)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(0.05):
            event = {"timestamp": time.time() - 0.05, "service": "s", "model": "m", "latency_ms": 40}
            for partition in (0, 1):
                self._producer.produce(TOPIC, json.dumps(event).encode(), partition=partition, on_delivery=self._done)
            self._producer.poll(0)

    def _done(self, error: KafkaError | None, message: Message) -> None:
        """An event that does not arrive is no fault here."""

    def __enter__(self) -> Sender:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._producer.purge()


class Seen:
    """The metrics of the job, as Prometheus sees them."""

    def __init__(self, port: int) -> None:
        self._port = port

    def value(self, name: str, label: str = "") -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        (found,) = [line for line in lines if re.match(rf"{name}[ {{]", line) and label in line]
        return float(found.rsplit(" ", 1)[1])

    def mark(self, partition: int) -> float:
        return self.value("sentinel_watermark_timestamp_seconds", f'"{TOPIC}/{partition}"')

    def beat(self) -> float:
        return self.value("sentinel_heartbeat_timestamp_seconds")

    def moves(self, what: Callable[[], float], seconds: float) -> bool:
        before = what()
        time.sleep(seconds)
        return what() > before


@pytest.mark.parametrize("fault", ["killed", "stopped"])
def test_a_leader_that_is_gone_stops_the_heartbeat_until_it_is_back(
    brokers: tuple[Broker, Broker], fault: str, tmp_path: Path
) -> None:
    first, second = brokers
    port = free_port()
    settings = {
        "source.kind": "kafka", "kafka.brokers": first.address, "kafka.topics": [TOPIC], "kafka.start": "latest",
        "kafka.group_id": fault, "kafka.alert_topic": "alerts", "kafka.heartbeat_topic": "beats",
        "kafka.heartbeat_s": 0.2, "kafka.options": {"reconnect.backoff.max.ms": 300},
        "time.pane_s": PANE_S, "time.idle_s": IDLE_S, "time.lateness_s": 1, "alerts.kafka": True, "alerts.jsonl": "",
        "store.kind": "none", "metrics.port": port,
    }  # fmt: skip
    seen = Seen(port)
    with Job(tmp_path, settings).start() as process, Sender(first):
        wait_until(
            lambda: seen.mark(0) > 0 and seen.mark(1) > 0 and seen.moves(seen.beat, 1), seconds=100, ignore=Exception
        )
        if fault == "killed":
            second.kill()
        else:
            second.signal(SIGSTOP)
        try:
            wait_until(lambda: not seen.moves(seen.beat, 2), seconds=60, ignore=Exception)
            assert seen.value("sentinel_partition_waited_for", f'"{TOPIC}/1"') == 1
            assert not seen.moves(lambda: seen.mark(1), 2)
            assert seen.mark(1) < seen.mark(0)
            assert seen.moves(lambda: seen.value("sentinel_source_polls_total"), 1)
        finally:
            if fault == "killed":
                second.start()
            else:
                second.signal(SIGCONT)
        wait_until(lambda: seen.moves(seen.beat, 1), seconds=60, ignore=Exception)
        wait_until(lambda: seen.moves(lambda: seen.mark(1), 1), seconds=60, ignore=Exception)
        process.send(SIGTERM)
        assert process.finish() == 0, process.said()
