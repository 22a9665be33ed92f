"""Tells early which models have no price, each once, and the row of a price file that gives one."""

from __future__ import annotations

import glob
import logging
import threading
from datetime import UTC, datetime
from typing import Final

from flows.process.logs import tell
from operators.enrich.pricing import missing
from operators.model import SECOND, Bools, Events
from operators.text import printable

NAMED: Final = 20
"""The models that are named; the others are counted."""
_MOST: Final = 10_000
"""The models that are told apart, so that their number has a bound."""


class Unpriced:
    """The (provider, model) pairs of this process whose events have tokens but neither a cost nor a price in force.

    What it tells changes no event. Several worker threads may share one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: set[tuple[str, str]] = set()

    def see(self, events: Events, chosen: Bools) -> None:
        """Tell the models that are new among the chosen events, which are enriched."""
        found = missing(events, chosen)
        if not found:
            return
        with self._lock:
            room = NAMED - len(self._seen)
            new = [pair for pair in found if pair not in self._seen]
            self._seen.update(new[: _MOST - len(self._seen)])
        named = new[: max(room, 0)]
        if named:
            names = ", ".join(printable(" ".join(filter(None, pair))) for pair in named)
            tell(
                logging.WARNING,
                f"no price is in force for {names}: the cost of their events is unknown. A row for each, such as this "
                "one, in the file that enrich.prices names gives them one (docs/enrich.md; USD for a million tokens in "
                f"place of each ?):\n{row(*named[0], found[named[0]])}",
            )
        if room >= 0 and len(new) > room:
            tell(logging.WARNING, f"more models than these {NAMED} have no price; they are counted, not named")

    def finish(self) -> None:
        """Tell how many models had no price beyond those that were named."""
        more = len(self._seen) - NAMED
        if more > 0:
            least = "at least " if len(self._seen) == _MOST else ""
            tell(logging.WARNING, f"{least}{more:,} more models had no price")


def row(provider: str, model: str, start: int) -> str:
    """The row of a price file for exactly this provider and model, from the day of `start` on, without its prices."""
    day = datetime.fromtimestamp(start // SECOND, UTC).date()
    whose = f"provider = {_quoted(provider)}\n" if provider else ""
    return f"[[price]]\n{whose}model = {_quoted(model)}\nvalid_from = {day}\nprompt = ?\ncompletion = ?"


def _quoted(name: str) -> str:
    """A pattern for this name alone, as a TOML string of printable characters."""
    text = glob.escape(name).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text) + '"'
