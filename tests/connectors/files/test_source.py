"""Recorded traffic from files."""

from __future__ import annotations

import gzip
import logging
import os
import resource
import tracemalloc
from pathlib import Path

import pytest
import zstandard

from connectors.base import Reader
from connectors.config import FilesConfig
from connectors.files.source import FilesFactory
from operators.errors import ConfigError, FatalError

LIMIT = 64


def factory(*paths: Path, limit: int = LIMIT) -> FilesFactory:
    return FilesFactory(FilesConfig(paths=paths), limit)


def write(path: Path, text: bytes) -> Path:
    if path.suffix == ".gz":
        text = gzip.compress(text)
    elif path.suffix == ".zst":
        text = zstandard.compress(text)
    path.write_bytes(text)
    return path


def drain(reader: Reader, most: int = 3) -> list[tuple[int, bytes]]:
    """All remaining records, as (offset, value); closes the reader."""
    out: list[tuple[int, bytes]] = []
    while True:
        chunk = reader.poll(most)
        assert chunk.arrivals is None
        assert len(chunk.values) <= most
        out += zip(chunk.offsets.tolist(), chunk.values, strict=True)
        if chunk.finished:
            assert chunk.at_end
            assert reader.poll(most).values == []
            reader.close()
            return out


@pytest.fixture(params=["plain.jsonl", "packed.jsonl.gz", "packed.jsonl.zst"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / str(request.param)


def records(path: Path, text: bytes, limit: int = LIMIT) -> list[tuple[int, bytes]]:
    return drain(factory(write(path, text), limit=limit).open(str(path), None))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"{}\n", [(0, b"{}")]),
        (b"{}\n{1}", [(0, b"{}"), (3, b"{1}")]),
        (b"{}\r\n{1}\r\n{2}\r", [(0, b"{}"), (4, b"{1}"), (9, b"{2}")]),
        (b"\n{}\n\n\n{1}\n\n", [(1, b"{}"), (6, b"{1}")]),
        (b"\xef\xbb\xbf{}\n{1}\n", [(0, b"{}"), (6, b"{1}")]),
        (b"nonsense\n{}\n", [(0, b"nonsense"), (9, b"{}")]),
        (b"[1]\n{}\n", [(0, b"[1]"), (4, b"{}")]),
        (b"{ \x00 \xff }\n", [(0, b"{ \x00 \xff }")]),
    ],
)
def test_lines_and_their_offsets(path: Path, text: bytes, want: list[tuple[int, bytes]]) -> None:
    assert records(path, text) == want


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_line_over_the_limit_is_cut_to_one_byte_more(path: Path, end: bytes) -> None:
    whole, over, huge = (b"{" + b"x" * (n - 1) for n in (LIMIT, LIMIT + 1, 1_000_000))
    got = records(path, end.join([whole, over, huge, b"{}", huge]))
    assert [v for _, v in got] == [whole, over, huge[: LIMIT + 1], b"{}", huge[: LIMIT + 1]]
    at = 2 * LIMIT + 1 + 2 * len(end)
    assert [o for o, _ in got][2:] == [at, at + 1_000_000 + len(end), at + 1_000_002 + 2 * len(end)]


def test_an_endless_line_does_not_fill_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"a": "')
        for _ in range(40):
            file.write(b"x" * (1 << 20))
    reader = factory(path).open(str(path), None)
    tracemalloc.start()
    try:
        ((offset, value),) = drain(reader)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (offset, len(value)) == (0, LIMIT + 1)
    assert peak < 4 << 20


def test_many_lines_over_many_blocks(path: Path) -> None:
    lines = [b'{"n": %d, "pad": "%s"}' % (i, b"-" * (i % 40)) for i in range(20_000)]
    got = records(path, b"\n".join(lines) + b"\n")
    assert [v for _, v in got] == lines


