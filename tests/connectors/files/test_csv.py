"""Rows of CSV files as records."""

from __future__ import annotations

import csv
import gzip
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.config import FilesConfig
from connectors.files.source import FilesFactory
from operators.decode.config import DecodeConfig
from operators.decode.native import NativeDecoder
from operators.decode.record import METRIC_FIELDS
from operators.errors import FatalError
from operators.model import TEXT_FIELDS, Reason

LIMIT = 200
START = 1_741_000_000


def read(text: bytes, folder: Path, limit: int = LIMIT, name: str = "e.csv", most: int = 7) -> list[tuple[int, bytes]]:
    path = folder / name
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    reader = FilesFactory(FilesConfig(paths=(path,)), limit).open(str(path), None)
    out: list[tuple[int, bytes]] = []
    while not (chunk := reader.poll(most)).finished or chunk.values:
        out += zip(chunk.offsets.tolist(), chunk.values, strict=True)
    reader.close()
    return out


def objects(text: bytes, folder: Path) -> list[object]:
    return [orjson.loads(value) for _, value in read(text, folder)]


def test_cells_have_the_type_of_their_field(tmp_path: Path) -> None:
    text = b"timestamp,tenant,latency_ms,streamed,other\n1741000000.5,007,1.50,True,7\n,12,1e3,,0x1\n1,true,-1, 2,+5\n"
    assert objects(text, tmp_path) == [
        {"timestamp": 1741000000.5, "tenant": "007", "latency_ms": 1.5, "streamed": True, "other": 7},
        {"tenant": "12", "latency_ms": 1000.0, "other": "0x1"},
        {"timestamp": 1, "tenant": "true", "latency_ms": -1, "streamed": " 2", "other": "+5"},
    ]


@pytest.mark.parametrize("name", ["e.csv", "events", "e.csv.gz"])
@pytest.mark.parametrize("divider", [",", ";", "\t"])
def test_dividers_quotes_marks_and_ends_of_lines(divider: str, name: str, tmp_path: Path) -> None:
    rows = ["timestamp,,service", '1,left out,"a,\r\n\r\n""b"""', "", '2,,say "x"', "3,,c"]
    text = "\ufeff" + "\r\n".join(rows).replace(",", divider)
    got = read(text.encode(), tmp_path, name=name)
    assert [orjson.loads(value) for _, value in got] == [
        {"timestamp": 1, "service": f'a{divider}\n\n"b"'},
        {"timestamp": 2, "service": 'say "x"'},
        {"timestamp": 3, "service": "c"},
    ]
    assert [text.encode()[offset:][:1] for offset, _ in got] == [b"1", b"2", b"3"]


def test_rows_that_cannot_be_used_are_handed_on_to_be_refused(tmp_path: Path) -> None:
    long = b"1,%s,\n" % (b"x" * 300)
    text = b"\n".join([b"timestamp,service", b"1,a,b", b"1", b'1,"a', b"2,b", long + b"1,\xff", b'1,"a"b', b"3,c"])
    got = read(text, tmp_path)
    letters = NativeDecoder().decode([value for _, value in got], DecodeConfig(max_record_bytes=1024)).faults
    assert [value for _, value in got][4] == long[: LIMIT + 1]
    assert [fault.reason for fault in letters] == [
        Reason.NOT_AN_OBJECT, Reason.NOT_AN_OBJECT, Reason.NOT_AN_OBJECT, Reason.BAD_TIME, Reason.NOT_JSON,
        Reason.NOT_UTF8, Reason.NOT_AN_OBJECT, Reason.BAD_TIME,
    ]  # fmt: skip
    places = [text.index(b"1,a,b"), text.index(b"\n1\n") + 1, text.index(b'1,"a\n'), text.index(b"2,b")]
    assert [offset for offset, _ in got][:4] == places


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path: Path) -> None:
    text = b'timestamp,service\n1,"a\n' + b"2,b\n" * 1_000
    got = read(text, tmp_path)
    assert [value for _, value in got[:2]] == [b'["1,\\"a"]', b'{"timestamp":2,"service":"b"}']
    assert len(got) == 1_001


def test_a_row_that_damage_cuts_is_not_handed_on(tmp_path: Path) -> None:
    text = b"timestamp,service\n1,a\n" + b'2,"' + b"a line\n" * 10_000
    path = tmp_path / "e.csv.gz"
    path.write_bytes(gzip.compress(text + b'"\n', compresslevel=0)[:-200])
    reader = FilesFactory(FilesConfig(paths=(path,)), 1_000_000).open(str(path), None)
    assert [reader.poll(1).values, reader.position()] == [[b'{"timestamp":1,"service":"a"}'], text.index(b"2,")]
    for _ in range(2):
        with pytest.raises(FatalError, match="is cut short after byte"):
            reader.poll(1)
    assert reader.position() == text.index(b"2,")
    reader.close()


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), min_size=1, max_size=12)
NUMBERS = st.one_of(st.integers(-2, 10**10), st.floats(allow_nan=False, allow_infinity=False))
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "timestamp": st.one_of(st.integers(START, START + 100), st.just("2025-03-03T12:00:00.5Z"), TEXTS),
        **dict.fromkeys(map(str, TEXT_FIELDS), TEXTS),
        **dict.fromkeys(METRIC_FIELDS, NUMBERS),
        "unknown": TEXTS,
    },
)


def as_csv(events: Sequence[dict[str, object]], names: Sequence[str], end: str) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator=end)
    writer.writeheader()
    writer.writerows(events)
    return out.getvalue().encode()


@settings(deadline=None)
@given(
    events=st.lists(EVENTS, max_size=8),
    names=st.permutations(["timestamp", *TEXT_FIELDS, *METRIC_FIELDS, "unknown"]),
    end=st.sampled_from(["\n", "\r\n"]),
    most=st.integers(1, 9),
)
def test_a_csv_file_gives_what_the_same_events_as_json_lines_give(
    events: list[dict[str, object]], names: list[str], end: str, most: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        got = [value for _, value in read(as_csv(events, names, end), Path(folder), 100_000, most=most)]
    want = [orjson.dumps(event) for event in events]
    a, b = (NativeDecoder().decode(values, DecodeConfig()) for values in (got, want))
    assert repr(a.events) == repr(b.events)
    assert [(f.record, f.reason) for f in a.faults] == [(f.record, f.reason) for f in b.faults]
    assert len(got) == len(events)
