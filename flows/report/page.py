"""The report of a run as one HTML page that needs nothing else: no network, no script; style and plots are in it.

Every text that comes from outside goes through `text`; the page's policy forbids scripts and requests in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import quote

from flows.report import plot
from flows.report.curve import legend, picture
from flows.report.model import Episode, Report
from flows.report.style import CSS
from flows.report.terminal import factor, learned, plain, summary, what, when, where
from flows.report.values import AFTER, BEFORE, LONGEST, Chart, Label, Traffic, end_of
from operators.units import digits, duration, moment, readable

LANES: Final = 24
"""Lanes of the timeline that are always shown; the next ones are folded up."""
FOLDED: Final = 200
"""Most lanes that are folded up."""
BARS: Final = 400
"""Most episodes drawn in one lane."""
LISTED: Final = 1_000
"""Most episodes that are listed without a chart."""
ALERTS: Final = 30
"""Most alerts of one episode in its table."""
TEXT: Final = 300
"""Most characters of one name."""
_LONGEST: Final = duration((BEFORE + LONGEST + AFTER) / 1000)
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
SEVERITIES: Final = ("critical", "high", "medium", "low")


@dataclass(frozen=True, slots=True)
class Page:
    """What the page shows. `charts` in the order of the list, `rest`: episodes that have none.

    `settings`: (key, value, where it was set) of what is not the default, None where it is not known. `folder`: what
    the run is called. `last`: the end of what is stored, in microseconds. `facts` are added to those of the report.
    `labels`: incidents that are known, where there are any to compare with.
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


def text(value: object) -> str:
    """The value as HTML text or attribute: no markup, no control characters, cut after 300 characters."""
    shown = plain(value)
    return escape(shown if len(shown) <= TEXT else shown[: TEXT - 1] + "…", quote=True)


def anchor(episode: Episode) -> str:
    """The name of the episode's place on the page, as an attribute: `e-` and its id."""
    return f"e-{quote(episode.episode_id, safe='')}"


def render_page(page: Page) -> str:
    """The page."""
    title = f"LLM-Sentinel: {page.folder}"
    return "".join([
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f'<meta name="referrer" content="no-referrer"><link rel="icon" href="data:,"><title>{text(title)}</title>',
        f"<style>{CSS}</style></head><body>",
        *_head(page),
        *_timeline(page),
        *_episodes(page),
        *_foot(page),
        "</body></html>\n",
    ])  # fmt: skip


def _head(page: Page) -> Iterator[str]:
    report = page.report
    yield f'<header><h1>What was found in <span class="soft">{text(page.folder)}</span></h1>'
    counts = {s: sum(e.severity == s for e in report.episodes) for s in SEVERITIES}
    if report.episodes:
        shown = "".join(f'<span><span class="sev {s}">{s}</span> {n:,}</span>' for s, n in counts.items() if n)
        yield f'<div class="counts">{shown}</div>'
    yield '</header><dl class="facts card">'
    for name, value in [*summary(report), *page.facts]:
        wide = " class=wide" if len(value) > 34 else ""
        yield f"<div{wide}><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
    yield "</dl>"
    if page.settings is not None:
        if not page.settings:
            yield '<p class="note">All settings were the defaults.</p>'
        else:
            rows = "".join(
                _row(("long", f"<code>{text(k)}</code>"), ("long", f"<code>{text(v)}</code>"), ("", text(o)))
                for k, v, o in page.settings
            )
            yield (
                f'<details class="plain"><summary>{len(page.settings)} settings that are not the default</summary>'
                f'<div class="scroll"><table>{rows}</table></div></details>'
            )


