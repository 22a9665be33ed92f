"""Recorded traffic as a source: each file is a partition, whatever its form.

JSON lines and CSV, plain, gzip or zstd, and Parquet are told apart by their content.
"""

from __future__ import annotations

import hashlib
import logging
import resource
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import orjson

from connectors.base import Chunk, State
from connectors.config import FilesConfig
from connectors.files import csv, parquet
from connectors.files.folders import event_files
from connectors.files.lines import BOM, Lines
from connectors.files.text import Damaged, Text
from operators.errors import ConfigError, FatalError

log = logging.getLogger(__name__)

_OTHER_FILES: Final = 64
"""Files that the process opens besides those of the source: libraries, stores, sockets."""
_FOREIGN: Final = (
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"PAR1", "a Parquet file that is packed once more: unpack it"),
    (b"BZh", "compressed with bzip2: unpack it, or use gzip"),
    (b"\xfd7zXZ", "compressed with xz: unpack it, or use gzip"),
    (b"\xff\xfe", "in UTF-16: convert it to UTF-8"),
    (b"\xfe\xff", "in UTF-16: convert it to UTF-8"),
    (b"[", "one JSON array: write one object a line (jq -c '.[]' does it)"),
)


class Records(Protocol):
    """The records of one file from a position on, in one of the forms."""

    def take(self, most: int) -> tuple[list[bytes], list[int]]:
        """The next records and their offsets, at most `most` and at least one, but none at the end."""
        ...

    def position(self) -> int: ...
    @property
    def finished(self) -> bool: ...
    def close(self) -> None: ...


class FileReader:
    """One file. Its first poll gives one record, which tells when the file begins: it may have to wait for others."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._first = True

    def poll(self, most: int) -> Chunk:
        """The next records; raises `FatalError` after the last sound one of a damaged or truncated file."""
        values: list[bytes] = []
        offsets: list[int] = []
        most, self._first = 1 if self._first else most, False
        try:
            while len(values) < most:
                more, places = self._records.take(most - len(values))
                if not more:
                    break
                values += more
                offsets += places
        except FatalError:
            if not values:
                raise
        finished = self._records.finished
        return Chunk(values, np.array(offsets, np.int64), at_end=finished, finished=finished)

    def position(self) -> int:
        """The position of the next record, or the end of the file."""
        return self._records.position()

    def behind(self) -> None:
        """Always None: of most files the number is unknown without reading on."""

    def log(self) -> State:
        """Empty: the identity of the source covers the beginning of each file."""
        return ()

    def durable(self, position: int) -> None:
        """Does nothing: no lag tool looks at files."""

    def close(self) -> None:
        """Close the file."""
        self._records.close()


@dataclass(frozen=True, slots=True)
class _Form:
    """The form of a file: its beginning, by which it is known again, and of CSV the header."""

    head: bytes
    is_parquet: bool = False
    header: csv.Header | None = None


class FilesFactory:
    """Files as a source; each file is a partition, named by its configured path."""

    def __init__(self, config: FilesConfig, max_record_bytes: int) -> None:
        """Look at the head of every file; raises `ConfigError` for a missing file, or one of no known form."""
        files = event_files(config.paths)
        self._paths = {str(path): path for path in files}
        if len(self._paths) < len(files):
            raise ConfigError("a file is named twice among the files to read: name each one once")
        may_open = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if may_open != resource.RLIM_INFINITY and len(files) > max(1, may_open - _OTHER_FILES):
            raise ConfigError(
                f"{len(files)} files are read side by side, but this process may open {may_open} files: raise that "
                f"(ulimit -n {2 * len(files) + _OTHER_FILES}), or name fewer at a time"
            )
        if len(files) > len(config.paths):
            folders = [str(path) for path in config.paths if path.is_dir()]
            log.info("%d files of events, with those in %s", len(files), ", ".join(folders))
        self._most = max_record_bytes
        self._forms = {name: _form(path) for name, path in self._paths.items()}

    def partitions(self) -> list[str]:
        """The paths, sorted."""
        return sorted(self._paths)

    def origin(self, partition: str) -> tuple[str, int]:
        """(path, 0)."""
        return partition, 0

    def open(self, partition: str, position: int | None, log: State | None = None) -> FileReader:
        """Open at the start or at `position`; raises `FatalError` where the file ends before it."""
        path, form, at = self._paths[partition], self._forms[partition], position or 0
        if form.is_parquet:
            return FileReader(parquet.ParquetRows(path, at, self._most + 1))
        if form.header is not None:
            return FileReader(csv.CsvRows(path, at, self._most, form.header))
        return FileReader(Lines(path, at, self._most + 1))

    def identity(self) -> str:
        """The paths, and a fingerprint of the beginning of each file."""
        return "files:" + ",".join(
            f"{name}#{hashlib.blake2b(self._forms[name].head, digest_size=8).hexdigest()}" for name in self.partitions()
        )


def _form(path: Path) -> _Form:
    """The form of the file; raises `ConfigError` where the file cannot be a source."""
    head, is_parquet = _head(path)
    if is_parquet:
        what, left_out = parquet.look(path)
        if left_out:
            log.info("of the Parquet file %s these columns are left out: %s", path, ", ".join(left_out))
        return _Form(what + head, is_parquet=True)
    begin = head.removeprefix(BOM).lstrip()
    named_csv = path.name.lower().endswith((".csv", ".csv.gz", ".csv.zst"))
    foreign = any(begin.startswith(magic) for magic, _ in _FOREIGN)
    header = None if foreign else csv.header(head, path, named_csv=named_csv)
    if header is None:
        _check_json_lines(path, head.removeprefix(BOM).split(b"\n"))
    return _Form(head[:4096], header=header)


def _head(path: Path) -> tuple[bytes, bool]:
    """The first bytes of the file's text, and whether it is a Parquet file."""
    head = b""
    try:
        with path.open("rb") as file:
            text = Text(file)
            while len(head) < csv.LOOK and (block := text.read()):
                head += block
    except OSError as e:
        raise ConfigError(f"the file of recorded traffic {path} cannot be read: {e.strerror}") from e
    except Damaged as e:
        if not head:
            raise ConfigError(f"the {text.kind} file {path} {e} from its start: replace it by a whole one") from None
    return head[: csv.LOOK], text.kind == "plain" and head.startswith(parquet.MAGIC)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


def _check_json_lines(path: Path, lines: Sequence[bytes]) -> None:
    """Accept a file with one line that begins like an object: its other lines can become dead letters."""
    first = next((line for line in lines if line.strip()), b"")
    objects = any(line.lstrip().startswith(b"{") for line in lines)
    if not first or (objects and not (first.lstrip().startswith(b"[") and not _is_json(first))):
        return
    what = next(
        (text for magic, text in _FOREIGN if first.lstrip().startswith(magic)),
        "not JSON lines: write one JSON object a line, or CSV with the names of the fields in its first line",
    )
    raise ConfigError(f"the file of recorded traffic {path} is {what}")
