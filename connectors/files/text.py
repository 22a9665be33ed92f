"""The text of a file, block by block: plain, gzip or zstd, told apart by its first bytes."""

from __future__ import annotations

import zlib
from typing import BinaryIO, Final

import zstandard

BLOCK: Final = 1 << 18
"""Bytes of text in a block: one poll may read at most so much beyond its records."""
_FIRST: Final = 1 << 12
"""Bytes of the first block. Each block is twice as large as the one before, so a file that has to wait holds little."""
_PIECE: Final = 512
"""Bytes that are given to zstd at once, since it knows no limit for what it returns: at most 16 MiB for so few."""
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZSTD_SKIPPED: Final = b"\x2a\x4d\x18"
"""What follows the first byte of a frame without text, as some writers put it first."""


class Damaged(Exception):
    """The compressed stream is broken or ends too early."""


class _Member:
    """One member of a gzip file. Once it has `ended`, `left` is what stands behind it."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(31)
        self.left = b""
        self.damaged = False

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    def expand(self, raw: bytes) -> bytes:
        """The next text (all of it before a damage); `left` becomes the part of `raw` to give again."""
        before = self._inflate.copy()
        try:
            text = self._inflate.decompress(raw, BLOCK)
        except zlib.error:
            return self._up_to_damage(before, raw)
        self.left = self._inflate.unconsumed_tail or self._inflate.unused_data
        return text

    def _up_to_damage(self, inflate: zlib._Decompress, raw: bytes) -> bytes:
        """The sound text before the damage, found byte by byte, once in a stream's life."""
        out = bytearray()
        self.damaged = True
        try:
            for i in range(len(raw)):
                out += inflate.decompress(raw[i : i + 1])
        except zlib.error:
            return bytes(out)
        raise AssertionError("the damage is gone")  # the same bytes raised an error as one block


class _Frame:
    """One frame of a zstd file, like `_Member`; of a damaged one up to a few blocks before the damage are lost."""

    def __init__(self) -> None:
        self._inflate = zstandard.ZstdDecompressor().decompressobj()
        self.left = b""
        self.damaged = False

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    def expand(self, raw: bytes) -> bytes:
        """The next text; `left` becomes the part of `raw` that must be given again."""
        try:
            text = self._inflate.decompress(raw[:_PIECE])
        except zstandard.ZstdError:
            self.damaged = True
            return b""
        self.left = self._inflate.unused_data + raw[_PIECE:]
        return text


class Text:
    """The text of a file, block by block; it gives all sound text before it raises `Damaged`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        head = file.read(4)
        file.seek(0)
        zstd = head == _ZSTD or (head[1:] == _ZSTD_SKIPPED and head[0] >> 4 == 5)
        self.kind = "gzip" if head.startswith(_GZIP) else "zstd" if zstd else "plain"
        self._make: type[_Member | _Frame] = _Frame if zstd else _Member
        self._member = self._make()
        self._raw = b""
        self._size = _FIRST
        self.end = False

    def read(self) -> bytes:
        """The next text, about a block at most; empty only at the end."""
        if self.kind == "plain":
            size = self._grown()
            block = self._file.read(size)
            self.end = len(block) < size
            return block
        while not self.end:
            if self._member.damaged:
                raise Damaged("is damaged")
            if not self._raw:
                self._raw = self._file.read(self._grown())
                if not self._raw:
                    if not self._member.ended:
                        raise Damaged("is cut short")
                    self.end = True
                    break
            if self._member.ended:
                self._raw = self._raw.lstrip(b"\0")  # padding behind the last member
                if not self._raw:
                    continue
                self._member = self._make()
            block = self._member.expand(self._raw)
            self._raw = self._member.left
            if block:
                return block
        return b""

    def _grown(self) -> int:
        size, self._size = self._size, min(2 * self._size, BLOCK)
        return size
