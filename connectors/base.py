"""The contracts of readers and writers; `source` and `reliable` make Bytewax sources and sinks of them.

A connector is one class per file that keeps one of these contracts; batching, retrying, recovery and counting are done
once, by those two modules, for every connector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, runtime_checkable

from operators.model import Ints

X_contra = TypeVar("X_contra", contravariant=True)
State = tuple[object, ...]
"""What goes into a snapshot: builtins and arrays only, a version first."""


@dataclass(slots=True)
class Chunk:
    """What one poll of a partition gave.

    `offsets` are ascending, one a record; `arrivals` are the arrival times in microseconds, `NO_ARRIVAL` for a record
    without one, or None where the system records none. `at_end`: the poll stood at the end of all there is, also of
    what cannot be read yet (more may come). `finished`: nothing will ever come again. `skipped` counts records that the
    system lost before they could be read (an offset gap).
    `replaced`: the log was found to be another one than before, or cut; these records and the position count in the log
    as it is now, and positions from before mean nothing. `log` is an id of that log which no other one of this name has
    or had; "" where the system tells none.
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

    Raises `RetryableError` where trying again may help (the caller backs off), `FatalError` where it cannot.
    """

    def poll(self, most: int) -> Chunk:
        """The next records, at most `most`; an empty chunk where there are none now."""
        ...

    def position(self) -> int:
        """The offset of the next record to read: a reader opened there goes on after the last record given out."""
        ...

    def behind(self) -> int | None:
        """How many records come after the position, those that cannot be read yet included; None where unknown.

        For lag alone. It may ask the neighbour, for a few milliseconds and at most once in some seconds.
        """
        ...

    def log(self) -> State:
        """What tells the log that `position` counts in from another of the same name, for a snapshot; () where the
        system tells nothing of the kind.
        """
        ...

    def durable(self, position: int) -> None:
        """`position` is in a durable snapshot. For lag tools only; must not raise."""
        ...

    def close(self) -> None: ...


class ReaderFactory(Protocol):
    """A configured source: lists its partitions and opens them. Holds no connection; it is pickled by nobody."""

    def partitions(self) -> list[str]:
        """All partitions of the source, sorted, as stable text keys: `llm.telemetry/0`. May ask the neighbour."""
        ...

    def origin(self, partition: str) -> tuple[str, int]:
        """(topic or file name, partition number): how a dead letter names this partition."""
        ...

    def open(self, partition: str, position: int | None, log: State | None = None) -> Reader:
        """A reader that starts at `position`; None means the configured start.

        `log` is what `Reader.log` said when the position was taken; None where a setting names the position.
        """
        ...

    def identity(self) -> str:
        """Text that tells this source from another, for the manifest of the recovery store."""
        ...


Guarantee = Literal["exactly_once", "at_least_once", "best_effort"]
"""How a sink stands to crashes and faults; it decides how a writer is given its items.

exactly_once
    Readers see each item once, because writing it again changes nothing: it is known by its id or replaces its row. A
    write that raised has left nothing, or what the next try replaces. Items come in chunks, and a chunk may come again
    whole or in parts.
at_least_once
    Items come one by one, so one that was taken does not come again while the process lives. A replay after a crash
    gives the items since the last snapshot again.
best_effort
    The same, from a thread and a bounded queue beside the flow (`connectors.channel`). A fault of the system, of
    whatever kind, neither ends nor delays the flow; items that cannot be delivered are dropped and counted.
"""


@runtime_checkable
class Writer(Protocol[X_contra]):
    """One open partition of a sink; `Guarantee` says how it gets its items.

    `write` returns when the items are as durable as the system makes them. It raises `RetryableError` (the same call is
    made again after a back-off), `DataError` (the chunk is split until the bad item is alone, which is then handed to
    `Rejected`), or `FatalError`.
    """

    def write(self, items: Sequence[X_contra]) -> None: ...

    def snapshot(self) -> State | None:
        """What a successor needs in order to write nothing twice; None where writing twice does no harm."""
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
        """The index, in `partitions()`, of the partition that writes items of this key."""
        ...

    def open(self, partition: str, resume: State | None) -> Writer[X_contra]:
        """A writer that takes over from whoever wrote this partition before (fencing it where the system can)."""
        ...

    def ask(self) -> str:
        """Ask the system whether it is there, and say so in a few words; raises `SentinelError` where it is not.

        Changes nothing but what a start would make, and does not disturb a flow that is running: it fences no writer,
        takes no lock for longer than a look, and sends nothing.
        """
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table of `connectors.tables`: values in the order of the table's columns, never NaN or infinite."""

    table: str
    values: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Message:
    """An alert or a dead letter as it is sent: the id that makes it once, the partitioning key, headers, and JSON.

    `at` is its event time in microseconds; 0 says nothing.
    """

    id: str
    key: str
    headers: Mapping[str, str] = field(default_factory=dict)
    value: bytes = b""
    at: int = 0
