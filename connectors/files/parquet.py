"""Rows of Parquet files as records of native JSON.

Columns are named as the fields of native events (`docs/formats.md`); null and NaN are absent. Times become RFC 3339
text; those without a zone are UTC. Decimals are written digit by digit. Lists, structs, maps, bytes and durations are
left out, and `left_out` names them. The offset of a row is its number, from 0 on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from operators.errors import ConfigError, FatalError

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

MAGIC: Final = b"PAR1"
_BATCH_BYTES: Final = 1 << 22
"""About the bytes of values that are unpacked at once, by the average of a row group."""
_MOST_ROWS: Final = 8_192
_FIRST_ROWS: Final = 64
"""Rows of the first batch, so that a file that has to wait holds little."""
_BUFFER: Final = 1 << 16
_TOO_LARGE: Final = orjson.Fragment("1e999")
"""Infinity, as a number that JSON can write and decoders refuse."""


def _open(path: Path) -> ParquetFile:
    """The open file. Its package is loaded only where a Parquet file is read."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ConfigError(
            f"the file {path} is Parquet, which pyarrow reads, and that is not installed: pip install "
            "'llm-sentinel[arrow]', or export the file as JSON lines or CSV"
        ) from None
    try:
        return parquet.ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False)
    except (pa.ArrowException, OSError, ValueError):
        raise FatalError(
            f"the Parquet file {path} cannot be read: it is damaged, cut short or encrypted; replace it by a whole one"
        ) from None


def look(path: Path) -> tuple[bytes, list[str]]:
    """What tells this file from others, and the columns that are left out, each with its type.

    Raises `ConfigError` where the file cannot be read, or has no column that can be.
    """
    try:
        file = _open(path)
    except FatalError as error:
        raise ConfigError(str(error)) from None
    with file:
        schema = file.schema_arrow
        readable = [field.name for field in schema if _plain(field.type)]
        left_out = [f"{field.name} ({field.type})" for field in schema if not _plain(field.type)]
        if not readable:
            raise ConfigError(f"the Parquet file {path} has no column of text, numbers, booleans or times")
        if len({field.name for field in schema}) < len(schema):
            raise ConfigError(f"the Parquet file {path} has two columns of one name: name each one once")
        return f"{file.metadata.num_rows} rows of {schema.names}".encode(), left_out


class ParquetRows:
    """The rows of one file from row `position` on, as records; each is cut to `most_bytes`."""

    def __init__(self, path: Path, position: int, most_bytes: int) -> None:
        self._path = path
        self._most = most_bytes
        self._file = _open(path)
        self._rows: int = self._file.metadata.num_rows
        if position > self._rows:
            self._file.close()
            raise FatalError(
                f"the file {path} ends at row {self._rows}, before row {position} that the snapshot is at: "
                "it is not the file that was read before; put that one back, or start a new run"
            )
        self._values: list[bytes] = []  # read and not yet handed on, from _next on
        self._next = 0
        self._at = position  # the row of _values[_next]
        self._batches = self._read(position)

    def _read(self, position: int) -> Iterator[list[bytes]]:
        """The records from this row on, a batch at a time."""
        names = [field.name for field in self._file.schema_arrow if _plain(field.type)]
        if position == 0 < self._rows:
            for first in self._file.iter_batches(_FIRST_ROWS, columns=names, use_threads=False):
                position = first.num_rows
                yield _records(first, self._most)
                break
        begin = 0
        for number in range(self._file.num_row_groups):
            group = self._file.metadata.row_group(number)
            end = begin + group.num_rows
            if position < end:
                rows = max(1, min(_MOST_ROWS, _BATCH_BYTES * group.num_rows // max(1, group.total_byte_size)))
                for batch in self._file.iter_batches(rows, [number], names, use_threads=False):
                    upto = begin + batch.num_rows
                    if position < upto:
                        yield _records(batch.slice(max(0, position - begin)), self._most)
                    begin = upto
            begin = end

    def take(self, most: int) -> tuple[list[bytes], list[int]]:
        """The next records and the numbers of their rows, at most `most` and at least one, but none at the end."""
        import pyarrow as pa

        while self._next == len(self._values) and self._at < self._rows:
            try:
                self._values, self._next = next(self._batches), 0
            except (StopIteration, pa.ArrowException, OSError, ValueError):
                raise FatalError(
                    f"the Parquet file {self._path} is damaged after row {self._at}; all rows before it were read: "
                    "replace the file by a whole one, or leave it out"
                ) from None
        upto = min(self._next + most, len(self._values))
        values = self._values[self._next : upto]
        offsets = list(range(self._at, self._at + len(values)))
        self._next, self._at = upto, self._at + len(values)
        return values, offsets

    def position(self) -> int:
        """The number of the next row, or of rows at the end."""
        return self._at

    @property
    def finished(self) -> bool:
        """Whether all rows were handed out."""
        return self._at == self._rows

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _plain(kind: pa.DataType) -> bool:
    """Whether the values of this type can stand in a native event."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    return bool(
        types.is_null(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind)
        or types.is_decimal(kind) or types.is_string(kind) or types.is_large_string(kind)
        or types.is_timestamp(kind) or types.is_date(kind)
    )  # fmt: skip


def _records(batch: pa.RecordBatch, most_bytes: int) -> list[bytes]:
    columns = [_values(column) for column in batch.columns]
    names: list[str] = batch.schema.names
    return [_record(names, row)[:most_bytes] for row in zip(*columns, strict=True)]


def _record(names: list[str], row: Iterable[object]) -> bytes:
    fields = {name: value for name, value in zip(names, row, strict=True) if value is not None}
    try:
        return orjson.dumps(fields)
    except TypeError:  # a text is not UTF-8, or a name is not: the decoder says so
        return b"".join(str(value).encode(errors="surrogateescape") for value in fields.values())


def _values(column: pa.Array) -> list[object]:
    """The values of a column, such that `orjson` writes them as native JSON; None where absent."""
    import pyarrow as pa
    from pyarrow import types

    kind = column.type
    if types.is_dictionary(kind):
        return _values(column.dictionary_decode())
    if types.is_floating(kind):
        return [_number(value) for value in column.cast(pa.float64()).to_pylist()]
    if types.is_decimal(kind):
        return _each(column.cast(pa.string()), orjson.Fragment)
    if types.is_timestamp(kind):
        instants = column.cast(pa.int64()).cast(pa.timestamp(kind.unit))  # in UTC, with a zone or without
        return _each(instants.cast(pa.string()), "{}Z".format)
    if types.is_date(kind):
        return _each(column.cast(pa.string()), str)
    if types.is_string(kind) or types.is_large_string(kind):
        try:
            return list(column.to_pylist())
        except UnicodeDecodeError:
            raw = column.cast(pa.large_binary())
            return _each(raw, lambda value: value.decode(errors="surrogateescape"))
    return list(column.to_pylist())


def _each(column: pa.Array, make: Callable[[Any], object]) -> list[object]:
    return [None if value is None else make(value) for value in column.to_pylist()]


def _number(value: float | None) -> object:
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else _TOO_LARGE if value > 0 else orjson.Fragment("-1e999")
