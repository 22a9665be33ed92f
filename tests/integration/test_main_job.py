"""The main job as users start it, on recorded traffic: from files and brokers, stopped, in two processes, refused."""

from __future__ import annotations

import gzip
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGINT, SIGTERM, Signals
from typing import Any
from uuid import uuid4

import pytest

from tests.brokers import Broker, create_topic, free_port, produce, read_all
from tests.processes import Job, Process, files

SERIES = "service,model,operation"
BROKEN = [
    b"no json",
    b'{"service": "conv"}',
    b'{"timestamp": "2023-11-16T18:20:00Z", "service": "conv", "latency_ms": -1}',
]
LONG = 580
"""How long the half million events may take on a busy machine, in seconds."""


def lines(path: Path) -> list[bytes]:
    with gzip.open(path) as file:
        return file.read().splitlines()


def dealt(records: list[bytes], partitions: int) -> list[list[bytes]]:
    """The records dealt in turn, so that every series is on every partition."""
    return [records[number::partitions] for number in range(partitions)]


def written(folder: Path, partitions: list[list[bytes]]) -> dict[str, object]:
    """Write the partitions to files; returns the settings that read them."""
    paths = [folder / f"{number}.jsonl" for number in range(len(partitions))]
    for path, records in zip(paths, partitions, strict=True):
        path.write_bytes(b"\n".join([*records, b""]))
    return files(*paths)


def topic(broker: Broker, partitions: list[list[bytes]]) -> dict[str, object]:
    """Create a topic with these partitions; returns settings that read it to its end and write to other topics."""
    name = f"t-{uuid4().hex[:8]}"
    create_topic(broker, name, len(partitions))
    for number, records in enumerate(partitions):
        produce(broker, name, records, number)
    return {
        "source.kind": "kafka",
        "kafka.brokers": broker.address,
        "kafka.topics": [name],
        "kafka.stop_at_end": True,
        "kafka.alert_topic": f"{name}.alerts",
        "kafka.dead_letter_topic": f"{name}.dead",
        "kafka.group_id": name,
        "alerts.kafka": True,
        "dead_letters.kafka": True,
    }


def sent(broker: Broker, settings: dict[str, object], what: str) -> list[bytes]:
    """The values on the topic of this setting, as a read_committed reader sees them."""
    return [message.value() or b"" for message in read_all(broker, str(settings[f"kafka.{what}"]))]


@pytest.fixture(scope="module")
def azure(shared: Path) -> list[Path]:
    """Files of real requests of two services, without most fields."""
    return [shared / "data" / "llm_traces" / f"azure2023_{name}.jsonl.gz" for name in ("conv", "code")]


@pytest.fixture(scope="module")
def short(shared: Path) -> list[bytes]:
    """Half an hour of the same arrivals with all fields and ten incidents."""
    return lines(shared / "data" / "scenarios" / "azure_short" / "events.jsonl.gz")


