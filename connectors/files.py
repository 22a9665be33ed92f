"""Recorded traffic as a source: files of JSON lines, plain or gzip, one partition a file.

The offset of a record is the position of its line in the decompressed text, in bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import orjson

from connectors.base import Chunk, State
from connectors.config import FilesConfig
from operators.errors import ConfigError, FatalError

_BLOCK: Final = 1 << 18
"""Bytes of text in a block: one poll may read at most so much beyond its records."""
_LOOK: Final = 1 << 16
"""Bytes at the head of a file that must show one JSON object."""
_GZIP: Final = b"\x1f\x8b"
_BOM: Final = b"\xef\xbb\xbf"
_FOREIGN: Final = (
    (b"PK\x03\x04", "a zip archive: unpack it"),
    (b"PAR1", "a Parquet file: export it as JSON lines"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd: unpack it, or use gzip"),
    (b"BZh", "compressed with bzip2: unpack it, or use gzip"),
    (b"\xfd7zXZ", "compressed with xz: unpack it, or use gzip"),
    (b"\xff\xfe", "in UTF-16: convert it to UTF-8"),
    (b"\xfe\xff", "in UTF-16: convert it to UTF-8"),
    (b"[", "one JSON array: write one object a line (jq -c '.[]' does it)"),
)


class _Damaged(Exception):
    """The compressed stream is broken or ends too early."""


class _Text:
    """The text of a file, block by block; it gives all sound text before it raises `_Damaged`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = file.read(2)
        file.seek(0)
        self.gzip = head == _GZIP
        self._inflate = zlib.decompressobj(31)
        self._raw = b""
        self._damage: str | None = None
        self.end = False

    def read(self) -> bytes:
        """The next text, at most a block; empty only at the end."""
        if not self.gzip:
            block = self._file.read(_BLOCK)
            self.end = len(block) < _BLOCK
            return block
        while not self.end:
            if self._damage:
                raise _Damaged(self._damage)
            if not self._raw:
                self._raw = self._file.read(_BLOCK)
                if not self._raw:
                    if not self._inflate.eof:
                        raise _Damaged("is cut short")
                    self.end = True
                    break
            if self._inflate.eof:  # another member, or padding after the last one
                self._raw = self._raw.lstrip(b"\0")
                if not self._raw:
                    continue
                self._inflate = zlib.decompressobj(31)
            block = self._expand()
            if block:
                return block
        return b""

    def _expand(self) -> bytes:
        before = self._inflate.copy()
        try:
            block = self._inflate.decompress(self._raw, _BLOCK)
        except zlib.error:
            return self._up_to_damage(before)
        self._raw = self._inflate.unconsumed_tail or self._inflate.unused_data
        return block

    def _up_to_damage(self, inflate: zlib._Decompress) -> bytes:
        """The sound text before the damage, found byte by byte, once in a stream's life."""
        out = bytearray()
        self._damage = "is damaged"
        try:
            for i in range(len(self._raw)):
                out += inflate.decompress(self._raw[i : i + 1])
        except zlib.error:
            return bytes(out)
        raise AssertionError("the damage is gone")  # the same bytes raised an error as one block


