"""The laws that every writer keeps: each connector of the registry, and one in memory that keeps them plainly."""

from __future__ import annotations

import fcntl
import itertools
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.base import Message, Row, State, Writer, WriterFactory
from connectors.config import GreptimeConfig, JsonlConfig, ReliabilityConfig, SqliteConfig, TerminalConfig
from connectors.greptime.writer import GreptimeFactory
from connectors.jsonl import JsonlFactory
from connectors.once import Once
from connectors.registry import ALERTS, STORES
from connectors.reliable import ReliablePartition, ReliableSink
from connectors.sqlite import SqliteFactory, read
from connectors.tables import TABLES
from connectors.terminal import TerminalFactory
from operators.errors import DataError, RetryableError
from tests.connectors.greptime_server import GreptimeServer
from tests.connectors.samples import Clock, alert, alert_store_row, as_dict, expectation_row, key_of, pane_row

Factory = WriterFactory[Any]


class System(Protocol):
    """One system to write to, empty at first, and what stands in it."""

    def factory(self) -> Factory: ...

    def good(self, number: int) -> object:
        """The item of this number; equal numbers, equal keys."""
        ...

    def bad(self) -> object:
        """An item that it refuses."""
        ...

    def contents(self) -> list[object]:
        """What a reader finds, in the order it is in (stores: by key)."""
        ...

    def expected(self, items: Sequence[Any]) -> list[object]:
        """What a reader must find when these were written in this order, each at least once."""
        ...

    def trouble(self, tries: int) -> Callable[[], None]:
        """Make it fail; it works again once the result was called `tries` times (between tries)."""
        ...