def _timeline(page: Page) -> Iterator[str]:
    report, traffic = page.report, page.traffic
    if traffic is None or report.first is None:
        yield '<p class="card body">The run has stored nothing yet.</p>' if not report.episodes else ""
        return
    axis = plot.TimeAxis(report.first, page.last)
    yield '<h2>Traffic and episodes <span class="soft note">UTC</span></h2><div class="card time">'
    yield f'<div class="lane"><span class="name"><b>requests a minute</b></span>{_traffic(traffic, axis)}</div>'
    lanes: dict[tuple[str, str], list[Episode]] = {}
    for e in sorted(report.episodes, key=lambda e: (e.since, e.episode_id)):
        lanes.setdefault((e.series, e.metric), []).append(e)
    if page.labels:
        bars = "".join(_label(label, axis) for label in page.labels[:BARS])
        yield f'<div class="lane"><span class="name"><b>known incidents</b></span><div class="track">{bars}</div></div>'
    worst = sorted(lanes.values(), key=lambda episodes: min(_rank(e) for e in episodes))
    shown, folded = worst[:LANES], worst[LANES : LANES + FOLDED]
    for part in (shown, folded):
        part.sort(key=lambda episodes: (episodes[0].since, episodes[0].episode_id))
    yield from (_lane(episodes, axis, page) for episodes in shown)
    if folded:
        yield f'<details class="plain"><summary>{len(folded):,} less severe</summary>'
        yield from (_lane(episodes, axis, page) for episodes in folded)
        yield "</details>"
    yield "</div>"
    if len(lanes) > LANES + FOLDED:
        yield f'<p class="note">{len(lanes) - LANES - FOLDED:,} further ones are in the list alone.</p>'


def _lane(episodes: Sequence[Episode], axis: plot.TimeAxis, page: Page) -> str:
    first = episodes[0]
    values = " / ".join(text(v) for v in first.dimensions.values() if v) or text(first.series)
    bars = "".join(_bar(e, axis, page) for e in episodes[:BARS])
    return (
        f'<div class="lane"><span class="name" title="{text(where(first))}"><b>{text(first.metric)}</b> {values}'
        f'</span><div class="track">{bars}</div></div>'
    )


def _traffic(traffic: Traffic, axis: plot.TimeAxis) -> str:
    values = plot.ValueAxis([0.0, *traffic.requests], logs=False)
    middle = traffic.step_s * 500_000
    requests = [(axis.at(t + middle), values.at(v)) for t, v in zip(traffic.time, traffic.requests, strict=True)]
    errors = [(axis.at(t + middle), values.at(v)) for t, v in zip(traffic.time, traffic.errors, strict=True)]
    shapes = [
        plot.path("flow", plot.area(requests)),
        plot.path("errors", plot.area(errors) if any(traffic.errors) else ""),
    ]
    rows = [(values.at(v), digits(v)) for v in values.ticks()[1:][-1:]]
    return plot.frame("traffic", shapes, "Requests and errors a minute over the whole run", axis, rows)


def _bar(episode: Episode, axis: plot.TimeAxis, page: Page) -> str:
    left, right = axis.at(episode.since), axis.at(end_of(episode, page.last))
    said = f"{episode.severity} {what(episode)}, {' '.join(when(episode))}"
    name = f"{severity(episode)} open" if episode.open else severity(episode)
    return (
        f'<a class="{name}" href="#{anchor(episode)}" title="{text(said)}" aria-label="{text(said)}" '
        f'style="left:{plot.percent(left)};width:{plot.percent(right - left)}"></a>'
    )


def _label(label: Label, axis: plot.TimeAxis) -> str:
    left, right = axis.at(label.since), axis.at(label.until)
    place = f"left:{plot.percent(left)};width:{plot.percent(right - left)}"
    return f'<a class="known" title="{text(label.text)}" style="{place}"></a>'


def _rank(episode: Episode) -> int:
    """0 for the worst."""
    return SEVERITIES.index(episode.severity) if episode.severity in SEVERITIES else len(SEVERITIES)


def severity(episode: Episode) -> str:
    """The class of the episode's colour."""
    return episode.severity if episode.severity in SEVERITIES else "other"


