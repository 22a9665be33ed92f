"""What settings turn into: the source, the sinks, the shape of the pure part, and the dataflow of them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from bytewax.dataflow import Dataflow

from connectors.base import Message, ReaderFactory, Row, WriterFactory
from connectors.config import JsonlConfig, TerminalConfig
from connectors.files import FilesFactory
from connectors.greptime.writer import GreptimeFactory
from connectors.jsonl import JsonlFactory
from connectors.kafka.once import KafkaOnce
from connectors.kafka.source import KafkaSource
from connectors.prices import PriceFile
from connectors.reliable import ReliableSink
from connectors.simulator import Simulator
from connectors.source import SourceSettings, TelemetrySource
from connectors.sqlite import SqliteFactory
from connectors.tracing import TracedSinks
from flows.pipeline import PipelineIO, Shape, Taps, pipeline
from flows.process.run import Run
from flows.recovery.topics import keep_read, keep_written
from flows.settings.model import Settings
from operators.decode.registry import decoder
from operators.enrich.enricher import Enricher
from operators.model import SECOND, Alert
from operators.steps import Watching

X = TypeVar("X")


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


def pipeline_io(settings: Settings, run: Run, factory: ReaderFactory, now: Callable[[], int]) -> PipelineIO:
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
    made = PipelineIO(
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
    return pipeline(made, pipeline_io(settings, run, factory, now), taps)


def heartbeat_topic(settings: Settings) -> KafkaOnce | None:
    """The topic of heartbeats; None where there are none."""
    if not settings.alerts.kafka or not settings.kafka.heartbeat_s:
        return None
    return KafkaOnce(settings.kafka, settings.kafka.heartbeat_topic, "heartbeat")
