"""The main job used wrongly, as a process: it ends with a clear sentence or goes on, and loses no record it has read.

`docs/bad-input.md` lists all cases. Missing files, topics and folders, wrong settings and a recovery store of another
shape are in `test_main_job.py`.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import pty
import re
import resource
import shutil
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from connectors.kafka.config import KafkaConfig
from connectors.kafka.source import KafkaSource
from operators.errors import RetryableError
from tests.brokers import Broker, create_topic, kafka_broker, produce, read_all
from tests.conftest import ROOT, leave_out
from tests.events import write_events
from tests.processes import Job, Process, files
from tests.waiting import wait_until

START = 1_741_000_000
NOT_LINES = "not JSON lines: write one JSON object a line, or CSV with the names of the fields in its first line"
NO_STORE = sqlite3.OperationalError
"""The store, or its table, does not exist yet."""
"""Unix time of the first record of a scenario, in March 2025."""
QUICK: dict[str, object] = {
    "detect.warm_up_panes": 12,
    "detect.false_alarms_per_series_day": 1.4,
    "detect.metrics.latency.min_count": 4,
    "episodes.resolve_s": 60,
    "source.batch_size": 20,
    "log.level": "warning",
}
"""Settings that fit an incident from begin to end into ten minutes of traffic."""
STOPPED = "llm-sentinel stopped: "
ODD = ["a\0b", "\x1b[31mred\x07", "x" * 1_024, "👩‍👩‍👧‍👦 🦜", "שלום \u202eabc", "a,b=c%2C", "__other__", "__other__.3"]
"""Names of services that may break a program downstream."""


def record(at: float, service: str = "chat", **fields: object) -> bytes:
    known = {"timestamp": at, "service": service, "model": "m", "operation": "chat", "latency_ms": 100}
    return json.dumps({**known, **fields}, ensure_ascii=False).encode()


def scenario(services: Sequence[str] = ("chat",)) -> list[bytes]:
    """Ten minutes with one event of each service in a second; all services are slow for a minute and a half."""
    return [
        record(START + second, service, latency_ms=(4_000 if 300 <= second < 390 else 100) + second % 7)
        for second in range(600)
        for service in services
    ]


def job_over(folder: Path, records: Sequence[bytes], **settings: object) -> Job:
    """A job over a file of these records."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.parent / "events.jsonl"
    path.write_bytes(b"\n".join([*records, b""]))
    return Job(folder, {**QUICK, **files(path), **{k.replace("__", "."): v for k, v in settings.items()}})


def stopped(job: Job, *arguments: str, code: int = 1, changes: dict[str, object] | None = None) -> str:
    """Start it and return the sentence that says why it ended."""
    with job.start(*arguments, changes=changes) as process:
        assert process.finish() == code, process.said()
    said = process.said()
    assert "Traceback" not in said, said
    assert "panicked" not in said, said
    _, begin, why = said.partition(STOPPED if code == 1 else "llm-sentinel cannot start: ")
    assert begin, said
    return why.partition("\n")[0]


