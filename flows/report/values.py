"""The values of a report's charts: a metric of a series around its episodes, from the rows of the store.

A chart shows the value that the detectors judge: the typical value (geometric mean) if the metric is judged in logs,
else the mean, the share of errors, or the requests a minute.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final, NamedTuple

import numpy as np
import orjson

from connectors.sqlite import read
from flows.report.model import Episode
from operators.config import DetectConfig, MetricConfig
from operators.errors import DataError
from operators.metrics import ERROR_RATIO, METRIC_INDEX, METRICS, REQUESTS
from operators.model import SECOND
from operators.panes.sketch import MIDDLE, decode

MINUTE: Final = 60 * SECOND
BEFORE: Final = 120 * MINUTE
"""The time that is shown before an episode, long enough to see the usual values."""
AFTER: Final = 60 * MINUTE
LONGEST: Final = 720 * MINUTE
"""The most time of the episodes in one chart; later ones of the same metric get a chart of their own."""
POINTS: Final = 240
"""The most points of a chart; a point of a long chart spans several rows."""
OVERVIEW_POINTS: Final = 300
_SMOOTHING: Final = (1, 5, 30)
_ENOUGH: Final = 20
"""Observations that the smoothing should span; for the number of requests, which is itself the value, fewer will do."""
_ENOUGH_REQUESTS: Final = 8
_LEAST_USUAL: Final = 10


class Request(NamedTuple):
    """A request in an episode's evidence; `at` is its end in microseconds, None if its row is no longer stored."""

    event_id: str
    trace_id: str
    value: float | None
    at: int | None


class Label(NamedTuple):
    """An incident known from elsewhere: its times in microseconds, and the series that it touched."""

    since: int
    until: int
    text: str
    series: frozenset[str]


class Usual(NamedTuple):
    """The values before the first episode: their median, and the ends of the middle 90 %."""

    low: float
    middle: float
    high: float


@dataclass(slots=True)
class Curve:
    """The values of a chart, one for each point; None if no request carried the metric.

    `time`: middles of the points, in microseconds. `value`: of the single point. `smooth`: over `over_s` seconds up to
    the point's end. `usual`: of the single points of the two hours before the first episode.
    """

    step_s: int
    over_s: int
    statistic: str
    time: list[int]
    value: list[float | None]
    smooth: list[float | None]
    usual: Usual | None


@dataclass(slots=True)
class Chart:
    """Episodes of one metric of one series that lie close together, by their begin; the chart is from `start` to `end`.

    `curve` is None if the store has no values of the metric in that time. `evidence`: by episode id.
    """

    series: str
    metric: str
    unit: str
    start: int
    end: int
    episodes: list[Episode]
    curve: Curve | None
    evidence: dict[str, list[Request]]
    logs: bool = False


@dataclass(slots=True)
class Traffic:
    """Requests and errors a minute over the whole run; each point is `step_s` long, and `time` holds its begin."""

    step_s: int
    time: list[int]
    requests: list[float]
    errors: list[float]


def row_width(store: Path) -> int:
    """The width in seconds of the rows that charts are made of: a minute, or a pane if that is longer."""
    (row,) = read(store, "SELECT MIN(width_s) AS width FROM llm_panes WHERE width_s >= 60")
    width = row["width"]
    return width if isinstance(width, int) else 60


