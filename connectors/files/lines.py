"""The lines of a text file with their positions: the records of a file of JSON lines.

The offset of a record is the position of its line in the unpacked text, in bytes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from connectors.files.text import Damaged, Text
from operators.errors import FatalError

BOM: Final = b"\xef\xbb\xbf"


class Lines:
    """The lines of one file from `position` on, each cut to `most_bytes`.

    Without `blank`, blank lines are left out. A last line without a newline is one. Opening a compressed file reads up
    to the position. Raises `FatalError` where the file ends before the position.
    """

    def __init__(self, path: Path, position: int, most_bytes: int, *, blank: bool = False) -> None:
        self._path = path
        self._most = most_bytes
        self._blank = blank
        try:
            self._file = path.open("rb")
        except OSError as e:
            raise FatalError(f"the file {path} cannot be read: {e.strerror}") from e
        self._text = Text(self._file)
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
        if self._text.kind == "plain":
            self._read = min(position, self._file.seek(0, 2))
            self._file.seek(self._read)
        else:
            while self._read < position and (block := self._block()):
                self._read += len(block)
                after = block[max(0, len(block) - (self._read - position)) :] if self._read > position else b""
        if self._read < position:
            raise FatalError(
                f"the file {self._path} ends at byte {self._read}, before byte {position} that the snapshot is at: "
                "it is not the file that was read before; put that one back, or start a new run"
            )
        self._read = self._at = position
        if after:
            self._cut(after)

    def _block(self) -> bytes:
        try:
            return self._text.read()
        except Damaged as e:
            raise FatalError(
                f"the {self._text.kind} file {self._path} {e} after byte {self._read} of its text; all whole records "
                "before it were read: replace the file by a whole one, or leave it out"
            ) from None
        except OSError as e:
            raise FatalError(f"the file {self._path} cannot be read after byte {self._read}: {e.strerror}") from e

    def _cut(self, block: bytes) -> None:
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
            lines[0] = lines[0].removeprefix(BOM)
        if not self._blank and not all(lines):
            offsets = [offset for line, offset in zip(lines, offsets, strict=True) if line]
            lines = [line for line in lines if line]
        self._lines, self._offsets, self._next = lines, offsets, 0

    def take(self, most: int) -> tuple[list[bytes], list[int]]:
        """The next lines and their offsets, at most `most` and at least one, but none at the end.

        Raises `FatalError` behind the last sound line of a damaged or truncated file.
        """
        while self._next == len(self._lines):
            if not self._text.end:
                block = self._block()
                if block:
                    self._cut(block)
            elif self._rest:
                line, self._rest = self._rest.removesuffix(b"\r")[: self._most], b""
                self._add([line], [self._at])
                self._at = self._read
            else:
                return [], []
        begin, self._next = self._next, min(self._next + most, len(self._lines))
        return self._lines[begin : self._next], self._offsets[begin : self._next]

    def position(self) -> int:
        """The position of the next line, or the end of the file, in bytes."""
        return self._offsets[self._next] if self._next < len(self._lines) else self._at

    @property
    def finished(self) -> bool:
        """Whether all lines were handed out, as far as is known without reading on."""
        return self._text.end and self._next == len(self._lines) and not self._rest

    def close(self) -> None:
        """Close the file."""
        self._file.close()
