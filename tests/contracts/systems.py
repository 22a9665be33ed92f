"""Systems for the laws of writers: how to fill an empty one, how to disturb it, and what it must hold.

The system of each registered sink is in the test of the sink, `tests/connectors/test_<sink>.py`, whose `systems` is a
context that gives a maker of empty ones. This module holds their common parts, and a topic in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

from connectors.base import Message, Row, State, WriterFactory
from connectors.once import Once
from connectors.tables import TABLES
from operators.errors import DataError, RetryableError
from tests.connectors.samples import alert, alert_store_row, as_dict, expectation_row, key_of, pane_row

Factory = WriterFactory[Any]


class System(Protocol):
    """One system to write to, empty at first."""

    def factory(self) -> Factory: ...

    def good(self, number: int) -> object:
        """The item of this number; equal numbers have equal keys."""
        ...

    def bad(self) -> object:
        """An item that the system refuses."""
        ...

    def contents(self) -> list[object]:
        """The items that a reader finds, in the order of the system (of a store: by key)."""
        ...

    def expected(self, items: Sequence[Any]) -> list[object]:
        """The items that a reader must find after these were written in this order, each at least once."""
        ...

    @property
    def fails(self) -> Literal["opening", "writing"]:
        """The action that `trouble` makes fail."""
        ...

    def trouble(self, tries: int) -> Callable[[], None]:
        """Make the system fail until the returned function was called `tries` times (once between two tries)."""
        ...

    def close(self) -> None:
        """Release the resources of the system after a law."""
        ...


class Rows:
    """The common part of stores: rows replace each other by key."""

    fails: Literal["opening", "writing"] = "writing"

    def close(self) -> None: ...

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


class Alerts:
    """The common part of sinks of alerts: each record is there once, in order."""

    fails: Literal["opening", "writing"] = "writing"

    def close(self) -> None: ...

    def good(self, number: int) -> Message:
        return alert(number)

    def bad(self) -> object:
        return Message("bad", "bad", {}, b"not\njson")

    def expected(self, items: Sequence[Message]) -> list[object]:
        return list(dict.fromkeys(item.id for item in items))


class Memory(Alerts):
    """A topic in memory whose writer is as simple as possible: it writes each item once by the rules of `Once`."""

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

    def ask(self) -> str:
        return "it is there"

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
    """A function that calls `then` when it is called for the `tries`-th time."""
    count = itertools.count(1)

    def tick() -> None:
        if next(count) == tries:
            then()

    return tick


Maker = Callable[[Path], System]
"""Makes an empty system in its own folder."""


@contextmanager
def memories() -> Iterator[Maker]:
    """A maker of systems in memory."""
    yield lambda folder: Memory()
