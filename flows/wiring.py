"""Builds from the settings: the source, the sinks, the shape of the pure part, and the dataflow of them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bytewax.dataflow import Dataflow
from bytewax.outputs import Sink as BytewaxSink

from connectors.base import Message, ReaderFactory, Row, WriterFactory
from connectors.channel import sink_of
from connectors.prices import PriceFile, shipped
from connectors.registry import ALERTS, DEAD_LETTERS, SOURCES, STORES, Sink, asked_for
from connectors.reliable import ReliableSink
from connectors.source import SourceSettings, TelemetrySource
from connectors.tracing import TracedSinks
from flows.pipeline import STORE, PipelineIO, Shape, Taps, pipeline
from flows.process.run import Run
from flows.recovery.topics import keep_read, keep_written
from flows.settings.model import Settings
from operators.decode.registry import decoder
from operators.enrich.enricher import Enricher
from operators.enrich.pricing import NO_PRICES
from operators.model import SECOND, Alert
from operators.steps import Watching


def reader(settings: Settings) -> ReaderFactory:
    """The source that the settings name."""
    return SOURCES[settings.source.kind](settings)


@dataclass(frozen=True)
class Writers:
    """The sinks of one run by their names in the registry; at most one store."""

    stores: Mapping[str, WriterFactory[Row]] = field(default_factory=dict)
    alerts: Mapping[str, WriterFactory[Message]] = field(default_factory=dict)
    dead_letters: Mapping[str, WriterFactory[Message]] = field(default_factory=dict)


def writers(settings: Settings, first: Mapping[str, int] | None = None) -> Writers:
    """The sinks that the settings name; none is connected yet.

    `first`: the number of partitions that each topic had at the first start of the recovery store, as far as known.
    """
    return Writers(
        asked_for(STORES, settings, first),
        asked_for(ALERTS, settings, first),
        asked_for(DEAD_LETTERS, settings, first),
    )


def enricher(settings: Settings, run: Run) -> Enricher:
    """The enricher, which fills in costs and families, with the prices that the settings ask for."""
    own, public = settings.enrich.prices, shipped() if settings.enrich.shipped_prices else NO_PRICES
    if own is None:
        return Enricher(settings.enrich, shipped=public)
    return Enricher(settings.enrich, PriceFile(Path(own), run.telemetry.prices_loaded), public)


def pipeline_io(
    settings: Settings, run: Run, factory: ReaderFactory, now: Callable[[], int], to: Writers
) -> PipelineIO:
    """The source and these sinks as the ends of the graph."""
    source = SourceSettings(
        factory=factory,
        decoder=decoder(*settings.source.read_as("")),
        decoders={topic: decoder(*settings.source.read_as(topic)) for topic in settings.source.topics},
        enrich=enricher(settings, run),
        time=settings.time,
        decode=settings.decoding,
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
    watching = run.telemetry if run.traces is None else TracedSinks(run.traces, run.telemetry)

    def store(name: str, rows: WriterFactory[Row]) -> BytewaxSink[tuple[str, Row]]:
        rows.partitions()  # asks the neighbour now, so that a start that cannot work fails before the first row
        singly = STORES[name].guarantee != "exactly_once"
        return ReliableSink(rows, settings.sinks, singly=singly, stopping=run.stop.is_set, observer=watching)

    def messages(
        sinks: Mapping[str, Sink[Message]], made: Mapping[str, WriterFactory[Message]], at_once: bool
    ) -> dict[str, BytewaxSink[tuple[str, Message]]]:
        for writers in made.values():
            writers.partitions()
        return {
            name: sink_of(
                sinks[name].guarantee,
                writers,
                settings.sinks,
                at_once=at_once,
                stopping=run.stop.is_set,
                observer=watching,
            )
            for name, writers in made.items()
        }

    run.source = TelemetrySource(source)
    made = PipelineIO(
        source=run.source,
        store=next((store(name, rows) for name, rows in to.stores.items()), None),
        alerts=messages(ALERTS, to.alerts, at_once=True),
        dead_letters=messages(DEAD_LETTERS, to.dead_letters, at_once=False),
        steps=steps(settings),
    )
    keep_read(run.held, factory)
    keep_written(run.held, [*to.alerts.values(), *to.dead_letters.values()], run.telemetry)
    return made


def steps(settings: Settings) -> dict[str, str]:
    """The step ids of the sinks whose partitions depend on settings; another topic or store gets another step id."""
    named = {f"alerts_{name}": sink.step for name, sink in ALERTS.items()}
    named |= {f"dead_letters_{name}": sink.step for name, sink in DEAD_LETTERS.items()}
    if settings.store.kind in STORES:
        named[STORE] = STORES[settings.store.kind].step
    return {name: step(settings).replace(".", "-") for name, step in named.items() if step is not None}


def shape(settings: Settings) -> Shape:
    """The settings of the pure part."""
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


def build(settings: Settings, run: Run, factory: ReaderFactory, now: Callable[[], int], to: Writers) -> Dataflow:
    """The dataflow of these settings, from this source to these sinks instead of those that the settings name.

    Connects to the source, and asks the neighbours of the sinks for their partitions.
    """
    oldest = round(settings.alerts.max_age_s * SECOND)

    def replayed(alert: Alert) -> bool:
        return alert.at < now() - oldest

    watching = Watching(run.telemetry, time.perf_counter, run.reached, run.heard)
    taps = Taps(replayed, run.alerted, run.telemetry.shard, watching)
    made = shape(settings) if run.held is None else replace(shape(settings), row_keys=run.held.row_keys)
    return pipeline(made, pipeline_io(settings, run, factory, now, to), taps)