class FileReader:
    """One file, from `position` on; it cuts a longer line to `max_record_bytes` and one more byte.

    Blank lines are no records. A last line without a newline is one. Opening a gzip file reads up to the position.
    """

    def __init__(self, path: Path, position: int, max_record_bytes: int) -> None:
        self._path = path
        self._most = max_record_bytes + 1
        try:
            self._file = path.open("rb")
        except OSError as e:
            raise FatalError(f"the file {path} cannot be read: {e.strerror}") from e
        self._text = _Text(self._file)
        self._lines: list[bytes] = []  # read and not yet handed out, from _next on
        self._offsets: list[int] = []
        self._next = 0
        self._rest = b""  # the beginning of an unfinished line, cut to one byte more than _most
        self._at = 0  # where that line begins
        self._read = 0  # bytes of text read so far
        try:
            self._skip_to(position)
        except FatalError:
            self._file.close()
            raise

    def _skip_to(self, position: int) -> None:
        after = b""
        if self._text.gzip:
            while self._read < position and (block := self._block()):
                self._read += len(block)
                after = block[max(0, len(block) - (self._read - position)) :] if self._read > position else b""
        else:
            self._read = min(position, self._file.seek(0, 2))
            self._file.seek(self._read)
        if self._read < position:
            raise FatalError(
                f"the file {self._path} ends at byte {self._read}, before byte {position} that the snapshot is at: "
                "it is not the file that was read before; put that one back, or start a new run"
            )
        self._read = self._at = position
        if after:
            self._take(after)

    def _block(self) -> bytes:
        try:
            return self._text.read()
        except _Damaged as e:
            raise FatalError(
                f"the gzip file {self._path} {e} after byte {self._read} of its text; all whole records before it were "
                "read: replace the file by a whole one, or leave it out"
            ) from None
        except OSError as e:
            raise FatalError(f"the file {self._path} cannot be read after byte {self._read}: {e.strerror}") from e

    def _take(self, block: bytes) -> None:
        """Cut a block into lines; the text after the last newline waits for the next block."""
        begin = self._read
        self._read += len(block)
        pieces = block.split(b"\n")
        if len(pieces) == 1:
            self._rest = (self._rest + block)[: self._most + 1]  # one more, since the last byte may be a CR
            return
        sizes = [len(piece) + 1 for piece in pieces[:-1]]
        sizes[0] += begin - self._at  # the true length of a line that was cut to _rest
        offsets: list[int] = (self._at + np.cumsum([0, *sizes])).tolist()
        pieces[0] = self._rest + pieces[0]
        self._rest = pieces.pop()[: self._most + 1]
        self._at = offsets.pop()
        if b"\r" in block or pieces[0].endswith(b"\r"):
            pieces = [line.removesuffix(b"\r") for line in pieces]
        if max(sizes) > self._most:
            pieces = [line[: self._most] for line in pieces]
        self._add(pieces, offsets)

    def _add(self, lines: list[bytes], offsets: list[int]) -> None:
        if offsets[0] == 0:
            lines[0] = lines[0].removeprefix(_BOM)
        if not all(lines):
            offsets = [offset for line, offset in zip(lines, offsets, strict=True) if line]
            lines = [line for line in lines if line]
        self._lines, self._offsets, self._next = lines, offsets, 0

    def poll(self, most: int) -> Chunk:
        """The next records; raises `FatalError` after the last sound one of a damaged or truncated gzip file."""
        values: list[bytes] = []
        offsets: list[int] = []
        try:
            while len(values) < most and self._more():
                upto = min(self._next + most - len(values), len(self._lines))
                values += self._lines[self._next : upto]
                offsets += self._offsets[self._next : upto]
                self._next = upto
        except FatalError:
            if not values:
                raise
        finished = self._text.end and self._next == len(self._lines) and not self._rest
        return Chunk(values, np.array(offsets, np.int64), at_end=finished, finished=finished)

    def _more(self) -> bool:
        """Whether there is another line; reads on if need be."""
        while self._next == len(self._lines):
            if self._text.end:
                if not self._rest:
                    return False
                line, self._rest = self._rest.removesuffix(b"\r")[: self._most], b""
                self._add([line], [self._at])
                self._at = self._read
            else:
                block = self._block()
                if block:
                    self._take(block)
        return True

    def position(self) -> int:
        """The position of the next record's line, or the end of the file, in bytes."""
        return self._offsets[self._next] if self._next < len(self._lines) else self._at

    def behind(self) -> None:
        """Always None: the number is unknown without reading on."""

    def log(self) -> State:
        """Empty: the identity of the source covers the beginning of each file."""
        return ()

    def durable(self, position: int) -> None:
        """Does nothing: no lag tool looks at files."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class FilesFactory:
    """Files as a source; each file is a partition, named by its configured path."""

    def __init__(self, config: FilesConfig, max_record_bytes: int) -> None:
        """Look at the head of every file; raises `ConfigError` for a missing file, or one without JSON lines."""
        self._paths = {str(path): path for path in config.paths}
        if len(self._paths) < len(config.paths):
            raise ConfigError("a file is named twice among the files to read: name each one once")
        self._most = max_record_bytes
        self._heads = {name: _head(path) for name, path in self._paths.items()}

    def partitions(self) -> list[str]:
        """The paths, sorted."""
        return sorted(self._paths)

    def origin(self, partition: str) -> tuple[str, int]:
        """(path, 0)."""
        return partition, 0

    def open(self, partition: str, position: int | None, log: State | None = None) -> FileReader:
        """Open at the start or at `position`; raises `FatalError` where the file ends before it."""
        return FileReader(self._paths[partition], position or 0, self._most)

    def identity(self) -> str:
        """The paths, and a fingerprint of the beginning of each file."""
        return "files:" + ",".join(
            f"{name}#{hashlib.blake2b(self._heads[name], digest_size=8).hexdigest()}" for name in self.partitions()
        )


def _head(path: Path) -> bytes:
    """The first bytes of the file's text, at most 4096; raises `ConfigError` where the file cannot be a source."""
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise ConfigError(f"the file of recorded traffic {path} {what}: name files of JSON lines, plain or gzip")
    try:
        with path.open("rb") as file:
            text = _Text(file)
            head = b""
            while len(head) < _LOOK and (block := text.read()):
                head += block
    except OSError as e:
        raise ConfigError(f"the file of recorded traffic {path} cannot be read: {e.strerror}") from e
    except _Damaged as e:
        if not head:
            raise ConfigError(f"the gzip file {path} {e} from its start: replace it by a whole one") from None
    head = head[:_LOOK]
    _check_json_lines(path, head.removeprefix(_BOM).split(b"\n"))
    return head[:4096]


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
        "not JSON lines: write one JSON object a line",
    )
    raise ConfigError(f"the file of recorded traffic {path} is {what}")
