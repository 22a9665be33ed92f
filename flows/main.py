"""The main flow: `python -m bytewax.run flows.main` calls `flow()`.

Importing this module does nothing. `flow()` reads the settings, claims the recovery folder, connects to the source, and
returns the dataflow; whatever is wrong with the set-up ends the process with one message and exit code 78, a neighbour
that stays away with exit code 1.
"""

from __future__ import annotations

import flows.early  # noqa: F401 - before the imports that take their time

# isort: split
import atexit
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from bytewax.dataflow import Dataflow
from prometheus_client import ProcessCollector, disable_created_metrics

from connectors.base import Message, ReaderFactory, Row, WriterFactory
from connectors.config import JsonlConfig, TerminalConfig
from connectors.files import FilesFactory
from connectors.greptime.writer import GreptimeFactory
from connectors.jsonl import JsonlFactory
from connectors.kafka.heartbeat import Heartbeats
from connectors.kafka.once import KafkaOnce
from connectors.kafka.source import KafkaSource
from connectors.listener import Listener
from connectors.prices import PriceFile
from connectors.reliable import ReliableSink
from connectors.simulator import Simulator
from connectors.source import SourceSettings, TelemetrySource
from connectors.sqlite import SqliteFactory
from connectors.tracing import TracedSinks, Traces
from flows import __version__, recovery
from flows.ending import room, say_why
from flows.gather import check_token
from flows.heartbeat import Pulse, patience_s
from flows.joining import join
from flows.logs import Who, debug_on_signal, set_up_logging, tell
from flows.panics import keep_back
from flows.pipeline import Ends, Shape, Taps, pipeline
from flows.process.run import Run, spare_the_collector, stop_on_signals, wall_clock
from flows.progress import Progress
from flows.schema import secrets_of
from flows.settings import CONFIG_EXIT_CODE, Settings, load
from flows.topics import keep_read, keep_written
from operators.decode.registry import decoder
from operators.detect.base import Watch
from operators.enrich import Enricher
from operators.errors import ConfigError, SentinelError
from operators.model import SECOND, Alert
from operators.shard import row_keys
from operators.steps import Watching
from operators.telemetry import Telemetry

log = logging.getLogger(__name__)
X = TypeVar("X")

WATCH_S: Final = 5.0
"""How often the brokers are asked whether topics that are read were made anew or have grown, in seconds."""


def reader(settings: Settings) -> ReaderFactory:
    """The source that the settings name."""
    match settings.source.kind:
        case "simulator":
            return Simulator(settings.source.simulator)
        case "files":
            assert settings.source.files is not None
            return FilesFactory(settings.source.files, settings.decode.max_record_bytes)
        case "kafka":
            return KafkaSource(settings.kafka)


@dataclass(frozen=True)
class Writers:
    """The configured sinks; alerts and dead letters by the name of their output step."""

    store: WriterFactory[Row] | None
    alerts: dict[str, WriterFactory[Message]]
    dead_letters: dict[str, WriterFactory[Message]]


def writers(settings: Settings, first: Mapping[str, int] | None = None) -> Writers:
    """The sinks that the settings name; none is connected yet.

    `first` says how many partitions a topic had at the first start of the recovery store, where it is known.
    """
    kafka, first = settings.kafka, first or {}

    def once(topic: str, name: str) -> KafkaOnce:
        return KafkaOnce(kafka, topic, name, first.get(topic))

    store: WriterFactory[Row] | None = None
    match settings.store.kind:
        case "sqlite":
            store = SqliteFactory(settings.store.sqlite)
        case "greptime":
            store = GreptimeFactory(settings.store.greptime)
        case "none":
            pass
    alerts: dict[str, WriterFactory[Message]] = {}
    letters: dict[str, WriterFactory[Message]] = {}
    if settings.alerts.terminal:
        from connectors.terminal import TerminalFactory  # what draws takes its time to import, and pods do not draw

        alerts["terminal"] = TerminalFactory(TerminalConfig(width=settings.alerts.width))
    if settings.alerts.jsonl is not None:
        alerts["jsonl"] = JsonlFactory(JsonlConfig(path=settings.alerts.jsonl))
    if settings.alerts.kafka:
        alerts["kafka"] = once(kafka.alert_topic, "kafka_alerts")
    if settings.dead_letters.jsonl is not None:
        config = JsonlConfig(path=settings.dead_letters.jsonl)
        letters["jsonl"] = JsonlFactory(config, "jsonl_dead_letters", "id")
    if settings.dead_letters.kafka:
        letters["kafka"] = once(kafka.dead_letter_topic, "kafka_dead_letters")
    return Writers(store, alerts, letters)


