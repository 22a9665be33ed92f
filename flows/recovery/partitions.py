"""Opens the files of a recovery store before Bytewax does, and never while the flow runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from operators.errors import ConfigError

BUSY_S: Final = 10
"""How long a dying peer may hold a partition, in seconds."""


def files(folders: Sequence[Path]) -> list[Path]:
    """The partitions in these folders."""
    return [file for folder in folders for file in sorted(folder.glob("part-*.sqlite3"))]


@contextmanager
def opened(file: Path) -> Iterator[sqlite3.Connection]:
    """A partition in one transaction, committed unless the block raises; `ConfigError` for an unreadable file."""
    try:
        uri = f"{file.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_S)) as db, db:
            yield db
    except (sqlite3.Error, ValueError) as error:
        raise ConfigError(
            f"the recovery partition {file} cannot be read ({error}); restore it, or give -r a new folder"
        ) from error
