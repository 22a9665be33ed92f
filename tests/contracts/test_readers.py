"""The laws of readers, for each source of the registry on a small finite input."""

from __future__ import annotations

import gzip
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from connectors.base import Reader, ReaderFactory
from connectors.config import FilesConfig
from connectors.files.source import FilesFactory
from connectors.kafka.config import KafkaConfig
from connectors.kafka.source import KafkaSource
from connectors.registry import SOURCES
from connectors.simulation.config import SimulatorConfig
from connectors.simulator import Simulator
from tests.brokers import create_topic, produce, tansu_broker

Record = tuple[int, bytes]
LINES = b"".join(b'{"n": %d}\r\n\n' % n for n in range(200)) + b'{"last": "without a newline"}'


ROWS = b"timestamp,service\r\n" + b"".join(b'%d,"a,\n\n""%d"\n\n%d,b\n' % (n, n, n) for n in range(100)) + b"1,last"


def files(folder: Path) -> ReaderFactory:
    (folder / "a.jsonl").write_bytes(LINES)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(LINES[:900]) + gzip.compress(LINES[900:]))
    (folder / "c.jsonl.zst").write_bytes(zstandard.compress(LINES[:900]) + zstandard.compress(LINES[900:]))
    (folder / "d.csv").write_bytes(ROWS)
    (folder / "e.csv.gz").write_bytes(gzip.compress(ROWS))
    rows = pa.table({"timestamp": list(range(500)), "service": ["chat"] * 500})
    parquet.write_table(rows, folder / "f.parquet", row_group_size=70)
    return FilesFactory(FilesConfig(paths=(folder,)), 1_000)


def simulator(folder: Path) -> ReaderFactory:
    return Simulator(SimulatorConfig(hours=0.1, rate=1))


@contextmanager
def kafka(folder: Path) -> Iterator[ReaderFactory]:
    broker = tansu_broker(folder)
    broker.start()
    create_topic(broker, "readers", 2)
    for number in range(2):
        produce(broker, "readers", [b'{"n": %d}' % n for n in range(40)], number)
    yield KafkaSource(KafkaConfig(brokers=broker.address, topics=("readers",), stop_at_end=True))
    broker.kill()


MAKERS: dict[str, Callable[[Path], AbstractContextManager[ReaderFactory]]] = {
    "files": lambda folder: nullcontext(files(folder)),
    "simulator": lambda folder: nullcontext(simulator(folder)),
    "kafka": kafka,
}


def test_the_laws_meet_every_registered_source() -> None:
    assert SOURCES.keys() <= MAKERS.keys()


@pytest.fixture(params=MAKERS, scope="module")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReaderFactory]:
    with MAKERS[str(request.param)](tmp_path_factory.mktemp("source")) as made:
        yield made


def take(reader: Reader, sizes: list[int]) -> tuple[list[Record], bool]:
    """The records of polls of these sizes, and whether the reader finished."""
    out: list[Record] = []
    for size in sizes:
        chunk = reader.poll(size)
        assert len(chunk.values) == len(chunk.offsets) <= size
        assert chunk.arrivals is None or len(chunk.arrivals) == len(chunk.values)
        out += zip(chunk.offsets.tolist(), chunk.values, strict=True)
        if chunk.finished:
            return out, True
    return out, False


def take_rest(reader: Reader, size: int = 1_000) -> list[Record]:
    """The records of polls of this size until the reader finishes; a broker may need some time for each answer."""
    out: list[Record] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        records, finished = take(reader, [size])
        out += records
        if finished:
            return out
        if not records:
            time.sleep(0.002)
    raise AssertionError(f"not finished after {len(out)} records")


def everything(source: ReaderFactory, partition: str, position: int | None = None) -> list[Record]:
    reader = source.open(partition, position)
    out = take_rest(reader)
    reader.close()
    return out


def test_partitions_are_sorted_and_stable_and_have_an_origin(source: ReaderFactory) -> None:
    partitions = source.partitions()
    assert partitions == sorted(set(partitions)) == source.partitions()
    assert len({source.origin(p) for p in partitions}) == len(partitions)
    assert source.identity() == source.identity() != ""
    assert pickle.loads(pickle.dumps(source.identity())) == source.identity()


def test_offsets_ascend_and_the_end_stays_the_end(source: ReaderFactory) -> None:
    for partition in source.partitions():
        records = everything(source, partition)
        offsets = [offset for offset, _ in records]
        assert len(records) > 10
        assert offsets == sorted(set(offsets))
        reader = source.open(partition, None)
        take_rest(reader)
        for _ in range(2):
            chunk = reader.poll(5)
            assert (chunk.values, chunk.finished) == ([], True)
        end = reader.position()
        reader.close()
        assert end > offsets[-1]
        assert everything(source, partition, end) == []


def test_every_record_can_be_opened_at_by_its_offset(source: ReaderFactory) -> None:
    for partition in source.partitions():
        whole = everything(source, partition)
        for i in (0, 1, len(whole) // 2, len(whole) - 2, len(whole) - 1):
            assert everything(source, partition, whole[i][0]) == whole[i:]


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(1, 40), max_size=30), rest=st.integers(1, 300))
def test_any_polls_give_the_same_records_and_a_position_goes_on_after_the_last(
    source: ReaderFactory, sizes: list[int], rest: int
) -> None:
    for partition in source.partitions():
        whole = everything(source, partition)
        reader = source.open(partition, None)
        first, finished = take(reader, sizes)
        assert first == whole[: len(first)]
        position = reader.position()
        reader.durable(position)
        assert everything(source, partition, position) == whole[len(first) :]
        if not finished:
            assert first + take_rest(reader, rest) == whole
        reader.close()
