"""Checks the folders, claims the recovery store, and starts metrics and heartbeats before the flow runs."""

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
    """The metrics of this process, with the values that never change already set."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    telemetry = Telemetry(settings.metrics.services, wall_clock)
    ProcessCollector(registry=telemetry.registry)
    telemetry.built(__version__, platform.python_version())
    objectives = settings.objectives
    telemetry.configured(settings.panes.series_per_shard, objectives.error_ratio, objectives.cost_usd)
    return telemetry


def check_folders(settings: Settings) -> None:
    """Raises `ConfigError` where a file of the settings cannot be written: the flow may first open it days later."""
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
    """Raises `ConfigError` where the folder of a recovery store cannot be written: Bytewax would not say so."""
    wrong = room(next(f for f in (folder, *folder.absolute().parents) if f.is_dir()))
    if wrong is not None:
        raise ConfigError(
            f"the recovery folder {folder} cannot be written ({wrong}): mend that, or give -r another one"
        )


def start_heartbeats(settings: Settings, run: Run, where: store.Place) -> None:
    """Send heartbeats while the process lives, if alerts go to Kafka; makes their topic if the settings allow it."""
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
    """Lock the recovery folder; raises `ConfigError` where it is in use, or was made by other settings or sources."""
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