def test_it_goes_on_at_a_position(path: Path) -> None:
    text = b"".join(b'{"n": %d}\n' % i for i in range(60_000))
    f = factory(write(path, text))
    reader = f.open(str(path), None)
    assert len(reader.poll(40_000).values) == 1, "enough to know when the file begins"
    reader.poll(39_999)
    position = reader.position()
    assert text[position:].startswith(b'{"n": 40000}\n')
    assert reader.poll(1).values == [b'{"n": 40000}']
    reader.close()
    assert drain(f.open(str(path), position), 50_000)[0] == (position, b'{"n": 40000}')
    assert drain(f.open(str(path), len(text))) == []


def test_a_file_shorter_than_its_snapshot_is_not_the_same_file(path: Path) -> None:
    f = factory(write(path, b"{}\n"))
    with pytest.raises(FatalError, match=r"ends at byte 3, before byte 4 that the snapshot is at"):
        f.open(str(path), 4)


def test_gzip_members_one_after_the_other_and_padding(tmp_path: Path) -> None:
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(b"{1}\n{") + gzip.compress(b"2}\n") + b"\0" * 700)
    assert drain(factory(path).open(str(path), None)) == [(0, b"{1}"), (4, b"{2}")]


def text_of(lines: int) -> bytes:
    return b"".join(b'{"n": %d, "noise": %d}\n' % (i, i * 2_654_435_761 % 4_294_967_296) for i in range(lines))


def read_to_damage(path: Path) -> tuple[list[bytes], str]:
    reader = factory(path).open(str(path), None)
    got: list[bytes] = []
    for _ in range(10_000):
        try:
            chunk = reader.poll(100)
        except FatalError as e:
            with pytest.raises(FatalError):
                reader.poll(100)
            reader.close()
            return got, str(e)
        assert not chunk.finished
        got += chunk.values
    raise AssertionError("no end")


