"""The chart of a metric around its episodes: values, band, episodes, alerts and requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flows.report import plot
from flows.report.model import Episode, Transition
from flows.report.plot import Box, Mark, Path, Plot
from flows.report.values import BEFORE, Chart, Curve, Label, end_of
from flows.report.wording import when
from operators.model import SECOND
from operators.units import duration, readable

_NO_LEVEL = "error_ratio"
"""The metric whose requests have no value of their own: each of them failed."""


def picture(chart: Chart, last: int, labels: Sequence[Label] = ()) -> Plot:
    """The plot of a chart that has a curve; `last`: the end of the stored time."""
    curve = chart.curve
    assert curve is not None
    times = plot.TimeAxis(chart.start, chart.end)
    values = plot.ValueAxis(_levels(chart, curve), chart.logs)
    shapes = [*_usual(chart, curve, times, values)]
    for e in chart.episodes:
        shapes += _episode(e, last, times, values)
    for known in _touching(chart, labels):
        left, right = times.at(known.since), times.at(known.until)
        shapes.append(plot.box("known", left, right, plot.SIZE, plot.SIZE + 14, known.text))
    shapes += _values(curve, times, values)
    return Plot(
        "curve",
        f"{chart.metric} of {chart.series} over time, with its usual band and episodes",
        times.ticks(),
        [(values.at(v), readable(chart.metric, chart.unit, v)) for v in values.ticks()],
        shapes,
        [mark for e in chart.episodes for mark in _marks(e, chart, times, values)],
    )


def _usual(chart: Chart, curve: Curve, times: plot.TimeAxis, values: plot.ValueAxis) -> Iterator[Path | Box]:
    """The usual values before the first episode."""
    if curve.usual is None:
        return
    left, right = times.at(chart.episodes[0].since - BEFORE), times.at(chart.episodes[0].since)
    low, middle, high = (values.at(v) for v in curve.usual)
    yield plot.box("usual", left, right, high, max(low, high + 4))
    yield Path("middle", plot.line([(left, middle), (right, middle)]))


def _episode(e: Episode, last: int, times: plot.TimeAxis, values: plot.ValueAxis) -> Iterator[Path | Box]:
    """The time of an episode, with the bands and the expectations of its alerts."""
    left, right = times.at(e.since), times.at(end_of(e, last))
    yield plot.box(f"span {e.level}", left, right, title=f"{e.severity} {e.kind}: {' '.join(when(e))}")
    yield plot.box(f"edge {e.level}", left, right, -14, 0)
    expected: list[tuple[float, float]] = []
    for begin, end, step in _held(e, last):
        a, b = times.at(begin), times.at(end)
        if step.lower is not None or step.upper is not None:
            top = 0.0 if step.upper is None else values.at(step.upper)
            bottom = float(plot.SIZE) if step.lower is None else values.at(step.lower)
            yield plot.box("band", a, b, top, bottom)
        if step.expected is not None:
            expected += [(a, values.at(step.expected)), (b, values.at(step.expected))]
    yield Path("expected", plot.line(expected))


def _values(curve: Curve, times: plot.TimeAxis, values: plot.ValueAxis) -> Iterator[Path]:
    """The values of single points as dots, and the smooth values as a line."""
    at = [times.at(t) for t in curve.time]
    ends = [times.at(t + curve.step_s * SECOND // 2) for t in curve.time]
    single = [(x, values.at(v)) for x, v in zip(at, curve.value, strict=True) if v is not None]
    line = [None if v is None else (x, values.at(v)) for x, v in zip(ends, curve.smooth, strict=True)]
    yield Path("value", plot.dots(single))
    yield Path("smooth", plot.line(line))


def _touching(chart: Chart, labels: Sequence[Label]) -> list[Label]:
    """The labels of the chart's series and time."""
    return [x for x in labels if chart.series in x.series and x.since < chart.end and x.until > chart.start]


def _levels(chart: Chart, curve: Curve) -> Iterator[float]:
    """The values that the axis must hold; a few single points and requests may lie beyond it."""
    yield from (v for v in curve.smooth if v is not None)
    single = sorted(v for v in curve.value if v is not None)
    cut = len(single) // 50
    yield from single[cut : len(single) - cut]
    if curve.usual is not None:
        yield from curve.usual
    for e in chart.episodes:
        for s in e.steps:
            yield from (v for v in (s.observed, s.expected, s.lower, s.upper) if v is not None)


def _held(episode: Episode, last: int) -> list[tuple[int, int, Transition]]:
    """Begin and end of the time of each alert's band, and the alert: to the next alert, or to the episode's end.

    The alert that resolves an episode repeats its worst values, so it is left out.
    """
    steps = [s for s in episode.steps if s.status != "resolved"]
    stop = end_of(episode, last)
    begins = [episode.since, *(s.at for s in steps[1:])]
    ends = [*begins[1:], max(stop, begins[-1])]
    return list(zip(begins, ends, steps, strict=False))


def _marks(e: Episode, chart: Chart, times: plot.TimeAxis, values: plot.ValueAxis) -> Iterator[Mark]:
    """The observed values of the alerts, and the requests, as marks with titles."""
    for s in e.steps:
        if s.observed is not None and s.status != "resolved" and chart.start <= s.at <= chart.end:
            said = f"alert, {s.status}: {readable(chart.metric, chart.unit, s.observed)}"
            yield Mark(f"said {e.level}", times.at(s.at), values.at(s.observed), said)
    for r in chart.evidence.get(e.episode_id, []):
        if r.at is None or not chart.start <= r.at <= chart.end:
            continue
        name = r.event_id or r.trace_id or "a request"
        if chart.metric == _NO_LEVEL or r.value is None:
            yield Mark("mark", times.at(r.at), 0, f"{name}: error")
        else:
            shape = "mark" if values.holds(r.value) else "mark beyond" if r.value > values.high else "mark beyond below"
            said = f"{name}: {readable(chart.metric, chart.unit, r.value)}"
            yield Mark(shape, times.at(r.at), values.at(r.value), said)


def legend(chart: Chart, labels: Sequence[Label] = ()) -> list[tuple[str, str]]:
    """The legend of the chart's lines and colours: the class of each ("" if it has none) and its meaning."""
    curve = chart.curve
    assert curve is not None
    single = f"each {_width(curve.step_s)}"
    entries = [("smooth", f"{curve.statistic}, over {_width(curve.over_s)}")]
    if curve.over_s > curve.step_s:
        entries.append(("value", single))
    if curve.usual is not None:
        entries.append(("usual", f"median and middle 90 % of {single} in the 2 h before"))
    entries += [("band", "expected, and its band, as the alerts say"), ("said", "an alert")]
    if any(r.at is not None for requests in chart.evidence.values() for r in requests):
        failed = chart.metric == _NO_LEVEL
        entries.append(("mark", "a request that failed" if failed else "a request (a triangle: it lies beyond)"))
    if _touching(chart, labels):
        entries.append(("known", "a known incident, below the chart"))
    if plot.ValueAxis(_levels(chart, curve), chart.logs).logs:
        entries.append(("", "logarithmic scale"))
    return entries


def _width(seconds: int) -> str:
    return "minute" if seconds == 60 else duration(seconds * 1000)
