"""The main job when a neighbour fails while it runs; `docs/operations.md` describes its behaviour.

Each run must have the outcome of an undisturbed run: a read_committed reader misses nothing and sees nothing twice. The
metrics must show the fault while it lasts. `test_bad_input.py` has brokers that die, and disks that stay full.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from connectors.config import SqliteConfig
from connectors.kafka.source import KafkaSource
from connectors.sqlite import SqliteFactory, read
from operators.errors import RetryableError
from tests.brokers import Broker, create_topic, delete_topic, free_port, kafka_broker, produce, read_all
from tests.connectors.greptime_server import GreptimeServer
from tests.integration.test_bad_input import (
    STOPPED,
    Disk,
    a_topic,
    job_over,
    kafka_settings,
    scenario,
    small_disk,
)
from tests.integration.test_kafka_reader import config as reading
from tests.processes import Job, Process
from tests.waiting import wait_until

RECORDS = scenario()
CALM = 250
"""This many of the first records raise no alert."""
QUICK: dict[str, object] = {
    "sinks.backoff_most_s": 0.3,
    "sinks.budget_s": 60,
    "kafka.request_s": 1,
    "kafka.heartbeat_s": 0,
    "kafka.options": {"reconnect.backoff.max.ms": 300},
    "time.idle_s": 600,  # the clock closes no pane, however slow the machine is
}
pytestmark = pytest.mark.timeout(400)
MOST_MIB = 600
"""The most memory that the job may take, in MiB."""


class Flow:
    """A job whose metrics a test can read."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._port = free_port()
        self._process: Process | None = None

    def start(self, log: str = "log", **changes: object) -> Process:
        found = {key.replace("__", "."): value for key, value in changes.items()}
        changes = {**found, "metrics.port": self._port}
        self._process = self.job.start(*self.job.recovered(), changes=changes, log=log)
        return self._process

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until this is true. Raises `AssertionError` if the job ends before."""
        assert self._process is not None
        process = self._process

        def looked() -> bool:
            return not process.alive() or true()

        wait_until(looked, process.said, seconds=100, ignore=Exception)
        assert process.alive(), process.said()

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels; 0 if there are none."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        found = [line for line in lines if re.match(rf"{name}[ {{]", line) and all(w in line for w in wanted)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def records(self) -> float:
        return self.metric("sentinel_records_total")

    def retries(self, sink: str) -> float:
        """How often the sink has tried again; it does so at the start too, while a broker loads its coordinator."""
        return self.metric("sentinel_sink_retries_total", sink=sink)

    def fails(self, sink: str, since: float = 0) -> None:
        """Wait until `retries` of this sink is at least `since` + 2; waiting items must not fill the memory."""
        self.until(lambda: self.retries(sink) >= since + 2)
        assert self.metric("process_resident_memory_bytes") < MOST_MIB * 2**20


def finished(process: Process) -> str:
    """The output of the process, which must end well."""
    assert process.finish() == 0, process.said()
    return process.said()


def gave_up(process: Process) -> str:
    """The sentence of the ended process about a spent budget."""
    assert process.finish() == 1, process.said()
    assert "Traceback" not in process.said(), process.said()
    return process.said().partition(STOPPED)[2].partition("\n")[0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    job = job_over(tmp_path_factory.mktemp("undisturbed") / "job", RECORDS)
    job.run()
    assert [json.loads(line)["status"] for line in job.alerts()] == ["firing", "resolved"]
    return job


# Alert topics


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """The disk of the broker's topics."""
    with small_disk(tmp_path_factory.mktemp("disk"), 64) as disk:
        yield disk


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, disk: Disk) -> Iterator[Broker]:
    """An Apache Kafka that checks the rights of clients, and writes to the disk of its topics only for a client."""
    folder = tmp_path_factory.mktemp("broker")
    more = f"""authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
log.dirs={disk.folder / "topics"}
metadata.log.dir={folder / "metadata"}
log.index.size.max.bytes=65536
log.initial.task.delay.ms=3600000
replica.high.watermark.checkpoint.interval.ms=3600000
log.flush.offset.checkpoint.interval.ms=3600000
log.flush.start.offset.checkpoint.interval.ms=3600000"""
    broker = kafka_broker(folder, more)
    broker.start()
    yield broker
    broker.kill()


