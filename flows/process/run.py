"""Everything that lives as long as the process, with its signals, its clock and its garbage collection."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final

import orjson

from connectors.kafka.heartbeat import Heartbeats
from connectors.kafka.topics import TopicWatch
from connectors.listener import Listener
from connectors.source import TelemetrySource
from connectors.tracing import Traces
from flows.process.dead_letters import DeadLetterWatch
from flows.process.heartbeat import Pulse
from flows.process.logs import tell
from flows.process.novelties import Novelties
from flows.process.progress import Progress
from flows.process.spans import Spans
from flows.process.unpriced import Unpriced
from flows.recovery import store
from flows.settings.model import Settings
from operators.decode.intake import Balance, Batch
from operators.model import Alert
from operators.observe.telemetry import Telemetry

log = logging.getLogger(__name__)

STUCK_S: Final = 300.0
"""Seconds without a poll, beyond the budget of a sink, after which a process is stuck. Compiling takes less."""


@dataclass
class Run:
    """The parts of the process: stop flag, metrics, progress, heartbeats, lock on the recovery folder, and so on."""

    telemetry: Telemetry
    progress: Progress | None
    held: store.Held | None = None
    listener: Listener | None = None
    traces: Traces | None = None
    pulse: Pulse | None = None
    heartbeats: Heartbeats | None = None
    source: TelemetrySource | None = None
    watch: TopicWatch | None = None
    novelties: Novelties = field(default_factory=Novelties)
    dead_letters: DeadLetterWatch = field(default_factory=DeadLetterWatch)
    spans: Spans | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    connected: threading.Event = field(default_factory=threading.Event)
    polled_once: threading.Event = field(default_factory=threading.Event)
    unpriced: Unpriced = field(default_factory=Unpriced)
    clock: Callable[[], float] = time.monotonic
    moved: float | None = None

    def stopping(self) -> bool:
        """Whether to stop. Sources ask before each poll, with or without records: a flow that asks is not stuck."""
        self.moved = self.clock()
        return self.stop.is_set()

    def is_live(self, settings: Settings) -> bool:
        """Whether the source was asked lately; "lately" includes the time that sinks may wait for their neighbours.

        A process without a part of the source counts as live. So does a source with an end: it stops there.
        """
        endless = settings.source.kind == "kafka" and not settings.kafka.stop_at_end
        if self.moved is None or not endless:
            return True
        return self.clock() - self.moved < STUCK_S + settings.sinks.budget_s

    def polled(self, partition: str, batch: Batch, balance: Balance, watermark: int | None) -> None:
        """A source partition was polled; raises `FatalError` where the recovery folder has gone."""
        if self.held is not None:
            self.held.check()
        self.polled_once.set()
        self.telemetry.polled(partition, batch, balance, watermark)
        self.unpriced.see(batch.events, batch.on_time | batch.late)
        self.novelties.see(batch)
        if self.pulse is not None:
            self.pulse.polled(partition, balance.records, watermark)
        if self.spans is not None:
            self.spans.add(partition, batch.events.start[batch.on_time])
        if self.progress is not None:
            late = int(batch.late.sum())
            self.progress.update(len(batch.events), watermark, len(batch.dead), late)
        self.dead_letters.polled(batch)

    def lagging(self, partition: str, records: int) -> None:
        """Note the number of records that a source partition still has."""
        self.telemetry.lagging(partition, records)

    def turned(self) -> None:
        """A source partition was polled without a fault: the flow is alive."""
        self.telemetry.turned()
        if self.pulse is not None:
            self.pulse.turned()

    def finish(self, balance_file: Path | None) -> None:
        """The flow is over: close everything, show the last progress, and log the balance of all records."""
        if self.heartbeats is not None:
            self.heartbeats.close()
        if self.watch is not None:
            self.watch.close()
        if self.progress is not None:
            self.progress.finish()
        self.unpriced.finish()
        if self.traces is not None:
            self.traces.close()
        self.dead_letters.finish()
        if self.spans is not None and (overlap := self.spans.overlap()):
            log.info(overlap)
        balance = self.telemetry.balances.total()
        log.info(
            "%d records: %d on time, %d late, %d duplicate, %d dead letters; %d events have tokens and no price",
            balance.records, balance.on_time, balance.late, balance.duplicate, sum(balance.dead.values()),
            balance.unpriced,
        )  # fmt: skip
        if balance.passed_over:
            passed = ", ".join(f"{count} {name}" for name, count in balance.passed_over.items())
            log.info("passed over, since they tell of no call: %s", passed)
        if balance_file is not None:
            try:
                balance_file.write_bytes(orjson.dumps(asdict(balance)))
            except OSError as error:
                log.warning("the balance file %s cannot be written: %s", balance_file, error.strerror)

    def reached(self, shard: int, closed: int | None, newest: int | None) -> None:
        """A shard has closed panes up to `closed`; its fastest partition would allow panes up to `newest`."""
        if self.pulse is not None:
            self.pulse.reached(shard, closed, newest)

    def heard(self, shard: int, reading: Callable[[], Mapping[str, int | None]]) -> None:
        """A shard has heard of all partitions, those of other processes too: the source waits for the slowest."""
        if self.source is not None:
            self.source.heard(shard, reading)

    def alerted(self, alert: Alert) -> None:
        """An alert leaves the flow."""
        self.telemetry.alerted(alert)
        if self.pulse is not None:
            self.pulse.alerted()
        if self.progress is not None:
            self.progress.update(alerts=1)


def wall_clock() -> int:
    """Microseconds since 1970, the one clock of the flow; it serves arrivals, idleness and the age of alerts."""
    return time.time_ns() // 1_000


def stop_on_signals(stop: threading.Event) -> None:
    """Let SIGTERM and SIGINT end the sources, after a last snapshot; a second signal ends the process at once."""

    def handler(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()
        tell(logging.INFO, f"\n{signal.Signals(number).name}: stopping after a last snapshot")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
        signal.signal(signal.SIGINT, handler)


def spare_the_collector() -> None:
    """Make the cycle collector run seldom: a batch makes tens of thousands of tuples and no cycles."""
    gc.freeze()
    gc.enable()
    gc.set_threshold(200_000, 20, 20)
