"""The only module of `operators` that knows Bytewax: it makes the pure parts stateful steps and keyed items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from bytewax.operators import StatefulBatchLogic

from operators.config import PanesConfig, TimeConfig
from operators.decode.intake import Batch
from operators.detect.engine.expectations import Expected
from operators.detect.engine.monitor import ShardMonitor
from operators.incidents.findings import Judged
from operators.model import SECOND, DeadLetter
from operators.panes import fold
from operators.panes.shard import Partial, Shard, Slice
from operators.panes.table import Closed
from operators.stored import State, Stored, restored, stored

V = TypeVar("V")
W = TypeVar("W")
V_contra = TypeVar("V_contra", contravariant=True)
W_co = TypeVar("W_co", covariant=True)


class Part(Protocol[V_contra, W_co]):
    """A pure stateful part: items in, items out, state as builtins and arrays."""

    def take(self, items: Sequence[V_contra]) -> Iterable[W_co]: ...

    def save(self) -> State: ...

    def restore(self, state: State) -> None: ...

    @property
    def dropped(self) -> bool:
        """Whether the state may be forgotten, since nothing comes for this key any more."""
        ...


class StepObserver(Protocol):
    """An observer of stateful steps. Called once for each batch or snapshot of a key; must not raise."""

    def worked(self, step: str, seconds: float) -> None: ...

    def failed(self, step: str) -> None: ...

    def saved(self, step: str, seconds: float, size: int) -> None:
        """A snapshot of a key is ready; `size` is its stored size in bytes."""
        ...

    def folded(self, shard: int, requests: int) -> None:
        """`requests` of the shard have gone to its overflow series over its whole life."""
        ...

    def judged(self, shard: int, upto: int, episodes: int) -> None:
        """A shard has judged all panes before `upto`, in microseconds; `episodes` are open."""
        ...

    def detected(self, seconds: Mapping[str, float]) -> None:
        """The seconds that each detector has taken since the last call."""
        ...


Reached = Callable[[int, int | None, int | None], None]
"""Called after each batch with a shard and the two times of its `Shard.reached`."""

Heard = Callable[[int, Callable[[], Mapping[str, int | None]]], None]
"""Called after each batch with a shard and its `Shard.reading`."""


@dataclass(frozen=True, slots=True)
class Watching:
    """The observers of a step, and the clock of its durations, in seconds."""

    observer: StepObserver
    clock: Callable[[], float]
    reached: Reached | None = None
    heard: Heard | None = None


class Step(StatefulBatchLogic[V, W, Stored], Generic[V, W]):
    """The Bytewax logic of one key: batches go to the part, and its saved state is the snapshot.

    The end of the input changes nothing and no notification is asked for: a stop is not an end, and the end of a finite
    source comes as an item.
    """

    def __init__(self, part: Part[V, W]) -> None:
        self._part = part

    def on_batch(self, values: list[V]) -> tuple[Iterable[W], bool]:
        return list(self._part.take(values)), self._part.dropped

    def snapshot(self) -> Stored:
        return stored(self._part.save())


class WatchedStep(Step[V, W]):
    """The same step, which also reports its durations, sizes and progress."""

    def __init__(self, part: Part[V, W], name: str, watching: Watching) -> None:
        super().__init__(part)
        self._name = name
        self._observer = watching.observer
        self._clock = watching.clock
        self._reached = watching.reached
        self._heard = watching.heard
        stateful: object = part
        self._detectors = stateful.time_by(self._clock) if isinstance(stateful, Detect) else {}

    def on_batch(self, values: list[V]) -> tuple[Iterable[W], bool]:
        began = self._clock()
        try:
            done = super().on_batch(values)
        except Exception:
            self._observer.failed(self._name)
            raise
        self._observer.worked(self._name, self._clock() - began)
        part: object = self._part
        match part:
            case Shard() as shard:
                self._observer.folded(shard.index, shard.folded_requests)
                if self._reached is not None:
                    self._reached(shard.index, *shard.reached)
                if self._heard is not None:
                    self._heard(shard.index, shard.reading)
            case Detect() as detect if detect.upto is not None:
                self._observer.judged(detect.shard, detect.upto, detect.episodes)
                self._observer.detected(self._detectors)
                self._detectors.update(dict.fromkeys(self._detectors, 0.0))
        return done

    def snapshot(self) -> Stored:
        began = self._clock()
        form, data = super().snapshot()
        self._observer.saved(self._name, self._clock() - began, len(data))
        return form, data


def step(
    build: Callable[[], Part[V, W]], name: str = "", watching: Watching | None = None
) -> Callable[[Stored | None], Step[V, W]]:
    """The builder for `stateful_batch`."""

    def builder(state: Stored | None) -> Step[V, W]:
        part = build()
        if state is not None:
            part.restore(restored(state, f"a key of step {name}"))
        return Step(part) if watching is None else WatchedStep(part, name, watching)

    return builder


def shard_key(shard: int) -> str:
    """The Bytewax key of a shard."""
    return f"{shard:04d}"


class PartialPanes:
    """A batch becomes one item for every shard, empty or not: progress, and the rows of that shard."""

    def __init__(self, shards: int, time: TimeConfig, config: PanesConfig) -> None:
        self._shards = shards
        self._width = time.pane_s * SECOND
        self._config = config

    def __call__(self, batch: Batch) -> Iterator[tuple[str, Partial]]:
        cuts = []
        for mask in (batch.on_time, batch.late):
            if mask.any():
                config = self._config
                table = fold.fold_events(
                    batch.events, mask, config.dimension_sets, self._width, config.evidence, config.breakdown_values
                )
                cuts.append(fold.cut(table, self._shards))
            else:
                cuts.append([None] * self._shards)
        for shard, (on_time, late) in enumerate(zip(*cuts, strict=True)):
            yield shard_key(shard), Partial(shard, batch.partition, batch.partitions, batch.progress, on_time, late)


def dead_letters(batch: Batch) -> Iterator[tuple[str, DeadLetter]]:
    """The batch's dead letters, keyed by their partition."""
    for letter in batch.dead:
        yield batch.partition, letter


