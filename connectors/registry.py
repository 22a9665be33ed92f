"""Every connector by the name that settings know it by; the laws in `tests/contracts` hold for all that stand here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from connectors.base import Message, ReaderFactory, Row, WriterFactory
from connectors.config import FilesConfig, GreptimeConfig, JsonlConfig, SqliteConfig, TerminalConfig
from connectors.files import FilesFactory
from connectors.greptime.writer import GreptimeFactory
from connectors.jsonl import JsonlFactory
from connectors.simulation.config import SimulatorConfig
from connectors.simulator import Simulator
from connectors.sqlite import SqliteFactory
from connectors.terminal import TerminalFactory
from operators.section import Section

F = TypeVar("F")


@dataclass(frozen=True, slots=True)
class Registered(Generic[F]):
    """A connector: the section of settings it is made from, and what makes it of that section.

    `once` is said of a writer whose items a reader sees exactly once over crashes, or as one row; a replay may show
    the items of the others again.
    """

    config: type[Section]
    make: Callable[..., F]
    once: bool = True


STORES: Final[dict[str, Registered[WriterFactory[Row]]]] = {
    "sqlite": Registered(SqliteConfig, SqliteFactory),
    "greptime": Registered(GreptimeConfig, GreptimeFactory),
}
"""Where pane rows and alerts are kept for queries."""

ALERTS: Final[dict[str, Registered[WriterFactory[Message]]]] = {
    "jsonl": Registered(JsonlConfig, JsonlFactory),
    "terminal": Registered(TerminalConfig, TerminalFactory, once=False),
}
"""Where alerts are sent."""

SOURCES: Final[dict[str, Registered[ReaderFactory]]] = {
    "files": Registered(FilesConfig, FilesFactory),
    "simulator": Registered(SimulatorConfig, Simulator),
}
"""Where telemetry comes from."""