class Alerting(Flow):
    """A job that reads one topic and writes its alerts to another."""

    def __init__(self, broker: Broker, folder: Path, *, most_bytes: int = 1_000_000, **settings: object):
        self.broker = broker
        self.source = a_topic(broker, RECORDS[:CALM])
        self.topic = f"{self.source}.alerts"
        create_topic(broker, self.topic, config={"max.message.bytes": str(most_bytes)})
        alerts = {"alerts.kafka": True, "kafka.alert_topic": self.topic, "alerts.jsonl": "", "kafka.stop_at_end": True}
        changes = {key.replace("__", "."): value for key, value in settings.items()}
        super().__init__(Job(folder, {**kafka_settings(broker, self.source), **QUICK, **alerts, **changes}))

    def sends(self, records: list[bytes]) -> None:
        produce(self.broker, self.source, records)

    def alerts(self) -> list[bytes]:
        return [message.value() or b"" for message in read_all(self.broker, self.topic)]

    def came_to(self, undisturbed: Job, alerts: list[bytes]) -> None:
        assert self.alerts() == alerts
        assert self.job.rows("llm_panes") == undisturbed.rows("llm_panes")
        assert self.job.rows("llm_alerts") == undisturbed.rows("llm_alerts")
        assert self.job.balance() == undisturbed.balance()


def deny(broker: Broker, kind: ResourceType, name: str, what: AclOperation) -> Callable[[], None]:
    """Take one right away from everybody; the returned function gives it back."""
    admin = broker.admin()

    def rule(operation: AclOperation, how: AclPermissionType) -> AclBinding:
        return AclBinding(kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, how)

    rules = [rule(AclOperation.ALL, AclPermissionType.ALLOW), rule(what, AclPermissionType.DENY)]
    for done in admin.create_acls(rules).values():
        done.result()

    def give_back() -> None:
        all_of = AclBindingFilter(
            kind, name, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", AclOperation.ANY, AclPermissionType.ANY
        )
        for done in admin.delete_acls([all_of]).values():
            done.result()

    return give_back


def test_topics_that_are_forbidden_for_a_while(guarded: Broker, tmp_path: Path, undisturbed: Job) -> None:
    """First the topic that is read, then the topic of alerts."""
    flow = Alerting(guarded, tmp_path)
    with flow.start(kafka__stop_at_end=False) as process:
        flow.until(lambda: flow.records() == CALM)
        give_back = deny(guarded, ResourceType.TOPIC, flow.source, AclOperation.READ)
        process.wait_for(f"reading {flow.source}/0: ", 100, times=3)
        polls = flow.metric("sentinel_source_polls_total")
        process.wait_for(f"reading {flow.source}/0: ", 100, times=5)
        assert flow.metric("sentinel_source_polls_total") == polls
        assert flow.metric("sentinel_source_retries_total") >= 4
        retries = flow.retries("kafka_alerts")
        give_alerts_back = deny(guarded, ResourceType.TOPIC, flow.topic, AclOperation.WRITE)
        give_back()
        flow.sends(RECORDS[CALM:])
        flow.fails("kafka_alerts", since=retries)
        give_alerts_back()
        flow.until(lambda: flow.records() == len(RECORDS))
        process.send(SIGTERM)
        said = finished(process)
    for doing in (f"source partition {flow.source}/0: reading .*", f"sink kafka_alerts: writing {flow.topic}/0: .*"):
        assert re.search(
            rf"{doing}\(TOPIC_AUTHORIZATION_FAILED\): Kafka at .* refuses this client; see its rights", said
        )
    with flow.start("last") as process:
        finished(process)
    flow.came_to(undisturbed, undisturbed.alerts())


def test_records_that_were_fetched_before_fetches_fail_are_not_the_last(guarded: Broker) -> None:
    """The client holds the records but no longer knows the end: a reader that stops at the end must not stop early."""
    records = [b"%d" % number for number in range(1_000)]
    topic = a_topic(guarded, records)
    reader = KafkaSource(reading(guarded, topic, stop_at_end=True)).open(f"{topic}/0", 0)

    def end() -> int:
        _, high = reader._consumer.get_watermark_offsets(TopicPartition(topic, 0), cached=True)
        return high

    wait_until(lambda: end() == 1_000, seconds=100, ignore=Exception)
    give_back = deny(guarded, ResourceType.TOPIC, topic, AclOperation.READ)
    wait_until(lambda: end() == -1, seconds=100, ignore=Exception)
    first = reader.poll(600)
    assert (first.values, first.finished, first.at_end) == (records[:600], False, False)
    give_back()
    rest: list[bytes] = []

    def has_ended() -> bool:
        with suppress(RetryableError):  # of the refused fetch
            chunk = reader.poll(600)
            rest.extend(chunk.values)
            return chunk.finished
        return False

    wait_until(has_ended, seconds=100, ignore=Exception)
    assert rest == records[600:]
    reader.close()


