"""Whether each neighbour that the settings name is there, by the calls that sources and sinks make themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from connectors.base import WriterFactory
from connectors.greptime.writer import GreptimeFactory
from connectors.prices import load
from connectors.sqlite import SqliteFactory
from flows.settings.model import CONFIG_EXIT_CODE, Settings
from flows.wiring import heartbeat_topic, reader, writers
from operators.errors import ConfigError, SentinelError


@dataclass(frozen=True, slots=True)
class Answer:
    """What one neighbour said: `problem` is None where all is well."""

    neighbour: str
    said: str
    problem: SentinelError | None = None

    def __str__(self) -> str:
        return f"{'ok    ' if self.problem is None else 'failed'}  {self.neighbour}: {self.problem or self.said}"


def ask(settings: Settings) -> Iterator[Answer]:
    """Ask each neighbour in turn. May wait as long as a start may (`kafka.start_budget_s` for brokers).

    What a start makes is made: an SQLite file, and topics under `kafka.create_topics`. Nothing else is written, and a
    flow that is running is not disturbed: no writer is fenced, no file locked for longer than a look.
    """
    yield _answer(f"source, {settings.source.kind}", lambda: _source(settings))
    to = writers(settings)
    if to.store is not None:
        store = to.store
        yield _answer(f"store, {settings.store.kind}", lambda: _sink(store))
    for what, sinks, path in (
        ("alerts", to.alerts, settings.alerts.jsonl),
        ("dead letters", to.dead_letters, settings.dead_letters.jsonl),
    ):
        for name, factory in sinks.items():
            call = partial(_file, path) if name == "jsonl" and path is not None else partial(_sink, factory)
            yield _answer(f"{what}, {name}", call)
    beats = heartbeat_topic(settings)
    if beats is not None:
        yield _answer("heartbeats, kafka", lambda: _sink(beats))
    if settings.enrich.prices is not None:
        prices = Path(settings.enrich.prices)
        yield _answer("price file", lambda: f"{len(load(prices))} prices")


def exit_code(answers: list[Answer]) -> int:
    """0 where all is well, 78 where a setting is wrong, else 1: a neighbour is away."""
    problems = [a.problem for a in answers if a.problem is not None]
    if any(isinstance(p, ConfigError) for p in problems):
        return CONFIG_EXIT_CODE
    return 1 if problems else 0


def _answer(neighbour: str, call: Callable[[], str]) -> Answer:
    try:
        return Answer(neighbour, call())
    except SentinelError as problem:
        return Answer(neighbour, "", problem)


def _partitions(names: list[str]) -> str:
    return f"{len(names)} partition{'' if len(names) == 1 else 's'}"


def _source(settings: Settings) -> str:
    factory = reader(settings)
    names = factory.partitions()
    if settings.source.kind == "files":
        for name in names:
            factory.open(name, None).close()
    return _partitions(names)


def _sink(factory: WriterFactory[Any]) -> str:
    match factory:
        case SqliteFactory():
            factory.open(factory.partitions()[0], None).close()
            return "the file can be opened"
        case GreptimeFactory():
            factory.open(factory.partitions()[0], None).ping()
            return "the server answers"
    # A Kafka writer is not opened: that would fence the one of a running flow.
    return _partitions(factory.partitions())


def _file(path: Path) -> str:
    """A JSON lines file is not opened: its writer holds a lock, and would cut a line that another one is writing."""
    if not path.parent.is_dir():
        raise ConfigError(f"the file {path} has no folder {path.parent}: make it, or set another path")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"the file {path} cannot be opened for writing: check its permissions")
    return "the file can be written"
