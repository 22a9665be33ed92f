"""The only module that knows Bytewax: it lets the pure parts be stateful steps and keyed items of a dataflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from bytewax.operators import StatefulBatchLogic

from operators import panes
from operators.config import PanesConfig, TimeConfig
from operators.detect.monitor import ShardMonitor
from operators.incidents import Judged
from operators.intake import Batch
from operators.model import SECOND, DeadLetter
from operators.pane_table import Closed
from operators.shard import Partial, Slice

V = TypeVar("V")
W = TypeVar("W")
V_contra = TypeVar("V_contra", contravariant=True)
W_co = TypeVar("W_co", covariant=True)
State = tuple[object, ...]


class Part(Protocol[V_contra, W_co]):
    """A pure stateful part: items in, items out, state as builtins and arrays."""

    def take(self, items: Sequence[V_contra]) -> Iterable[W_co]: ...

    def save(self) -> State: ...

    def restore(self, state: State) -> None: ...

    @property
    def dropped(self) -> bool:
        """Whether the state may be forgotten: nothing will come for this key any more."""
        ...


class Step(StatefulBatchLogic[V, W, State], Generic[V, W]):
    """The Bytewax logic of one key: batches go to the part, snapshots are what it saves.

    Nothing happens at the end of the input and no notification is asked for: a stop is not an end, and the end of a
    finite source comes as an item.
    """

    def __init__(self, part: Part[V, W]) -> None:
        self._part = part

    def on_batch(self, values: list[V]) -> tuple[Iterable[W], bool]:
        return list(self._part.take(values)), self._part.dropped

    def snapshot(self) -> State:
        return self._part.save()


def step(build: Callable[[], Part[V, W]]) -> Callable[[State | None], Step[V, W]]:
    """The builder that `stateful_batch` wants."""

    def builder(state: State | None) -> Step[V, W]:
        part = build()
        if state is not None:
            part.restore(state)
        return Step(part)

    return builder


def shard_key(shard: int) -> str:
    """The Bytewax key of a shard."""
    return f"{shard:04d}"


class PartialPanes:
    """A batch becomes one item for every shard, empty or not: progress, and the rows that belong there."""

    def __init__(self, shards: int, time: TimeConfig, config: PanesConfig) -> None:
        self._shards = shards
        self._width = time.pane_s * SECOND
        self._config = config

    def __call__(self, batch: Batch) -> Iterator[tuple[str, Partial]]:
        cuts = []
        for mask in (batch.on_time, batch.late):
            if mask.any():
                config = self._config
                table = panes.fold_events(
                    batch.events, mask, config.dimension_sets, self._width, config.evidence, config.breakdown_values
                )
                cuts.append(panes.cut(table, self._shards))
            else:
                cuts.append([None] * self._shards)
        for shard, (on_time, late) in enumerate(zip(*cuts, strict=True)):
            yield shard_key(shard), Partial(shard, batch.partition, batch.partitions, batch.progress, on_time, late)


def dead_letters(batch: Batch) -> Iterator[tuple[str, DeadLetter]]:
    """The batch's dead letters, keyed by the partition they came from."""
    for letter in batch.dead:
        yield batch.partition, letter


def closed_panes(item: tuple[str, Closed | Slice]) -> tuple[str, Closed] | None:
    """What goes to detection."""
    return (item[0], item[1]) if isinstance(item[1], Closed) else None


def stored_slices(item: tuple[str, Closed | Slice]) -> tuple[str, Slice] | None:
    """What goes to the stored rows, keyed by its bucket."""
    return (item[1].key, item[1]) if isinstance(item[1], Slice) else None


class Detect:
    """Detection of one shard as a part: closed panes in, verdicts and a marker out.

    What a final closing brings is judged on a copy: should more come after a resume, those panes come again, whole.
    """

    dropped = False

    def __init__(self, width: int, monitor: ShardMonitor, load: Callable[[State], ShardMonitor]) -> None:
        self._width = width
        self._load = load
        self._monitor = monitor

    def take(self, items: Sequence[Closed]) -> Iterator[Judged]:
        for closed in items:
            monitor = self._load(self._monitor.save()) if closed.final else self._monitor
            yield Judged(closed.shard, closed.high * self._width, tuple(monitor.take(closed)), closed.final)

    def save(self) -> State:
        return self._monitor.save()

    def restore(self, state: State) -> None:
        self._monitor = self._load(state)


def judged_key(item: tuple[str, Judged]) -> tuple[str, Judged]:
    """All shards' verdicts meet under one key."""
    return "all", item[1]