def enricher(settings: Settings, run: Run) -> Enricher:
    """What fills in costs and families, with the price file that the settings name."""
    if settings.enrich.prices is None:
        return Enricher(settings.enrich)
    return Enricher(settings.enrich, PriceFile(Path(settings.enrich.prices), run.telemetry.prices_loaded))


def ends(settings: Settings, run: Run, factory: ReaderFactory, now: Callable[[], int]) -> Ends:
    """The source and the sinks that the settings name."""
    source = SourceSettings(
        factory=factory,
        decoder=decoder("native"),
        enrich=enricher(settings, run),
        time=settings.time,
        decode=settings.decode,
        retry=settings.sinks,
        batch_size=settings.source.batch_size,
        now=now,
        stopping=run.stopping,
        observer=run,
        traced=None if run.traces is None else run.traces.polled,
        turned=run.turned,
        retried=run.telemetry.polls_again,
        replaced=run.telemetry.replaced,
        connected=run.connected.set,
        stepped=run.telemetry.clock_stepped,
    )
    to = writers(settings, None if run.held is None else run.held.topics)
    watching = run.telemetry if run.traces is None else TracedSinks(run.traces, run.telemetry)

    def sink(factory: WriterFactory[X], at_once: bool) -> ReliableSink[X]:
        factory.partitions()  # asks the neighbour now: a start that cannot work must not wait for its first alert
        return ReliableSink(factory, settings.sinks, at_once=at_once, stopping=run.stop.is_set, observer=watching)

    run.source = TelemetrySource(source)
    made = Ends(
        source=run.source,
        store=None if to.store is None else sink(to.store, at_once=False),
        alerts={name: sink(a, at_once=True) for name, a in to.alerts.items()},
        dead_letters={name: sink(d, at_once=False) for name, d in to.dead_letters.items()},
        steps=steps(settings),
    )
    keep_read(run.held, factory)
    keep_written(run.held, [*to.alerts.values(), *to.dead_letters.values()], run.telemetry)
    return made


def steps(settings: Settings) -> dict[str, str]:
    """The step ids of the sinks whose partitions depend on settings: another topic or store is another step."""
    found = {
        "alerts_kafka": f"alerts_kafka_{settings.kafka.alert_topic}",
        "dead_letters_kafka": f"dead_letters_kafka_{settings.kafka.dead_letter_topic}",
    }
    if settings.store.kind == "greptime":
        found["store"] = f"store_greptime_{settings.store.greptime.partitions}"
    return {name: step.replace(".", "-") for name, step in found.items()}


def shape(settings: Settings) -> Shape:
    """What these settings say of the pure part."""
    return Shape(
        settings.recovery.shards,
        settings.time,
        settings.panes,
        settings.detect,
        settings.episodes,
        settings.groups,
        settings.recovery.relearn,
        settings.store.expectations,
    )


