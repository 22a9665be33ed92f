"""The first hour of a user: the README's commands as they stand there, and files that are not of the format."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECRET = "the patient said"


def start(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SENTINEL_", "BYTEWAX_"))}
    environ = {**kept, "PYTHONPATH": str(ROOT), "SENTINEL_ALERTS__TERMINAL": "false"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=200, check=False)


def llm_sentinel(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return start(folder, sys.executable, "-m", "flows", *arguments)


def test_the_commands_of_the_readme_do_what_it_says_in_its_order(tmp_path: Path) -> None:
    (section,) = re.findall(r"(?ms)^## More commands\n\n```\n(.*?)^```", (ROOT / "README.md").read_text())
    commands = re.findall(r"(?m)^\.venv/bin/llm-sentinel ([^#\n]+)", section)
    assert len(commands) == 4
    assert llm_sentinel(tmp_path, "run", "--set", "source.simulator.hours=1.5").returncode == 0  # stands for make run
    said = {}
    for command in commands:
        done = llm_sentinel(tmp_path, *command.split())
        assert done.returncode == 0, done.stderr
        said[command.split()[0]] = done.stdout
    assert "Where the rows are" in said["report"]
    assert "recall" in said["backtest"]
    assert "time.pane_s" in said["check"]


def test_the_settings_of_the_readme_are_right(tmp_path: Path) -> None:
    (settings,) = re.findall(r"(?ms)^```toml\n(.*?)^```", (ROOT / "README.md").read_text())
    (tmp_path / "sentinel.toml").write_text(settings)
    done = llm_sentinel(tmp_path, "check")
    assert done.returncode == 0, done.stderr
    assert 'kafka.topics = ["llm.telemetry"]' in done.stdout


def garbage(path: Path) -> None:
    """Half a record a line, as a log that was cut in the middle."""
    path.write_text("".join(f'{{"service":"chat","prompt":"{SECRET} {n}\n' for n in range(1_000)))


def spans(path: Path) -> None:
    """Records of another format, with content in them."""
    span = {"name": "chat", "attributes": [{"key": "gen_ai.prompt", "value": {"stringValue": SECRET}}]}
    line = json.dumps({"resource_spans_of_another": [{"spans": [span]}]})
    path.write_text(f"{line}\n" * 1_000)


@pytest.mark.parametrize(
    ("write", "reason", "place"),
    [(garbage, "not_json", "unexpected end of data"), (spans, "missing_field", "timestamp")],
)
def test_a_file_of_which_nothing_is_usable_is_told_at_once(
    write: Callable[[Path], None], reason: str, place: str, tmp_path: Path
) -> None:
    write(tmp_path / "theirs.jsonl")
    ran = llm_sentinel(tmp_path, "run", "--events", "theirs.jsonl")
    scored = llm_sentinel(tmp_path, "backtest", "theirs.jsonl", "--json")
    for done in (ran, scored):
        assert done.returncode == 65, done.stderr
        early, late = [line for line in done.stderr.splitlines() if " WARNING " in line]
        assert f": of the last 1,000 events 1,000 became dead letters (100 %): {reason} 1,000. For example" in early
        assert f": in the end, of 1,000 events 1,000 became dead letters (100 %): {reason} 1,000. For example" in late
        for line in (early, late):
            assert re.search(rf"offset 0 in partition 0 of \S*theirs\.jsonl: {reason} \({place}", line)
            assert "`llm-sentinel decode FILE`" in line and "[source.mapping]" in line
        assert SECRET not in done.stderr + done.stdout
    assert ran.stderr.endswith("flows.run: nothing was usable: all 1,000 events became dead letters\n")
    assert scored.stderr.endswith("flows.backtest: nothing was usable: all 1,000 events became dead letters\n")
    assert json.loads((tmp_path / "runs" / "0001" / "run.json").read_text())["exit_code"] == 65
    assert json.loads(scored.stdout)["balance"]["dead"] == {reason: 1_000}


def test_a_file_with_some_good_events_is_a_run_like_any_other(tmp_path: Path) -> None:
    good = '{"timestamp": "2026-01-05T12:00:00Z", "service": "chat"}\n'
    (tmp_path / "theirs.jsonl").write_text(good + '{"service": "chat"}\n' * 30)
    done = llm_sentinel(tmp_path, "run", "--events", "theirs.jsonl")
    assert done.returncode == 0, done.stderr
    assert "of the last 31 events 30 became dead letters (97 %)" in done.stderr
    assert "Where the rows are" in done.stdout


def test_an_empty_file_is_a_run_without_events(tmp_path: Path) -> None:
    (tmp_path / "theirs.jsonl").touch()
    done = llm_sentinel(tmp_path, "run", "--events", "theirs.jsonl")
    assert done.returncode == 0
    assert done.stderr.endswith("flows.run: no event came, so there is nothing to report\n")
    assert llm_sentinel(tmp_path, "backtest", "theirs.jsonl").returncode == 0
