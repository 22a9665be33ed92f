"""The event files in folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectors.files.folders import SUFFIXES, event_files
from operators.errors import ConfigError


def test_all_event_files_are_found_at_any_depth_and_others_are_left_out(tmp_path: Path) -> None:
    wanted = [tmp_path / "in" / "deep" / f"e{i}{suffix}" for i, suffix in enumerate(SUFFIXES)] + [tmp_path / "A.CSV"]
    others = ["notes.txt", ".hidden.jsonl", "_SUCCESS", "_temporary/a.parquet", ".git/a.jsonl", "in/_metadata.json"]
    for path in [*wanted, *(tmp_path / name for name in others)]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert event_files([tmp_path]) == sorted(wanted)
    assert event_files([tmp_path / "notes.txt"]) == [tmp_path / "notes.txt"], "a file that is named is read"


def test_a_folder_without_event_files_is_refused_with_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"holds no event file: looked for .* \.jsonl, .*\.csv\.zst, \.parquet and"):
        event_files([tmp_path])
