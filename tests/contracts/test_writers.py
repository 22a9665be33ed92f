"""The laws of writers, for each sink of the registry and for a simple one in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from bytewax.outputs import StatefulSinkPartition
from hypothesis import example, given, settings
from hypothesis import strategies as st

from connectors.base import Guarantee, State, Writer
from connectors.channel import sink_of
from connectors.config import ReliabilityConfig
from connectors.registry import ALERTS, DEAD_LETTERS, STORES
from operators.stored import Stored
from tests.connectors.samples import Clock
from tests.contracts.systems import Maker, System, memories


@dataclass(frozen=True)
class Law:
    """A sink under the laws: a context that gives a maker of its empty systems, and its guarantee."""

    systems: Callable[[], AbstractContextManager[Maker]]
    guarantee: Guarantee


SYSTEMS: dict[str, Law] = {"memory": Law(memories, "exactly_once")} | {
    name: Law(import_module(f"tests.connectors.test_{name}").systems, sink.guarantee)
    for sinks in (STORES, ALERTS, DEAD_LETTERS)
    for name, sink in sinks.items()
}
"""The sink in memory, and every sink of the registry with the systems of its test."""
SLOW = {"kafka"}
"""Sinks whose writers take a quarter of a second to open."""
ONCE = [name for name, law in SYSTEMS.items() if law.guarantee == "exactly_once"]
Empty = Callable[[str], AbstractContextManager[System]]


@contextmanager
def emptied() -> Iterator[Empty]:
    """A maker of empty systems by name; the broker or server of a system is started once."""
    with ExitStack() as started:
        makers: dict[str, Maker] = {}

        @contextmanager
        def make(name: str) -> Iterator[System]:
            if name not in makers:
                makers[name] = started.enter_context(SYSTEMS[name].systems())
            with tempfile.TemporaryDirectory() as folder:
                system = makers[name](Path(folder))
                yield system
                system.close()

        yield make


@pytest.fixture(scope="module")
def empty() -> Iterator[Empty]:
    with emptied() as make:
        yield make


class Process:
    """A process with one open partition; `kill` ends it without a flush."""

    def __init__(
        self,
        name: str,
        system: System,
        state: State | None = None,
        at_once: bool = True,
        trouble: int = 0,
        **config: Any,
    ) -> None:
        self.writers: list[Writer[Any]] = []
        self.inner = system.factory()
        self.name = self.inner.name
        self.rejected: list[object] = []
        self.clock = Clock()
        reliability = ReliabilityConfig.model_validate({"chunk_rows": 1000, **config})
        self.sink = sink_of(
            SYSTEMS[name].guarantee,
            self,
            reliability,
            at_once=at_once,
            clock=self.clock,
            rejected=lambda sink, item, e: self.rejected.append(item),
        )
        partition = self.inner.partitions()[0]
        if trouble and system.fails == "opening":
            self.clock.on_sleep = system.trouble(trouble)
        self.part: StatefulSinkPartition[Any, Stored] = self.sink.build_part("step", partition, state)
        if trouble and system.fails == "writing":
            self.clock.on_sleep = system.trouble(trouble)

    def partitions(self) -> list[str]:
        return self.inner.partitions()

    def route(self, key: str) -> int:
        return self.inner.route(key)

    def open(self, partition: str, resume: State | None) -> Writer[Any]:
        self.writers.append(self.inner.open(partition, resume))
        return self.writers[-1]

    def ask(self) -> str:
        return self.inner.ask()

    def kill(self) -> None:
        for writer in self.writers:
            writer.close()  # a writer flushes nothing when it closes, unlike a partition


numbers = st.lists(st.integers(0, 30), max_size=25)
chunks = st.integers(1, 7)
laws = settings(max_examples=12, deadline=None)


@pytest.mark.parametrize("name", ONCE)
@laws
@given(items=numbers)
def test_writing_twice_equals_once(name: str, items: list[int], empty: Empty) -> None:
    with empty(name) as system:
        process = Process(name, system)
        process.part.write_batch([system.good(n) for n in items])
        once = system.contents()
        process.part.write_batch([system.good(n) for n in items])
        process.part.close()
        assert system.contents() == once == system.expected([system.good(n) for n in items])


@pytest.mark.parametrize("name", SYSTEMS)
@laws
@given(items=st.lists(st.integers(0, 30), unique=True, max_size=25), size=chunks, batch=chunks, at_once=st.booleans())
def test_any_chunking_gives_the_same(
    name: str, items: list[int], size: int, batch: int, at_once: bool, empty: Empty
) -> None:
    with empty(name) as system:
        process = Process(name, system, at_once=at_once, chunk_rows=size)
        for low in range(0, len(items), batch):
            process.part.write_batch([system.good(n) for n in items[low : low + batch]])
        process.part.close()
        assert system.contents() == system.expected([system.good(n) for n in items])


Life = tuple[list[tuple[int, bool]], bool, bool]
SECOND_CRASH: list[Life] = [([(3, False)], False, False), ([(1, True)], False, False)]
"""A second crash before the second item is replayed."""
ANOTHER_ORDER: list[Life] = [([(4, False)], False, False), ([(4, False)], False, True)]
"""A replay in another order."""
life = st.tuples(st.lists(st.tuples(st.integers(1, 4), st.booleans()), max_size=6), st.booleans(), st.booleans())


@pytest.mark.parametrize("name", [name for name in ONCE if name not in SLOW])
@settings(max_examples=30, deadline=None)
@given(lives=st.lists(life, max_size=5), at_once=st.booleans())
@example(lives=SECOND_CRASH, at_once=True)
@example(lives=ANOTHER_ORDER, at_once=True)
def test_kills_and_replays_leave_each_item_once(name: str, lives: list[Life], at_once: bool, empty: Empty) -> None:
    kill_and_replay(name, lives, at_once, empty)


@pytest.mark.parametrize("name", [name for name in ONCE if name in SLOW])
@settings(max_examples=4, deadline=None)
@given(lives=st.lists(life, max_size=3), at_once=st.booleans())
@example(lives=SECOND_CRASH, at_once=True)
@example(lives=ANOTHER_ORDER, at_once=True)
def test_kills_and_replays_leave_each_item_once_on_a_broker(
    name: str, lives: list[Life], at_once: bool, empty: Empty
) -> None:
    kill_and_replay(name, lives, at_once, empty)


def kill_and_replay(name: str, lives: list[Life], at_once: bool, empty: Empty) -> None:
    """Each life writes batches in one of two orders, stores a snapshot after some of them, and is killed, sometimes
    after a snapshot that is not stored. A last life writes the rest."""
    count = 20
    with empty(name) as system:
        stored: tuple[int, State | None] = (0, None)
        seen: list[object] = []
        for batches, unstored, backwards in [*lives, ([(count, True)], False, False)]:
            at, state = stored
            process = Process(name, system, state, at_once)
            for size, snapshot in batches:
                batch = [system.good(n) for n in range(at, min(at + size, count))]
                process.part.write_batch(batch[::-1] if backwards else batch)
                at = min(at + size, count)
                if snapshot:
                    stored = (at, process.part.snapshot())
            if unstored:
                process.part.snapshot()
            process.kill()
            if name not in STORES:  # a record that a reader has seen keeps its place
                assert system.contents()[: len(seen)] == seen
                seen = system.contents()
        expected = system.expected([system.good(n) for n in range(count)])
        assert sorted(system.contents(), key=repr) == sorted(expected, key=repr)


@pytest.mark.parametrize("name", SYSTEMS)
@laws
@given(tries=st.integers(1, 6), items=st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=8))
def test_a_neighbour_that_fails_for_a_while_loses_nothing(
    name: str, tries: int, items: list[int], empty: Empty
) -> None:
    with empty(name) as system:
        process = Process(name, system, trouble=tries)
        process.part.write_batch([system.good(n) for n in items])
        process.part.close()
        assert process.rejected == []
        assert system.contents() == system.expected([system.good(n) for n in items])


@pytest.mark.parametrize("name", SYSTEMS)
@laws
@given(items=st.lists(st.integers(0, 30), unique=True, max_size=12), at=st.integers(0, 12), size=chunks)
def test_a_bad_item_is_rejected_once_and_the_good_ones_are_written(
    name: str, items: list[int], at: int, size: int, empty: Empty
) -> None:
    with empty(name) as system:
        process = Process(name, system, chunk_rows=size)
        good = [system.good(n) for n in items]
        bad = system.bad()
        process.part.write_batch([*good[:at], bad, *good[at:]])
        process.part.close()
        assert process.rejected == [bad]
        assert system.contents() == system.expected(good)


@pytest.mark.parametrize("name", SYSTEMS)
@given(keys=st.lists(st.text(), max_size=20))
@settings(max_examples=10, deadline=None)
def test_keys_go_to_partitions_the_same_way_in_every_process(name: str, keys: list[str], empty: Empty) -> None:
    with empty(name) as system:
        first, second = system.factory(), system.factory()
        assert first.partitions() == second.partitions() == sorted(first.partitions())
        assert [first.route(key) for key in keys] == [second.route(key) for key in keys]
        assert all(0 <= first.route(key) < len(first.partitions()) for key in keys)


@pytest.mark.parametrize("name", ONCE)
@laws
@given(items=st.lists(st.integers(0, 30), unique=True, max_size=25), first=st.integers(0, 25))
def test_what_the_last_epoch_wrote_may_come_again(name: str, items: list[int], first: int, empty: Empty) -> None:
    """This happens if a finished run is started again: items from the end of its source are in no snapshot."""
    with empty(name) as system:
        process = Process(name, system)
        process.part.write_batch([system.good(n) for n in items[:first]])
        process.part.snapshot()
        process.part.write_batch([system.good(n) for n in items[first:]])
        state = process.part.snapshot()
        process.kill()
        again = Process(name, system, state)
        again.part.write_batch([system.good(n) for n in items[first:]])
        again.part.close()
        assert system.contents() == system.expected([system.good(n) for n in items])
