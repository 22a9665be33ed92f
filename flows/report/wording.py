"""The wording that the terminal and the page of a report share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flows.report.model import Episode, Report
from operators.text import printable
from operators.units import duration, moment


def summary(report: Report) -> Iterator[tuple[str, str]]:
    """The facts of a run: names and values."""
    yield "events", f"{report.events:,}"
    yield "series", ", ".join(f"{n:,} of {printable(name)}" for name, n in report.series.items()) or "0"
    if report.first is not None and report.last is not None:
        length = duration((report.last - report.first) / 1000)
        yield "time (UTC)", f"{moment(report.first)} to {moment(report.last)} ({length})"
    for name, count in report.balance.items():
        yield name, f"{count:,}"
    still = sum(e.open for e in report.episodes)
    yield "episodes", f"{len(report.episodes):,} ({still:,} still open), {report.transitions:,} alerts"


def what(episode: Episode) -> str:
    """The kind, and the metric if the kind does not begin with it."""
    kind, metric = printable(episode.kind), printable(episode.metric)
    return kind if kind.startswith(metric) else f"{kind}: {metric}"


def where(episode: Episode) -> str:
    """The series as `dimension=value`, separated by blanks."""
    return " ".join(f"{d}={printable(v)}" for d, v in episode.dimensions.items()) or printable(episode.series)


def when(episode: Episode) -> tuple[str, str]:
    """`2026-01-06 12:45:10`, `to 13:02:30 (17.3 min)`; the second date only if it differs."""
    since = moment(episode.since)
    if episode.until is None:
        return since, "still open" if episode.open else "end not known"
    until = moment(episode.until)
    until = until[11:] if until[:10] == since[:10] else until
    return since, f"to {until} ({duration((episode.until - episode.since) / 1000)})"


def factor(told: Mapping[str, Any]) -> str:
    """The name of a factor; for a mix with its dimension."""
    by = f" by {printable(told['dimension'])}" if told.get("dimension") else ""
    return f"{printable(told.get('factor', ''))}{by}"


def learned(episode: Episode) -> str:
    """The panes that the usual was learned from, as text; "" if they are not known."""
    if not episode.learned_panes or episode.learned_since is None:
        return ""
    return f"learned from {episode.learned_panes:,} panes since {moment(episode.learned_since)}"