def test_transactions_that_are_forbidden_for_longer_than_the_budget_and_then_for_a_while(
    guarded: Broker, tmp_path: Path, undisturbed: Job
) -> None:
    flow = Alerting(guarded, tmp_path)
    flow.sends(RECORDS[CALM:])
    name = f"{flow.source}/{flow.topic}/0"
    give_back = deny(guarded, ResourceType.TRANSACTIONAL_ID, name, AclOperation.WRITE)
    with flow.start(sinks__budget_s=0.5) as process:
        why = gave_up(process)
    assert re.match(r"sink kafka_alerts failed for \d+ s \(budget_s = 0.5\); the last error: taking over ", why)
    assert "(TRANSACTIONAL_ID_AUTHORIZATION_FAILED): Kafka at" in why
    with flow.start("second") as process:
        flow.fails("kafka_alerts")
        give_back()
        finished(process)
    flow.came_to(undisturbed, undisturbed.alerts())


def test_an_alert_topic_that_is_deleted_and_made_again(guarded: Broker, tmp_path: Path, undisturbed: Job) -> None:
    """The alerts on the old topic are gone with it; the others are on the new topic once."""
    flow = Alerting(guarded, tmp_path, kafka__create_topics=False)
    flow.sends(RECORDS[CALM:450])
    with flow.start(kafka__stop_at_end=False) as process:
        flow.until(lambda: flow.alerts() == undisturbed.alerts()[:1])
        flow.until(lambda: flow.records() == 450)
        retries = flow.retries("kafka_alerts")
        delete_topic(guarded, flow.topic)
        flow.sends(RECORDS[450:])
        flow.fails("kafka_alerts", since=retries)
        process.wait_for(f"{flow.topic}/0 is gone from {guarded.address}: make it anew (partitions: 1)")
        create_topic(guarded, flow.topic)
        flow.until(lambda: flow.records() == len(RECORDS))
        process.send(SIGTERM)
        said = finished(process)
    assert f"{flow.topic}/0 was made anew since it was written; reading it from its start" in said
    with flow.start("last") as process:
        finished(process)
    flow.came_to(undisturbed, undisturbed.alerts()[1:])


def test_alerts_that_are_too_large_for_their_topic_are_rejected(
    guarded: Broker, tmp_path: Path, undisturbed: Job
) -> None:
    rejected = tmp_path / "rejected.jsonl"
    flow = Alerting(guarded, tmp_path, most_bytes=500, sinks__rejected_file=rejected)
    flow.sends(RECORDS[CALM:])
    with flow.start() as process:
        finished(process)
    lines = [json.loads(line) for line in rejected.read_bytes().splitlines()]
    assert {(line["sink"], line["reason"]) for line in lines} == {("kafka_alerts", "record_too_large")}
    assert [base64.b64decode(line["item"]["value"]) for line in lines] == undisturbed.alerts()
    flow.came_to(undisturbed, [])


def test_a_broker_whose_disk_is_full_for_a_while(guarded: Broker, disk: Disk, tmp_path: Path, undisturbed: Job) -> None:
    """The broker ends itself at its first write, that of the first alert; it is started again when there is room."""
    flow = Alerting(guarded, tmp_path, source__batch_size=1_000)
    with flow.start("calm", kafka__stop_at_end=False) as process:  # for this run the broker makes its own topics
        flow.until(lambda: flow.records() == CALM)
        process.send(SIGTERM)
        finished(process)
    flow.sends(RECORDS[CALM:])
    disk.fill()
    with flow.start() as process:
        flow.fails("kafka_alerts")
        flow.until(guarded.ended)
        disk.make_room()
        guarded.kill()
        guarded.start()
        finished(process)
    flow.came_to(undisturbed, undisturbed.alerts())


# Stores


