"""Asks each neighbour that the settings name whether it is there, with the calls of sources and sinks themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Never

from connectors.base import WriterFactory
from connectors.prices import described, load
from connectors.registry import heartbeats
from flows.settings.model import CONFIG_EXIT_CODE, Settings
from flows.wiring import reader, writers
from operators.errors import ConfigError, SentinelError


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of one neighbour: `problem` is None if all is well."""

    neighbour: str
    said: str
    problem: SentinelError | None = None

    def __str__(self) -> str:
        return f"{'ok    ' if self.problem is None else 'failed'}  {self.neighbour}: {self.problem or self.said}"


def ask(settings: Settings) -> Iterator[Answer]:
    """Ask each neighbour in turn. May wait as long as a start may (`kafka.start_budget_s` for brokers).

    Like a start, it makes an SQLite file, and topics under `kafka.create_topics`. It writes nothing else and does not
    disturb a running flow: no writer is fenced, and no file is locked for longer than one query.
    """
    yield _answer(f"source, {settings.source.kind}", lambda: _source(settings))
    to = writers(settings)
    asked: Mapping[str, Mapping[str, WriterFactory[Never]]] = {
        "store": to.stores,
        "alerts": to.alerts,
        "dead letters": to.dead_letters,
    }
    for what, sinks in asked.items():
        for name, factory in sinks.items():
            yield _answer(f"{what}, {name}", factory.ask)
    beats = heartbeats(settings)
    if beats is not None:
        yield _answer("heartbeats, kafka", beats.ask)
    if settings.enrich.prices is not None:
        prices = Path(settings.enrich.prices)
        yield _answer("price file", lambda: described(load(prices)))


def exit_code(answers: list[Answer]) -> int:
    """0 if all is well, 78 if a setting is wrong, else 1: a neighbour is away."""
    problems = [a.problem for a in answers if a.problem is not None]
    if any(isinstance(p, ConfigError) for p in problems):
        return CONFIG_EXIT_CODE
    return 1 if problems else 0


def _answer(neighbour: str, call: Callable[[], str]) -> Answer:
    try:
        return Answer(neighbour, call())
    except SentinelError as problem:
        return Answer(neighbour, "", problem)


def _source(settings: Settings) -> str:
    factory = reader(settings)
    names = factory.partitions()
    if settings.source.kind == "files":
        for name in names:
            factory.open(name, None).close()
    return f"{len(names)} partition{'' if len(names) == 1 else 's'}"
