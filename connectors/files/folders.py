"""The event files in folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from operators.errors import ConfigError

_TEXT: Final = (".jsonl", ".ndjson", ".json", ".csv")
SUFFIXES: Final = (*_TEXT, *(f"{suffix}{packed}" for packed in (".gz", ".zst") for suffix in _TEXT), ".parquet")
"""How the names of event files in folders end."""


def event_files(paths: Sequence[Path]) -> list[Path]:
    """These files, and in place of each folder the event files in it and below, sorted.

    Files and folders whose names begin with a dot or an underscore are left out. Raises `ConfigError` for a path that
    is neither a file nor a folder, and for a folder without an event file.
    """
    return [file for path in paths for file in (_inside(path) if path.is_dir() else [_file(path)])]


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    what = "is not a file" if path.exists() else "does not exist"
    raise ConfigError(
        f"the file of recorded traffic {path} {what}: name files of JSON lines, CSV or Parquet, or folders of them"
    )


def _inside(folder: Path) -> list[Path]:
    found: list[Path] = []
    for inner, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        shown = [name for name in names if not name.startswith((".", "_"))]
        found += [Path(inner, name) for name in shown if name.lower().endswith(SUFFIXES)]
    if not found:
        raise ConfigError(
            f"the folder {folder} holds no event file: looked for names, here and below, that end with "
            f"{', '.join(SUFFIXES)} and do not begin with a dot or an underscore"
        )
    return sorted(found)


def _refuse(error: OSError) -> NoReturn:
    raise ConfigError(f"the folder {error.filename} cannot be read: {error.strerror}")
