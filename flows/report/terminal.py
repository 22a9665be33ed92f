"""The report of a run on a terminal, a pipe or a file: a table if it fits, else a paragraph for each episode."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from connectors.console import SEVERITY_STYLES
from flows.report.model import Episode, Report
from flows.report.wording import factor, learned, summary, what, when, where
from operators.text import printable
from operators.units import digits, readable

WIDE: Final = 118
"""The width in columns from which episodes stand in a table."""
_REQUESTS: Final = 3
_CAUSES: Final = 3


def _values(episode: Episode) -> tuple[str, str]:
    return (
        readable(episode.metric, episode.unit, episode.observed),
        readable(episode.metric, episode.unit, episode.expected),
    )


def _requests(episode: Episode) -> list[str]:
    """The worst requests: event id (else trace id) and value."""
    found = []
    for request in episode.evidence[:_REQUESTS]:
        name = printable(request.get("event_id") or request.get("trace_id") or "(no id)")
        value = request.get("value")
        shown = readable(episode.metric, episode.unit, value) if isinstance(value, int | float) else ""
        # The share of errors of a single request tells nothing, so only its id is shown.
        found.append(f"{name} ({shown})" if shown and not episode.metric.startswith("error") else name)
    return found


def causes(episode: Episode) -> list[str]:
    """The sources of the excess: the first contributors, then the changes of a mean's factors."""
    found = []
    for c in episode.contributors[:_CAUSES]:
        share = c.get("share")
        shown = f" {share * 100:.0f} %" if isinstance(share, int | float) else ""
        found.append(f"{printable(c.get('dimension', ''))}={printable(c.get('value', ''))}{shown}")
    for f in episode.factors:
        times = f.get("times")
        if isinstance(times, int | float):
            found.append(f"{factor(f)} x{digits(times)}")
    return found


def _table(episodes: list[Episode]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("severity", no_wrap=True)
    for name in ("what", "where"):
        table.add_column(name, overflow="fold")
    table.add_column("time (UTC)", no_wrap=True)
    for name in ("observed", "expected"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("requests", overflow="fold")
    for e in episodes:
        observed, expected = _values(e)
        cells = (
            "\n".join([what(e), *causes(e)]),
            where(e),
            "\n".join(when(e)),
            observed,
            expected,
            "\n".join(_requests(e)),
        )
        table.add_row(Text(printable(e.severity), SEVERITY_STYLES.get(e.severity, "")), *(Text(cell) for cell in cells))
    return table


def _paragraph(episode: Episode) -> Text:
    observed, expected = _values(episode)
    out = Text(printable(episode.severity), SEVERITY_STYLES.get(episode.severity, ""))
    out.append("  " + what(episode), "bold")
    out.append(f"\n{where(episode)}\n{' '.join(when(episode))}\nobserved {observed}, expected {expected}")
    if found := causes(episode):
        out.append("\nfrom " + ", ".join(found))
    if said := learned(episode):
        out.append("\n" + said, "dim")
    if requests := _requests(episode):
        out.append("\nrequests " + ", ".join(requests), "dim")
    return out


def render(report: Report, console: Console, limit: int) -> None:
    """Print the report; `limit` is the most episodes to show, 0 for all."""
    facts = list(summary(report))
    width = max(len(name) for name, _ in facts) + 2
    for name, value in facts:
        line = Table.grid(padding=0)
        line.add_column(width=width, no_wrap=True)
        line.add_column(overflow="fold")
        line.add_row(Text(name, "dim"), Text(value))
        console.print(line)
    console.print()
    shown = report.episodes[: limit or None]
    if not report.events and not shown:
        console.print("The run has stored nothing yet.")
    elif not shown:
        console.print("No alerts: nothing abnormal was found.")
    elif console.width >= WIDE:
        console.print(_table(shown))
    else:
        for episode in shown:
            console.print(_paragraph(episode), overflow="fold")
            console.print()
    if len(shown) < len(report.episodes):
        console.print(f"{len(report.episodes) - len(shown):,} more: --limit 0 shows all.\n")
    console.print(Text("Where the rows are", "bold"))
    for name, path in report.files.items():
        # Paths and commands are never wrapped, so that they can be copied.
        console.print(Text(f"  {name}: {path}"), soft_wrap=True)
    console.print(Text("Look further"), style="bold")
    if report.page is not None:
        console.print(Text(f"  page: {report.page}"), soft_wrap=True)
    console.print(Text(report.command), soft_wrap=True)