def _episodes(page: Page) -> Iterator[str]:
    if not page.report.episodes:
        if page.report.events:
            yield '<p class="card body">No alerts: nothing abnormal was found.</p>'
        return
    yield '<h2>Episodes <span class="soft note">worst first; open one for its values, band and requests</span></h2>'
    yield '<div class="list card">'
    for chart in page.charts:
        yield from _details(chart, page)
    yield "</div>"
    if page.rest:
        yield f'<details class="plain"><summary>{len(page.rest):,} more episodes, without charts</summary>'
        yield '<div class="scroll"><table>'
        for e in page.rest[:LISTED]:
            chip = f'<span id="{anchor(e)}" class="sev {severity(e)}">{text(e.severity)}</span>'
            times = text(" ".join(when(e)))
            yield _row(
                ("", chip), ("", text(what(e))), ("long", text(where(e))), ("", times), ("id", text(e.episode_id))
            )
        yield "</table></div></details>"
        if len(page.rest) > LISTED:
            yield f'<p class="note">{len(page.rest) - LISTED:,} more are in the store.</p>'


def _row(*cells: tuple[str, str]) -> str:
    """A row of a table, of (class, HTML) each."""
    whole = "".join(f'<td class="{name}">{html}</td>' if name else f"<td>{html}</td>" for name, html in cells)
    return f"<tr>{whole}</tr>"


def _details(chart: Chart, page: Page) -> Iterator[str]:
    worst = min(chart.episodes, key=lambda e: (_rank(e), e.since))
    more = f", {len(chart.episodes)} episodes" if len(chart.episodes) > 1 else ""
    yield (
        f'<details><summary><span class="sev {severity(worst)}">{text(worst.severity)}</span>'
        f'<b>{text(what(worst))}</b><span class="where">{text(where(worst))}</span>'
        f'<span class="much">{_value(worst, worst.observed)} <span class="soft">where {_value(worst, worst.expected)} '
        f'is usual</span></span><span class="at soft">{text(" ".join(when(worst)))}{more}</span></summary>'
        f'<div class="body">'
    )
    if chart.curve is None:
        yield f'<p class="note">The store has no values of {text(chart.metric)} of that time.</p>'
    else:
        yield picture(chart, page.last, severity, page.labels)
        yield legend(chart, page.labels)
    for e in chart.episodes:
        yield from _episode(e, chart, page)
    if any(end_of(e, page.last) > chart.end for e in chart.episodes):
        yield f'<p class="note">The chart ends at {moment(chart.end)}; the episode went on.</p>'
    yield "</div></details>"


def _value(episode: Episode, value: float | None) -> str:
    return text(readable(episode.metric, episode.unit, value))


def _episode(e: Episode, chart: Chart, page: Page) -> Iterator[str]:
    yield f'<div class="episode {severity(e)}" id="{anchor(e)}"><p>{text_long(e.text)}</p>'
    score = "" if e.score is None else f", score {digits(e.score)}"
    by = f", by {', '.join(e.detectors)}" if e.detectors else ""
    usual = f", {learned(e)}" if learned(e) else ""
    yield (
        f'<p class="note"><span class="sev {severity(e)}">{text(e.severity)}</span> {text(" ".join(when(e)))}'
        f'{score}{text(by + usual)} · <span class="id">{text(e.episode_id)}</span></p>'
    )
    others = [o for o in page.report.episodes if e.group_id and o.group_id == e.group_id and o is not e]
    if others:
        links = ", ".join(f'<a href="#{anchor(o)}">{text(what(o))} of {text(where(o))}</a>' for o in others[:20])
        yield f'<p class="note">Same incident: {links}{" and more" if len(others) > 20 else ""}.</p>'
    yield '<div class="two"><div>'
    yield from _alerts(e)
    yield "</div><div>"
    yield from _requests(e, chart)
    yield from _contributors(e)
    yield from _factors(e)
    yield "</div></div></div>"


