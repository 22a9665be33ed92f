"""Recorded events in each form that the source of files reads."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Sequence
from pathlib import Path

import orjson
import pyarrow as pa
import zstandard
from pyarrow import parquet


def write_events(path: Path, records: Sequence[bytes]) -> Path:
    """A file of these native events, in the form that its name tells."""
    form = path.name.removesuffix(".gz").removesuffix(".zst").rpartition(".")[2]
    if form == "parquet":
        parquet.write_table(pa.Table.from_pylist(_rows(records)), path, row_group_size=1_000)
        return path
    text = _csv(records) if form == "csv" else b"".join(record + b"\n" for record in records)
    if path.suffix == ".gz":
        text = gzip.compress(text)
    elif path.suffix == ".zst":
        text = zstandard.compress(text)
    path.write_bytes(text)
    return path


def _rows(records: Sequence[bytes]) -> list[dict[str, object]]:
    """The events as objects that all name the same fields."""
    rows: list[dict[str, object]] = [orjson.loads(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in names} for row in rows]


def _csv(records: Sequence[bytes]) -> bytes:
    rows = _rows(records)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()