def balance_of(job: Job, on_time: int, **others: object) -> None:
    """Assert that the balance is exactly this (law 2)."""
    found = {k: v for k, v in job.balance().items() if k != "unpriced"}
    expected: dict[str, object] = {"on_time": on_time, "late": 0, "duplicate": 0, "skipped": 0, "dead": {}}
    expected |= {"passed_over": {}, **others}
    dead, late = expected["dead"], expected["late"]
    assert isinstance(dead, dict)
    assert isinstance(late, int)
    assert found == {"records": on_time + late + sum(dead.values()), **expected}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run over the scenario without an interruption; interrupted runs must have its outcome."""
    job = job_over(tmp_path_factory.mktemp("undisturbed") / "job", scenario())
    job.run()
    assert len(job.alerts()) >= 2
    balance_of(job, 600)
    return job


# Content


def test_no_content_of_a_refused_record_reaches_a_file_or_a_log(tmp_path: Path) -> None:
    """Words and numbers as values and names, nested, in fields of another type, in records cut short or not UTF-8."""
    content: list[object] = [918273645546, "zqxjv", ["zqxjv", 918273645546], {"zqxjv": {"918273645546": 1}}]
    bad = [
        record(START, "chat", **{"latency_ms": -1, name: c})
        for c in content
        for name in ("prompt", "zqxjv", "918273645546")
    ]
    bad += [
        record(START, "chat", **{name: c}) for c in content for name in ("tenant", "status", "attributes", "cost_usd")
    ]
    bad += [value[: len(value) * 3 // 4] for value in bad]
    bad += [value.replace(b"zqxjv", b"zqxjv\xff") for value in bad]
    job = job_over(tmp_path / "job", [*scenario()[:60], *bad], log__level="debug")
    said = job.run(*job.recovered(1))
    refused = sum(job.balance()["dead"].values())
    assert refused > len(bad) / 2
    assert len(job.letters()) == refused
    # Not the store: a good record may have content in a label, and labels are stored.
    places = [said.encode(), *job.letters(), *job.alerts()]
    places += [path.read_bytes() for path in (tmp_path / "job").rglob("*") if path.name in ("log", "balance.json")]
    for place in places:
        assert b"zqxjv" not in place
        assert b"918273645546" not in place


# Files


def test_an_empty_file_is_a_run_without_events(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "empty.jsonl").touch()
    job = Job(tmp_path / "job", files(tmp_path / "empty.jsonl", tmp_path / "empty.jsonl.gz"))
    job.run()
    balance_of(job, 0)
    assert job.alerts() == job.letters() == []


def test_a_gzip_file_cut_short_gives_what_is_whole_and_is_gone_on_with_when_mended(
    tmp_path: Path, undisturbed: Job
) -> None:
    path = tmp_path / "events.jsonl.gz"
    whole = gzip.compress(b"\n".join([*scenario(), b""]), compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])
    job = Job(tmp_path / "job", {**QUICK, **files(path)})
    why = stopped(job, *job.recovered())
    assert re.search(r"the gzip file .*events.jsonl.gz is cut short after byte \d+ of its text; all whole records", why)
    read = job.balance()["records"]
    assert 250 < read < 350
    path.write_bytes(whole)
    job.run(*job.recovered())
    assert job.outcome() == undisturbed.outcome()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"stamp,service\n1741000000,chat\n", NOT_LINES),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00", NOT_LINES),
        ('{"timestamp":1741000000}\n'.encode("utf-16"), "in UTF-16: convert it to UTF-8"),
    ],
    ids=["CSV without its header", "PNG", "UTF-16"],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "events").write_bytes(content)
    job = Job(tmp_path / "job", files(tmp_path / "events"))
    assert stopped(job, code=78) == f"the file of recorded traffic {tmp_path / 'events'} is {what}"
    assert not (job.folder / "sentinel.db").exists()


@pytest.mark.parametrize("name", ["events.csv", "events.csv.gz", "events.csv.zst", "events.parquet"])
def test_a_file_of_another_form_gives_the_same_rows_and_alerts_stopped_in_mid_run_too(
    name: str, tmp_path: Path, undisturbed: Job
) -> None:
    job = Job(tmp_path / "job", {**QUICK, **files(write_events(tmp_path / name, scenario()))})
    with job.start(*job.recovered()) as process:
        process.wait_for(" events")
        process.send(SIGTERM)
        assert process.finish() == 0, process.said()
    job.run(*job.recovered())
    assert job.outcome() == undisturbed.outcome()
    balance_of(job, 600)


def test_bad_cells_are_dead_letters_with_their_file_and_row(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    rows = [b"timestamp,service,latency_ms", b"%d,chat,100" % START, b"%d,chat,fast" % START, b"%d,chat" % START]
    path.write_bytes(b"\n".join([*rows, b"%d,c\xff,1" % START, b"%d,chat,100" % START]))
    job = Job(tmp_path / "job", {**QUICK, **files(path)})
    job.run()
    balance_of(job, 2, dead={"not_an_object": 1, "not_utf8": 1, "wrong_type": 1})
    letters = [json.loads(line) for line in job.letters()]
    assert {(letter["topic"], letter["offset"]) for letter in letters} == {
        (str(path), len(b"\n".join([*rows[:2], b""]))),
        (str(path), len(b"\n".join([*rows[:3], b""]))),
        (str(path), len(b"\n".join([*rows, b""]))),
    }


@pytest.mark.timeout(600)
def test_a_million_tenants_are_bounded(tmp_path: Path) -> None:
    """Each sends one event; a shard may watch five hundred. Without that limit the run needs more than 3,000 MiB."""
    many = 1_000_000
    line = '{"timestamp":%.4f,"service":"chat","tenant":"tenant-%d","latency_ms":100}\n'
    path = tmp_path / "events.jsonl"
    with path.open("w") as file:
        file.writelines(line % (START + i / 10_000, i) for i in range(many))
    tenants = {"panes.dimension_sets": [["tenant"]], "panes.series_per_shard": 500, "time.correction_s": 20}
    job = Job(tmp_path / "job", {**files(path), **tenants})
    with job.start(*job.recovered(1)) as process:
        code, peak = process.finish_watched(500)
    assert code == 0, process.said()
    balance_of(job, many)
    assert job.requests("tenant") == dict.fromkeys((10, 60, 3600), many)
    names = {row[1] for row in job.rows("llm_panes").values()}
    assert 4 < len(names) <= 4 * 500 + 4
    assert {name for name in names if "__other__" in str(name)} == {f"tenant=__other__.{n}" for n in range(4)}
    assert peak < 1_000, f"{peak:.0f} MiB"


# Names


def test_odd_names_come_through_to_every_sink(tmp_path: Path, tansu: Broker) -> None:
    topic = f"alerts-{uuid4().hex[:8]}"
    kafka = {"alerts.kafka": True, "kafka.brokers": tansu.address, "kafka.alert_topic": topic}
    # No series holds several of the services, so each service has its own incident.
    apart = {"panes.dimension_sets": [["service", "model", "operation"]], "source.batch_size": 500}
    job = Job(tmp_path / "job", {**QUICK, **kafka, **apart, "alerts.terminal": True})
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([*scenario(ODD), b""]))
    with job.start(changes=files(path)) as process:
        assert process.finish() == 0, process.said()
    balance_of(job, 600 * len(ODD))
    shown = {f"~{name}" if name.startswith("__other__") else name for name in ODD}
    assert {json.loads(line)["series"]["service"] for line in job.alerts()} == shown
    assert {json.loads(m.value() or b"")["series"]["service"] for m in read_all(tansu, topic)} == shown
    stored = {value for row in job.rows("llm_panes").values() for value in row if value in shown}
    assert stored == shown
    assert job.requests("service,model,operation") == dict.fromkeys((10, 60, 3600), 600 * len(ODD))
    lines = [line for line in process.said().split("\n") if "firing" in line]
    assert len(lines) >= len(ODD)
    assert all(line.isprintable() for line in lines), "names must not control the terminal"


# Brokers


def kafka_settings(broker: Broker, topic: str, **more: object) -> dict[str, object]:
    return {
        **QUICK,
        "source.kind": "kafka",
        "kafka.brokers": broker.address,
        "kafka.topics": [topic],
        "kafka.group_id": topic,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


def a_topic(broker: Broker, records: Sequence[bytes], config: dict[str, str] | None = None) -> str:
    name = f"t-{uuid4().hex[:8]}"
    create_topic(broker, name, config=config)
    produce(broker, name, records)
    return name


def test_records_that_come_to_an_idle_empty_topic_are_not_late(broker: Broker, tmp_path: Path) -> None:
    topic = a_topic(broker, [])
    settings = {"time.idle_s": 0.3, "time.pane_s": 1, "time.lateness_s": 1, "log.level": "info"}
    job = Job(tmp_path / "job", {**kafka_settings(broker, topic), **settings})
    with job.start(*job.recovered()) as process:
        process.wait_for("0 events")
        produce(broker, topic, [record(time.time()) for _ in range(100)])
        wait_until(
            lambda: job.requests("service,model,operation").get(1) == 100,
            seconds=100,
            ignore=NO_STORE,
        )
        process.send(SIGTERM)
        assert process.finish() == 0, process.said()
    balance_of(job, 100)


def test_a_record_of_10_mb_is_a_dead_letter(broker: Broker, tmp_path: Path) -> None:
    large = record(START, prompt="x" * 10_000_000)
    topic = a_topic(broker, scenario()[:50], {"max.message.bytes": "20000000"})
    producer = Producer({"bootstrap.servers": broker.address, "message.max.bytes": 20_000_000})
    producer.produce(topic, large, partition=0)
    assert producer.flush(30) == 0
    produce(broker, topic, scenario()[50:100])
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([*scenario()[:50], large, *scenario()[50:100], b""]))
    from_kafka = Job(tmp_path / "kafka", kafka_settings(broker, topic, kafka__stop_at_end=True))
    from_file = Job(tmp_path / "file", {**QUICK, **files(path)})
    for job in (from_kafka, from_file):
        job.run()
        balance_of(job, 100, dead={"record_too_large": 1})
        (letter,) = map(json.loads, job.letters())
        assert "at most 1000000 are accepted" in letter["detail"]
        assert len(letter["payload"]) <= 2_048
    assert from_kafka.rows("llm_panes") == from_file.rows("llm_panes")


def clocks(now: int, ahead_s: int) -> list[bytes]:
    """Events of three producers in turn: one clock is right, one is ahead, and one is an hour behind."""
    return [
        value
        for second in range(100)
        for value in (
            record(now - 100 + second),
            record(now - 100 + second + ahead_s, "ahead"),
            record(now - 100 + second - 3600, "behind"),
        )
    ]


def test_clocks_an_hour_off_where_the_broker_says_when_records_arrived(kafka: Broker, tmp_path: Path) -> None:
    topic = a_topic(kafka, clocks(int(time.time()), 3600), {"message.timestamp.type": "LogAppendTime"})
    job = Job(tmp_path, kafka_settings(kafka, topic, kafka__stop_at_end=True))
    job.run()
    balance_of(job, 100, late=100, dead={"future_time": 100})
    assert job.requests("service,model,operation")[10] == 100  # an hour late is beyond time.correction_s
    assert "time.future_skew_s" in json.loads(job.letters()[0])["detail"]


def test_a_clock_ahead_where_producers_say_when_records_arrived_makes_the_others_late(
    kafka: Broker, tmp_path: Path
) -> None:
    """For this reason the documents ask for LogAppendTime: here the arrival is ahead too. Every event still counts."""
    now = int(time.time())
    topic = a_topic(kafka, [])
    for value in clocks(now, 1_800):
        ahead = b'"ahead"' in value
        produce_one(kafka, topic, value, (now + (1_800 if ahead else 0)) * 1_000)
    job = Job(tmp_path, kafka_settings(kafka, topic, kafka__stop_at_end=True))
    job.run()
    balance_of(job, 101, late=199)


def produce_one(broker: Broker, topic: str, value: bytes, at_ms: int, kept: dict[str, Producer] = {}) -> None:  # noqa: B006 - one producer for all
    producer = kept.setdefault(broker.address, Producer({"bootstrap.servers": broker.address}))
    producer.produce(topic, value, partition=0, timestamp=at_ms)
    producer.flush(30)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """An Apache Kafka that a test may kill; it runs when a test begins and when it has ended."""
    broker = kafka_broker(tmp_path_factory.mktemp("mortal"))
    broker.start()
    yield broker
    broker.kill()


def test_a_broker_that_is_down_at_the_start_and_comes_in_time(mortal: Broker, tmp_path: Path) -> None:
    topic = a_topic(mortal, scenario())
    mortal.kill()
    job = Job(tmp_path, kafka_settings(mortal, topic, kafka__stop_at_end=True, kafka__start_budget_s=60))
    with job.start() as process:
        process.wait_for("trying again")
        mortal.start()
        assert process.finish() == 0, process.said()
    balance_of(job, 600)


def test_records_that_wait_in_the_client_do_not_hide_that_the_broker_is_away(mortal: Broker) -> None:
    """If the partition counted as idle, the clock would close panes of records that the broker still has."""
    topic = a_topic(mortal, scenario())
    source = KafkaSource(KafkaConfig(brokers=mortal.address, topics=(topic,)))
    (partition,) = source.partitions()
    reader = source.open(partition, None)
    reader.durable(0)
    wait_until(lambda: bool(reader.poll(1).values), seconds=100)
    time.sleep(0.5)  # the client fetches the rest and learns the end
    mortal.kill()
    time.sleep(0.5)
    read, failure = 1, ""
    deadline = time.monotonic() + 20
    while not failure and time.monotonic() < deadline:
        try:
            read += len(reader.poll(10).values)
        except RetryableError as error:
            failure = str(error)
        time.sleep(0.001)
    assert f"no broker of {mortal.address} answers" in failure
    assert read == 600
    begin = time.monotonic()
    reader.durable(600)
    reader.close()
    assert time.monotonic() - begin < 1
    mortal.start()


def test_a_broker_that_goes_and_comes_back_and_one_that_does_not(
    mortal: Broker, tmp_path: Path, undisturbed: Job
) -> None:
    records = scenario()
    topic = a_topic(mortal, records[:200])
    job = Job(tmp_path, kafka_settings(mortal, topic, sinks__backoff_most_s=0.5))
    with job.start(*job.recovered()) as process:
        wait_until(
            lambda: job.requests("service,model,operation").get(10, 0) > 100,
            seconds=100,
            ignore=NO_STORE,
        )
        mortal.kill()
        process.wait_for("trying again")
        mortal.start()
        produce(mortal, topic, records[200:400])
        wait_until(
            lambda: job.requests("service,model,operation").get(10, 0) > 300,
            seconds=100,
            ignore=NO_STORE,
        )
        before = process.said().count("trying again")
        mortal.kill()
        wait_until(lambda: process.said().count("trying again") > before, seconds=100)
        process.send(SIGTERM)
        assert process.finish(20) == 0, process.said()
    balance_of(job, 400)
    mortal.start()
    with job.start(*job.recovered(), changes={"sinks.budget_s": 1}, log="second") as process:
        produce(mortal, topic, records[400:500])
        wait_until(
            lambda: job.requests("service,model,operation").get(10, 0) > 400,
            seconds=100,
            ignore=NO_STORE,
        )
        mortal.kill()
        assert process.finish() == 1, process.said()
    said = process.said()
    assert "Traceback" not in said, said
    assert re.search(rf"{STOPPED}source partition {topic}/0 failed for \d s \(budget_s = 1\); the last error: ", said)
    assert f"no broker of {mortal.address} answers" in said
    mortal.start()
    produce(mortal, topic, records[500:])
    with job.start(*job.recovered(), changes={"kafka.stop_at_end": True}, log="third") as process:
        assert process.finish() == 0, process.said()
    assert job.outcome() == undisturbed.outcome()


# Disks


class Disk:
    """A small file system that a test can fill up and make read-only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def size(self, kib: int) -> None:
        self._mount(f"remount,size={kib}k")

    def read_only(self) -> None:
        self._mount("remount,ro")

    def fill(self) -> None:
        """Take all free space, to the last page."""
        with suppress(OSError), (self.folder / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4_096))

    def make_room(self) -> None:
        (self.folder / "fill").unlink()

    def _mount(self, options: str) -> None:
        subprocess.run(["mount", "-o", options, self.folder], check=True, timeout=10)