def test_a_store_that_is_locked_for_longer_than_the_budget_and_then_for_a_while(
    tmp_path: Path, undisturbed: Job
) -> None:
    flow = Flow(job_over(tmp_path / "job", RECORDS, store__sqlite__busy_timeout_s=0.1, sinks__backoff_most_s=0.3))
    path = flow.job.folder / "sentinel.db"
    SqliteFactory(SqliteConfig(path=path)).open("sqlite", None).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with flow.start(sinks__budget_s=0.5) as process:
            why = gave_up(process)
        assert re.match(r"sink sqlite failed for \d+ s \(budget_s = 0.5\); the last error: the SQLite store ", why)
        assert why.endswith(": it is locked by another program")
        with flow.start("second") as process:
            flow.fails("sqlite")
            other.execute("ROLLBACK")
            finished(process)
    assert flow.job.outcome() == undisturbed.outcome()


def test_a_store_whose_disk_is_full_for_a_while(tmp_path: Path, undisturbed: Job) -> None:
    (tmp_path / "disk").mkdir()
    with small_disk(tmp_path / "disk", 4) as disk:
        path = disk.folder / "sentinel.db"
        flow = Flow(job_over(tmp_path / "job", RECORDS, store__sqlite__path=path, sinks__backoff_most_s=0.3))
        SqliteFactory(SqliteConfig(path=path)).open("sqlite", None).close()
        with closing(sqlite3.connect(path)) as reader:
            reader.execute("SELECT * FROM llm_panes").fetchall()  # creates the files that all connections share
            disk.fill()
            with flow.start() as process:
                flow.fails("sqlite")
                disk.make_room()
                said = finished(process)
        assert f"sink sqlite: the SQLite store {path}: the disk is full: make room; trying again in" in said
        assert read(path, "SELECT * FROM llm_panes") == stored(undisturbed, "llm_panes")
        assert read(path, "SELECT * FROM llm_alerts") == stored(undisturbed, "llm_alerts")


def stored(job: Job, table: str) -> list[dict[str, object]]:
    return read(job.folder / "sentinel.db", f"SELECT * FROM {table}")


@pytest.fixture
def server() -> Iterator[GreptimeServer]:
    found = GreptimeServer()
    yield found
    found.stop()


def on_server(server: GreptimeServer) -> dict[str, Any]:
    return {"store.kind": "greptime", "store.greptime.endpoint": server.endpoint}


def holds_all(server: GreptimeServer, undisturbed: Job) -> None:
    for table in ("llm_panes", "llm_alerts"):
        found = sorted(server.tables[table].values(), key=repr)
        names = list(found[0])
        expected = [{name: row[name] for name in names} for row in stored(undisturbed, table)]
        assert found == sorted(expected, key=repr)


def test_a_store_that_is_slow_holds_up_the_reading(
    guarded: Broker, server: GreptimeServer, tmp_path: Path, undisturbed: Job
) -> None:
    """Records wait on the topic, not in the process."""
    flow = Alerting(guarded, tmp_path, **on_server(server))
    flow.sends(RECORDS[CALM:])
    server.delay_s = 1
    with flow.start() as process:
        flow.until(lambda: server.inserts >= 4)
        read_before = flow.records()
        assert read_before < len(RECORDS) / 2
        assert flow.metric("sentinel_consumer_lag_records") > len(RECORDS) / 4
        flow.until(lambda: server.inserts >= 6)
        assert flow.records() <= read_before + 3 * 20
        assert flow.metric("sentinel_sink_write_seconds_sum", sink="greptime") > 3
        assert flow.metric("process_resident_memory_bytes") < MOST_MIB * 2**20
        server.delay_s = 0
        finished(process)
    holds_all(server, undisturbed)
    assert flow.alerts() == undisturbed.alerts()


def test_a_store_that_goes_and_comes_back(server: GreptimeServer, tmp_path: Path, undisturbed: Job) -> None:
    flow = Flow(job_over(tmp_path / "job", RECORDS, **on_server(server), sinks__backoff_most_s=0.3))
    server.delay_s = 0.1  # so that the run does not end first
    with flow.start() as process:
        flow.until(lambda: server.inserts >= 3)
        server.stop()
        flow.fails("greptime")
        server.delay_s = 0
        server.restart()
        said = finished(process)
    assert f"sink greptime: GreptimeDB at {server.endpoint}: " in said
    holds_all(server, undisturbed)
    assert flow.job.alerts() == undisturbed.alerts()
