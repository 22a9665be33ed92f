"""The timeline of a page: the traffic of the run, and a lane of bars for each metric of a series with episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from flows.report import plot
from flows.report.model import Episode, Report, rank
from flows.report.plot import Path, Plot
from flows.report.values import Label, Traffic, end_of
from flows.report.wording import what, when, where
from operators.units import digits

LANES: Final = 24
"""Number of lanes that are always shown; the next ones are folded up."""
FOLDED: Final = 200
"""The most lanes that are folded up."""
BARS: Final = 400
"""The most bars of one lane."""


class Bar(NamedTuple):
    """A bar of a lane, in thousandths of its width; its name is its class. A known incident has no episode."""

    name: str
    left: float
    width: float
    title: str
    episode: Episode | None = None


class Lane(NamedTuple):
    """The episodes of one metric of a series; `title` names the series in full."""

    metric: str
    values: str
    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True, slots=True)
class Timeline:
    """The lanes, in the order of their first episodes; `left_out` is the number of lanes that are not shown at all."""

    traffic: Plot
    known: Sequence[Bar]
    lanes: Sequence[Lane]
    folded: Sequence[Lane]
    left_out: int


def timeline(report: Report, traffic: Traffic | None, last: int, labels: Sequence[Label] = ()) -> Timeline | None:
    """The timeline up to `last`, the end of the stored time; None if nothing is stored."""
    if traffic is None or report.first is None:
        return None
    axis = plot.TimeAxis(report.first, last)
    lanes: dict[tuple[str, str], list[Episode]] = {}
    for e in sorted(report.episodes, key=lambda e: (e.since, e.episode_id)):
        lanes.setdefault((e.series, e.metric), []).append(e)
    worst = sorted(lanes.values(), key=lambda episodes: min(rank(e.severity) for e in episodes))
    shown, folded = (
        [_lane(episodes, axis, last) for episodes in sorted(part, key=lambda es: (es[0].since, es[0].episode_id))]
        for part in (worst[:LANES], worst[LANES : LANES + FOLDED])
    )
    known = [Bar("known", *_place(axis, x.since, x.until), x.text) for x in labels[:BARS]]
    return Timeline(_traffic(traffic, axis), known, shown, folded, max(0, len(lanes) - LANES - FOLDED))


def _place(axis: plot.TimeAxis, since: int, until: int) -> tuple[float, float]:
    left = axis.at(since)
    return left, axis.at(until) - left


def _lane(episodes: Sequence[Episode], axis: plot.TimeAxis, last: int) -> Lane:
    first = episodes[0]
    values = " / ".join(v for v in first.dimensions.values() if v) or first.series
    return Lane(first.metric, values, where(first), [_bar(e, axis, last) for e in episodes[:BARS]])


def _bar(episode: Episode, axis: plot.TimeAxis, last: int) -> Bar:
    name = f"{episode.level} open" if episode.open else episode.level
    said = f"{episode.severity} {what(episode)}, {' '.join(when(episode))}"
    return Bar(name, *_place(axis, episode.since, end_of(episode, last)), said, episode)


def _traffic(traffic: Traffic, axis: plot.TimeAxis) -> Plot:
    values = plot.ValueAxis([0.0, *traffic.requests], logs=False)
    middle = traffic.step_s * 500_000
    requests = [(axis.at(t + middle), values.at(v)) for t, v in zip(traffic.time, traffic.requests, strict=True)]
    errors = [(axis.at(t + middle), values.at(v)) for t, v in zip(traffic.time, traffic.errors, strict=True)]
    shapes = [Path("flow", plot.area(requests)), Path("errors", plot.area(errors) if any(traffic.errors) else "")]
    rows = [(values.at(v), digits(v)) for v in values.ticks()[1:][-1:]]
    return Plot("traffic", "Requests and errors a minute over the whole run", axis.ticks(), rows, shapes)
