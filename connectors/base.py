"""The contracts of readers and writers; `source` and `reliable` make Bytewax sources and sinks of them.

A connector is one class per file that keeps one of these contracts. Those two modules do batching, retries, recovery
and counting for every connector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, runtime_checkable

from operators.model import Ints

X_contra = TypeVar("X_contra", contravariant=True)
State = tuple[object, ...]
"""The content of a snapshot: builtins and arrays only, a version first."""


@dataclass(slots=True)
class Chunk:
    """The result of one poll of a partition.

    `offsets` ascend, one for each record. `arrivals` are the arrival times in microseconds, `NO_ARRIVAL` for a record
    without one, or None if the system records none. `at_end`: the poll stood at the end of all records, including those
    that cannot be read yet (more may come). `finished`: no record will ever come again. `skipped` is the number of
    records that the system lost before they could be read (an offset gap).
    `replaced`: the log is another one than before, or was cut; these offsets and the position count in the present log,
    and earlier positions mean nothing. `log` is an id of that log which no other log of this name has or had; "" if the
    system gives none.
    """

    values: list[bytes]
    offsets: Ints
    arrivals: Ints | None = None
    at_end: bool = False
    finished: bool = False
    skipped: int = 0
    replaced: bool = False
    log: str = ""


class Reader(Protocol):
    """One open partition of a source. Single-threaded; `poll` never blocks for longer than a few milliseconds.

    Raises `RetryableError` where another try may help (the caller backs off), `FatalError` where it cannot.
    """

    def poll(self, most: int) -> Chunk:
        """The next records, at most `most`; an empty chunk if there are none now."""
        ...

    def position(self) -> int:
        """The offset of the next record to read; a reader opened there goes on after the last record given out."""
        ...

    def behind(self) -> int | None:
        """The number of records after the position, including those that cannot be read yet; None if unknown.

        Only for lag. It may ask the neighbour, for a few milliseconds and at most once in some seconds.
        """
        ...

    def log(self) -> State:
        """The identity of the log that `position` counts in, for a snapshot: it differs from that of any other log of
        the same name. () if the system gives none.
        """
        ...

    def durable(self, position: int) -> None:
        """Called when `position` is in a durable snapshot. Only for lag tools; must not raise."""
        ...

    def close(self) -> None: ...


class ReaderFactory(Protocol):
    """A configured source: lists its partitions and opens them. Holds no connection; it is never pickled."""

    def partitions(self) -> list[str]:
        """All partitions of the source, sorted, as stable text keys: `llm.telemetry/0`. May ask the neighbour."""
        ...

    def origin(self, partition: str) -> tuple[str, int]:
        """(topic or file name, partition number): the name of this partition in dead letters."""
        ...

    def open(self, partition: str, position: int | None, log: State | None = None) -> Reader:
        """A reader that starts at `position`; None means the configured start.

        `log` is the `Reader.log` of the time when the position was taken; None if a setting names the position.
        """
        ...

    def identity(self) -> str:
        """Text that distinguishes this source from others, for the manifest of the recovery store."""
        ...


Guarantee = Literal["exactly_once", "at_least_once", "best_effort"]
"""The promise of a sink over crashes and faults; it decides how a writer gets its items.

exactly_once
    Readers see each item once, because writing it again changes nothing: it is known by its id or replaces its row. A
    write that raised has left nothing, or only items that the next try replaces. Items come in chunks, and a chunk may
    come again whole or in parts.
at_least_once
    Items come one by one, so an item that was taken does not come again while the process lives. A replay after a crash
    gives the items since the last snapshot again.
best_effort
    The same, from a thread and a bounded queue beside the flow (`connectors.channel`). No fault of the system ends or
    delays the flow; items that cannot be delivered are dropped and counted.
"""


@runtime_checkable
class Writer(Protocol[X_contra]):
    """One open partition of a sink; `Guarantee` says how it gets its items.

    `write` returns when the items are as durable as the system makes them. It raises `RetryableError` (the same call is
    repeated after a back-off), `DataError` (the chunk is split until the bad item is alone, and that item goes to
    `Rejected`), or `FatalError`.
    """

    def write(self, items: Sequence[X_contra]) -> None: ...

    def snapshot(self) -> State | None:
        """The state that a successor needs in order to write nothing twice; None if writing twice does no harm."""
        ...

    def close(self) -> None: ...


class WriterFactory(Protocol[X_contra]):
    """A configured sink: names its partitions, routes keys to them, opens their writers."""

    name: str
    """Short, for logs and metric labels: `sqlite`, `kafka_alerts`."""

    def partitions(self) -> list[str]:
        """The fixed partitions, sorted."""
        ...

    def route(self, key: str) -> int:
        """The index in `partitions()` of the partition that writes items of this key."""
        ...

    def open(self, partition: str, resume: State | None) -> Writer[X_contra]:
        """A writer that takes over from the previous writer of this partition (and fences it if the system can)."""
        ...

    def ask(self) -> str:
        """Ask the system whether it is there; returns the answer in a few words, or raises `SentinelError`.

        Makes at most what a start would make, and does not disturb a running flow: it fences no writer, holds no lock
        for longer than one query, and sends nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of `connectors.tables`: values in the order of the table's columns, never NaN or infinite."""

    table: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """An alert or a dead letter as a sink sends it: an id that sinks know it by, partitioning key, headers, and JSON.

    `at` is its event time in microseconds; 0 if it has none.
    """

    id: str
    key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    value: bytes = b""
    at: int = 0