def build(settings: Settings, run: Run, factory: ReaderFactory, now: Callable[[], int]) -> Dataflow:
    """The dataflow of these settings; connects to the source and to what the sinks need to know at the start."""
    oldest = round(settings.alerts.max_age_s * SECOND)

    def replayed(alert: Alert) -> bool:
        return alert.at < now() - oldest

    watching = Watching(run.telemetry, time.perf_counter, run.reached, run.heard)
    taps = Taps(replayed, run.alerted, run.telemetry.shard, watching)
    made = shape(settings) if run.held is None else replace(shape(settings), row_keys=run.held.row_keys)
    return pipeline(made, ends(settings, run, factory, now), taps)


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
    found = {
        "store.sqlite.path": settings.store.sqlite.path if settings.store.kind == "sqlite" else None,
        "alerts.jsonl": settings.alerts.jsonl,
        "dead_letters.jsonl": settings.dead_letters.jsonl,
        "sinks.rejected_file": settings.sinks.rejected_file,
        "metrics.balance_file": settings.metrics.balance_file,
    }
    for key, path in found.items():
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


def heartbeat_topic(settings: Settings) -> KafkaOnce | None:
    """The topic of heartbeats; None where there are none."""
    if not settings.alerts.kafka or not settings.kafka.heartbeat_s:
        return None
    return KafkaOnce(settings.kafka, settings.kafka.heartbeat_topic, "heartbeat")


def start_heartbeats(settings: Settings, run: Run, where: recovery.Place) -> None:
    """Heartbeats for as long as the process lives, where alerts go to Kafka; makes their topic where that may be."""
    kafka, topic = settings.kafka, heartbeat_topic(settings)
    if topic is None:
        return
    topic.partitions()
    run.telemetry.heartbeats(wall_clock())
    run.pulse = pulse = Pulse(where.process, where.processes, wall_clock, patience_s(settings.time))
    run.heartbeats = Heartbeats(
        kafka, f"{kafka.group_id}/{where.process}", kafka.heartbeat_s, pulse.say,
        lambda: run.telemetry.heartbeat(wall_clock()),
    )  # fmt: skip


def claim(settings: Settings, where: recovery.Place, factory: ReaderFactory) -> recovery.Held | None:
    """Lock the recovery folder; ConfigError where it is in use, or not one of these settings and this source."""
    return recovery.claim(
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


def flow() -> Dataflow:
    """The dataflow that `bytewax.run` runs.

    Ends the process with one message where it cannot start: with code 78 where the set-up is wrong, with code 1 where a
    neighbour was away for longer than the start waits for it.
    """
    panics = keep_back()
    try:
        settings = load(os.environ, Path.cwd()).settings
        where = recovery.place(sys.argv[1:], os.environ)
        who = Who(where.process)
        set_up_logging(settings.log.level, settings.log.format, who, secrets_of(settings))
        check_folders(settings)
        token = None if settings.recovery.token is None else settings.recovery.token.get_secret_value()
        joins = where.folder is not None and settings.recovery.layout == "own" and where.processes > 1
        if joins:
            check_token(where.addresses, token)
        factory = reader(settings)
        if where.folder is not None:
            recovery.refuse_foreign(where.folder)
            check_room(where.folder)
        telemetry = measured(settings)
        run = Run(telemetry, Progress() if settings.log.format == "text" else None)
        if settings.traces.endpoint is not None:
            run.traces = Traces(settings.traces, __version__, who.run, who.process)
        run.held = claim(settings, where, factory)
        dataflow = build(settings, run, factory, wall_clock)
        start_heartbeats(settings, run, where)
        if isinstance(factory, KafkaSource):
            run.watch = factory.watch(WATCH_S, run.telemetry.unread)
        if settings.metrics.port:
            run.listener = Listener(
                settings.metrics.host,
                settings.metrics.port,
                telemetry.registry,
                run.polled_once.is_set,
                lambda: run.moving(settings),
                telemetry.closed,
            )
        if joins and where.folder is not None:
            join(where, where.folder, run.connected, token)
    except SentinelError as error:
        tell(logging.CRITICAL, f"llm-sentinel cannot start: {error}")
        raise SystemExit(CONFIG_EXIT_CODE if isinstance(error, ConfigError) else 1) from None
    spare_the_collector()
    say_why(where.folder, panics)
    stop_on_signals(run.stop)
    debug_on_signal()
    atexit.register(run.finish, settings.metrics.balance_file)  # also keeps the lock and the listener alive
    return dataflow
