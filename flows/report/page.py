"""The content of a run's page: its traffic, the charts of its episodes, its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flows.report.model import Episode, Report, rank
from flows.report.read import changed_settings
from flows.report.values import Chart, Label, Traffic, chart, row_width, together, traffic
from operators.config import DetectConfig

CHARTS: Final = 100
"""The most charts of a page."""


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a page. `charts` in the order of the list; `rest`: the episodes without a chart.

    `settings`: (key, value, origin) of those that are not at their default, None if they are not known. `folder`: the
    name of the run. `last`: the end of the stored time, in microseconds. `facts` are added to those of the report.
    `labels`: known incidents to compare with, if there are any.
    """

    report: Report
    folder: str
    last: int
    traffic: Traffic | None
    charts: Sequence[Chart]
    rest: Sequence[Episode]
    settings: Sequence[tuple[str, str, str]] | None
    facts: Sequence[tuple[str, str]] = ()
    labels: Sequence[Label] = ()


def compose(store: Path, report: Report, most: int = CHARTS) -> Page:
    """The content of the run's page, episodes worst first, then newest; at most `most` charts."""
    last = report.last if report.last is not None else max((e.since for e in report.episodes), default=0)
    groups = together(report.episodes, last)
    groups.sort(key=lambda group: min((rank(e.severity), -e.since, e.episode_id) for e in group))
    width_s = row_width(store)
    detect = DetectConfig()
    charts = [chart(store, group, width_s, last, detect) for group in groups[:most]]
    overview = None
    if report.fullest is not None and report.first is not None and report.last is not None:
        overview = traffic(store, report.fullest, report.first, report.last)
    rest = [e for group in groups[most:] for e in group]
    return Page(report, store.parent.name or store.name, last, overview, charts, rest, changed_settings(store.parent))
