"""The main job with a fuse: `python -m bytewax.run "tests.chaos.failing_flow:flow('after store.snapshot', 2)"`.

Each source and sink of the settings is inside another one that counts its calls. At the given call the process dies by
SIGKILL, before or after the real call.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import FixedPartitionedSink, Sink, StatefulSinkPartition

from flows import wiring
from flows.pipeline import Taps, pipeline
from flows.process.run import Run, wall_clock
from flows.process.start import claim
from flows.recovery import store
from flows.settings.model import load
from operators.decode.intake import Batch
from operators.model import Alert
from operators.observe.telemetry import Telemetry

Inner = Any


class Fuse:
    """Kills the process when `place` is passed the given number of times."""

    def __init__(self, place: str, calls: int) -> None:
        self._place = place
        self._left = calls

    def passed(self, place: str) -> None:
        if place == self._place:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class FailingSourcePartition(StatefulSourcePartition[Batch, Any]):
    def __init__(self, inner: Inner, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def next_batch(self) -> list[Batch]:
        self._fuse.passed("before source.next_batch")
        batch: list[Batch] = self._inner.next_batch()
        self._fuse.passed("after source.next_batch")
        return batch

    def next_awake(self) -> datetime | None:
        at: datetime | None = self._inner.next_awake()
        return at

    def snapshot(self) -> Any:
        self._fuse.passed("before source.snapshot")
        state = self._inner.snapshot()
        self._fuse.passed("after source.snapshot")
        return state

    def close(self) -> None:
        self._inner.close()


class FailingSource(FixedPartitionedSource[Batch, Any]):
    def __init__(self, inner: Inner, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def list_parts(self) -> list[str]:
        parts: list[str] = self._inner.list_parts()
        return parts

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> FailingSourcePartition:
        return FailingSourcePartition(self._inner.build_part(step_id, for_part, resume_state), self._fuse)


class FailingSinkPartition(StatefulSinkPartition[Any, Any]):
    def __init__(self, inner: Inner, name: str, fuse: Fuse) -> None:
        self._inner = inner
        self._name = name
        self._fuse = fuse

    def write_batch(self, values: list[Any]) -> None:
        self._fuse.passed(f"before {self._name}.write_batch")
        self._inner.write_batch(values)
        self._fuse.passed(f"after {self._name}.write_batch")

    def snapshot(self) -> Any:
        self._fuse.passed(f"before {self._name}.snapshot")
        state = self._inner.snapshot()
        self._fuse.passed(f"after {self._name}.snapshot")
        return state

    def close(self) -> None:
        self._inner.close()


class FailingSink(FixedPartitionedSink[Any, Any]):
    def __init__(self, inner: Inner, name: str, fuse: Fuse) -> None:
        self._inner = inner
        self._name = name
        self._fuse = fuse

    def list_parts(self) -> list[str]:
        parts: list[str] = self._inner.list_parts()
        return parts

    def part_fn(self, item_key: str) -> int:
        number: int = self._inner.part_fn(item_key)
        return number

    def build_part(self, step_id: str, for_part: str, resume_state: Any) -> FailingSinkPartition:
        inner = self._inner.build_part(step_id, for_part, resume_state)
        self._fuse.passed(f"after {self._name}.build_part")
        return FailingSinkPartition(inner, self._name, self._fuse)


def flow(place: str, calls: int) -> Dataflow:
    """The flow of `flows.main`, which dies when `place` is passed the given number of times."""
    settings = load(os.environ, Path.cwd()).settings
    factory = wiring.reader(settings)
    run = Run(Telemetry(), None)
    run.held = claim(settings, store.place(sys.argv[1:], os.environ), factory)
    fuse = Fuse(place, calls)

    def failing(sinks: dict[str, Sink[Any]], step: str) -> dict[str, Sink[Any]]:
        return {name: FailingSink(sink, f"{step}_{name}", fuse) for name, sink in sinks.items()}

    to = wiring.writers(settings, None if run.held is None else run.held.topics)
    io = wiring.pipeline_io(settings, run, factory, wall_clock, to)
    io = replace(
        io,
        source=FailingSource(io.source, fuse),
        store=FailingSink(io.store, "store", fuse),
        alerts=failing(io.alerts, "alerts"),
        dead_letters=failing(io.dead_letters, "dead_letters"),
    )

    def alerted(alert: Alert) -> None:
        fuse.passed("alerted")

    def closed(shard: int, series: int, overtaken: int) -> None:
        fuse.passed("closed")

    dataflow = pipeline(wiring.shape(settings), io, Taps(lambda _: False, alerted, closed))
    _KEPT.append(run)
    return dataflow


_KEPT: list[Run] = []
"""The run holds the lock on the recovery folder; it must live as long as the process."""
