"""Rows of Parquet files as records."""

from __future__ import annotations

import logging
import math
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from connectors.config import FilesConfig
from connectors.files.source import FilesFactory
from operators.decode.config import DecodeConfig
from operators.decode.native import NativeDecoder
from operators.decode.record import METRIC_FIELDS
from operators.errors import ConfigError, FatalError
from operators.model import TEXT_FIELDS, Reason

AT = datetime(2026, 1, 5, 12, 0, 0, 123_456, UTC)


def factory(path: Path, limit: int = 10_000) -> FilesFactory:
    return FilesFactory(FilesConfig(paths=(path,)), limit)


def read(path: Path, limit: int = 10_000, position: int | None = None, most: int = 7) -> list[tuple[int, bytes]]:
    reader = factory(path, limit).open(str(path), position)
    out: list[tuple[int, bytes]] = []
    while not (chunk := reader.poll(most)).finished or chunk.values:
        out += zip(chunk.offsets.tolist(), chunk.values, strict=True)
    reader.close()
    return out


def values(column: pa.Array, folder: Path) -> list[object]:
    path = folder / "one.parquet"
    parquet.write_table(pa.table({"x": column}), path)
    return [orjson.loads(value).get("x") for _, value in read(path)]


def test_times_are_text_in_utc_with_a_zone_or_without(tmp_path: Path) -> None:
    us = round(AT.timestamp() * 1_000_000)
    for kind in (pa.timestamp("us"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC")):
        assert values(pa.array([us, None], kind), tmp_path) == ["2026-01-05 12:00:00.123456Z", None]
    assert values(pa.array([us * 1000 + 7], pa.timestamp("ns")), tmp_path) == ["2026-01-05 12:00:00.123456007Z"]
    assert values(pa.array([10_000_000], pa.timestamp("us")), tmp_path) == ["1970-01-01 00:00:10.000000Z"]
    assert values(pa.array([date(2026, 1, 5)], pa.date32()), tmp_path) == ["2026-01-05"]


def test_numbers_texts_and_dictionaries(tmp_path: Path) -> None:
    decimals = [Decimal("0.00000001"), Decimal("-12.5"), None]
    assert values(pa.array(decimals, pa.decimal128(20, 8)), tmp_path) == [1e-8, -12.5, None]
    assert values(pa.array([1.5, math.nan, None], pa.float32()), tmp_path) == [1.5, None, None]
    assert values(pa.array([2**64 - 1], pa.uint64()), tmp_path) == [2**64 - 1]
    assert values(pa.array([True, None]), tmp_path) == [True, None]
    assert values(pa.array(["a", "b", None, "a"]).dictionary_encode(), tmp_path) == ["a", "b", None, "a"]


def test_bad_cells_are_handed_on_to_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    columns: dict[str, pa.Array | Sequence[object]] = {
        "timestamp": [AT, AT, None, AT, AT],
        "service": pa.array([b"a", b"\xffsecret", b"c", b"d", b"e" * 2_000]).view(pa.string()),
        "latency_ms": [1.0, 1.0, 1.0, math.inf, 1.0],
    }
    parquet.write_table(pa.table(columns), path)
    got = read(path, limit=1_000)
    decoded = NativeDecoder().decode([value for _, value in got], DecodeConfig(max_record_bytes=1_024))
    assert [offset for offset, _ in got] == [0, 1, 2, 3, 4]
    assert len(got[4][1]) == 1_001
    assert [(fault.record, fault.reason) for fault in decoded.faults] == [
        (1, Reason.NOT_UTF8), (2, Reason.MISSING_FIELD), (3, Reason.BAD_NUMBER), (4, Reason.NOT_JSON),
    ]  # fmt: skip
    assert "secret" not in repr(decoded.faults)


def test_columns_that_cannot_be_read_are_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "e.parquet"
    left_out: dict[str, pa.Array | Sequence[object]] = {
        "messages": pa.array([["hello"]], pa.list_(pa.string())),
        "raw": pa.array([b"x"], pa.binary()),
        "took": pa.array([5], pa.duration("ms")),
    }
    parquet.write_table(pa.table({"service": ["chat"], **left_out}), path)
    with caplog.at_level(logging.INFO):
        assert [orjson.loads(value) for _, value in read(path)] == [{"service": "chat"}]
    told = "left out: messages (list<element: string>), raw (binary), took (duration[ms])"
    assert told in caplog.text
    parquet.write_table(pa.table(left_out), path)
    with pytest.raises(ConfigError, match="has no column of text, numbers, booleans or times"):
        factory(path)


def test_it_goes_on_at_any_row(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    parquet.write_table(pa.table({"n": list(range(300)), "pad": ["-" * 50_000] * 300}), path, row_group_size=110)
    whole = read(path, limit=20)
    assert [offset for offset, _ in whole] == list(range(300))
    assert [value for _, value in whole] == [(b'{"n":%d,"pad":"' % n + b"-" * 21)[:21] for n in range(300)]
    for row in (0, 1, 63, 64, 65, 109, 110, 111, 299, 300):
        assert read(path, limit=20, position=row) == whole[row:]
    with pytest.raises(FatalError, match="ends at row 300, before row 301 that the snapshot is at"):
        factory(path).open(str(path), 301)


def test_another_file_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    identities = set()
    for rows in ([1], [1, 2], [1, 3]):
        parquet.write_table(pa.table({"n": rows}), path)
        identities.add(factory(path).identity())
    assert len(identities) == 3


def test_a_damaged_file_gives_the_rows_before_the_damage_then_says_so(tmp_path: Path) -> None:
    path = tmp_path / "e.parquet"
    noise = [str(n * 2_654_435_761 % 4_294_967_296) for n in range(3_000)]
    parquet.write_table(pa.table({"n": noise}), path, row_group_size=1_000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3_000] = b"\xff" * 3_000
    path.write_bytes(content)
    reader = factory(path).open(str(path), None)
    got = [value for _ in range(11) for value in reader.poll(100).values]
    with pytest.raises(FatalError, match=r"is damaged after row \d+; all rows before it were read"):
        got += [value for _ in range(50) for value in reader.poll(100).values]
    assert reader.position() == 1_000 == len(got)
    reader.close()
    path.write_bytes(content[:-100])
    with pytest.raises(ConfigError, match="damaged, cut short or encrypted"):
        factory(path)


def test_without_pyarrow_the_start_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "e.parquet"
    parquet.write_table(pa.table({"n": [1]}), path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'llm-sentinel\[arrow\]'"):
        factory(path)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCHEMA = pa.schema([
    ("timestamp", pa.timestamp("us", "UTC")),
    *((name, pa.string()) for name in TEXT_FIELDS),
    *((name, pa.int64() if metric.whole else pa.float64()) for name, metric in METRIC_FIELDS.items()),
])  # fmt: skip
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.datetimes(datetime(1999, 12, 1), datetime(2101, 1, 1)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001
        **dict.fromkeys(map(str, TEXT_FIELDS), TEXTS),
        **{
            name: st.integers(-2, 10**10) if metric.whole else st.floats(allow_nan=False, allow_infinity=False)
            for name, metric in METRIC_FIELDS.items()
        },
    },
)


@settings(deadline=None)
@given(events=st.lists(EVENTS, min_size=1, max_size=8), group=st.integers(1, 9), most=st.integers(1, 9))
def test_a_parquet_file_gives_what_the_same_events_as_json_lines_give(
    events: list[dict[str, object]], group: int, most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events"
        parquet.write_table(pa.Table.from_pylist(events, SCHEMA), path, row_group_size=group)
        got = [value for _, value in read(path, 100_000, most=most)]
    a, b = (NativeDecoder().decode(of, DecodeConfig()) for of in (got, [orjson.dumps(event) for event in events]))
    assert repr(a.events) == repr(b.events)
    assert [(f.record, f.reason) for f in a.faults] == [(f.record, f.reason) for f in b.faults]
