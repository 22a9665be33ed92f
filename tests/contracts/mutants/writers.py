"""Writers and sinks with one bug each: wrappers of a correct writer, and replacements of a method of the sink."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from connectors.base import State
from connectors.once import Once
from connectors.reliable import VERSION, ReliablePartition
from operators.errors import DataError, RetryableError
from operators.stored import Stored, stored
from tests.connectors.samples import key_of


class Around:
    """A wrapper that passes everything on to its writer; `system` is the system that the writer writes to."""

    def __init__(self, writer: Any, system: Any) -> None:
        self.writer = writer
        self.system = system

    def write(self, items: Sequence[Any]) -> None:
        self.writer.write(items)

    def snapshot(self) -> State | None:
        state: State | None = self.writer.snapshot()
        return state

    def close(self) -> None:
        self.writer.close()


class MutantSystem:
    """A system whose factory opens mutants; all else is that of the inner system."""

    def __init__(self, system: Any, mutant: Callable[[Any, Any], Around], routes: Callable[[], int]) -> None:
        self._system, self._mutant, self._routes = system, mutant, routes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._system, name)

    def factory(self) -> Any:
        return _Factory(self._system, self._mutant, self._routes)


class _Factory:
    def __init__(self, system: Any, mutant: Callable[[Any, Any], Around], routes: Callable[[], int]) -> None:
        self._inner, self._system, self._mutant, self._routes = system.factory(), system, mutant, routes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def route(self, key: str) -> int:
        return self._routes()

    def open(self, partition: str, resume: State | None) -> Around:
        return self._mutant(self._inner.open(partition, resume), self._system)


class AppendsThenFails(Around):
    def write(self, items: Sequence[Any]) -> None:
        try:
            self.writer.write(items)
        except RetryableError:
            self.system.topic += [item.id for item in items]
            raise


class SwallowsAFailure(Around):
    def write(self, items: Sequence[Any]) -> None:
        with suppress(RetryableError):
            self.writer.write(items)


class SwallowsARefusal(Around):
    def write(self, items: Sequence[Any]) -> None:
        with suppress(DataError):
            self.writer.write(items)


class TriesABadItemAgain(Around):
    def write(self, items: Sequence[Any]) -> None:
        try:
            self.writer.write(items)
        except DataError as error:
            raise RetryableError(str(error)) from error


class LosesTheItemAfterARefusedOne(Around):
    lost = False

    def write(self, items: Sequence[Any]) -> None:
        if self.lost:
            items, self.lost = items[1:], False
        try:
            self.writer.write(items)
        except DataError:
            self.lost = len(items) == 1
            raise


class RemembersBeforeItIsWritten(Around):
    def write(self, items: Sequence[Any]) -> None:
        try:
            self.writer.write(items)
        except RetryableError:
            self.writer.once.wrote(items, self.writer.once.end)
            raise


class KeepsTheLastItemBack(Around):
    def __init__(self, writer: Any, system: Any) -> None:
        super().__init__(writer, system)
        self._kept: list[Any] = []

    def write(self, items: Sequence[Any]) -> None:
        items = [*self._kept, *items]
        self.writer.write(items[:-1])
        self._kept = items[-1:]


class ReversesEachWrite(Around):
    def write(self, items: Sequence[Any]) -> None:
        self.writer.write(items[::-1])


class ReadsNothingBack(Around):
    def __init__(self, writer: Any, system: Any) -> None:
        super().__init__(writer, system)
        writer.once = Once()


class SkipsByCount(Around):
    """Skips as many items as were read back, without a look at their ids."""

    def __init__(self, writer: Any, system: Any) -> None:
        super().__init__(writer, system)
        self._skip = len(writer.once.state()[2])
        writer.once = Once(len(system.topic))

    def write(self, items: Sequence[Any]) -> None:
        skipped = min(self._skip, len(items))
        self._skip -= skipped
        self.writer.write(items[skipped:])


class SavesNoIds(Around):
    def snapshot(self) -> State | None:
        version, end, _, log = self.writer.snapshot()
        return version, end, (), log


class SavesAPositionTooFar(Around):
    def snapshot(self) -> State | None:
        version, end, pending, log = self.writer.snapshot()
        return version, end + 1, pending, log


class ForgetsTheLastEpoch(Around):
    def snapshot(self) -> State | None:
        written = set(self.writer.once._written)
        version, end, pending, log = self.writer.snapshot()
        return version, end, tuple((item, at) for item, at in pending if item not in written), log


class CutsNumbers(Around):
    def write(self, items: Sequence[Any]) -> None:
        self.writer.write([row._replace(values=tuple(map(self._cut, row.values))) for row in items])

    @staticmethod
    def _cut(value: object) -> object:
        return float(int(value)) if isinstance(value, float) else value


class TheFirstOfAKeyWins(Around):
    def __init__(self, writer: Any, system: Any) -> None:
        super().__init__(writer, system)
        self._seen: set[object] = set()

    def write(self, items: Sequence[Any]) -> None:
        fresh = []
        for row in items:
            if repr(key_of(row)) not in self._seen:
                self._seen.add(repr(key_of(row)))
                fresh.append(row)
        self.writer.write(fresh)


class LeavesTheLock(Around):
    def close(self) -> None:
        self.system.left = self.writer  # without a reference the writer would be closed at once


WRITERS: Final[dict[str, tuple[str, Callable[[Any, Any], Around]]]] = {
    "appends a chunk and then fails": ("memory", AppendsThenFails),
    "swallows a passing failure": ("memory", SwallowsAFailure),
    "swallows a refusal": ("memory", SwallowsARefusal),
    "has a bad item tried again": ("memory", TriesABadItemAgain),
    "loses the item after a refused one": ("memory", LosesTheItemAfterARefusedOne),
    "remembers what was not written": ("memory", RemembersBeforeItIsWritten),
    "keeps the last item back": ("memory", KeepsTheLastItemBack),
    "reverses the items of a write": ("memory", ReversesEachWrite),
    "reads nothing back": ("memory", ReadsNothingBack),
    "skips as many as were read back": ("memory", SkipsByCount),
    "saves no ids": ("memory", SavesNoIds),
    "saves a position too far": ("memory", SavesAPositionTooFar),
    "forgets what the last epoch wrote": ("memory", ForgetsTheLastEpoch),
    "cuts numbers": ("sqlite", CutsNumbers),
    "keeps the first row of a key": ("sqlite", TheFirstOfAKeyWins),
    "leaves the lock on close": ("jsonl", LeavesTheLock),
}
"""By mistake: the system that is written to, and the wrapper of its writer."""

ROUTES: Final[dict[str, Callable[[], Callable[[], int]]]] = {
    "routes by what came before": lambda: itertools.cycle((0, 0, 1)).__next__,
    "routes to a partition that is not there": lambda: lambda: 1,
}
"""By mistake: a maker of the routes of a system."""


def _snapshot_without_flush(self: ReliablePartition[Any]) -> Stored:
    return stored((VERSION, self._writer.snapshot()))


def _close_without_flush(self: ReliablePartition[Any]) -> None: ...


def _write_half(self: ReliablePartition[Any], items: Sequence[Any]) -> int:
    """If a chunk with a refused item is halved, the second half is never written."""
    try:
        self._retry(lambda: self._writer.write(items))
        return len(items)
    except DataError as error:
        if len(items) > 1:
            return self._write(items[: len(items) // 2])
        self._rejected(self._name, items[0], error)
        return 0


def _refuse_the_chunk(self: ReliablePartition[Any], items: Sequence[Any]) -> int:
    try:
        self._retry(lambda: self._writer.write(items))
        return len(items)
    except DataError as error:
        for item in items:
            self._rejected(self._name, item, error)
        return 0


SINKS: Final[dict[str, tuple[str, Callable[..., Any]]]] = {
    "does not flush in its snapshot": ("snapshot", _snapshot_without_flush),
    "does not flush when it closes": ("_flush_rest", _close_without_flush),
    "loses what follows a refused item": ("_write", _write_half),
    "refuses all of a chunk": ("_write", _refuse_the_chunk),
}
"""By mistake: the method of `ReliablePartition`, and its replacement."""
