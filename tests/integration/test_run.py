"""`python -m flows.run` with the real flow: to the end, stopped and resumed, and refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.events import write_events

SETTINGS = {
    "SENTINEL_SOURCE__SIMULATOR__HOURS": "1.5",
    "SENTINEL_SOURCE__BATCH_SIZE": "1000",
    "SENTINEL_ALERTS__TERMINAL": "false",
}


def command(runs: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "flows.run", "--runs", str(runs), *arguments]


def environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("SENTINEL_", "BYTEWAX_"))} | SETTINGS


def finish(runs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(runs, *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )


def stop(runs: Path, number: signal.Signals) -> tuple[int, str]:
    """Start a run, send the signal once the first events have passed, and wait for the end."""
    with subprocess.Popen(command(runs), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if " events" in line:
                process.send_signal(number)
                break
        said += process.stderr.read()
        return process.wait(60), said


def alerts(folder: Path) -> list[str]:
    file = folder / "alerts.jsonl"
    return sorted(file.read_text().splitlines()) if file.exists() else []


def status(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "run.json").read_text())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run to the end."""
    runs = tmp_path_factory.mktemp("runs")
    done = finish(runs)
    assert done.returncode == 0, done.stderr
    assert "python -m bytewax.run flows.main -r" in done.stderr
    assert " events" in done.stderr
    assert "Where the rows are" in done.stdout
    return runs / "0001"


def test_a_run_to_the_end_leaves_its_files(whole: Path) -> None:
    assert status(whole)["status"] == "finished"
    assert {"sentinel.db", "alerts.jsonl", "recovery", "run.json", "report.html"} <= {p.name for p in whole.iterdir()}
    assert alerts(whole)
    assert status(whole)["settings"] == {
        name.removeprefix("SENTINEL_").replace("__", ".").lower(): [value, f"environment variable {name}"]
        for name, value in SETTINGS.items()
    }
    assert "3 settings that are not the default" in (whole / "report.html").read_text()


def test_a_stopped_run_resumed_gives_the_same_alerts(whole: Path, tmp_path: Path) -> None:
    code, said = stop(tmp_path, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM, said
    assert "`make run RESUME=1` goes on with it" in said
    assert status(tmp_path / "0001")["status"] == "stopped"
    assert alerts(tmp_path / "0001") != alerts(whole)
    later = tmp_path / "0002"
    later.mkdir()
    (later / "run.json").write_text('{"status": "failed"}')
    done = finish(tmp_path, "--resume")
    assert done.returncode == 0, done.stderr
    assert f"{later} cannot be resumed: it ended before its recovery store was made" in done.stderr
    assert f"going on with {tmp_path / '0001'}\n" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0001", "0002"]
    assert status(tmp_path / "0001")["status"] == "finished"
    assert alerts(tmp_path / "0001") == alerts(whole)


def test_a_second_run_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path), cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        for line in first.stderr:
            if " events" in line:
                break
        second = finish(tmp_path, "--resume")
        first.send_signal(signal.SIGINT)
        first.stderr.read()
        assert first.wait(60) == 128 + signal.SIGINT
    assert second.returncode == 78
    assert "is in use by another flow" in second.stderr


def test_a_folder_of_files_of_any_form_is_read(tmp_path: Path) -> None:
    line = '{"timestamp": %d, "service": "chat", "model": "m", "latency_ms": 100, "tenant": "7"}'
    records = [(line % (1_741_000_000 + second)).encode() for second in range(400)]
    folder = tmp_path / "events"
    folder.mkdir()
    for i, name in enumerate(["d.jsonl", "c.csv.gz", "b.parquet", "a.jsonl.zst"]):
        write_events(folder / name, records[100 * i : 100 * (i + 1)])
    (folder / "notes.txt").touch()
    done = finish(tmp_path / "runs", "--events", str(folder))
    assert done.returncode == 0, done.stderr
    assert f"4 files of events, with those in {folder}" in done.stderr
    assert "400 records: 400 on time" in done.stderr
    for path in folder.iterdir():
        path.unlink()
    refused = finish(tmp_path / "runs", "--events", str(folder))
    assert refused.returncode == 78
    assert f"the folder {folder} holds no event file" in refused.stderr
    assert not (tmp_path / "runs" / "0002").exists()
