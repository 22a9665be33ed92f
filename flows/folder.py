"""The folder of a run: the names of its files, and the status that `run.json` keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

RECOVERY: Final = "recovery"
STATUS_FILE: Final = "run.json"
STORE_FILE: Final = "sentinel.db"
ALERTS_FILE: Final = "alerts.jsonl"
DEAD_LETTERS_FILE: Final = "dead_letters.jsonl"
BALANCE_FILE: Final = "balance.json"
FILES: Final = {
    "store.sqlite.path": STORE_FILE,
    "alerts.jsonl": ALERTS_FILE,
    "dead_letters.jsonl": DEAD_LETTERS_FILE,
    "sinks.rejected_file": "rejected.jsonl",
    "metrics.balance_file": BALANCE_FILE,
}
"""The settings that point into the run's folder unless they are set elsewhere, and the names of the files."""


def new_folder(runs: Path) -> Path:
    """Make the next run folder: `runs/0001`, `runs/0002`, ..."""
    runs.mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in runs.iterdir() if p.name.isdigit()), default=0)
    while True:
        number += 1
        try:
            (folder := runs / f"{number:04d}").mkdir()
        except FileExistsError:
            continue
        return folder


def read_status(folder: Path) -> dict[str, Any]:
    """The entries of the folder's run.json; empty where it cannot be read."""
    try:
        found = json.loads((folder / STATUS_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_status(folder: Path, **changes: object) -> None:
    """Set these entries of run.json and keep the others."""
    temporary = folder / f"{STATUS_FILE}.tmp"
    temporary.write_text(json.dumps({**read_status(folder), **changes}, indent=1) + "\n")
    temporary.replace(folder / STATUS_FILE)
