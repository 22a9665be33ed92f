"""Faults that must neither stop time nor let it run away, with processes on a real broker: old events, records without
a timestamp, hung transactions, clocks that are set."""

from __future__ import annotations

import json
import re
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from tests.brokers import Broker, create_topic, free_port, produce
from tests.integration.test_bad_input import QUICK, START, balance_of, record, scenario
from tests.processes import Job, Process
from tests.stepped_clock import SteppedClock
from tests.waiting import wait_until

LOG_APPEND = {"message.timestamp.type": "LogAppendTime"}
OLD = 946_800_000  # 2000-01-02


class Live:
    """A flow over its own topic, with metrics that a test can read."""

    def __init__(
        self, folder: Path, broker: Broker, options: dict[str, str], partitions: int = 2, **settings: object
    ) -> None:
        self.broker = broker
        self.topic = f"t-{uuid4().hex[:8]}"
        create_topic(broker, self.topic, partitions, options)
        self._port = free_port()
        found: dict[str, object] = {
            **QUICK, "source.kind": "kafka", "kafka.brokers": broker.address, "kafka.topics": [self.topic],
            "kafka.group_id": self.topic, "metrics.port": self._port, "source.batch_size": 50,
        }  # fmt: skip
        self.job = Job(folder, {**found, **{k.replace("__", "."): v for k, v in settings.items()}})

    def send(self, partition: int, *values: bytes) -> None:
        produce(self.broker, self.topic, values, partition)

    def start(self, environment: dict[str, str] | None = None) -> Process:
        command = [sys.executable, "-m", "bytewax.run", "flows.main", *self.job.recovered(1)]
        return Process(command, {**self.job.environment({}), **(environment or {})}, self.job.folder / "log")

    def metric(self, name: str, process: int = 0, **labels: str) -> float:
        """The sum of the samples of this metric with these labels; 0 if there are none, or no process answers yet."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port + process}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        values = [line.rpartition(" ")[2] for line in lines if re.match(rf"{name}[ {{]", line)
                  and all(label in line for label in wanted)]  # fmt: skip
        return sum(map(float, values))

    def lag(self, partition: int) -> float:
        return self.metric("sentinel_consumer_lag_records", partition=f"{self.topic}/{partition}")

    def read(self) -> float:
        return self.metric("sentinel_records_total")


def verdicts(job: Job) -> list[tuple[str, str]]:
    """The time and status of each alert on the traffic of the scenario."""
    alerts = [json.loads(line) for line in job.alerts()]
    return [(a["at"], a["status"]) for a in alerts if a["series"] == {"model": "m"}]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """The verdicts on the scenario without a fault."""
    folder = tmp_path_factory.mktemp("expected")
    path = folder / "events.jsonl"
    path.write_bytes(b"\n".join([*scenario(), b""]))
    job = Job(folder / "job", {**QUICK, "source.kind": "files", "source.files.paths": [str(path)]})
    job.run()
    assert len(verdicts(job)) >= 2
    return verdicts(job)


@pytest.mark.parametrize(
    "bad", [record(OLD, model="old"), b"{", record(START, model="behind")], ids=["old", "broken", "behind"]
)
def test_a_partition_with_nothing_but_bad_events_stops_nothing(
    kafka: Broker, tmp_path: Path, expected: list[tuple[str, str]], bad: bytes
) -> None:
    """The first bad event must not keep the other partition from being read, and the next ones must not stop time."""
    live = Live(tmp_path, kafka, LOG_APPEND, time__max_ahead_s=60, time__idle_s=2)
    live.send(0, *scenario())
    live.send(1, bad)
    with live.start() as process:
        wait_until(lambda: verdicts(live.job) == expected, "the alerts", meanwhile=lambda: live.send(1, bad))
        wait_until(lambda: live.lag(0) == 0 and live.lag(1) == 0, "read to the end")
        process.send(SIGTERM)
        assert process.finish(60) == 0, process.said()


def test_a_record_without_a_timestamp_is_judged_by_those_before_it(kafka: Broker, tmp_path: Path) -> None:
    """If a whole poll with such a record were judged by the run's begin, newer records would be `future_time`."""
    live = Live(tmp_path, kafka, {}, kafka__stop_at_end=True)
    now = int(time.time()) + 3_000  # the producer's clock is ahead, and so are the arrivals, which it sets
    for n in range(100):
        times = [(now + n) * 1_000 if n != 50 else -1]
        produce(kafka, live.topic, [record(now + n)], 0, times) if n in {0, 50, 99} else None
    produce(kafka, live.topic, [record(now + n) for n in range(400)], 1, [(now + n) * 1_000 for n in range(400)])
    live.job.run(*live.job.recovered(1))
    balance_of(live.job, 403)