@contextmanager
def small_disk(folder: Path, mib: int) -> Iterator[Disk]:
    """A disk of this size, mounted on the folder."""
    mounted = (
        shutil.which("mount") is not None
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "sentinel-test", folder],
            check=False,
            capture_output=True,
            timeout=10,
        ).returncode
    )
    if not mounted:
        leave_out("no small disk: this user may not mount a file system")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=10)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, 200) as disk:
        yield disk


ON_DISK = {"store": "store.sqlite.path", "alerts": "alerts.jsonl", "recovery": None}


def placed(what: str, disk: Disk, tmp_path: Path) -> tuple[Job, list[str]]:
    """A job over the scenario with one of `ON_DISK` on the disk, and the arguments of a recovered run."""
    name = {"store": "sentinel.db", "alerts": "alerts.jsonl"}.get(what, "")
    key = ON_DISK[what]
    job = job_over(tmp_path / "job", scenario(), **({key: disk.folder / name} if key else {}))
    arguments = list(job.recovered())
    if key is None:
        arguments[1] = str(disk.folder / "recovery")
    return job, arguments


@pytest.mark.parametrize(
    ("what", "kib", "why"),
    [
        ("store", 80, "sink sqlite failed for .*the SQLite store .*: the disk is full: make room"),
        ("alerts", 4, "sink jsonl failed for .*the file .*alerts.jsonl: the disk is full: make room"),
        ("recovery", 1_400, r"the recovery folder .* cannot be written any more \(No space left on device\)"),
    ],
)
def test_a_full_disk_ends_the_run_with_a_sentence_and_with_room_it_goes_on(
    what: str, kib: int, why: str, disk: Disk, tmp_path: Path, undisturbed: Job
) -> None:
    disk.size(kib)
    job, arguments = placed(what, disk, tmp_path)
    if what == "alerts":
        (disk.folder / "fill").write_bytes(bytes(4_096))
    found = stopped(job, *arguments, changes={"source.batch_size": 5, "sinks.budget_s": 0.5})
    assert re.match(why, found), found
    assert 0 < job.balance()["records"] <= 600
    if what == "recovery":
        assert "No space left on device" in stopped(job, *arguments, code=78)
    disk.size(200_000)
    job.run(*arguments)
    for file in disk.folder.iterdir():
        if file.is_file():
            shutil.copy(file, job.folder)
    assert job.outcome() == undisturbed.outcome()