def test_a_gzip_file_cut_short_gives_all_whole_records_then_says_so(tmp_path: Path) -> None:
    text = text_of(30_000)
    packed = gzip.compress(text)
    path = tmp_path / "cut.gz"
    path.write_bytes(packed[: len(packed) // 2])
    got, message = read_to_damage(path)
    lines = text.split(b"\n")
    assert 10_000 < len(got) < 30_000
    assert got == lines[: len(got)]
    assert "is cut short after byte" in message
    assert str(path) in message


def test_a_damaged_gzip_file_gives_all_whole_records_before_the_damage(tmp_path: Path) -> None:
    text = text_of(30_000)
    packed = bytearray(gzip.compress(text))
    packed[-5] ^= 0xFF  # the checksum: all of the text is there, but cannot be verified
    path = tmp_path / "damaged.gz"
    path.write_bytes(packed)
    got, message = read_to_damage(path)
    assert got == text.split(b"\n")[:-1]
    assert "is damaged after byte" in message


def test_rubbish_behind_a_gzip_file_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "tail.gz"
    path.write_bytes(gzip.compress(b"{}\n") + b"rubbish")
    got, message = read_to_damage(path)
    assert got == [b"{}"]
    assert "is damaged" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"stamp,service\n1,a\n", "is not JSON lines: write one JSON object a line, or CSV"),
        (b'[{"a": 1},\n {"b": 2}]', "is one JSON array"),
        (b"[\n]", "is one JSON array"),
        (b"PK\x03\x04....", "is a zip archive"),
        (b"PAR1....", "the Parquet file .* is damaged, cut short or encrypted"),
        (gzip.compress(b"PAR1...."), "is a Parquet file that is packed once more"),
        (b"timestamp,service,service\n", "names the column service twice"),
        (b'timestamp,service,"m\nodel"\n', "not JSON lines"),
        (b"timestamp,1741000000\n", "holds numbers"),
        (b"timestamp," + b"x" * 70_000, "longer than 64 KiB"),
        ("{}\n".encode("utf-16"), "is in UTF-16"),
        (b"\x1f\x8b\x08rubbish rubbish", "is damaged from its start"),
        (b"\x1f\x8b\x08\x00", "is cut short from its start"),
    ],
)
def test_a_file_without_json_lines_is_refused_at_the_start(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "file.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        factory(path)


def test_missing_files_folders_and_doubles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist: name files of JSON lines"):
        factory(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is not a file"):
        factory(tmp_path / "pipe")
    path = write(tmp_path / "a", b"{}\n")
    with pytest.raises(ConfigError, match="named twice"):
        factory(path, path)


def test_a_file_that_goes_away_before_it_is_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"{}\n")
    f = factory(path)
    path.unlink()
    with pytest.raises(FatalError, match="cannot be read"):
        f.open(str(path), None)


def test_partitions_are_the_paths_and_the_identity_knows_the_contents(tmp_path: Path) -> None:
    b, a = write(tmp_path / "b", b"{}\n"), write(tmp_path / "a.gz", b"{}\n")
    f = factory(b, a)
    assert f.partitions() == [str(a), str(b)]
    assert f.origin(str(a)) == (str(a), 0)
    before = f.identity()
    assert factory(a, b).identity() == before
    write(b, b"{1}\n")
    assert factory(a, b).identity() != before


def test_a_closed_reader_cannot_be_polled(tmp_path: Path) -> None:
    path = write(tmp_path / "a", b"{}\n")
    reader = factory(path).open(str(path), None)
    reader.durable(0)
    reader.close()
    with pytest.raises(ValueError, match="closed"):
        reader.poll(1)


def test_a_zstd_file_cut_short_or_damaged_gives_whole_records_then_says_so(tmp_path: Path) -> None:
    text = text_of(100_000)
    packed = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    damaged = bytearray(packed)
    damaged[-1] ^= 0xFF
    for name, content, what in (("cut", packed[: len(packed) // 2], "cut short"), ("damaged", damaged, "damaged")):
        path = tmp_path / f"{name}.zst"
        path.write_bytes(content)
        got, message = read_to_damage(path)
        assert len(got) > 10_000
        assert got == text.split(b"\n")[: len(got)]
        assert f"the zstd file {path} is {what} after byte" in message


def test_zstd_frames_without_text_may_stand_between_those_with_text(tmp_path: Path) -> None:
    frame = b"\x53\x2a\x4d\x18\x04\x00\x00\x00abcd"
    path = tmp_path / "parallel.zst"
    path.write_bytes(frame + zstandard.compress(b"{1}\n{") + frame + zstandard.compress(b"2}"))
    assert drain(factory(path).open(str(path), None)) == [(0, b"{1}"), (4, b"{2}")]


def test_a_bomb_of_zstd_does_not_fill_memory(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.zst", b"{" + b"x" * (64 << 20))
    reader = factory(path).open(str(path), None)
    tracemalloc.start()
    try:
        ((offset, value),) = drain(reader)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (offset, len(value)) == (0, LIMIT + 1)
    assert peak < 40 << 20


def test_a_waiting_file_holds_little(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", text_of(100_000))
    f = factory(path)
    tracemalloc.start()
    try:
        readers = [f.open(str(path), None) for _ in range(50)]
        assert all(len(reader.poll(20_000).values) == 1 for reader in readers)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        for reader in readers:
            reader.close()
    assert held < 50 * (64 << 10)


def test_folders_are_told_with_their_number_of_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("b.jsonl", "a.jsonl"):
        write(tmp_path / name, b"{}\n")
    with caplog.at_level(logging.INFO):
        assert factory(tmp_path).partitions() == [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    assert f"2 files of events, with those in {tmp_path}" in caplog.text
    with pytest.raises(ConfigError, match="named twice"):
        factory(tmp_path, tmp_path / "a.jsonl")


def test_more_files_than_a_process_may_open_are_refused(tmp_path: Path) -> None:
    for n in range(80):
        write(tmp_path / f"{n}.jsonl", b"{}\n")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (140, before[1]))
    try:
        with pytest.raises(ConfigError, match=r"80 files .* may open 140 files: raise that \(ulimit -n 224\)"):
            factory(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