@pytest.fixture(scope="module")
def undisturbed(short: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run over these records from two files to the end; the other runs must have its outcome."""
    folder = tmp_path_factory.mktemp("undisturbed")
    job = Job(folder / "job", written(folder, dealt(short, 2)))
    job.run()
    assert len(job.alerts()) >= 10, "without alerts the comparisons show nothing"
    return job


@pytest.fixture(scope="module")
def scenario(shared: Path) -> Path:
    """A folder with half a million events of three and a half days, and thirty incidents."""
    return shared / "data" / "scenarios" / "servegen_dev"


@pytest.fixture(scope="module")
def long_run(scenario: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Job, Process]]:
    """The only run over these events from the file; it has started, and a test waits for its end."""
    job = Job(tmp_path_factory.mktemp("long"), files(scenario / "events.jsonl.gz"))
    with job.start() as process:
        yield job, process


@pytest.mark.timeout(LONG + 20)
def test_half_a_million_events_through_kafka_give_the_alerts_of_the_file(
    kafka: Broker, scenario: Path, long_run: tuple[Job, Process], tmp_path: Path
) -> None:
    from_file, process = long_run
    records = lines(scenario / "events.jsonl.gz")
    settings = topic(kafka, dealt(records, 3))
    job = Job(tmp_path, {**settings, "alerts.jsonl": "", "store.kind": "none"})
    job.run(seconds=LONG)
    assert process.finish(LONG) == 0, process.said()
    assert job.balance() == from_file.balance()
    assert sent(kafka, settings, "alert_topic") == from_file.alerts()


@pytest.mark.timeout(LONG + 20)
def test_half_a_million_events_from_a_file(shared: Path, scenario: Path, long_run: tuple[Job, Process]) -> None:
    job, process = long_run
    assert process.finish(LONG) == 0, process.said()
    balance = job.balance()
    assert balance["records"] == balance["on_time"] == len(lines(scenario / "events.jsonl.gz"))
    assert job.requests(SERIES) == dict.fromkeys((10, 60, 3600), balance["records"])
    found = score(shared, job, scenario / "labels.jsonl")
    assert found["recall"] >= 0.85, found
    assert found["precision"] >= 0.6, found


def score(shared: Path, job: Job, labels: Path) -> dict[str, Any]:
    command: list[str | Path] = [sys.executable, shared / "tools" / "score_alerts.py"]
    done = subprocess.run(
        [*command, job.folder / "alerts.jsonl", labels, "--json"], check=True, capture_output=True, timeout=60
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_real_requests_from_files_are_all_on_time_and_in_rows_of_every_width(azure: list[Path], tmp_path: Path) -> None:
    job = Job(tmp_path, files(*azure))
    said = job.run()
    events = sum(len(lines(path)) for path in azure)
    balance = job.balance()
    assert events == 14_854
    assert balance["records"] == balance["on_time"] == events
    assert (balance["late"], balance["duplicate"], balance["skipped"], balance["dead"]) == (0, 0, 0, {})
    assert job.requests(SERIES) == dict.fromkeys((10, 60, 3600), events)
    assert "14,854 events" in said


def test_real_requests_through_a_broker_give_the_rows_of_the_files(
    broker: Broker, azure: list[Path], tmp_path: Path
) -> None:
    partitions = [lines(path) for path in azure]
    for records in partitions:
        for number, broken in enumerate(BROKEN, 1):
            records.insert(number * 1_000, broken)
    settings = topic(broker, partitions)
    job = Job(tmp_path / "broker", {**settings, "source.batch_size": 1_000})
    job.run()
    from_files = Job(tmp_path / "files", files(*azure))
    from_files.run()
    assert job.rows("llm_panes") == from_files.rows("llm_panes")
    dead = {"not_json": 2, "missing_field": 2, "bad_number": 2}
    assert job.balance() == {**from_files.balance(), "records": 14_854 + 6, "dead": dead}
    letters = [json.loads(value) for value in sent(broker, settings, "dead_letter_topic")]
    assert sorted((letter["partition"], letter["offset"], letter["reason"]) for letter in letters) == [
        (partition, number * 1_000, reason)
        for partition in range(2)
        for number, reason in enumerate(("not_json", "missing_field", "bad_number"), 1)
    ]
    assert sorted(sent(broker, settings, "dead_letter_topic")) == job.letters()


@pytest.mark.parametrize("partitions", [1, 3])
def test_alerts_do_not_depend_on_the_broker_or_on_its_partitions(
    broker: Broker, short: list[bytes], undisturbed: Job, tmp_path: Path, partitions: int
) -> None:
    settings = topic(broker, dealt(short, partitions))
    job = Job(tmp_path, {**settings, "source.batch_size": 700})
    job.run()
    assert sent(broker, settings, "alert_topic") == undisturbed.alerts()
    assert job.outcome() == undisturbed.outcome()


def test_order_of_emission_has_no_late_events_and_the_same_rows(
    shared: Path, azure: list[Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.jsonl.gz"
    trace.write_bytes(b"".join(path.read_bytes() for path in azure))  # joined gzip files are one gzip file
    jobs = []
    for order in ("time", "emit"):
        made = tmp_path / order
        command: list[str | Path] = [sys.executable, shared / "tools" / "inject.py", "--trace", trace, "--out", made]
        settings = ["--order", order, "--seed", "11", "--profile", "short", "--prefix", "azd"]
        subprocess.run([*command, *settings], check=True, capture_output=True, timeout=60)
        job = Job(tmp_path / f"job-{order}", {**files(made / "events.jsonl.gz"), "source.batch_size": 300})
        job.run()
        jobs.append(job)
    by_start, by_end = jobs
    starts = [json.loads(line)["timestamp"] for line in lines(tmp_path / "emit" / "events.jsonl.gz")]
    assert starts != sorted(starts)
    assert by_end.balance()["late"] == by_start.balance()["late"] == 0
    assert by_end.rows("llm_panes") == by_start.rows("llm_panes")
    assert by_end.alerts() == by_start.alerts()


@pytest.mark.parametrize("number", [SIGTERM, SIGINT])
def test_a_run_that_is_stopped_and_resumed_ends_like_one_that_was_not(
    short: list[bytes], undisturbed: Job, tmp_path: Path, number: Signals
) -> None:
    job = Job(tmp_path / "job", {**written(tmp_path, dealt(short, 2)), "source.batch_size": 200})
    read = []
    for _ in range(2):
        with job.start(*job.recovered()) as process:
            process.wait_for(" events")
            process.send(number)
            assert process.finish() == 0, process.said()
        assert f"{number.name}: stopping after a last snapshot" in process.said()
        read.append(job.balance()["records"])
    assert 0 < read[0] < read[1] < len(short)
    job.run(*job.recovered())
    assert job.outcome() == undisturbed.outcome()


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    """The first poll makes hundreds of thousands of events; the stop waits for the end of its batch."""
    job = Job(
        tmp_path,
        {"source.simulator.rate": 5_000, "source.simulator.partitions": 1, "source.batch_size": 300_000},
    )
    with job.start(*job.recovered()) as process:
        process.wait_for(" events")
        process.send(SIGTERM)
        process.wait_for("stopping after a last snapshot")
        process.send(SIGTERM)
        assert process.finish(5) == 128 + SIGTERM


def test_two_processes_give_the_alerts_of_one(short: list[bytes], undisturbed: Job, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", {**written(tmp_path, dealt(short, 2)), "source.batch_size": 1_000})
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))

    def start(number: int) -> Process:
        balance = {"metrics.balance_file": job.folder / f"balance-{number}.json"}
        arguments = (*job.recovered(1), "-i", str(number), "-a", addresses)
        return job.start(*arguments, changes=balance, log=f"log-{number}")

    with start(0) as first, start(1) as second:
        assert (first.finish(), second.finish()) == (0, 0), first.said() + second.said()
    assert job.alerts() == undisturbed.alerts()
    assert job.rows("llm_panes") == undisturbed.rows("llm_panes")
    on_time = [json.loads((job.folder / f"balance-{n}.json").read_bytes())["on_time"] for n in range(2)]
    assert sum(on_time) == len(short)


def refused(job: Job, *arguments: str, code: int = 78) -> str:
    """Start it and return the sentence that says why it cannot start, the last line of its output."""
    with job.start(*arguments) as process:
        assert process.finish() == code, process.said()
    assert "Traceback" not in process.said()
    assert "llm-sentinel cannot start: " in process.said()
    return process.said().partition("llm-sentinel cannot start: ")[2].strip()


def test_a_wrong_setting_is_refused_with_its_name_its_origin_and_what_is_allowed(tmp_path: Path) -> None:
    why = refused(Job(tmp_path, {"time.pane_s": 7}))
    assert "time.pane_s = 7: must divide a minute" in why
    assert "set by environment variable SENTINEL_TIME__PANE_S" in why


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    why = refused(Job(tmp_path, files(tmp_path / "none.jsonl")))
    assert f"{tmp_path / 'none.jsonl'} does not exist" in why
    assert "\n" not in why


@pytest.mark.parametrize("key", ["store.sqlite.path", "alerts.jsonl", "dead_letters.jsonl", "sinks.rejected_file"])
def test_a_file_without_a_folder_is_refused_before_anything_is_to_be_written(tmp_path: Path, key: str) -> None:
    why = refused(Job(tmp_path, {key: tmp_path / "none" / "file"}))
    assert why.startswith(f"{key}: the file {tmp_path / 'none' / 'file'} has no folder")
    assert "\n" not in why


def test_a_missing_topic_is_refused(tansu: Broker, tmp_path: Path) -> None:
    settings = {"source.kind": "kafka", "kafka.brokers": tansu.address, "kafka.topics": ["none"]}
    why = refused(Job(tmp_path, settings))
    assert f"kafka.topics: topic none does not exist on {tansu.address}" in why
    assert "\n" not in why


@pytest.mark.parametrize("end", [{"source.kind": "kafka"}, {"alerts.kafka": True}, {"dead_letters.kafka": True}])
def test_a_broker_that_stays_away_ends_the_start(tmp_path: Path, end: dict[str, object]) -> None:
    away = {"kafka.brokers": f"127.0.0.1:{free_port()}", "kafka.start_budget_s": 0.5}
    why = refused(Job(tmp_path, {**away, **end}), code=1)
    assert "gave up after 0.5 s (kafka.start_budget_s). Is Kafka running at 127.0.0.1:" in why
    assert "\n" not in why


def test_a_recovery_folder_in_use_or_of_another_run_is_refused(short: list[bytes], tmp_path: Path) -> None:
    job = Job(tmp_path / "job", {**written(tmp_path, dealt(short[:2_000], 2)), "source.batch_size": 20})
    with job.start(*job.recovered()) as process:
        process.wait_for(" events")
        second = Job(tmp_path / "second", {**written(tmp_path, dealt(short, 2))})
        assert "is in use by another flow; stop that one first" in refused(second, *job.recovered())
        process.send(SIGTERM)
        assert process.finish() == 0
    changed = {
        "recovery.shards": (8, "was made with recovery.shards = 4, now it is 8"),
        "time.pane_s": (20, "was made with time.pane_s = 10, now it is 20"),
        "source.files.paths": ([tmp_path / "0.jsonl"], "was made with the source = "),
    }
    for key, (value, why) in changed.items():
        other = Job(tmp_path / "other", {**files(tmp_path / "0.jsonl", tmp_path / "1.jsonl"), key: value})
        found = refused(other, *job.recovered())
        assert why in found
        assert "\n" not in found


def test_a_damaged_recovery_store_is_refused_and_old_keys_go(short: list[bytes], tmp_path: Path) -> None:
    job = Job(tmp_path / "job", written(tmp_path, dealt(short[:2_000], 2)))
    job.run(*job.recovered())
    part = job.folder / "recovery" / "part-0.sqlite3"
    with closing(sqlite3.connect(part)) as db, db:
        found = db.execute("SELECT state_key FROM snaps WHERE step_id LIKE 'sentinel.rollup%'").fetchall()
        db.execute("INSERT INTO snaps SELECT created_at, step_id, '0000/60/29452320', 1, NULL FROM snaps LIMIT 1")
    manifest = json.loads((job.folder / "recovery" / "manifest.json").read_text())
    keys = dict(zip((60, 3600), manifest["row_keys"], strict=True))
    for _, width, number in (key.split("/") for (key,) in found):
        assert int(number) < keys[int(width)]
    assert "discarded keys removed" in job.run(*job.recovered())
    with closing(sqlite3.connect(part)) as db, db:
        assert not db.execute("SELECT 1 FROM snaps WHERE state_key = '0000/60/29452320'").fetchall()
        state = "(SELECT rowid FROM snaps WHERE step_id LIKE 'sentinel.detect%' ORDER BY snap_epoch DESC LIMIT 1)"
        ((before,),) = db.execute(f"SELECT ser_change FROM snaps WHERE rowid = {state}")
        damaged = before[:100] + bytes([before[100] ^ 4]) + before[101:]
        db.execute(f"UPDATE snaps SET ser_change = ? WHERE rowid = {state}", (damaged,))
    why = refused(job, *job.recovered())
    assert "of step sentinel.detect" in why and "in the recovery store is damaged" in why
    assert "\n" not in why
