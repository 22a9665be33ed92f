"""`python -m flows.run`: folders, status, and the settings that it hands to the flow."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from flows.folder import RECOVERY, new_folder, read_status, write_status
from flows.process.start import claim
from flows.recovery.store import Place
from flows.run import changed, main, masked, newest_to_resume, variables
from flows.settings.layers import set_options
from flows.settings.model import load
from flows.wiring import reader
from operators.errors import ConfigError


def test_folders_are_numbered(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert [new_folder(runs).name for _ in range(2)] == ["0001", "0002"]
    (runs / "0041").mkdir()
    (runs / "notes").mkdir()
    (runs / "sentinel.db").touch()
    assert new_folder(runs).name == "0042"


def stopped(runs: Path, number: int, status: str = "stopped", **entries: object) -> Path:
    """The folder of a run with a recovery store that no flow uses."""
    folder = runs / f"{number:04d}"
    folder.mkdir(parents=True)
    write_status(folder, status=status, **entries)
    settings = load({}, runs, set_options(entries.get("set", []))).settings  # type: ignore[arg-type]
    held = claim(settings, Place(folder / RECOVERY, 0, 1), reader(settings))
    assert held is not None
    held.release()
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.environ", {})
    return tmp_path / "runs"


def test_the_newest_run_that_can_be_resumed_is_resumed(runs: Path) -> None:
    stopped(runs, 1)
    stopped(runs, 2, "running", set=["time.pane_s=20"])
    assert newest_to_resume(runs)[1].loaded.settings.time.pane_s == 20
    finished = stopped(runs, 3, "finished")
    (unread := runs / "0004").mkdir()
    (unread / "run.json").write_text("[]")
    (early := runs / "0005").mkdir()
    write_status(early, status="failed")
    gone = stopped(runs, 6, events=[str(runs / "gone.jsonl")])
    other = stopped(runs, 7, set=["recovery.shards=8"])
    write_status(other, set=[])
    damaged = stopped(runs, 8)
    (damaged / RECOVERY / "part-0.sqlite3").unlink()
    busy = stopped(runs, 10)
    (runs / "notes").mkdir()
    with (busy / RECOVERY / "process-0.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder, found, refused = newest_to_resume(runs)
    assert folder == runs / "0002"
    assert found.sets == ["time.pane_s=20"]
    whys = {
        busy: "is in use by another flow", damaged: "must hold all of its 1 partitions",
        other: "was made with recovery.shards = 8, now it is 4", gone: "does not exist", early: "it ended before",
        unread: "its run.json cannot be read", finished: "it has finished",
    }  # fmt: skip
    assert list(refused) == [str(folder) for folder in whys]
    assert all(why in refused[str(folder)] for folder, why in whys.items())


def test_runs_that_cannot_be_resumed_are_listed_with_the_reason(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"no run in .* can be resumed: start a new one$"):
        newest_to_resume(runs)
    stopped(runs, 1, "finished")
    stopped(runs, 2, "finished")
    assert main(["--resume", "--runs", str(runs)]) == 78
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2] for line in said[1:]] == ["it has finished"] * 2


def test_a_setting_that_is_wrong_for_every_run_is_said_once(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped(runs, 1)
    assert main(["--resume", "--runs", str(runs), "--set", "time.pane_s=7"]) == 78
    assert capsys.readouterr().err.count("time.pane_s") == 1


def test_foreign_entries_of_the_status_stay(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"balance": {"late": 3}, "status": "running"}')
    write_status(tmp_path, status="finished", exit_code=0)
    assert read_status(tmp_path) == {"balance": {"late": 3}, "status": "finished", "exit_code": 0}


def test_files_go_into_the_folder_unless_they_are_set(tmp_path: Path) -> None:
    files = {"source.kind": ("files", "--events"), "source.files.paths": (["a b.jsonl"], "--events")}
    loaded = load({"SENTINEL_ALERTS__JSONL": "mine.jsonl"}, tmp_path, files)
    found = variables(loaded, Path("runs/0007"))
    assert found["SENTINEL_STORE__SQLITE__PATH"] == "runs/0007/sentinel.db"
    assert found["SENTINEL_DEAD_LETTERS__JSONL"] == "runs/0007/dead_letters.jsonl"
    assert "SENTINEL_ALERTS__JSONL" not in found
    assert json.loads(found["SENTINEL_SOURCE__FILES__PATHS"]) == ["a b.jsonl"]
    settings = load(found, tmp_path).settings
    assert settings.source.kind == "files"
    assert settings.sinks.rejected_file == Path("runs/0007/rejected.jsonl")


def test_settings_of_the_command_line_reach_the_flow(tmp_path: Path) -> None:
    (tmp_path / "sentinel.toml").write_text('[kafka.options]\n"sasl.password" = "hunter2"\n')
    sets = ["time.pane_s=20", "alerts.jsonl=", 'enrich.families."GPT-4*"=four', "kafka.start=2026-01-01T00:00:00Z"]
    sets += ["detect.metrics.latency.min_count=5", 'detect.limits=[{metric="latency", above=5}]']
    sets += ['detect.overrides=[{series="service=a*", metrics={cost={min_change=4.0}}}]']
    sets += ['kafka.options."linger.ms"=5', 'panes.dimension_sets=[["service"]]', "alerts.terminal=false"]
    loaded = load({"SENTINEL_TIME__PANE_S": "10"}, tmp_path, set_options(sets))
    found = variables(loaded, tmp_path)
    again = load({**found, "SENTINEL_CONFIG": ""}, tmp_path).settings
    assert again.time.pane_s == 20
    assert again.alerts.jsonl is None
    assert again == load(variables(load({}, tmp_path), tmp_path), tmp_path, set_options(sets)).settings
    assert "hunter2" in found["SENTINEL_KAFKA__OPTIONS"]
    shown = masked(loaded, found)
    assert "hunter2" not in str(shown) and "linger.ms" in shown["SENTINEL_KAFKA__OPTIONS"]


@pytest.mark.parametrize(
    "sets",
    [
        ['kafka.options."sasl.password"=hunter2'],
        ['kafka.options={"sasl.password" = "hunter2"}'],
        ["store.greptime.password=hunter2", "store.greptime.username=me"],
        ["traces.token=hunter2"],
        ["traces.endpoint=http://localhost/?token=hunter2"],
    ],
)
def test_a_secret_is_refused_on_the_command_line(sets: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not for a command line") as refused:
        load({}, tmp_path, set_options(sets))
    assert "hunter2" not in str(refused.value)


def test_changed_settings_are_noted_without_secrets(tmp_path: Path) -> None:
    (tmp_path / "sentinel.toml").write_text('[kafka.options]\n"sasl.password" = "hunter2"\n')
    loaded = load({"SENTINEL_TIME__PANE_S": "30"}, tmp_path, {"source.kind": ("kafka", "--kind")})
    found = changed(loaded)
    assert found["time.pane_s"] == ["30", "environment variable SENTINEL_TIME__PANE_S"]
    assert found["source.kind"] == ['"kafka"', "--kind"]
    assert found['kafka.options."sasl.password"'][0] == "**********"
    assert len(found) == 3
    write_status(tmp_path, settings=found)
    assert "hunter2" not in (tmp_path / "run.json").read_text()


def test_files_that_are_not_there_are_named_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert main(["--runs", str(runs), "--events", str(tmp_path / "gone.jsonl")]) == 78
    assert f"{tmp_path / 'gone.jsonl'} does not exist" in capsys.readouterr().err
    assert not runs.exists()


def test_wrong_settings_make_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SENTINEL_TIME__PANE_S", "7")
    assert main(["--runs", str(tmp_path / "runs")]) == 78
    assert "SENTINEL_TIME__PANE_S" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
