"""The result of a backtest on a terminal, a pipe or a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flows.backtest.compare import Difference
from flows.backtest.replay import Replayed
from flows.backtest.scoring import PredictedEpisode, Score
from operators.model import SEVERITIES
from operators.text import printable
from operators.units import duration, moment

LISTED: Final = 20
"""The most episodes of a list."""
NAMES: Final = {
    "incidents": "incidents",
    "episodes": "episodes",
    "recall": "recall",
    "recall_exact": "recall, exact",
    "precision": "precision",
    "f1": "F1",
    "false": "false episodes",
    "false_per_day": "false a day",
    "false_per_series_day": "false a series and day",
    "median_delay_s": "median delay",
    "median_delay_abrupt_s": "median delay, abrupt kinds",
    "median_delay_abrupt_panes": "the same in panes",
    "storm_median": "episodes of one incident, median",
    "storm_max": "episodes of one incident, most",
    "episodes_per_incident": "episodes an incident found",
}


def shown(name: str, value: Any) -> str:
    """A figure as text."""
    if value is None:
        return "-"
    if name.endswith("_s"):
        return f"{value:,.0f} s"
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"


def facts(result: Replayed, episodes: int) -> list[tuple[str, str]]:
    """Names and values of the facts: the records read, their time, the speed."""
    balance = result.balance
    out = [("records", f"{balance.records:,}")]
    rest = {
        "late": balance.late,
        "duplicate": balance.duplicate,
        "skipped": balance.skipped,
        "dead letters": sum(balance.dead.values()),
    }
    out += [(name, f"{n:,}") for name, n in rest.items() if n]
    if result.extent is not None:
        first, last = result.extent.first, result.extent.last
        out.append(("time (UTC)", f"{moment(first)} to {moment(last)} ({duration((last - first) / 1000)})"))
        out.append(("series", f"{result.extent.series:,} (pairs of service and model, and tenants)"))
    out.append(("episodes", f"{episodes:,} ({len(result.alerts):,} alerts)"))
    speed = balance.records / result.seconds if result.seconds else 0.0
    out.append(("took", f"{result.seconds:,.1f} s ({speed:,.0f} records/s)"))
    return out


def render(console: Console, result: Replayed, episodes: Sequence[PredictedEpisode], score: Score | None) -> None:
    """Print the result; with labels also the figures, those by kind, missed incidents and false episodes."""
    _facts(console, facts(result, len(episodes)))
    if score is None:
        _kinds(console, episodes)
        _list(console, "Episodes", episodes)
        return
    console.print(_figures({"": score.figures}))
    console.print(_by_kind(score))
    missed = [o.incident for o in score.outcomes if not o.found]
    if missed:
        console.print(Text("Missed", "bold"))
    for incident in missed[:LISTED]:
        entity = " ".join(f"{k}={v}" for k, v in incident.entity.items())
        line = f"  {moment(incident.start)}  {incident.kind}: {incident.metric}  {entity}  ({incident.id})"
        console.print(Text(printable(line)), soft_wrap=True)
    _more(console, len(missed))
    _list(console, "False episodes", score.false)


def render_comparison(
    console: Console,
    names: tuple[str, str],
    results: tuple[Replayed, Replayed],
    found: tuple[Sequence[PredictedEpisode], Sequence[PredictedEpisode]],
    scores: tuple[Score, Score] | None,
    difference: Difference,
) -> None:
    """Print the figures side by side, and the episodes of only one run."""
    _facts(console, facts(results[0], len(found[0]))[:-2])
    columns: dict[str, dict[str, Any]] = {}
    for i, name in enumerate(names):
        columns[name] = dict(scores[i].figures) if scores else {"episodes": len(found[i])}
    console.print(_figures(columns))
    console.print(Text(f"{len(difference.both):,} episodes are in both.\n"))
    for name, only in zip(names, difference.only, strict=True):
        _list(console, f"Only with {printable(name)}", only, empty=True)


def _facts(console: Console, lines: Iterable[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    for name, value in lines:
        grid.add_row(Text(name, "dim"), Text(value))
    console.print(grid)
    console.print()


def _figures(columns: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    table.add_column("figure", no_wrap=True)
    for name in columns:
        table.add_column(Text(printable(name)), justify="right")
    known = [name for name in NAMES if any(name in figures for figures in columns.values())]
    for name in known:
        table.add_row(NAMES[name], *(shown(name, figures.get(name)) for figures in columns.values()))
    return table


def _by_kind(score: Score) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("kind", overflow="fold")
    for name in ("incidents", "found", "exact", "median delay"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, f in score.figures["by_type"].items():
        delay = shown("median_delay_s", f["median_delay_s"])
        table.add_row(Text(printable(kind)), *(f"{f[name]:,}" for name in ("incidents", "found", "exact")), delay)
    return table


def _kinds(console: Console, episodes: Sequence[PredictedEpisode]) -> None:
    counts = Counter(e.kind for e in episodes)
    for kind, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        console.print(Text(f"{n:6,}  {printable(kind)}"))
    if counts:
        console.print()


def line(episode: PredictedEpisode) -> str:
    """An episode as one line: time of the first alert, severity, kind, metric and series."""
    series = " ".join(f"{k}={v}" for k, v in episode.series.items())
    severity = SEVERITIES[episode.severity]
    return printable(f"{moment(episode.at)}  {severity:<8}  {episode.kind}: {episode.metric}  {series}")


def _list(console: Console, title: str, episodes: Sequence[PredictedEpisode], *, empty: bool = False) -> None:
    if episodes or empty:
        console.print(Text(f"{title}: {len(episodes):,}", "bold"))
    for episode in episodes[:LISTED]:
        console.print(Text(f"  {line(episode)}"), soft_wrap=True)
    _more(console, len(episodes))


def _more(console: Console, n: int) -> None:
    if n > LISTED:
        console.print(Text(f"  and {n - LISTED:,} more: --json lists all", "dim"))
    if n:
        console.print()
