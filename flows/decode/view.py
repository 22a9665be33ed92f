"""What the flow makes of a file, as people read it: each call with its fields and where they were found."""

from __future__ import annotations

from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.decode.payload import Outcome
from operators.decode.record import MeasuredRecord
from operators.text import printable

MOST: Final = 20
"""Most calls and most dead letters of a file that are shown."""

_ORDER: Final = {name: i for i, name in enumerate(("timestamp", *MeasuredRecord.__struct_fields__))}
_KINDS: Final = {
    "no_call": "spans or logs that are no call",
    "metric": "metrics, which are sums and no calls",
    "cache_hit": "answers from a cache, for which no provider was called",
    "stream_opening": "openings of streams, of which another span tells",
}


def show(outcome: Outcome, console: Console) -> None:
    """Print the outcome of one file."""
    formats = ", ".join(f"{count} x {name}" for name, count in sorted(outcome.formats.items())) or "no records"
    console.print(Text(f"{printable(outcome.file)}  ({formats})", style="bold"))
    for i, (event, found) in enumerate(zip(outcome.events[:MOST], outcome.found, strict=False), 1):
        console.print(_table(i, event, found))
    _more(console, len(outcome.events), "calls")
    for letter in outcome.dead_letters[:MOST]:
        console.print(Text(f"  dead letter: {letter['reason']}: {printable(letter['detail'])}", style="red"))
    _more(console, len(outcome.dead_letters), "dead letters")
    for name, count in sorted(outcome.unknown.items()):
        text = f"  {count} x {printable(name)} looks like usage, and no convention reads it: see decode.attributes"
        console.print(Text(text, style="yellow"))
    parts = [f"{len(outcome.events)} calls", f"{outcome.duplicates} told twice"]
    parts += [f"{count} {_KINDS.get(kind, kind)}" for kind, count in sorted(outcome.passed_over.items())]
    parts.append(f"{len(outcome.dead_letters)} dead letters")
    console.print(Text("  " + "; ".join(parts)))
    console.print()


def _table(number: int, event: dict[str, Any], found: dict[str, str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 2, 0, 2))
    table.add_column(f"call {number}", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("found at", overflow="fold", style="dim")
    names = sorted((name for name in event if name != "attributes"), key=lambda name: _ORDER.get(name, len(_ORDER)))
    for name in names:
        table.add_row(name, Text(printable(event[name])), Text(printable(found.get(name, ""))))
    originals = event.get("attributes")
    for place, sent in sorted(originals.items()) if isinstance(originals, dict) else ():
        table.add_row(Text("as sent", style="dim"), Text(printable(sent)), Text(printable(place)))
    return table


def _more(console: Console, count: int, what: str) -> None:
    if count > MOST:
        console.print(Text(f"  ... and {count - MOST} more {what}; --json prints all", style="dim"))