def text_long(value: str) -> str:
    """A sentence as HTML: as `text`, but cut after 2,000 characters."""
    return escape(plain(value)[:2_000], quote=True)


def _clock(time: int, episode: Episode) -> str:
    """The time of day; with its date where that is not the one on which the episode began."""
    shown, begun = moment(time), moment(episode.since)
    return shown[11:] if shown[:10] == begun[:10] else shown


def _alerts(e: Episode) -> Iterator[str]:
    yield '<h3>Alerts</h3><div class="scroll"><table><tr><th>at</th><th>status</th><th>severity</th>'
    yield '<th class="n">observed</th><th class="n">usual</th><th class="n">band</th></tr>'
    for s in e.steps[:ALERTS]:
        band = " to ".join("any" if v is None else _value(e, v) for v in (s.lower, s.upper))
        values = (("n", _value(e, s.observed)), ("n", _value(e, s.expected)), ("n", band))
        yield _row(("", _clock(s.at, e)), ("", text(s.status)), ("", text(s.severity)), *values)
    yield "</table></div>"
    if len(e.steps) > ALERTS:
        yield f'<p class="note">{len(e.steps) - ALERTS:,} more alerts of this episode are in the store.</p>'


def _requests(e: Episode, chart: Chart) -> Iterator[str]:
    requests = chart.evidence.get(e.episode_id, [])
    if not requests:
        return
    yield '<h3>Requests that show it</h3><div class="scroll"><table>'
    yield '<tr><th>event</th><th>trace</th><th class="n">value</th><th>ended</th></tr>'
    for r in requests:
        value = "error" if e.metric == "error_ratio" else _value(e, r.value)
        ended = "" if r.at is None else _clock(r.at, e)
        yield _row(("id", text(r.event_id)), ("id", text(r.trace_id)), ("n", value), ("", ended))
    yield "</table></div>"


def _contributors(e: Episode) -> Iterator[str]:
    if not e.contributors:
        return
    yield '<h3>Contributors</h3><div class="scroll"><table><tr><th></th><th></th><th>of the difference</th>'
    yield '<th class="n">of the requests, usually</th></tr>'
    for c in e.contributors:
        share, usual = c.get("share"), c.get("usual_share")
        shown = ""
        if isinstance(share, int | float):
            width = plot.number(min(max(share, 0.0), 1.0) * 8)
            shown = f'<span class="share" style="width:{width}rem"></span>{digits(share * 100)} %'
        before = f"{digits(usual * 100)} %" if isinstance(usual, int | float) else ""
        yield _row(("", text(c.get("dimension", ""))), ("long", text(c.get("value", ""))), ("", shown), ("n", before))
    yield "</table></div>"


def _factors(e: Episode) -> Iterator[str]:
    if not e.factors:
        return
    yield '<h3>What the mean is made of</h3><div class="scroll"><table><tr><th></th><th class="n">usual</th>'
    yield '<th class="n">observed</th><th class="n">times</th></tr>'
    for f in e.factors:
        numbers = [f.get(name) for name in ("usual", "observed", "times")]
        yield _row(("", text(factor(f))), *(("n", digits(v) if isinstance(v, int | float) else "") for v in numbers))
    yield "</table></div>"


def _foot(page: Page) -> Iterator[str]:
    yield "<footer><h2>How to read it</h2>"
    if page.charts:
        yield (
            "<p>Between the alerts of an episode the band is the one that the last of them judged by. Before an "
            "episode no band is stored: what is drawn there is the middle 90 % of the two hours before it. Values "
            "of requests lie where those ended.</p>"
        )
    yield (
        f"<p>Limits of this page: {len(page.charts):,} charts of at most {_LONGEST}, {LANES + FOLDED} lanes in the "
        "timeline, a few hundred points a chart. Everything is in the store:</p>"
    )
    for name, file in page.report.files.items():
        yield f"<div>{text(name)}: <code>{text(file)}</code></div>"
    yield f"<p><code>{text_long(page.report.command)}</code></p></footer>"