def test_a_disk_that_is_full_at_the_last_snapshot_ends_the_run_with_a_sentence(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUST_BACKTRACE", "full")
    disk.size(20_000)
    settings = {"source.simulator.live": True, "source.simulator.rate": 500, "log.level": "warning"}
    job = Job(tmp_path / "job", settings)
    with job.start("-r", str(disk.folder / "recovery"), "-s", "3600", "-b", "0") as process:
        process.wait_for(" events")
        disk.fill()
        process.send(SIGTERM)
        assert process.finish(60) == 1, process.said()
    last = [line for line in process.said().partition("SIGTERM: ")[2].splitlines()[1:] if line]
    assert len(last) == 2 and " events, " in last[1], process.said()
    folder = disk.folder / "recovery"
    assert last[0] == (
        f"{STOPPED}the recovery folder {folder} cannot be written any more (No space left on device): mend that "
        "and start again, the run goes on from its last snapshot"
    )


def test_a_folder_of_the_system_is_no_recovery_folder(tmp_path: Path) -> None:
    before = sorted(path.name for path in Path("/etc").iterdir())
    said = stopped(job_over(tmp_path / "job", scenario()[:20]), "-r", "/etc", "-s", "0", "-b", "0", code=78)
    assert said.startswith("the folder /etc is not empty and no recovery folder of this program (it holds ")
    assert sorted(path.name for path in Path("/etc").iterdir()) == before


@pytest.mark.parametrize("what", ON_DISK)
def test_a_read_only_disk_is_refused_at_the_start(what: str, disk: Disk, tmp_path: Path) -> None:
    job, arguments = placed(what, disk, tmp_path)
    disk.read_only()
    why = stopped(job, *arguments, code=78)
    expected = {
        "store": f"store.sqlite.path: the file {disk.folder / 'sentinel.db'} may not be written: ",
        "alerts": f"alerts.jsonl: the file {disk.folder / 'alerts.jsonl'} may not be written: ",
        "recovery": f"the recovery folder {disk.folder / 'recovery'} cannot be written (Read-only file system)",
    }
    assert why.startswith(expected[what])


def test_a_limit_on_the_size_of_files_ends_the_run_with_a_sentence(tmp_path: Path, undisturbed: Job) -> None:
    """A user under a quota meets the same."""
    # Coverage writes a file too, and ends with a trace if it cannot.
    job = job_over(tmp_path / "job", scenario())
    command = [sys.executable, "-m", "bytewax.run", "flows.main"]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    done = subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env=job.environment({"sinks.budget_s": 0.5}),
        preexec_fn=limited,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    why = f"the SQLite store {job.folder / 'sentinel.db'}: reading or writing failed: check the disk"
    assert re.search(rf"{STOPPED}sink sqlite failed for .*; the last error: {re.escape(why)}", done.stderr)
    job.run()
    assert job.rows("llm_panes") == undisturbed.rows("llm_panes")


@pytest.mark.parametrize("what", ["store", "recovery", "everything"])
def test_what_is_removed_while_it_is_written_ends_the_run(what: str, tmp_path: Path) -> None:
    live = {"source.simulator.rate": 200, "source.batch_size": 500, "log.level": "warning"}
    job = Job(tmp_path / "job", live)
    command = [sys.executable, "-m", "bytewax.run", "flows.main", *job.recovered()]
    with Process(command, job.environment({}), tmp_path / "log") as process:
        wait_until(lambda: bool(job.rows("llm_panes")), seconds=100, ignore=NO_STORE)
        match what:
            case "store":
                (job.folder / "sentinel.db").unlink()
            case "recovery":
                shutil.rmtree(job.folder / "recovery")
            case _:
                shutil.rmtree(job.folder)
        assert process.finish(30) == 1, process.said()
    said = process.said()
    assert "Traceback" not in said
    assert re.search(rf"{STOPPED}.* was removed while ", said), said


# Recovery folders


def test_a_recovery_folder_that_is_not_ours_or_cannot_be_read_is_refused(tmp_path: Path) -> None:
    job = job_over(tmp_path / "job", scenario()[:20])
    job.run(*job.recovered())
    manifest = job.folder / "recovery" / "manifest.json"
    good = manifest.read_text()
    manifest.write_text(good.replace('"version": 1', '"version": 99'))
    assert "has version 99, this release reads 1" in stopped(job, *job.recovered(), code=78)
    manifest.write_text(good[:20])
    assert "manifest.json cannot be read" in stopped(job, *job.recovered(), code=78)
    manifest.unlink()
    assert "was not made by this program" in stopped(job, *job.recovered(), code=78)
    manifest.write_text(good)
    job.run(*job.recovered())
    balance_of(job, 20)


def test_two_flows_that_write_one_alert_file(tmp_path: Path) -> None:
    live = {"source.simulator.rate": 200, "source.batch_size": 500, "alerts.jsonl": tmp_path / "alerts.jsonl"}
    (tmp_path / "alerts.jsonl").touch()
    with (tmp_path / "alerts.jsonl").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # the first flow holds this lock from its first alert on
        second = job_over(tmp_path / "second" / "job", scenario(), **{**live, "source.kind": "files"})
        why = stopped(second, *second.recovered(), changes={"sinks.budget_s": 0.5, "source.batch_size": 20})
    assert f"another process writes the file {tmp_path / 'alerts.jsonl'}" in why
    second.run(*second.recovered())
    balance_of(second, 600)


# Signals


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_a_signal_at_any_moment_ends_it_well_and_it_goes_on(number: Signals, tmp_path: Path, undisturbed: Job) -> None:
    """One run, signalled again and again: while Python starts, imports modules and builds the flow, and at work."""
    # Coverage's start in a process swallows a SIGINT and goes on half imported; users' processes never do that.
    job = job_over(tmp_path / "job", scenario())
    codes = []
    for moment in (0.01, 0.1, 0.25, 0.45, 0.65, 0.8, 0.95, 1.1, 1.3, " events", " events"):
        with job.start(*job.recovered(), changes={"source.batch_size": 2, "log.level": "info"}) as process:
            if isinstance(moment, str):
                process.wait_for(moment)
            else:
                time.sleep(moment)
            process.send(number)
            codes.append(process.finish(30))
        said = process.said()
        # Before the program's first line Python itself answers SIGINT, with a trace of its own modules alone.
        before = number == SIGINT and "Traceback" in said and str(ROOT / "flows") not in said
        assert codes[-1] in (0, -number) or (before and codes[-1] == 1), said
        assert "Traceback" not in said or before, said
        assert "panicked" not in said
    assert codes[-1] == 0
    job.run(*job.recovered())
    assert job.outcome() == undisturbed.outcome()


# Terminals


def started(job: Job, **how: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bytewax.run", "flows.main"]
    return subprocess.Popen(command, cwd=ROOT, env=job.environment({}), **how)  # type: ignore[call-overload,no-any-return]


def test_a_terminal_of_40_columns(tmp_path: Path, undisturbed: Job) -> None:
    job = job_over(tmp_path / "job", scenario(["chat-with-a-rather-long-name"]), alerts__terminal=True)
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
    process = started(job, stdin=there, stdout=there, stderr=there)
    os.close(there)
    shown = b""
    while True:
        try:
            block = os.read(here, 65_536)
        except OSError:  # the process has ended
            break
        shown += block
    os.close(here)
    assert process.wait(60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    lines = re.split(r"[\r\n]+", text)
    assert max(map(len, lines)) <= 40, lines
    assert "firing" in text
    assert "600 events" in text


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=["stdin", "stdout", "stderr", "all"])
def test_closed_standard_streams(closed: tuple[int, ...], tmp_path: Path, undisturbed: Job) -> None:
    job = job_over(tmp_path / "job", scenario(), alerts__terminal=True, source__batch_size=200)

    def close() -> None:
        for number in closed:
            os.close(number)

    with (tmp_path / "log").open("wb") as log:
        process = started(job, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=close)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert job.outcome() == undisturbed.outcome()


@pytest.mark.parametrize("stream", ["stdout", "both"])
def test_a_reader_that_goes_after_the_first_line(stream: str, tmp_path: Path, undisturbed: Job) -> None:
    job = job_over(tmp_path / "job", scenario(), alerts__terminal=True, log__level="info")
    with (tmp_path / "log").open("wb") as log:
        process = started(job, stdout=subprocess.PIPE, stderr=log if stream == "stdout" else subprocess.STDOUT)
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
    assert "Traceback" not in (tmp_path / "log").read_text()
    assert job.outcome() == undisturbed.outcome()