class Rows:
    """What the stores have in common: rows that replace each other by key."""

    def good(self, number: int) -> Row:
        if number % 3 == 1:
            return expectation_row(f"service={number % 5}", number // 5 % 3, latency_expected=number / 2)
        if number % 3:
            return pane_row(f"service={number % 5}", pane=number // 5 % 3, requests=number, latency_p50=number / 2)
        return alert_store_row(f"alert-{number}", score=number / 7)

    def bad(self) -> object:
        return pane_row("service=bad", requests="many")

    def expected(self, items: Sequence[Row]) -> list[object]:
        last = {key_of(row): as_dict(row) for row in items}
        return [last[key] for key in sorted(last, key=repr)]


def ordered(tables: dict[str, list[dict[str, object]]]) -> list[object]:
    rows = [Row(t, tuple(r[c.name] for c in TABLES[t].columns)) for t, found in tables.items() for r in found]
    return [as_dict(row) for row in sorted(rows, key=lambda row: repr(key_of(row)))]


class SqliteSystem(Rows):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"

    def factory(self) -> Factory:
        return SqliteFactory(SqliteConfig(path=self.path, busy_timeout_s=0))

    def contents(self) -> list[object]:
        return ordered({name: read(self.path, f"SELECT * FROM {name}") for name in TABLES})

    def trouble(self, tries: int) -> Callable[[], None]:
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        return after(tries, other.close)


class GreptimeSystem(Rows):
    def __init__(self, server: GreptimeServer) -> None:
        self.server = server
        server.tables.clear()

    def factory(self) -> Factory:
        return GreptimeFactory(GreptimeConfig(endpoint=self.server.endpoint, timeout_s=2, partitions=1))

    def contents(self) -> list[object]:
        return ordered({name: list(rows.values()) for name, rows in self.server.tables.items()})

    def trouble(self, tries: int) -> Callable[[], None]:
        self.server.fail(grpc.StatusCode.UNAVAILABLE, 1_000_000)
        return after(tries, lambda: self.server.fail(grpc.StatusCode.UNAVAILABLE, 0))


class Alerts:
    """What the sinks of alerts have in common: records, each once, in order."""

    def good(self, number: int) -> Message:
        return alert(number)

    def bad(self) -> object:
        return Message("bad", "bad", {}, b"not\njson")

    def expected(self, items: Sequence[Message]) -> list[object]:
        return list(dict.fromkeys(item.id for item in items))


class JsonlSystem(Alerts):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "alerts.jsonl"

    def factory(self) -> Factory:
        return JsonlFactory(JsonlConfig(path=self.path))

    def contents(self) -> list[object]:
        return [orjson.loads(line)["alert_id"] for line in self.path.read_bytes().splitlines()]

    def trouble(self, tries: int) -> Callable[[], None]:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return after(tries, lambda: os.close(fd))


class TerminalSystem(Alerts):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "screen"
        self.path.touch()
        self.stream = self.path.open("a", buffering=1)

    def factory(self) -> Factory:
        return TerminalFactory(TerminalConfig(width=500), self.stream)

    def good(self, number: int) -> Message:
        return alert(number, text=f"alert-{number}")

    def contents(self) -> list[object]:
        return [line.split()[-1] for line in self.path.read_text().splitlines()]

    def trouble(self, tries: int) -> Callable[[], None]:
        return after(tries, lambda: None)  # it knows no passing fault


class Memory(Alerts):
    """A topic in memory, written once by the rules of `Once`; the plainest writer there is."""

    name = "memory"

    def __init__(self) -> None:
        self.topic: list[str] = []
        self.failing = False

    def factory(self) -> Factory:
        return self

    def partitions(self) -> list[str]:
        return ["memory"]

    def route(self, key: str) -> int:
        return 0

    def open(self, partition: str, resume: State | None) -> MemoryWriter:
        return MemoryWriter(self, resume)

    def contents(self) -> list[object]:
        return list(self.topic)

    def trouble(self, tries: int) -> Callable[[], None]:
        self.failing = True

        def end() -> None:
            self.failing = False

        return after(tries, end)


class MemoryWriter:
    def __init__(self, memory: Memory, resume: State | None) -> None:
        self.memory = memory
        self.once = Once.load(resume)
        for end, item in enumerate(memory.topic[self.once.end :], self.once.end + 1):
            self.once.saw(item, end)

    def write(self, items: Sequence[Message]) -> None:
        if self.memory.failing:
            raise RetryableError("told to fail")
        if any(item.id == "bad" for item in items):
            raise DataError("bad_row", "told to refuse")
        self.memory.topic += [item.id for item in self.once.fresh(items)]
        self.once.wrote(items, len(self.memory.topic))

    def snapshot(self) -> State | None:
        return self.once.state()

    def close(self) -> None:
        pass


def after(tries: int, then: Callable[[], None]) -> Callable[[], None]:
    """Calls `then` at the call of this number."""
    count = itertools.count(1)

    def tick() -> None:
        if next(count) == tries:
            then()

    return tick


@dataclass(frozen=True)
class Law:
    """A connector under the laws: how to make an empty system of it, and whether its readers see each item once."""

    make: Callable[[Path, GreptimeServer], System]
    once: bool


SYSTEMS: dict[str, Law] = {
    "sqlite": Law(lambda folder, server: SqliteSystem(folder), True),
    "greptime": Law(lambda folder, server: GreptimeSystem(server), True),
    "jsonl": Law(lambda folder, server: JsonlSystem(folder), True),
    "terminal": Law(lambda folder, server: TerminalSystem(folder), False),
    "memory": Law(lambda folder, server: Memory(), True),
}
ONCE = [name for name, law in SYSTEMS.items() if law.once]


def test_the_laws_meet_every_registered_writer() -> None:
    once = {name: entry.once for name, entry in STORES.items()} | {name: entry.once for name, entry in ALERTS.items()}
    assert once.items() <= {name: law.once for name, law in SYSTEMS.items()}.items()


@pytest.fixture(scope="module")
def server() -> Iterator[GreptimeServer]:
    s = GreptimeServer()
    yield s
    s.stop()


@contextmanager
def empty(name: str, server: GreptimeServer) -> Iterator[System]:
    with tempfile.TemporaryDirectory() as folder:
        system = SYSTEMS[name].make(Path(folder), server)
        yield system
        if isinstance(system, TerminalSystem):
            system.stream.close()


class Process:
    """A process with one open partition; `kill` ends it without a word."""

    def __init__(self, system: System, state: State | None = None, at_once: bool = True, **config: Any) -> None:
        self.writers: list[Writer[Any]] = []
        self.inner = system.factory()
        self.name = self.inner.name
        self.rejected: list[object] = []
        self.clock = Clock()
        reliability = ReliabilityConfig.model_validate({"chunk_rows": 1000, **config})
        self.sink: ReliableSink[Any] = ReliableSink(
            self,
            reliability,
            at_once=at_once,
            clock=self.clock,
            rejected=lambda sink, item, e: self.rejected.append(item),
        )
        self.part: ReliablePartition[Any] = self.sink.build_part("step", self.inner.partitions()[0], state)

    def partitions(self) -> list[str]:
        return self.inner.partitions()

    def route(self, key: str) -> int:
        return self.inner.route(key)

    def open(self, partition: str, resume: State | None) -> Writer[Any]:
        self.writers.append(self.inner.open(partition, resume))
        return self.writers[-1]

    def kill(self) -> None:
        for writer in self.writers:
            writer.close()  # of the writer, which flushes nothing; that of the partition would


numbers = st.lists(st.integers(0, 30), max_size=25)
chunks = st.integers(1, 7)
laws = settings(max_examples=12, deadline=None)


@pytest.mark.parametrize("name", ONCE)
@laws
@given(items=numbers)
def test_writing_twice_equals_once(name: str, items: list[int], server: GreptimeServer) -> None:
    with empty(name, server) as system:
        process = Process(system)
        process.part.write_batch([system.good(n) for n in items])
        once = system.contents()
        process.part.write_batch([system.good(n) for n in items])
        process.part.close()
        assert system.contents() == once == system.expected([system.good(n) for n in items])


@pytest.mark.parametrize("name", SYSTEMS)
@laws
@given(items=st.lists(st.integers(0, 30), unique=True, max_size=25), size=chunks, batch=chunks, at_once=st.booleans())
def test_any_chunking_gives_the_same(
    name: str, items: list[int], size: int, batch: int, at_once: bool, server: GreptimeServer
) -> None:
    with empty(name, server) as system:
        process = Process(system, at_once=at_once, chunk_rows=size)
        for low in range(0, len(items), batch):
            process.part.write_batch([system.good(n) for n in items[low : low + batch]])
        process.part.close()
        assert system.contents() == system.expected([system.good(n) for n in items])


life = st.tuples(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=6), st.booleans(), st.booleans())


@pytest.mark.parametrize("name", ONCE)
@settings(max_examples=30, deadline=None)
@given(lives=st.lists(life, max_size=5), at_once=st.booleans())
@example(lives=[([(3, False)], False, False), ([(1, True)], False, False)], at_once=True)  # a second crash, before 2
@example(lives=[([(4, False)], False, False), ([(4, False)], False, True)], at_once=True)  # a replay in another order
def test_kills_and_replays_leave_each_item_once(
    name: str, lives: list[tuple[list[tuple[int, bool]], bool, bool]], at_once: bool, server: GreptimeServer
) -> None:
    """Each life writes batches of some size, in one of two orders, stores a snapshot after some of them, and dies, some
    after a snapshot that did not get stored."""
    count = 20
    with empty(name, server) as system:
        stored: tuple[int, State | None] = (0, None)
        seen: list[object] = []
        for batches, unstored, backwards in [*lives, ([(count, True)], False, False)]:
            at, state = stored
            process = Process(system, state, at_once)
            for size, snapshot in batches:
                batch = [system.good(n) for n in range(at, min(at + size, count))]
                process.part.write_batch(batch[::-1] if backwards else batch)
                at = min(at + size, count)
                if snapshot:
                    stored = (at, process.part.snapshot())
            if unstored:
                process.part.snapshot()
            process.kill()
            if isinstance(system, Alerts):  # what a reader has seen stays where it is
                assert system.contents()[: len(seen)] == seen
                seen = system.contents()
        expected = system.expected([system.good(n) for n in range(count)])
        assert sorted(system.contents(), key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize("name", SYSTEMS)
@laws
@given(tries=st.integers(1, 6), items=st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=8))
def test_a_neighbour_that_fails_for_a_while_loses_nothing(
    name: str, tries: int, items: list[int], server: GreptimeServer
) -> None:
    with empty(name, server) as system:
        if name == "jsonl":  # its only passing fault is a predecessor that still holds the file
            tick = system.trouble(tries)
            with pytest.raises(RetryableError):
                system.factory().open("jsonl", None)
            for _ in range(tries):
                tick()
            process = Process(system)
        else:
            process = Process(system)
            process.clock.on_sleep = system.trouble(tries)
        process.part.write_batch([system.good(n) for n in items])
        process.part.close()
        assert process.rejected == []
        assert system.contents() == system.expected([system.good(n) for n in items])


@pytest.mark.parametrize("name", SYSTEMS)
@laws
@given(items=st.lists(st.integers(0, 30), unique=True, max_size=12), at=st.integers(0, 12), size=chunks)
def test_a_bad_item_is_rejected_once_and_the_good_ones_are_written(
    name: str, items: list[int], at: int, size: int, server: GreptimeServer
) -> None:
    with empty(name, server) as system:
        process = Process(system, chunk_rows=size)
        good = [system.good(n) for n in items]
        bad = system.bad()
        process.part.write_batch([*good[:at], bad, *good[at:]])
        process.part.close()
        assert process.rejected == [bad]
        assert system.contents() == system.expected(good)


@pytest.mark.parametrize("name", SYSTEMS)
@given(keys=st.lists(st.text(), max_size=20))
@settings(max_examples=10, deadline=None)
def test_keys_go_to_partitions_the_same_way_in_every_process(
    name: str, keys: list[str], server: GreptimeServer
) -> None:
    with empty(name, server) as system:
        first, second = system.factory(), system.factory()
        assert first.partitions() == second.partitions() == sorted(first.partitions())
        assert [first.route(key) for key in keys] == [second.route(key) for key in keys]
        assert all(0 <= first.route(key) < len(first.partitions()) for key in keys)


@pytest.mark.parametrize("name", ONCE)
@laws
@given(items=st.lists(st.integers(0, 30), unique=True, max_size=25), first=st.integers(0, 25))
def test_what_the_last_epoch_wrote_may_come_again(
    name: str, items: list[int], first: int, server: GreptimeServer
) -> None:
    """So it does where a finished run is started once more: what the end of its source brings is in no snapshot."""
    with empty(name, server) as system:
        process = Process(system)
        process.part.write_batch([system.good(n) for n in items[:first]])
        process.part.snapshot()
        process.part.write_batch([system.good(n) for n in items[first:]])
        state = process.part.snapshot()
        process.kill()
        again = Process(system, state)
        again.part.write_batch([system.good(n) for n in items[first:]])
        again.part.close()
        assert system.contents() == system.expected([system.good(n) for n in items])
