"""The real dataflow on a small scale: readers and writers in memory, everything between them as in production."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from bytewax.inputs import Source
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main, run_main

from connectors.base import Chunk, Message, Reader, Row, State
from connectors.config import ReliabilityConfig
from connectors.once import Once
from connectors.reliable import ReliableSink
from connectors.source import SourceSettings, TelemetrySource
from connectors.tables import TABLES
from flows.pipeline import PipelineIO, Shape, Taps, pipeline
from operators.config import EnrichConfig
from operators.decode.config import DecodeConfig
from operators.decode.intake import Balance, Batch
from operators.decode.registry import DECODERS
from operators.enrich.enricher import Enrich, Enricher
from operators.model import Alert

BEGAN = 1_767_225_600_000_000
"""2026-01-01T00:00:00Z in microseconds: the time on the clock of every run of the harness."""


class Crash(Exception):
    """The simulated death of the process."""


@dataclass
class MemoryTopic:
    """Records by partition; `crash_after` lists the polls that crash a run, each counted from the crash before."""

    records: dict[str, list[bytes]]
    crash_after: list[int] = field(default_factory=list)
    polls: int = 0

    def partitions(self) -> list[str]:
        return sorted(self.records)

    def origin(self, partition: str) -> tuple[str, int]:
        return "memory", self.partitions().index(partition)

    def open(self, partition: str, position: int | None, log: State | None = None) -> Reader:
        return MemoryReader(self, partition, position or 0)

    def identity(self) -> str:
        return "memory"


class MemoryReader:
    """The reader of one partition of a `MemoryTopic`; finishes at its last record."""

    def __init__(self, topic: MemoryTopic, partition: str, position: int) -> None:
        self._topic = topic
        self._values = topic.records[partition]
        self._position = position

    def poll(self, most: int) -> Chunk:
        self._topic.polls += 1
        if self._topic.crash_after and self._topic.polls >= self._topic.crash_after[0]:
            self._topic.crash_after.pop(0)
            self._topic.polls = 0
            raise Crash
        low = self._position
        values = self._values[low : low + most]
        self._position += len(values)
        finished = self._position == len(self._values)
        offsets = np.arange(low, low + len(values), dtype=np.int64)
        return Chunk(values, offsets, None, at_end=finished, finished=finished)

    def position(self) -> int:
        return self._position

    def behind(self) -> None: ...

    def log(self) -> State:
        return ()

    def durable(self, position: int) -> None: ...

    def close(self) -> None: ...


@dataclass
class MemoryStore:
    """Rows by table and key, as an upserting store keeps them."""

    name: str = "memory"
    rows: dict[str, dict[tuple[Any, ...], tuple[Any, ...]]] = field(default_factory=dict)

    def partitions(self) -> list[str]:
        return [f"{self.name}/0"]

    def route(self, key: str) -> int:
        return 0

    def open(self, partition: str, resume: State | None) -> MemoryStore:
        return self

    def ask(self) -> str:
        return "it is there"

    def write(self, items: Sequence[Row]) -> None:
        for row in items:
            keys = len(TABLES[row.table].key)
            self.rows.setdefault(row.table, {})[row.values[:keys]] = row.values

    def snapshot(self) -> State | None:
        return None

    def close(self) -> None: ...


@dataclass
class MemoryLog:
    """An append-only topic that keeps the exactly-once contract by reading back, as the Kafka writer does."""

    name: str
    lines: list[Message] = field(default_factory=list)

    def partitions(self) -> list[str]:
        return ["0"]

    def route(self, key: str) -> int:
        return 0

    def open(self, partition: str, resume: State | None) -> MemoryLogWriter:
        return MemoryLogWriter(self, resume)

    def ask(self) -> str:
        return "it is there"


class MemoryLogWriter:
    """The one writer of a `MemoryLog`."""

    def __init__(self, log: MemoryLog, resume: State | None) -> None:
        self._log = log
        self._once = Once.load(resume)
        for i, item in enumerate(log.lines[self._once.end :], self._once.end):
            self._once.saw(item.id, i + 1)

    def write(self, items: Sequence[Message]) -> None:
        self._log.lines += self._once.fresh(items)
        self._once.wrote(items, len(self._log.lines))

    def snapshot(self) -> State | None:
        return self._once.state()

    def close(self) -> None: ...


@dataclass
class World:
    """The systems that outlive a dead run: topic, store, alert topic, dead letters and recovery store."""

    topic: MemoryTopic
    shape: Shape
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    enrich: Enrich = field(default_factory=lambda: Enricher(EnrichConfig()))
    store: MemoryStore = field(default_factory=MemoryStore)
    alerts: MemoryLog = field(default_factory=lambda: MemoryLog("alerts"))
    letters: MemoryLog = field(default_factory=lambda: MemoryLog("letters"))
    sinks: dict[str, MemoryLog] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    recovery: Path | None = None
    balances: dict[str, Balance] = field(default_factory=dict)
    overtaken: int = 0
    wrap: Callable[[Source[Batch]], Source[Batch]] = lambda source: source

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        self.balances[partition] = dataclasses.replace(balance, dead=dict(balance.dead))

    def lagging(self, partition: str, records: int) -> None: ...

    def run(self, batch_size: int, workers: int = 1) -> None:
        """Run until the topic's end, from the recovery store if there is one. Raises the errors of the flow."""
        settings = SourceSettings(
            factory=self.topic,
            decoder=DECODERS["native"],
            enrich=self.enrich,
            time=self.shape.time,
            decode=self.decode,
            retry=ReliabilityConfig(),
            batch_size=batch_size,
            now=lambda: BEGAN,
            stopping=lambda: False,
            observer=self,
        )
        io = PipelineIO(
            source=self.wrap(TelemetrySource(settings)),
            store=ReliableSink(self.store, ReliabilityConfig()),
            alerts={
                name: ReliableSink(sink, ReliabilityConfig(), at_once=True)
                for name, sink in {"memory": self.alerts, **self.sinks}.items()
            },
            dead_letters={"memory": ReliableSink(self.letters, ReliabilityConfig())},
            steps=self.steps,
        )

        def overtaken(shard: int, series: int, events: int) -> None:
            self.overtaken += events

        flow = pipeline(self.shape, io, Taps(_not_replayed, _ignore, overtaken))
        recovery = None
        if self.recovery is not None:
            if not list(self.recovery.glob("part-*")):
                init_db_dir(self.recovery, 1)  # type: ignore[no-untyped-call]
            recovery = RecoveryConfig(str(self.recovery))  # type: ignore[no-untyped-call]
        if workers == 1:
            run_main(flow, epoch_interval=timedelta(0), recovery_config=recovery)  # type: ignore[no-untyped-call]
        else:
            cluster_main(  # type: ignore[no-untyped-call]
                flow, [], 0, epoch_interval=timedelta(0), recovery_config=recovery, worker_count_per_proc=workers
            )

    def run_through(self, batch_size: int, workers: Sequence[int] = (1,)) -> int:
        """Run until a run does not crash, each with the next number of workers in turn; returns the number of runs."""
        runs = 0
        while True:
            count = workers[runs % len(workers)]
            runs += 1
            left = len(self.topic.crash_after)
            try:
                self.run(batch_size, count)
            except BaseException:
                if len(self.topic.crash_after) == left:
                    raise
                continue
            return runs

    def outcome(self) -> tuple[object, ...]:
        """All results of a run that a user sees, in a form that can be compared."""
        alerts = [a.value for a in self.alerts.lines]
        letters = sorted((d.id, d.value) for d in self.letters.lines)
        return self.store.rows, alerts, letters, self.balances


def _not_replayed(alert: Alert) -> bool:
    return False


def _ignore(alert: Alert) -> None:
    pass