def closed_panes(item: tuple[str, Closed | Slice]) -> tuple[str, Closed] | None:
    """The item, if it goes to detection."""
    return (item[0], item[1]) if isinstance(item[1], Closed) else None


def stored_slices(item: tuple[str, Closed | Slice]) -> tuple[str, Slice] | None:
    """The item, keyed by its bucket, if it goes to the stored rows."""
    return (item[1].key, item[1]) if isinstance(item[1], Slice) else None


class Detect:
    """Detection of one shard as a part: closed panes in, findings with a marker and expected values out.

    A final closing is judged on a copy: if the source has grown when the flow resumes, its panes come again, whole.
    """

    dropped = False

    def __init__(self, width: int, monitor: ShardMonitor, load: Callable[[State], ShardMonitor]) -> None:
        self._width = width
        self._load = load
        self._monitor = monitor
        self.shard = -1
        self.upto: int | None = None  # microseconds; None until panes were judged

    def time_by(self, clock: Callable[[], float]) -> dict[str, float]:
        """Measure by this clock the seconds that each detector takes; the returned dict adds them up."""
        return self._monitor.time_by(clock)

    @property
    def episodes(self) -> int:
        """The number of open episodes."""
        return self._monitor.open_episodes

    def take(self, items: Sequence[Closed]) -> Iterator[Judged | Expected]:
        for closed in items:
            monitor = self._load(self._monitor.save()) if closed.final else self._monitor
            if not closed.final:
                self.shard, self.upto = closed.shard, closed.high * self._width
            yield Judged(closed.shard, closed.high * self._width, tuple(monitor.take(closed)), closed.final)
            yield from monitor.expected.taken()

    def save(self) -> State:
        return self._monitor.save()

    def restore(self, state: State) -> None:
        self._monitor = self._load(state)


def judged_key(item: tuple[str, Judged | Expected]) -> tuple[str, Judged] | None:
    """The item, if it goes to the groups: the findings of all shards meet under one key."""
    return ("all", item[1]) if isinstance(item[1], Judged) else None


def stored_expectations(item: tuple[str, Judged | Expected]) -> tuple[str, Expected] | None:
    """The item, keyed by its shard, if it goes to the stored rows."""
    return (item[0], item[1]) if isinstance(item[1], Expected) else None
