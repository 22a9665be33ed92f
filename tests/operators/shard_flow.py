"""Source partitions, shards and buckets of rows, connected as in the dataflow; the test decides the order of steps."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import numpy as np
from hypothesis import strategies as st

from operators import series
from operators.config import PanesConfig, TimeConfig
from operators.decode.intake import Batch
from operators.metrics import METRICS
from operators.model import LABELS, MISSING, SECOND
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.rollup import Rollup
from operators.panes.shard import Shard, bucket_widths
from operators.panes.table import Closed, PaneTable
from operators.panes.watermark import End, Idle, Progress, Watermark
from operators.steps import PartialPanes, shard_key
from tests.operators.pane_events import Call, columns
from tests.operators.pane_parts import REAL, Parts

K = TypeVar("K")

DAY = 1_767_225_600 * SECOND
"""A midnight, in microseconds."""


def call(at: float, took: float = 0, service: str = "a", tenant: str = "") -> Call:
    """A request that starts `at` seconds after `DAY`."""
    labels = tuple({"service": service, "tenant": tenant}.get(name, "") for name in LABELS)
    values = tuple(round(took * SECOND) if metric.name == "latency" else MISSING for metric in METRICS)
    return Call(DAY + round(at * SECOND), round(took * SECOND), labels, values, False, "", "")


@dataclass
class Partition:
    """One partition: its calls, its position among them, and its counts."""

    calls: list[Call]
    read: int = 0
    start: int | None = None
    end: int | None = None
    on_time: int = 0
    late: int = 0


@dataclass
class Flow:
    """A run over partitions `p0`, `p1`, ...; `stored` holds rows by (width, pane, series), as a store does."""

    time: TimeConfig
    config: PanesConfig
    partitions: dict[str, Partition]
    shards: int = 2
    keys: tuple[int, ...] = ()
    parts: Parts = REAL
    stored: dict[tuple[int, int, str], tuple[PaneTable, int]] = field(default_factory=dict)  # table, row index
    closed: list[Closed] = field(default_factory=list)
    overtaken: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._partial = PartialPanes(self.shards, self.time, self.config)
        self.merging: dict[str, Shard] = {}
        self.rollup: dict[str, Rollup] = {}

    def _shard(self) -> Shard:
        return self.parts.shard(self.shards, self.time, self.config, self._observe, keys=self.keys)

    def _observe(self, shard: int, watched: int, overtaken: int) -> None:
        self.overtaken[shard] = self.overtaken.get(shard, 0) + overtaken

    def poll(self, name: str, most: int) -> None:
        """Read at most `most` more calls of the partition and send them through the flow."""
        p = self.partitions[name]
        taken = p.calls[p.read : p.read + most]
        p.read += len(taken)
        events = columns(taken)
        time = self.time
        judged = self.parts.judge(
            events.start, events.end, p.start, round(time.lateness_s * SECOND), time.pane_s * SECOND,
            time.correction_s // time.pane_s, np.zeros(len(events), np.bool_),
        )  # fmt: skip
        p.start = judged.max_start
        p.end = max([*events.end.tolist(), *([] if p.end is None else [p.end])], default=None)
        p.on_time += int(judged.on_time.sum())
        p.late += int(judged.late.sum())
        mark = None if p.start is None else Watermark(p.start - round(time.lateness_s * SECOND))
        self._send(Batch(name, tuple(self.partitions), mark, events, judged.on_time, judged.late, []))

    def say(self, name: str, progress: Progress) -> None:
        """Report progress of the partition, without an event."""
        none = np.zeros(0, np.bool_)
        self._send(Batch(name, tuple(self.partitions), progress, columns([]), none, none, []))

    def idle(self, name: str, bound: float) -> None:
        """Report the partition as idle; panes up to `bound` seconds after `DAY` may close."""
        self.say(name, Idle(DAY + round(bound * SECOND)))

    def end(self, *names: str) -> None:
        """Report the end of the sources of these partitions, or of all if none is named."""
        for name in names or self.partitions:
            p = self.partitions[name]
            self.say(name, End(p.start, p.end))

    def finish(self, most: int = 1_000) -> Flow:
        """Read all remaining calls, partition after partition, and end."""
        for name, p in self.partitions.items():
            while p.read < len(p.calls):
                self.poll(name, most)
        self.end()
        return self

    def _send(self, batch: Batch) -> None:
        for key, item in self._partial(batch):
            shard = self.merging.setdefault(key, self._shard())
            for out in list(shard.take([item])):
                if isinstance(out, Closed):
                    self.closed.append(out)
                    continue
                bucket = self.rollup.setdefault(out.key, self.parts.rollup(self.time.pane_s, self.config))
                for rows in bucket.take([out]):
                    for i, s in enumerate(rows.table.row_series.tolist()):
                        self.stored[rows.width_s, int(rows.table.pane[i]), rows.table.series[s]] = rows.table, i
                if bucket.dropped:
                    del self.rollup[out.key]

    def snapshot(self) -> bytes:
        """The content of a recovery store, pickled."""
        return pickle.dumps((
            {key: shard.save() for key, shard in self.merging.items()},
            {key: bucket.save() for key, bucket in self.rollup.items()},
            {name: (p.read, p.start, p.end, p.on_time, p.late) for name, p in self.partitions.items()},
        ))  # fmt: skip

    def resume(self, snapshot: bytes) -> None:
        """Go on from the snapshot; the store keeps the rows that were written since."""
        merging, rollup, partitions = pickle.loads(snapshot)
        self.merging = {key: self._shard() for key in merging}
        for key, shard in self.merging.items():
            shard.restore(merging[key])
        self.rollup = {key: self.parts.rollup(self.time.pane_s, self.config) for key in rollup}
        for key, bucket in self.rollup.items():
            bucket.restore(rollup[key])
        for name, state in partitions.items():
            p = self.partitions[name]
            p.read, p.start, p.end, p.on_time, p.late = state

    def resume_old(self) -> None:
        """Go on from a state of the release before, whose buckets had their number as key and did not store it."""
        merging, rollup, partitions = pickle.loads(self.snapshot())
        for key, (_, *state, buckets) in merging.items():
            merging[key] = 2, *state, tuple((w, *(tuple(dict(live)) for live in both)) for w, *both in buckets)
        for key, (_, live) in rollup.items():
            ((number, bucket),) = live
            assert key.endswith(f"/{number}")
            rollup[key] = 2, *bucket
        self.keys = ()
        self.resume(pickle.dumps((merging, rollup, partitions)))

    def requests(self, width: int, dimension_set: str = "service") -> int:
        """The requests in the stored rows of this width."""
        return sum(
            int(table.requests[i])
            for (w, _, s), (table, i) in self.stored.items()
            if w == width and series.dimension_set(s) == dimension_set
        )

    def row(self, width: int, start: float, name: str = "service=a") -> int | None:
        """The requests of the stored row that starts this many seconds after `DAY`; None if there is none."""
        found = self.stored.get((width, round((DAY / SECOND + start) / width), name))
        return None if found is None else int(found[0].requests[found[1]])

    def rows(self) -> dict[tuple[int, int, str], PaneTable]:
        """The stored rows, each as a separate table."""
        return {key: one_row(*found) for key, found in self.stored.items()}

    def judged(self, shard: int) -> list[Closed]:
        """The panes that went from this shard to detection, except those closed by the end of the source."""
        return [c for c in self.closed if c.shard == shard and not c.final]


def one_row(table: PaneTable, row: int) -> PaneTable:
    """A table of this row alone."""
    return fold.select(table, np.arange(len(table.pane)) == row)


def same(one: Mapping[K, PaneTable], other: Mapping[K, PaneTable]) -> bool:
    """Whether the rows are the same, array by array."""
    return one.keys() == other.keys() and all(pane_table.equal(one[key], other[key]) for key in one)


def reference(
    calls: Sequence[Call], time: TimeConfig, config: PanesConfig, width: int
) -> dict[tuple[int, int, str], PaneTable]:
    """The rows of this width, folded from all calls at once."""
    events = columns(list(calls))
    table = fold.fold_events(
        events, np.ones(len(calls), np.bool_), config.dimension_sets, time.pane_s * SECOND, config.evidence,
        config.breakdown_values,
    )  # fmt: skip
    table = fold.widen([table], width // time.pane_s, config.evidence, config.breakdown_values)
    return {
        (width, int(table.pane[i]), table.series[s]): one_row(table, i) for i, s in enumerate(table.row_series.tolist())
    }


def key_of(service: str, shards: int) -> str:
    """The key of the shard that owns the service."""
    return shard_key(series.shard_of(f"service={service}", shards))


PANES = PanesConfig(dimension_sets=(("service",), ("tenant",)), breakdown_values=2)
WIDTHS = [1, 10, 60, 300, 3600]


def flow(
    *partitions: Sequence[Call],
    pane_s: int = 10,
    config: PanesConfig = PANES,
    shards: int = 1,
    parts: Parts = REAL,
    **time: float,
) -> Flow:
    """A run over these partitions."""
    given_time = {"lateness_s": 0.0, "correction_s": 600 if pane_s < 600 else 2 * pane_s, **time}
    return Flow(
        TimeConfig.model_validate({"pane_s": pane_s, **given_time}),
        config,
        {f"p{i}": Partition(list(calls)) for i, calls in enumerate(partitions)},
        shards,
        parts=parts,
    )


def widths(run: Flow) -> set[int]:
    """The widths of all rows that the run stores, in seconds."""
    return {run.time.pane_s, *bucket_widths(run.time.pane_s)}


@st.composite
def traffic(draw: st.DrawFn, late: bool = True) -> list[Call]:
    """Up to forty requests over some hours; if `late`, about half of them start before their turn."""
    at = 0.0
    calls = []
    for _ in range(draw(st.integers(0, 40))):
        at += draw(st.sampled_from([0.0, 0.4, 3.0, 9.0, 40.0, 200.0, 900.0]))
        back = draw(st.sampled_from([0, 0, 0, 15, 70, 500, 3000])) if late else 0
        took = draw(st.sampled_from([0, 0.3, 12, 90]))
        calls.append(
            call(max(at - back, 0), took, draw(st.sampled_from("abcdef")), draw(st.sampled_from(["", "t", "u"])))
        )
    return calls


def disturb(run: Flow, random: Random, crashes: bool = True) -> None:
    """Read random batches from random partitions until all is read, with resumes and crashes in between."""
    saved = run.snapshot()
    left = 3 if crashes else 0
    while waiting := [name for name, p in run.partitions.items() if p.read < len(p.calls)]:
        run.poll(random.choice(waiting), random.choice([1, 3, 10, 30]))
        chance = random.random()
        if chance < 0.2 and left:
            left -= 1
            run.resume(saved)
        elif chance < 0.4:
            saved = run.snapshot()
            if chance < 0.3:
                run.resume(saved)
