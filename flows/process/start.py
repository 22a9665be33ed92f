"""What must be right, and what is put in place, before the flow of this process runs."""

from __future__ import annotations

import os
import platform
from operator import attrgetter
from pathlib import Path

from prometheus_client import ProcessCollector, disable_created_metrics

from connectors.base import ReaderFactory
from connectors.kafka.heartbeat import Heartbeats
from connectors.registry import SINKS, heartbeats
from flows import __version__
from flows.process.ending import room
from flows.process.heartbeat import Pulse, patience_s
from flows.process.run import Run, wall_clock
from flows.recovery import store
from flows.settings.model import Settings
from operators.detect.base import Watch
from operators.errors import ConfigError
from operators.observe.telemetry import Telemetry
from operators.panes.shard import row_keys


def measured(settings: Settings) -> Telemetry:
    """The metrics of this process, with what does not change while it lives."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    telemetry = Telemetry(settings.metrics.services, wall_clock)
    ProcessCollector(registry=telemetry.registry)
    telemetry.built(__version__, platform.python_version())
    objectives = settings.objectives
    telemetry.configured(settings.panes.series_per_shard, objectives.error_ratio, objectives.cost_usd)
    return telemetry


def check_folders(settings: Settings) -> None:
    """Raises `ConfigError` where a file that is to be written cannot be: it may not be opened for days."""
    writing = [sink.file for sink in SINKS if sink.file and sink.make(settings, {}) is not None]
    for key in (*writing, "sinks.rejected_file", "metrics.balance_file"):
        path: Path | None = attrgetter(key)(settings)
        if path is not None and not path.parent.is_dir():
            raise ConfigError(f"{key}: the file {path} has no folder {path.parent}: make it, or set another path")
        if path is not None and not os.access(path if path.exists() else path.parent, os.W_OK):
            raise ConfigError(
                f"{key}: the file {path} may not be written: check its rights and its file system, or set another path"
            )


def check_room(folder: Path) -> None:
    """Raises `ConfigError` where this folder of a recovery store cannot be written: Bytewax would not say so."""
    wrong = room(next(f for f in (folder, *folder.absolute().parents) if f.is_dir()))
    if wrong is not None:
        raise ConfigError(
            f"the recovery folder {folder} cannot be written ({wrong}): mend that, or give -r another one"
        )


def start_heartbeats(settings: Settings, run: Run, where: store.Place) -> None:
    """Heartbeats for as long as the process lives, where alerts go to Kafka; makes their topic where that may be."""
    kafka, topic = settings.kafka, heartbeats(settings)
    if topic is None:
        return
    topic.partitions()
    run.telemetry.heartbeats(wall_clock())
    run.pulse = pulse = Pulse(where.process, where.processes, wall_clock, patience_s(settings.time))
    run.heartbeats = Heartbeats(
        kafka, f"{kafka.group_id}/{where.process}", kafka.heartbeat_s, pulse.say,
        lambda: run.telemetry.heartbeat(wall_clock()),
    )  # fmt: skip


def claim(settings: Settings, where: store.Place, factory: ReaderFactory) -> store.Held | None:
    """Lock the recovery folder; ConfigError where it is in use, or not one of these settings and this source."""
    return store.claim(
        where,
        settings.recovery.shards,
        settings.time.pane_s,
        factory.identity(),
        settings.recovery.layout,
        Watch(settings.detect, settings.time.pane_s).form,
        settings.recovery.relearn,
        settings.recovery.partitions,
        row_keys(settings.time.pane_s, settings.time.correction_s),
    )
