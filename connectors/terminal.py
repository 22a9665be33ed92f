"""Alerts as readable lines on the terminal, for people who watch a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Final, TextIO

import orjson
from rich.console import Console
from rich.text import Text

from connectors.base import Message, State
from connectors.config import TerminalConfig
from connectors.console import SEVERITY_STYLES, PipeConsole
from operators.errors import DataError
from operators.text import printable
from operators.units import readable

log = logging.getLogger(__name__)

_NARROW: Final = 100
"""An alert takes two lines on a terminal with fewer columns than this."""


def _value(alert: Mapping[str, object], name: str) -> str:
    value = alert.get(name)
    if not isinstance(value, int | float):
        return "?"
    return readable(printable(alert.get("metric", "")), printable(alert.get("unit", "")), value)


def alert_line(alert: Mapping[str, object], narrow: bool) -> Text:
    """One alert, from its JSON fields, as text: time, severity, transition, series, values."""
    severity, status = printable(alert.get("severity", "?")), printable(alert.get("status", "?"))
    line = Text(printable(alert.get("at", "?")).replace("T", " ") + "  ")
    line.append(f"{severity:<8}", style=SEVERITY_STYLES.get(severity, ""))
    line.append(f"  {status:<8}  ", style="dim" if status == "resolved" else "")
    series = alert.get("series")
    where = " ".join(f"{printable(k)}={printable(v)}" for k, v in series.items()) if isinstance(series, dict) else "?"
    line.append(where, style="bold")
    line.append("\n    " if narrow else "  ")
    what = printable(alert.get("text") or "") or (
        f"{printable(alert.get('metric', '?'))} {_value(alert, 'observed')}, expected {_value(alert, 'expected')}"
    )
    line.append(what)
    return line


class TerminalWriter:
    """Prints the alerts of each write; if the terminal goes away, it logs that once and stops printing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._gone = False

    def write(self, items: Sequence[Message]) -> None:
        """Print the alerts. Raises `DataError` where one is not a JSON object."""
        lines = [self._line(item) for item in items]
        if self._gone:
            return
        try:
            for line in lines:
                # Lines wrap only on a terminal; in a file or pipe an alert stays one line.
                self._console.print(line, soft_wrap=not self._console.is_terminal, highlight=False)
        except OSError as e:
            self._gone = True
            log.warning("alerts are no longer shown: the terminal has gone away (%s)", e.strerror)

    def _line(self, item: Message) -> Text:
        try:
            alert = orjson.loads(item.value)
        except ValueError:
            alert = None
        if not isinstance(alert, dict):
            raise DataError("bad_row", f"{item.id} is not a JSON object")
        return alert_line(alert, self._console.is_terminal and self._console.width < _NARROW)

    def snapshot(self) -> State | None:
        """Nothing: a replay may show an alert again."""
        return None

    def close(self) -> None:
        """Nothing to close: the terminal belongs to the program."""


class TerminalFactory:
    """The terminal as a sink of alerts; colours only on a terminal, and none if NO_COLOR is set."""

    name = "terminal"

    def __init__(self, config: TerminalConfig, stream: TextIO | None = None) -> None:
        self._console = PipeConsole(file=stream or sys.stdout, width=config.width)

    def partitions(self) -> list[str]:
        """The one partition."""
        return ["terminal"]

    def route(self, key: str) -> int:
        """Every key goes to the one partition."""
        return 0

    def open(self, partition: str, resume: State | None) -> TerminalWriter:
        """A writer on the console."""
        return TerminalWriter(self._console)

    def ask(self) -> str:
        """There is nothing to ask: standard output needs no connection."""
        return "1 partition"
