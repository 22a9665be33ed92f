"""The main job in a supervised cluster: kills, stops and other numbers of processes do not change its results."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from random import Random
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import pytest

from tests.chaos.test_kill import SETTINGS as TRAFFIC
from tests.flows.test_laws import dealt, spoil, traffic
from tests.processes import Job, Process, files

SETTINGS = {
    **{key: value for key, value in TRAFFIC.items() if "kafka" not in key and key != "alerts.jsonl"},
    "cluster.backoff_first_s": 0.1,
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("source")
    paths = []
    for name, records in dealt(spoil(traffic(1), 1), 3, 1).items():
        paths.append(folder / f"{name}.jsonl")
        paths[-1].write_bytes(b"\n".join([*records, b""]))
    return {**SETTINGS, **files(*paths), "source.batch_size": 5}


@pytest.fixture(scope="module")
def undisturbed(source: dict[str, object], tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The outcome of a run in one process."""
    job = Job(tmp_path_factory.mktemp("undisturbed"), {**source, "source.batch_size": 500})
    job.run()
    assert len(job.alerts()) >= 6, "without alerts this shows nothing"
    return outcome(job)


def outcome(job: Job) -> tuple[object, ...]:
    """Alerts, dead letters without the fields that depend on the begin of the run, and the rows of all tables."""
    letters = [json.loads(line) for line in job.letters()]
    return job.alerts(), [(x["id"], x["reason"]) for x in letters], *job.tables()


def at_work(process: Process) -> list[int]:
    """The processes of the cluster, as soon as one of them has read something."""
    process.wait_for(" events")
    return process.members()


def test_a_killed_child_costs_nothing(
    source: dict[str, object], undisturbed: tuple[object, ...], tmp_path: Path
) -> None:
    random = Random(3)
    for attempt in range(10):  # on a busy machine a job may be over before the kill
        job = Job(tmp_path / str(attempt), source)
        with job.cluster(2, *job.recovered()) as process:
            with suppress(ProcessLookupError):
                os.kill(random.choice(at_work(process)), SIGKILL)
            assert process.finish() == 0, process.said()
        if "was ended by SIGKILL" in process.said():
            break
    assert "was ended by SIGKILL" in process.said()
    assert "restart 1 of at most 10 within 600 s" in process.said()
    assert "all 2 processes have ended well" in process.said()
    assert outcome(job) == undisturbed


def test_other_numbers_of_processes_go_on_from_a_stop(
    source: dict[str, object], undisturbed: tuple[object, ...], tmp_path: Path
) -> None:
    """The last snapshot of a stop is the only one; the next run goes on from there, and reads no record again."""
    job = Job(tmp_path, source)
    signals: list[Signals] = [SIGTERM, SIGINT]
    for workers, number in zip((3, 1), signals, strict=True):
        with job.cluster(workers, *job.recovered(3600)) as process:
            at_work(process)
            process.send(number)
            assert process.finish() == 0, process.said()
        assert process.said().count(": stopping after a last snapshot") == workers
        assert f"all {workers} processes have ended well" in process.said()
    with job.cluster(2, *job.recovered(10)) as process:
        assert process.finish() == 0, process.said()
    assert outcome(job) == undisturbed
