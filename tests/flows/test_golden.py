"""Each golden case gives exactly the alerts in its folder; `python -m tests.golden.make` shows the differences."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from tests.golden import make


@pytest.mark.parametrize("case", make.CASES)
def test_golden_case(case: str) -> None:
    alerts, balance = make.judged(case, make.read(case))
    folder = make.FOLDER / case
    assert alerts.decode() == (folder / "alerts.jsonl").read_text()
    assert balance.decode() == (folder / "balance.json").read_text()


@pytest.mark.parametrize("case", make.CASES)
def test_the_records_are_those_that_the_script_makes(case: str) -> None:
    assert make.read(case) == make.CASES[case]()


def test_every_folder_is_a_case() -> None:
    assert {path.parent.name for path in make.FOLDER.glob("*/settings.toml")} == set(make.CASES)


def test_the_kinds_that_the_cases_are_named_for() -> None:
    """A change of detection may change the expected alerts, but each case must keep its kind."""
    kinds = {
        "latency_spike": "speed_drop",
        "error_burst": "error_burst",
        "silence": "silence",
        "sparse_service": "speed_drop",
        "late_and_broken": "speed_drop",
        "still_on_at_the_end": "speed_drop",
    }
    for case, kind in kinds.items():
        alerts = [json.loads(line) for line in (make.FOLDER / case / "alerts.jsonl").read_bytes().splitlines()]
        statuses = [alert["status"] for alert in alerts if alert["kind"] == kind]
        assert statuses[0] == "firing"
        assert (statuses[-1] == "resolved") == (case != "still_on_at_the_end")


def test_late_and_broken_records_change_no_alert() -> None:
    spoiled, clean = (make.FOLDER / case / "alerts.jsonl" for case in ("late_and_broken", "latency_spike"))
    assert spoiled.read_bytes() == clean.read_bytes()


def test_a_difference_is_shown_and_written_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copytree(make.FOLDER, tmp_path / "golden")
    monkeypatch.setattr(make, "FOLDER", tmp_path / "golden")
    file = tmp_path / "golden" / "latency_spike" / "alerts.jsonl"
    expected = file.read_bytes()
    assert make.main([]) == 0
    file.write_bytes(expected.replace(b"firing", b"fading"))
    assert make.main([]) == 1
    assert "latency_spike/alerts.jsonl" in capsys.readouterr().out
    assert make.main(["--write"]) == 0
    assert file.read_bytes() == expected
