"""Rows of CSV files as records of native JSON.

The first line names the columns, as the fields of native events are named (`docs/formats.md`); commas, semicolons or
tabs divide it. An empty cell is absent. Cells of text fields are text. Other cells are numbers or booleans where they
are such in full, as JSON writes numbers, and else text. The offset of a row is that of its first line in bytes.

A row of more or fewer cells than the first line becomes a JSON array of its cells, so that decoders refuse it. So does
the first line of a row whose quotes do not close, and reading goes on at its second line.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson

from connectors.files.lines import Lines
from operators.errors import ConfigError, FatalError
from operators.model import TEXT_FIELDS

_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_DIVIDERS: Final = ",;\t"
_BOOLEANS: Final = {"true": True, "false": False}
LOOK: Final = 1 << 16
"""Bytes at the head of a text that must show what it is."""
_AHEAD: Final = 256
"""Lines that are asked for at once."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a CSV file: the names of its columns ("" for one to leave out), and its end in bytes."""

    names: tuple[str, ...]
    divider: str
    end: int


def header(head: bytes, path: Path, *, named_csv: bool) -> Header | None:
    """The header that the beginning of a text has; None where it is no CSV.

    A file that is `named_csv` is one if its first line does not begin with a brace; another one if that line names a
    column `timestamp`. Raises `ConfigError` for a header that does not tell the columns apart.
    """
    lines = head.split(b"\n")
    number = next((i for i, line in enumerate(lines) if line.strip()), None)
    if number is None:
        return None
    try:
        line = lines[number].decode("utf-8-sig").removesuffix("\r")
    except UnicodeDecodeError:
        return None
    divider = max(_DIVIDERS, key=line.count)
    try:
        (cells,) = csv.reader([line], delimiter=divider, strict=True)
    except csv.Error:
        cells = []
    names = tuple(cell.strip() for cell in cells)
    if "timestamp" not in names and (not named_csv or line.lstrip().startswith("{")):
        return None
    doubles = sorted({name for name in names if name and names.count(name) > 1})
    cut = number == len(lines) - 1 and len(head) >= LOOK
    what = (
        f"names the column {doubles[0]} twice" if doubles
        else "does not close its quotes, or is longer than 64 KiB" if cut or not cells
        else "holds numbers" if any(map(_NUMBER.fullmatch, names))
        else ""
    )  # fmt: skip
    if what:
        raise ConfigError(
            f"the first line of the CSV file {path} {what}: it must name the columns, each once, as docs/formats.md "
            "names the fields of an event"
        )
    return Header(names, divider, min(len(head), sum(len(before) + 1 for before in lines[: number + 1])))


class CsvRows:
    """The rows of one file from `position` on, as records.

    A line above `max_record_bytes` is cut to one byte more and handed on as it is, for decoders to refuse.
    """

    def __init__(self, path: Path, position: int, max_record_bytes: int, first: Header) -> None:
        self._most = max_record_bytes
        self._header = first
        self._is_text = [name in TEXT_FIELDS for name in first.names]
        self._source = Lines(path, position or first.end, max_record_bytes + 1, blank=True)
        self._lines: list[bytes] = []  # taken and not yet handed on, from _next on
        self._offsets: list[int] = []
        self._next = 0
        csv.field_size_limit(max_record_bytes + 1)

    def take(self, most: int) -> tuple[list[bytes], list[int]]:
        """The next records and their offsets, at most `most` and at least one, but none at the end."""
        values: list[bytes] = []
        offsets: list[int] = []
        try:
            while len(values) < most and (self._next < len(self._lines) or (not values and self._more())):
                offset = self._offsets[self._next]
                value, lines = self._record(self._lines[self._next])
                self._next += lines
                if value:
                    values.append(value)
                    offsets.append(offset)
        except FatalError:
            if not values:
                raise
        return values, offsets

    def _more(self) -> bool:
        lines, offsets = self._source.take(_AHEAD)
        self._lines = self._lines[self._next :] + lines
        self._offsets = self._offsets[self._next :] + offsets
        self._next = 0
        return bool(lines)

    def _record(self, line: bytes) -> tuple[bytes, int]:
        """The record that begins with this line, the next one, and its number of lines; b"" for a blank line."""
        if not line or len(line) > self._most:
            return line, 1
        text = line.decode(errors="surrogateescape")
        cells, lines = self._quoted(text) if b'"' in line else (text.split(self._header.divider), 1)
        try:
            if len(cells) != len(self._header.names):
                return orjson.dumps(cells), lines
            return self._object(cells), lines
        except TypeError:  # not UTF-8: the decoder says so
            return b"\n".join(self._lines[self._next : self._next + lines]), lines

    def _quoted(self, first: str) -> tuple[list[str], int]:
        """The cells of the row that begins with this line, and its number of lines."""
        lines = 1

        def feed() -> Iterator[str]:
            nonlocal lines
            yield first + "\n"
            size = len(first)
            while self._next + lines < len(self._lines) or self._more():
                line = self._lines[self._next + lines]
                size += len(line)
                if size > self._most:
                    return
                lines += 1
                yield line.decode(errors="surrogateescape") + "\n"

        try:
            return next(csv.reader(feed(), delimiter=self._header.divider, strict=True)), lines
        except csv.Error:
            return [first], 1

    def _object(self, cells: Sequence[str]) -> bytes:
        fields = {
            name: cell if is_text else _plain(cell)
            for name, is_text, cell in zip(self._header.names, self._is_text, cells, strict=True)
            if cell and name
        }
        return orjson.dumps(fields)

    def position(self) -> int:
        """The position of the next row, or the end of the file, in bytes."""
        return self._offsets[self._next] if self._next < len(self._lines) else self._source.position()

    @property
    def finished(self) -> bool:
        """Whether all rows were handed out, as far as is known without reading on."""
        return self._source.finished and self._next == len(self._lines)

    def close(self) -> None:
        """Close the file."""
        self._source.close()


def _plain(cell: str) -> object:
    """The number (as it is written) or boolean that the cell is in full, else its text."""
    if _NUMBER.fullmatch(cell):
        return orjson.Fragment(cell)
    return _BOOLEANS.get(cell.lower(), cell)
