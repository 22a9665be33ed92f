"""The command `llm-sentinel`: as installed, from any folder, with what stands in the wheel."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from flows import __version__
from flows.__main__ import COMMANDS
from tests.conftest import ROOT, leave_out
from tests.test_architecture import PACKAGES, tracked

SCRIPT = Path(sys.executable).with_name("llm-sentinel")
NO_COMMANDS = {"formats", "conventions"}  # makes a document


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """Leave the tests out where this tree is not the one that is installed."""
    try:
        origin = importlib.metadata.distribution("llm-sentinel").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        origin = None
    if not SCRIPT.exists() or json.loads(origin or "{}").get("url") != ROOT.as_uri():
        leave_out("llm-sentinel is not installed from this folder: make .venv/.dev")


def run(
    folder: Path, *arguments: str, command: tuple[str, ...] = (str(SCRIPT),), **environ: str
) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SENTINEL_", "BYTEWAX_", "PYTHONPATH"))}
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that a process under PYTHONPROFILEIMPORTTIME has imported."""
    return {name.split(".")[0] for name in re.findall(r"(?m)^import time:.*\| +([\w.]+)$", done.stderr)}


def test_help_lists_each_command_with_a_sentence_and_loads_nothing_of_the_flow(tmp_path: Path) -> None:
    done = run(tmp_path, "--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    listed = re.findall(r"(?m)^  ([a-z]+) +([A-Z].+\.)$", done.stdout)
    assert listed == list(COMMANDS.items())
    assert not imported(done) & {"numba", "numpy", "bytewax", "pydantic"}
    assert {"flows", "argparse"} <= imported(done)
    assert "numba" in imported(run(tmp_path, "check", PYTHONPROFILEIMPORTTIME="1"))


def test_every_module_that_can_be_started_is_a_command() -> None:
    started = {
        path.parent.name if path.stem == "__main__" else path.stem
        for path in (ROOT / "flows").rglob("*.py")
        if '\nif __name__ == "__main__":' in path.read_text()
    }
    assert started - {"flows"} - NO_COMMANDS == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_is_that_of_its_module(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, name, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: llm-sentinel {name} ")
    assert done.stdout == run(ROOT, "--help", command=(sys.executable, "-m", f"flows.{name}")).stdout


@pytest.mark.parametrize("command", [(str(SCRIPT),), (sys.executable, "-m", "flows")])
def test_the_version_is_told(command: tuple[str, ...], tmp_path: Path) -> None:
    assert run(tmp_path, "--version", command=command).stdout == f"llm-sentinel {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["repotr"], "there is no command 'repotr'; did you mean report?"),
        (["frobnicate", "--help"], "there is no command 'frobnicate'\n"),
        (["--frobnicate"], "COMMAND"),
        ([], "COMMAND"),
    ],
)
def test_an_unknown_command_ends_with_2_and_the_nearest_one(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_commands_work_in_any_folder_and_relative_paths_begin_there(tmp_path: Path) -> None:
    (tmp_path / "sentinel.toml").write_text("[alerts]\nterminal = false\n")
    made = run(tmp_path, "simulate", "--out", "events.jsonl", "--labels", "labels.jsonl", "--hours", "1.5")
    assert made.returncode == 0, made.stderr
    assert f"alerts.terminal = false  ({tmp_path / 'sentinel.toml'}, line 2)" in run(tmp_path, "check").stdout
    done = run(tmp_path, "run", "--events", "events.jsonl")
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "runs" / "0001").iterdir()} >= {"sentinel.db", "report.html", "run.json"}
    assert "Where the rows are" in run(tmp_path, "report").stdout
    scored = run(tmp_path, "backtest", "events.jsonl", "--labels", "labels.jsonl", "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["balance"]["on_time"] > 5_000
    assert {p.name for p in tmp_path.iterdir()} == {"sentinel.toml", "events.jsonl", "labels.jsonl", "runs"}


def test_the_flow_keeps_its_state_and_goes_on_from_it(tmp_path: Path) -> None:
    (tmp_path / "sentinel.toml").write_text(
        '[source]\nkind = "simulator"\nsimulator.hours = 0.2\n[alerts]\nterminal = false\n'
        'jsonl = "alerts.jsonl"\n[dead_letters]\njsonl = "dead_letters.jsonl"\n[store]\nkind = "none"\n'
        '[metrics]\nbalance_file = "balance.json"\n[sinks]\nrejected_file = "rejected.jsonl"\n'
    )
    first = run(tmp_path, "flow", "-r", "recovery")
    assert first.returncode == 0, first.stderr
    balance = json.loads((tmp_path / "balance.json").read_text())
    assert balance["on_time"] > 100
    bytewax = (sys.executable, "-m", "bytewax.run", "flows.main")
    again = run(tmp_path, "-r", "recovery", "-s", "10", "-b", "0", command=bytewax)
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "balance.json").read_text()) == balance


def test_the_exit_code_is_that_of_the_module(tmp_path: Path) -> None:
    (tmp_path / "sentinel.toml").write_text("[time]\npane_s = 7\n")
    for arguments in (["check"], ["flow"], ["run"], ["backtest", "events.jsonl"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 78, done.stderr
        assert "time.pane_s" in done.stderr and "Traceback" not in done.stderr


def test_the_wheel_holds_every_file_of_the_packages(tmp_path: Path) -> None:
    ours = [path.relative_to(ROOT) for path in tracked()]
    packaged = {str(path) for path in ours if path.parts[0] in PACKAGES}
    for path in [*packaged, "pyproject.toml", "README.md", "LICENSE"]:
        (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / "tree" / path)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    done = run(tmp_path / "tree", "--wheel-dir", str(tmp_path), ".", command=pip)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == packaged
