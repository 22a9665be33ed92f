"""The whole graph on one screen. Step ids name the state in the recovery store: changing one starts that step cold.

telemetry ─┬─> dead letters ─> sinks
           └─> partial panes ══ by shard ══> merge ─┬─> detect ══ one key ══> groups ─> alert sinks, store
                                                    │            └──> expected values ──> store
                                                    └─ by bucket ══> rollup ─────────────> store
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from connectors.base import Message, Row
from connectors.dead_letters import dead_letter_record
from connectors.rows import alert_row, expectation_rows, pane_rows
from operators.config import DetectConfig, EpisodesConfig, GroupsConfig, PanesConfig, TimeConfig
from operators.decode.intake import Batch
from operators.detect import registry
from operators.detect.engine.expectations import Expected
from operators.detect.engine.monitor import ShardMonitor
from operators.errors import ConfigError
from operators.incidents import alert_json
from operators.incidents.groups import Groups
from operators.model import SECOND, Alert, DeadLetter
from operators.panes.rollup import Rollup, StoredRows
from operators.panes.shard import Observe, Shard
from operators.steps import (
    Detect,
    PartialPanes,
    Watching,
    closed_panes,
    dead_letters,
    judged_key,
    step,
    stored_expectations,
    stored_slices,
)

FLOW: Final = "sentinel"
TELEMETRY: Final = "telemetry"
DEAD_LETTERS: Final = "dead_letters"
PARTIAL: Final = "partial_panes"
MERGE: Final = "merge"
ROLLUP: Final = "rollup"
DETECT: Final = "detect"
GROUPS: Final = "groups"
STORE: Final = "store"


@dataclass(frozen=True)
class Shape:
    """The settings of the pure part of the graph: the steps between the source and the sinks."""

    shards: int
    time: TimeConfig
    panes: PanesConfig
    detect: DetectConfig
    episodes: EpisodesConfig
    groups: GroupsConfig
    relearn: bool = False  # whether detection starts cold if its learned state has another form
    expectations: bool = True  # whether the store gets the expected values
    row_keys: tuple[int, ...] = ()  # see `operators.panes.shard.row_keys`; if empty, those of `time`


@dataclass(frozen=True)
class PipelineIO:
    """The ends of the graph: its source, and its sinks by the name of their output step.

    `store` takes rows of panes, expected values and alerts.
    """

    source: Source[Batch]
    store: Sink[tuple[str, Row]] | None
    alerts: dict[str, Sink[tuple[str, Message]]] = field(default_factory=dict)
    dead_letters: dict[str, Sink[tuple[str, Message]]] = field(default_factory=dict)
    steps: Mapping[str, str] = field(default_factory=dict)

    def step(self, name: str) -> str:
        """The step id of a sink: its name, unless `steps` gives another.

        Bytewax cannot resume the state of a sink partition that is no longer there. A sink whose partitions depend on
        settings is therefore another step under other settings.
        """
        return self.steps.get(name, name)


@dataclass(frozen=True)
class Taps:
    """Callbacks that observe the graph; `replayed` tells whether an alert is too old to page for."""

    replayed: Callable[[Alert], bool]
    alerted: Callable[[Alert], None]
    closed: Observe
    steps: Watching | None = None


def detection(shape: Shape, *, expectations: bool = False) -> Detect:
    """The detection of one shard, without learned state; `expectations`: whether it also gives expected values."""
    width = shape.time.pane_s * SECOND

    panes = shape.panes
    settings = (shape.detect, shape.episodes, shape.time, panes.expiry_s, panes.dimension_sets, expectations)

    def load(state: tuple[object, ...]) -> ShardMonitor:
        try:
            monitor = ShardMonitor.load(state, *settings)
        except ConfigError:
            if not shape.relearn:
                raise
            return ShardMonitor(*settings)
        monitor.retire(panes.dimension_sets)
        return monitor

    return Detect(width, ShardMonitor(*settings), load)


def stored_rows(item: tuple[str, StoredRows]) -> Iterator[tuple[str, Row]]:
    """The store's rows of these panes, keyed by their bucket."""
    key, stored = item
    for row in pane_rows(stored.table, stored.width_s):
        yield key, row


def expected_rows(item: tuple[str, Expected]) -> Iterator[tuple[str, Row]]:
    """The store's rows of these expected values, keyed by their shard."""
    key, expected = item
    for row in expectation_rows(expected):
        yield key, row


def alert_record(alert: Alert, replayed: bool) -> Message:
    """The alert as a message; `replayed` marks one that is too old to page for."""
    headers = alert_json.headers(alert, replayed)
    return Message(alert.alert_id, alert.episode_id, headers, alert_json.to_json(alert), alert.at)


def letter_record(item: tuple[str, DeadLetter]) -> tuple[str, Message]:
    """The dead letter as a message, keyed by the partition that it came from."""
    return item[0], dead_letter_record(item[1])


def pipeline(shape: Shape, io: PipelineIO, taps: Taps) -> Dataflow:
    """The dataflow from a source of batches to the sinks."""
    flow = Dataflow(FLOW)
    batches = op.input(TELEMETRY, flow, io.source)

    letters = op.map("letter_records", op.flat_map(DEAD_LETTERS, batches, dead_letters), letter_record)
    for name, letter_sink in io.dead_letters.items():
        op.output(io.step(f"{DEAD_LETTERS}_{name}"), letters, letter_sink)

    partial = op.flat_map(PARTIAL, batches, PartialPanes(shape.shards, shape.time, shape.panes))
    rows = io.store is not None

    def shard() -> Shard:
        return Shard(shape.shards, shape.time, shape.panes, taps.closed, rows=rows, keys=shape.row_keys)

    merged = op.stateful_batch(MERGE, partial, step(shard, MERGE, taps.steps))

    closed = op.filter_map("closed", merged, closed_panes)
    judged = op.stateful_batch(
        DETECT,
        closed,
        step(lambda: detection(shape, expectations=rows and shape.expectations), DETECT, taps.steps),
    )
    lateness, horizon = round(shape.time.lateness_s * SECOND), shape.detect.horizons_s[-1] * SECOND
    resolve = shape.episodes.resolve_s * SECOND
    together = op.filter_map("together", judged, judged_key)
    alerts = op.stateful_batch(
        GROUPS,
        together,
        step(
            lambda: Groups(shape.shards, lateness, shape.groups, horizon, resolve, registry.finds), GROUPS, taps.steps
        ),
    )
    alerts = op.inspect("alerted", alerts, lambda _, item: taps.alerted(item[1]))

    records = op.map(
        "records", alerts, lambda item: (item[1].episode_id, alert_record(item[1], taps.replayed(item[1])))
    )
    for name, alert_sink in io.alerts.items():
        op.output(io.step(f"alerts_{name}"), records, alert_sink)

    if io.store is not None:
        slices = op.filter_map("slices", merged, stored_slices)
        rollup = op.stateful_batch(
            ROLLUP, slices, step(lambda: Rollup(shape.time.pane_s, shape.panes), ROLLUP, taps.steps)
        )
        pane_store = op.flat_map("pane_rows", rollup, stored_rows)
        alert_store = op.map("alert_rows", alerts, lambda item: (item[1].episode_id, alert_row(item[1])))
        expected_store = op.flat_map(
            "expected_rows", op.filter_map("expected", judged, stored_expectations), expected_rows
        )
        op.output(io.step(STORE), op.merge("rows", pane_store, expected_store, alert_store), io.store)
    return flow