def test_a_hung_transaction_is_no_idleness_and_its_records_are_lag(
    kafka: Broker, tmp_path: Path, expected: list[tuple[str, str]]
) -> None:
    """If the partition counted as idle before the transaction, the records behind it would be overtaken."""
    live = Live(tmp_path, kafka, LOG_APPEND, time__max_ahead_s=60, time__idle_s=1)
    records = scenario()
    live.send(0, *records[::2])
    live.send(1, records[1])
    hung = Producer({"bootstrap.servers": kafka.address, "transactional.id": live.topic})
    hung.init_transactions(30)
    hung.begin_transaction()
    for value in (b"given up", b"given up"):
        hung.produce(live.topic, value, partition=1)
    assert hung.flush(10) == 0
    live.send(1, *records[3::2])
    with live.start() as process:
        wait_until(lambda: live.lag(1) == 301, "the lag of records that cannot be read yet")
        wait_until(lambda: live.lag(0) > 150, "the lag of a partition that waits for another")
        time.sleep(4)  # four times `time.idle_s`
        assert live.metric("sentinel_records_total") < 200
        hung.abort_transaction(30)
        wait_until(lambda: verdicts(live.job) == expected and live.read() == 600, "the alerts, and all records")
        assert live.metric("sentinel_events_overtaken_total") == 0
        process.send(SIGTERM)
        assert process.finish(60) == 0, process.said()
    balance_of(live.job, 600)


@pytest.fixture
def clocked(kafka: Broker, tmp_path: Path) -> Iterator[tuple[Live, SteppedClock, Process]]:
    """A flow that has read its first 51 records, and its clock, which a test can set."""
    live = Live(tmp_path / "flow", kafka, LOG_APPEND, time__idle_s=1)
    clock = SteppedClock(tmp_path)
    live.send(0, *(record(time.time(), trace_id=str(n)) for n in range(50)))
    live.send(1, record(time.time()))
    with live.start(clock.environment) as process:
        wait_until(lambda: live.read() == 51, "the first records", seconds=90)
        yield live, clock, process


def test_a_clock_that_is_set_back_holds_up_neither_reading_nor_the_end(
    clocked: tuple[Live, SteppedClock, Process],
) -> None:
    live, clock, process = clocked
    clock.set(-100)
    live.send(0, *(record(time.time()) for _ in range(50)))
    wait_until(lambda: live.read() == 101, "the records sent while the clock is behind", seconds=10)
    clock.set(3_600)
    time.sleep(1.5)  # an epoch begins
    clock.set(0)
    live.send(0, *(record(time.time()) for _ in range(50)))
    wait_until(lambda: live.read() == 151, "the records sent after the hour forward and back", seconds=10)
    assert live.metric("sentinel_clock_steps_total") == 3
    process.send(SIGTERM)
    assert process.finish(20) == 0, process.said()
    assert "the host's clock went back by 100 s" in process.said()
    balance_of(live.job, 151)


def test_an_hour_forward_while_nothing_comes_closes_no_hour_of_panes(
    clocked: tuple[Live, SteppedClock, Process],
) -> None:
    live, clock, process = clocked
    time.sleep(2)  # both partitions are idle
    clock.set(3_600)
    time.sleep(11)  # longer than a pane: an idle partition reports after each pane how far it is
    clock.set(0)
    live.send(0, *(record(time.time(), latency_ms=1_000) for _ in range(50)))
    wait_until(lambda: live.read() == 101, "the records sent after the hour forward", seconds=10)
    time.sleep(1)
    assert live.metric("sentinel_events_overtaken_total") == 0
    process.send(SIGTERM)
    assert process.finish(20) == 0, process.said()


def test_a_partition_waits_for_one_of_another_process(kafka: Broker, tmp_path: Path) -> None:
    """Otherwise the other process would read the whole day into its open panes."""
    live = Live(tmp_path, kafka, LOG_APPEND, 4, time__max_ahead_s=600, recovery__shards=16)
    live.send(0, record(START))
    hung = Producer({"bootstrap.servers": kafka.address, "transactional.id": live.topic})
    hung.init_transactions(30)
    hung.begin_transaction()
    hung.produce(live.topic, b"given up", partition=0)
    assert hung.flush(10) == 0
    for partition in (1, 2, 3):
        live.send(partition, *(record(START + 30 * n) for n in range(2_880)))

    def read(process: int) -> list[float]:
        names = [f"{live.topic}/{n}" for n in range(4)]
        return [live.metric("sentinel_records_total", process, partition=name) for name in names]

    with live.job.cluster(2, *live.job.recovered(1)) as process:
        wait_until(lambda: all(map(max, read(0), read(1))), "all partitions")
        time.sleep(3)  # time to read a day many times over
        found = read(0), read(1)
        assert all(map(any, found)), "each process reads something, else this shows nothing"
        # Ten minutes are 20 records; a process may poll a few times 50 before it hears of the other partitions.
        assert max(map(max, found)) < 500, found
        hung.abort_transaction(30)
        live.send(0, *(record(START + 30 * n) for n in range(1, 2_880)))
        wait_until(lambda: sum(read(0)) + sum(read(1)) == 4 * 2_880, "the whole day", seconds=120)
        process.send(SIGTERM)
        assert process.finish(60) == 0, process.said()