def traffic(store: Path, dimension_set: str, first: int, last: int) -> Traffic:
    """The traffic of the run from `first` to `last`, from the rows of this dimension set."""
    width = 3600 if last - first > 48 * 60 * MINUTE else row_width(store)
    step_s = width * max(1, math.ceil((last - first) / (width * SECOND * OVERVIEW_POINTS)))
    step = step_s * SECOND
    rows: list[dict[str, Any]] = read(
        store,
        "SELECT pane_start / ? AS point, SUM(requests) AS requests, SUM(errors) AS errors FROM llm_panes "
        "WHERE width_s = ? AND dimension_set = ? GROUP BY point ORDER BY point",
        (step, width, dimension_set),
    )
    found = {row["point"]: row for row in rows}
    points = range(first // step, -(-last // step))
    return Traffic(
        step_s,
        [p * step for p in points],
        [found[p]["requests"] * 60 / step_s if p in found else 0.0 for p in points],
        [found[p]["errors"] * 60 / step_s if p in found else 0.0 for p in points],
    )


def together(episodes: Iterable[Episode], last: int) -> list[list[Episode]]:
    """The episodes in groups that one chart can show: one metric of one series, by begin.

    `last`: the end of the stored time.
    """
    key = _series_and_metric
    out: list[list[Episode]] = []
    for _, group in groupby(sorted(episodes, key=lambda e: (key(e), e.since, e.episode_id)), key):
        chart: list[Episode] = []
        for episode in group:
            if chart and (
                episode.since - BEFORE > max(end_of(e, last) for e in chart) + AFTER
                or end_of(episode, last) - chart[0].since > LONGEST
            ):
                out.append(chart)
                chart = []
            chart.append(episode)
        out.append(chart)
    return out


def end_of(episode: Episode, last: int) -> int:
    """The end of the episode in microseconds; if it is still open, `last`."""
    return episode.until if episode.until is not None else max(last, episode.since)


def _series_and_metric(episode: Episode) -> tuple[str, str]:
    return episode.series, episode.metric


def chart(store: Path, episodes: list[Episode], width_s: int, last: int, detect: DetectConfig) -> Chart:
    """The chart of these episodes (a list of `together`), from rows `width_s` wide. Reads some hundred rows."""
    first = episodes[0]
    start = first.since - BEFORE
    end = min(max(end_of(e, last) for e in episodes), first.since + LONGEST) + AFTER
    width = width_s * SECOND
    start, end = start // width * width, -(-min(end, max(last, first.since + width)) // width) * width
    settings = detect.metrics.get(first.metric)
    rows = _rows(store, first, width_s, start - _SMOOTHING[-1] * MINUTE, end)
    sums = _Sums(rows, first.metric, settings, width_s)
    curve = _curve(sums, start, end, first.since) if sums.known else None
    if curve is not None and all(v is None for v in curve.value):
        curve = None
    evidence = {e.episode_id: _evidence(store, e, last) for e in episodes}
    logs = settings is not None and settings.in_logs
    return Chart(first.series, first.metric, first.unit, start, end, episodes, curve, evidence, logs)


def _rows(store: Path, episode: Episode, width_s: int, start: int, end: int) -> list[dict[str, Any]]:
    columns = "pane_start, requests, errors"
    if episode.metric in METRIC_INDEX:
        columns += f", {episode.metric}_count AS n, {episode.metric}_sum AS total, sketch"
    return read(
        store,
        f"SELECT {columns} FROM llm_panes WHERE dimension_set = ? AND series = ? AND width_s = ? "  # noqa: S608 - ours
        "AND pane_start >= ? AND pane_start < ? ORDER BY pane_start",
        (episode.dimension_set, episode.series, width_s, start, end),
    )


class _Sums:
    """The number of observations of each row, and their sum on the scale of judging; both can be added up over rows."""

    def __init__(
        self, rows: Sequence[dict[str, Any]], metric: str, settings: MetricConfig | None, width_s: int
    ) -> None:
        self.width_s = width_s
        self.start = [row["pane_start"] for row in rows]
        self.known = True
        self.counts = metric == REQUESTS
        self.offset: float | None = None  # of the logarithm
        self.statistic = "mean"
        if metric == REQUESTS:
            self.statistic = "requests a minute"
            self.n = [row["requests"] for row in rows]
            self.total = [float(n) for n in self.n]
        elif metric == ERROR_RATIO:
            self.statistic = "share of errors"
            self.n = [row["requests"] for row in rows]
            self.total = [float(row["errors"]) for row in rows]
        elif metric in METRIC_INDEX:
            self.n = [row["n"] for row in rows]
            self.total = [row["total"] or 0.0 for row in rows]
            if settings is not None and settings.in_logs:
                self.statistic, self.offset = "typical value (geometric mean)", METRICS[METRIC_INDEX[metric]].offset
                at = METRIC_INDEX[metric]
                log = np.log(np.maximum(MIDDLE, 0.5) / METRICS[at].scale + METRICS[at].offset)
                found = [_log_sum(row["sketch"], at, log) for row in rows]
                self.n, self.total = [n for n, _ in found], [total for _, total in found]
        else:
            self.known = False

    def value(self, start: int, end: int) -> float | None:
        """The value of the rows that begin in this time; None if they hold no observation."""
        a, b = bisect_left(self.start, start), bisect_left(self.start, end)
        if self.counts:
            # The time before the series' first row is not silence: the series may not have existed.
            return sum(self.total[a:b]) * MINUTE / (end - max(start, self.start[0])) if b else None
        n = sum(self.n[a:b])
        if not n:
            return None
        mean = sum(self.total[a:b]) / n
        return mean if self.offset is None else max(math.exp(min(mean, 700.0)) - self.offset, 0.0)

    def typical_count(self, start: int, end: int) -> float:
        """Observations a minute: the median of the rows that hold any."""
        some = [n for n in self.n[bisect_left(self.start, start) : bisect_left(self.start, end)] if n]
        return median(some) * 60 / self.width_s if some else 0.0


def _log_sum(sketch: bytes, metric: int, log: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, float]:
    """The number of the metric's values in the sketch, and the sum of their logarithms; a damaged sketch holds none."""
    try:
        start, bucket, count = decode(sketch)
    except DataError:
        return 0, 0.0
    if metric + 1 >= len(start):
        return 0, 0.0
    low, high = start[metric], start[metric + 1]
    return int(count[low:high].sum()), float((count[low:high] * log[bucket[low:high]]).sum())


def _curve(sums: _Sums, start: int, end: int, since: int) -> Curve:
    width = sums.width_s * SECOND
    step = width * max(1, math.ceil((end - start) / (width * POINTS)))
    a_minute = sums.typical_count(start, end)
    enough = _ENOUGH_REQUESTS if sums.counts else _ENOUGH
    over = max(next((m for m in _SMOOTHING if m * a_minute >= enough), _SMOOTHING[-1]) * MINUTE, step)
    begins = range(start, end, step)
    value = [sums.value(t, t + step) for t in begins]
    smooth = [sums.value(t + step - over, t + step) for t in begins]
    before = [v for t, v in zip(begins, value, strict=True) if v is not None and t + step <= since]
    usual = None
    if len(before) >= _LEAST_USUAL:
        parts = quantiles(before, n=20, method="inclusive")
        usual = Usual(parts[0], median(before), parts[-1])
    return Curve(
        step // SECOND, over // SECOND, sums.statistic, [t + step // 2 for t in begins], value, smooth, usual
    )  # fmt: skip


def _evidence(store: Path, episode: Episode, last: int) -> list[Request]:
    """The episode's requests, each with its end if a row of its time still holds it."""
    ids = [str(e.get("event_id") or e.get("trace_id") or "") for e in episode.evidence]
    needles = [f'"{text}"' for text in (orjson.dumps(i).decode()[1:-1] for i in ids if i)]
    rows: list[dict[str, Any]] = []
    if needles:
        found = " OR ".join(["instr(evidence, ?) > 0"] * len(needles))
        rows = read(
            store,
            "SELECT evidence FROM llm_panes WHERE dimension_set = ? AND series = ? "  # noqa: S608 - only marks
            "AND width_s = (SELECT MIN(width_s) FROM llm_panes WHERE dimension_set = ? AND series = ?) "
            f"AND pane_start >= ? AND pane_start <= ? AND ({found})",
            (
                *[episode.dimension_set, episode.series] * 2,
                episode.since, end_of(episode, last), *needles,
            ),
        )  # fmt: skip
    ends: dict[tuple[str, str], int] = {}
    for row in rows:
        for request in orjson.loads(row["evidence"]):
            start, latency = request.get("start"), request.get("latency") or 0.0
            if isinstance(start, int):
                ends[request.get("event_id", ""), request.get("trace_id", "")] = start + round(latency * 1000)
    out = []
    for request in episode.evidence:
        event, trace, value = str(request.get("event_id", "")), str(request.get("trace_id", "")), request.get("value")
        number = float(value) if isinstance(value, int | float) and math.isfinite(value) else None
        out.append(Request(event, trace, number, ends.get((event, trace))))
    return out
