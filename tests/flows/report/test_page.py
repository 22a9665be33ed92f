"""The HTML page of a report, on small stores made by hand: its structure, its escaping, and its look in a browser."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.base import Row
from connectors.tables import PANES
from flows.report import plot
from flows.report.__main__ import main
from flows.report.markup import render_page
from flows.report.page import Page, compose
from flows.report.read import find_store, gather
from flows.report.values import Label, Request, together
from operators.metrics import METRIC_INDEX, METRICS
from operators.panes.sketch import buckets, encode
from tests.chromium import Browser, program
from tests.conftest import leave_out
from tests.flows.report.test_report import MINUTE, NOON, PANE_ROWS, alert, row, store

VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = "<script>alert(1)</script>\"'&<!--"


class Tree(HTMLParser):
    """Checks that tags close in order, and keeps the parts that the tests ask for."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"an attribute twice: {attrs}"
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack and self.stack.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.stack[-1:] != ["style"]:
            self.text += data

    def ids(self) -> list[str]:
        return [i for _, a in self.tags if (i := a.get("id"))]

    def links(self) -> list[str]:
        return [h for t, a in self.tags if t == "a" and (h := a.get("href"))]


def checked(html: str) -> Tree:
    """The parsed page, after checks for every page: well formed, no script, no request, no dead link, no id twice."""
    tree = Tree(html)
    names = {t for t, _ in tree.tags}
    assert not names & {"script", "iframe", "img", "object", "embed", "form", "base"}
    assert not [a for _, attrs in tree.tags for a in attrs if a.startswith("on") or a in ("src", "srcset", "action")]
    assert [a["href"] for t, a in tree.tags if t == "link"] == ["data:,"]
    assert not re.search(r"(?i)https?:|url\(|@import|javascript:", html)
    assert len(tree.ids()) == len(set(tree.ids()))
    assert {link.removeprefix("#") for link in tree.links()} <= set(tree.ids())
    assert "nan" not in " ".join(v for t, a in tree.tags if t in ("path", "rect") for v in a.values() if v).lower()
    for svg in re.findall(r"(?s)<svg.*?</svg>", html):
        ElementTree.fromstring(svg)
    return tree


def page(folder: Path, rows: list[Row], **given: Any) -> str:
    store(folder / "run" / "sentinel.db", rows)
    found = find_store(folder / "run")
    html = render_page(compose(found, gather(found), **given))
    assert html == render_page(compose(found, gather(found, "time"), **given)), "the page has one order"
    return html


def latency_pane(series: str, minute: int, values: list[float], evidence: str = "[]") -> Row:
    """The row of a minute with one request for each of these latencies, in milliseconds."""
    at = METRIC_INDEX["latency"]
    steps = np.sort(np.array([round(v * 1000) for v in values], np.int64))
    bucket, count = np.unique(buckets(steps), return_counts=True)
    start = np.zeros(len(METRICS) + 1, np.int64)
    start[at + 1 :] = len(bucket)
    (sketch,) = encode(start, bucket, count.astype(np.int64), len(METRICS))
    names = ",".join(part.split("=")[0] for part in series.split(","))
    return row(
        PANES, dimension_set=names, series=series, width_s=60, pane_start=NOON + minute * MINUTE, requests=len(values),
        latency_count=len(values), latency_sum=sum(values), sketch=sketch, evidence=evidence, breakdown="[]",
    )  # fmt: skip


def slow(episode: str, series: str, begin: int, end: int | None, **given: Any) -> list[Row]:
    """The alerts of a latency episode from minute `begin`, twice as slow as usual; without `end` it is still open."""
    fixed: dict[str, Any] = {
        "kind": "latency_spike",
        "metric": "latency",
        "unit": "ms",
        "since": NOON + begin * MINUTE,
        "score": 0.8,
    }
    fixed |= {"observed": 2_000.0, "expected": 1_000.0, "lower": 500.0, "upper": 1_500.0, "text": "Latency is 2 s."}
    fixed |= given
    severity = fixed.pop("severity", "high")
    rows = [alert(episode, 0, "firing", severity, series, at=NOON + (begin + 1) * MINUTE, **fixed)]
    if end is not None:
        until = NOON + end * MINUTE
        rows.append(alert(episode, 1, "resolved", severity, series, at=until + 5 * MINUTE, until=until, **fixed))
    return rows


SERIES = "service=chat,model=m"


def traffic_with_one_spike() -> list[Row]:
    request = {"event_id": "worst", "trace_id": "t1", "start": NOON + 152 * MINUTE, "error": False, "latency": 9_000.0}
    found = []
    for minute in range(240):
        level = 2_000.0 if 150 <= minute < 170 else 1_000.0
        held = json.dumps([request]) if minute == 152 else "[]"
        found.append(latency_pane(SERIES, minute, [level * (0.9 + 0.01 * n) for n in range(21)], held))
    return found + slow(
        "e1", SERIES, 150, 170, evidence=[{"event_id": "worst", "trace_id": "t1", "value": 9_000.0}],
        contributors=[{"dimension": "tenant", "value": "acme", "share": 0.75, "usual_share": 0.08}],
        factors=[{"factor": "mix", "dimension": "model", "usual": 1.5, "observed": 4.5, "times": 3.0}],
        learned_panes=2_100, learned_since=NOON,
    )  # fmt: skip


def test_a_page_shows_values_band_requests_and_contributors(tmp_path: Path) -> None:
    html = page(tmp_path, traffic_with_one_spike())
    tree = checked(html)
    assert "e-e1" in tree.ids() and tree.links() == ["#e-e1"]
    for words in (
        "Latency is 2 s.", "typical value (geometric mean), over minute", "worst", "14:32:09", "acme", "75 %", "8 %",
        "mix by model", "4.5", "learned from 2,100 panes since 2026-01-05 12:00:00",
        "median and middle 90 % of each minute in the 2 h",
        "500 ms to 1.5 s", "12:00:00 to 2026-01-05 16:00:00",
    ):  # fmt: skip
        assert words in tree.text, words
    marks = [a for t, a in tree.tags if t == "i" and "mark" in (a.get("class") or "").split()]
    assert [m["title"] for m in marks] == ["worst: 9 s"] and "beyond" in str(marks[0]["class"])
    assert len([a for t, a in tree.tags if t == "rect" and a.get("class") == "band"]) == 1
    assert len(html) < 60_000


def test_the_curve_shows_the_values_that_the_detectors_judge(tmp_path: Path) -> None:
    store(tmp_path / "run" / "sentinel.db", traffic_with_one_spike())
    found = find_store(tmp_path / "run")
    (chart,) = compose(found, gather(found)).charts
    assert chart.curve is not None and chart.curve.usual is not None
    offset = 1.0  # added to a latency before its logarithm is taken, in ms
    factors = [0.9 + 0.01 * n for n in range(21)]
    for level, minute in ((1_000.0, 60), (2_000.0, 160)):
        exact = math.exp(sum(math.log(level * f + offset) for f in factors) / len(factors)) - offset
        at = chart.curve.time.index(NOON + minute * MINUTE + MINUTE // 2)
        assert chart.curve.value[at] == pytest.approx(exact, rel=0.016)
        assert chart.curve.smooth[at] == chart.curve.value[at]
    assert (chart.start, chart.end) == (NOON + 30 * MINUTE, NOON + 230 * MINUTE)
    assert chart.curve.usual.low == pytest.approx(chart.curve.usual.middle) == pytest.approx(chart.curve.usual.high)
    assert chart.evidence["e1"][0].at == NOON + 152 * MINUTE + 9_000_000


def test_known_incidents_stand_beside_the_episodes(tmp_path: Path) -> None:
    store(tmp_path / "run" / "sentinel.db", traffic_with_one_spike())
    found = find_store(tmp_path / "run")
    labels = [
        Label(NOON + 148 * MINUTE, NOON + 171 * MINUTE, f"A1 {EVIL}", frozenset([SERIES])),
        Label(NOON + 148 * MINUTE, NOON + 171 * MINUTE, "A2, another series", frozenset(["tenant=x"])),
    ]
    bare = compose(found, gather(found))
    tree = checked(render_page(replace(bare, labels=labels, facts=[("recall", "0.93")])))
    known = [a for t, a in tree.tags if a.get("class") == "known"]
    assert [a.get("title") for a in known] == [f"A1 {EVIL}", "A2, another series", None]
    assert "a known incident" in tree.text and "recall0.93" in tree.text
    assert "known incident" not in render_page(bare)


def test_silence_is_drawn_as_zero_but_not_the_time_before_the_series(tmp_path: Path) -> None:
    present = [latency_pane(SERIES, m, [1.0] * 4) for m in range(60, 100)]
    end = [latency_pane("service=other,model=m", m, [1.0]) for m in range(180)]
    quiet = slow("e1", SERIES, 100, None, kind="silence", metric="requests", unit="1/min", expected=4.0, observed=0.0)
    store(tmp_path / "run" / "sentinel.db", [*present, *end, *quiet])
    found = find_store(tmp_path / "run")
    (chart,) = compose(found, gather(found)).charts
    assert chart.curve is not None
    by_minute = {(t - NOON) // MINUTE: v for t, v in zip(chart.curve.time, chart.curve.value, strict=True)}
    assert by_minute[59] is None and by_minute[60] == 4.0 and by_minute[99] == 4.0
    assert by_minute[100] == by_minute[179] == 0.0 and max(by_minute) == 179


def test_a_share_of_errors(tmp_path: Path) -> None:
    rows = [
        row(PANES, dimension_set="tenant", series="tenant=a", width_s=60, pane_start=NOON + m * MINUTE, requests=40,
            errors=20 if m >= 60 else 0, breakdown="[]", evidence="[]")
        for m in range(90)
    ]  # fmt: skip
    rows += slow(
        "e1", "tenant=a", 60, 80, kind="error_burst", metric="error_ratio", unit="1", observed=0.5, expected=0.0,
        lower=0.0, upper=0.1, evidence=[{"event_id": "x", "trace_id": "", "value": 1.0}],
    )  # fmt: skip
    tree = checked(page(tmp_path, rows))
    assert "50 %" in tree.text and "0 % to 10 %" in tree.text and "share of errors" in tree.text


@pytest.mark.parametrize("metric", ["tomorrows_metric", "quality"])
def test_an_episode_without_stored_values_keeps_its_text(tmp_path: Path, metric: str) -> None:
    tree = checked(
        page(tmp_path, [*PANE_ROWS, *slow("e1", "tenant=acme", 30, 40, metric=metric, unit="1", lower=None)])
    )
    assert f"The store has no values of {metric} of that time." in tree.text
    assert "Latency is 2 s." in tree.text and "any to 1,500" in tree.text


def test_a_damaged_sketch_is_a_gap(tmp_path: Path) -> None:
    rows = traffic_with_one_spike()
    place = PANES.index["sketch"]
    rows[100] = Row(PANES.name, (*rows[100].values[:place], b"\xff\x00", *rows[100].values[place + 1 :]))
    store(tmp_path / "run" / "sentinel.db", rows)
    found = find_store(tmp_path / "run")
    (chart,) = compose(found, gather(found)).charts
    assert chart.curve is not None
    missing = [(t - NOON) // MINUTE for t, v in zip(chart.curve.time, chart.curve.value, strict=True) if v is None]
    assert missing == [100]


def test_text_from_outside_stays_text(tmp_path: Path) -> None:
    tenant = EVIL.replace("=", "%3D").replace(",", "%2C")
    evidence = [{"event_id": EVIL, "trace_id": EVIL, "value": 5.0}]
    contributors = [{"dimension": EVIL, "value": EVIL, "share": "many", "usual_share": EVIL}]
    names: dict[str, Any] = {
        "kind": EVIL,
        "unit": EVIL,
        "text": EVIL,
        "severity": EVIL,
        "group_id": EVIL,
        "detectors": [EVIL],
    }
    names["factors"] = [{"factor": EVIL, "dimension": EVIL, "usual": EVIL, "times": EVIL}]
    rows = [latency_pane(f"tenant={tenant}", m, [9.0] * 30) for m in range(90)]
    rows += slow(f"e{EVIL}", f"tenant={tenant}", 60, 80, evidence=evidence, contributors=contributors, **names)
    rows += slow("e2\x1b\u202e", f"tenant={tenant}", 60, 80, group_id=EVIL)
    folder = tmp_path / "run"
    folder.mkdir()
    settings = {"a.b": [EVIL, EVIL], "odd": 3}
    (folder / "run.json").write_text(json.dumps({"settings": settings}))
    html = page(tmp_path, rows)
    tree = checked(html)
    assert "<script" not in html and "alert(1)" in tree.text and "\x1b" not in html and "\u202e" not in html
    assert "1 settings that are not the default" in tree.text
    assert any(a.get("title", "") and EVIL in str(a["title"]) for _, a in tree.tags)


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """The content of a page with one episode, before it becomes markup."""
    found = tmp_path_factory.mktemp("run") / "sentinel.db"
    store(found, traffic_with_one_spike())
    return compose(found, gather(found))


def renamed(page: Page, text: str) -> Page:
    """The page with this text in every place that takes text from outside."""
    (chart,) = page.charts
    (episode,) = chart.episodes
    episode = replace(
        episode, episode_id=text, group_id=text, severity=text, kind=text, metric=text, unit=text, series=text,
        dimensions={"service": text}, detectors=[text], text=text,
        contributors=[{"dimension": text, "value": text, "share": 0.5}], factors=[{"factor": text, "dimension": text}],
    )  # fmt: skip
    requests = [Request(text, text, 5.0, chart.evidence["e1"][0].at)]
    chart = replace(chart, series=text, metric=text, unit=text, episodes=[episode], evidence={text: requests})
    report = replace(page.report, episodes=[episode], series={text: 1}, files={text: text}, command=text)
    return replace(
        page, report=report, folder=text, charts=[chart], rest=[episode], settings=[(text, text, text)],
        facts=[(text, text)], labels=[Label(chart.start, chart.end, text, frozenset([text]))],
    )  # fmt: skip


@given(st.text(st.characters() | st.sampled_from("<>&\"'`{}%#\x1b\x00\u202e"), min_size=1))
@example("\ud800")
def test_no_text_changes_the_markup(composed: Page, text: str) -> None:
    html = render_page(renamed(composed, text))
    assert [t for t, _ in Tree(html).tags] == [t for t, _ in Tree(render_page(renamed(composed, "a"))).tags]
    assert all(c.isprintable() or c == "\n" for c in html)


def test_no_alerts_and_no_rows(tmp_path: Path) -> None:
    for name in ("calm", "new"):
        (tmp_path / name).mkdir()
    calm = checked(page(tmp_path / "calm", [*PANE_ROWS]))
    assert "No alerts: nothing abnormal was found." in calm.text
    assert "requests a minute" in calm.text and [t for t, _ in calm.tags].count("svg") == 1
    assert "The run has stored nothing yet." in checked(page(tmp_path / "new", [])).text


def many(number: int) -> list[Row]:
    rows: list[Row] = []
    for n in range(number):
        severity = ("low", "medium", "high", "critical")[n % 4]
        rows += slow(f"id{n:04d}", f"service=s{n},model=m", 20 + n % 50, 75, severity=severity)
    return rows


def test_many_episodes_stay_usable(tmp_path: Path) -> None:
    number = 130
    shown = [latency_pane(f"service=s{n},model=m", m, [900.0, 1100.0]) for n in range(3) for m in range(90)]
    html = page(tmp_path, [*PANE_ROWS, *shown, *many(number)], most=100)
    tree = checked(html)
    assert {f"e-id{n:04d}" for n in range(number)} <= set(tree.ids())
    details = [a for t, a in tree.tags if t == "details"]
    assert len(details) == 100 + 2 and not any("open" in a for a in details)
    assert "30 more episodes, without charts" in tree.text and "106 less severe" in tree.text
    order = re.findall(r'<summary><span class="sev (\w+)"', html)
    assert order == sorted(order, key=["critical", "high", "medium", "low"].index)
    assert len(html) < 1_000_000


def test_episodes_close_together_share_a_chart(tmp_path: Path) -> None:
    begins = {"a": (130, 140), "b": (150, 160), "c": (600, 610), "d": (790, 1400)}
    rows = [latency_pane(SERIES, m, [1000.0] * 3) for m in range(0, 1500, 5)]
    rows += [r for name, (begin, end) in begins.items() for r in slow(name, SERIES, begin, end)]
    rows += slow("other", SERIES, 130, 140, metric="ttft")
    store(tmp_path / "run" / "sentinel.db", rows)
    report = gather(find_store(tmp_path / "run"))
    groups = together(report.episodes, report.last or 0)
    assert [[e.episode_id for e in group] for group in groups] == [["a", "b"], ["c"], ["d"], ["other"]]
    charts = compose(find_store(tmp_path / "run"), report).charts
    assert all(c.curve is None or len(c.curve.time) <= 240 for c in charts)
    assert max((c.end - c.start) // MINUTE for c in charts) <= 15 * 60 + 1


def test_times_of_later_days_bear_their_date(tmp_path: Path) -> None:
    rows = [latency_pane(SERIES, m, [1000.0] * 3) for m in range(600, 900)] + slow("e1", SERIES, 700, 800)
    tree = checked(page(tmp_path, rows))
    assert "23:41:00firing" in tree.text and "2026-01-06 01:25:00resolved" in tree.text


def test_the_same_incident_is_linked(tmp_path: Path) -> None:
    rows = [*PANE_ROWS, *slow("e1", "tenant=acme", 30, 40, group_id="g"), *slow("e2", "tenant=b", 30, 40, group_id="g")]
    tree = checked(page(tmp_path, rows))
    assert tree.links().count("#e-e1") == 2 and "Same incident: latency_spike of tenant=acme" in tree.text


def test_the_command_writes_the_page_where_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    store(tmp_path / "run" / "sentinel.db", traffic_with_one_spike())
    default = tmp_path / "run" / "report.html"
    assert main(["--run", "run", "--no-html"]) == 0
    assert main(["--run", "run", "--json"]) == 0
    assert not default.exists()
    capsys.readouterr()
    assert main(["--run", "run"]) == 0
    assert "  page: run/report.html\n" in capsys.readouterr().out
    checked(default.read_text())
    assert main(["--run", "run", "--html", "mine.html", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["page"] == "mine.html"
    assert (tmp_path / "mine.html").read_bytes() == default.read_bytes()
    assert main(["--run", "run", "--html", "nowhere/mine.html"]) == 73
    printed = capsys.readouterr()
    assert "the page nowhere/mine.html cannot be written" in printed.err and "latency_spike" in printed.out
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


def traced(path: str) -> list[tuple[str, int, int]]:
    """The commands M, m and l of a path, each with the place that it leads to."""
    out, x, y = [], 0, 0
    for command, dx, dy in re.findall(r"([Mml])(-?\d+) ?(-?\d+)(?:h0)?", path):
        x, y = (int(dx), int(dy)) if command == "M" else (x + int(dx), y + int(dy))
        out.append((command, x, y))
    return out


place = st.floats(0, plot.SIZE)


@given(st.lists(st.none() | st.tuples(place, place), max_size=50))
def test_a_path_goes_to_its_points_and_breaks_where_there_is_none(points: list[tuple[float, float] | None]) -> None:
    found = [p for p in points if p is not None]
    ends = [(round(x), round(y)) for x, y in found]
    path = traced(plot.line(points))
    assert [(x, y) for _, x, y in path] == ends == [(x, y) for _, x, y in traced(plot.dots(found))]
    begins = [i == 0 or points[i - 1] is None for i, p in enumerate(points) if p is not None]
    assert [command in "Mm" for command, _, _ in path] == begins


finite = st.floats(-1e12, 1e12)


@given(st.lists(finite, max_size=30), st.booleans())
def test_a_value_axis_holds_its_values_in_order_and_has_few_ticks(values: list[float], logs: bool) -> None:
    axis = plot.ValueAxis([abs(v) for v in values] if logs else values, logs)
    places = [axis.at(abs(v) if logs else v) for v in sorted(values, key=abs if logs else None)]
    assert places == sorted(places, reverse=True) and all(0 <= p <= plot.SIZE for p in places)
    slack = 1e-6 * (axis.high - axis.low)
    assert len(axis.ticks()) <= 7 and all(axis.low - slack <= t <= axis.high + slack for t in axis.ticks())


@given(st.integers(0, 4_000_000_000_000_000), st.integers(1, 10_000_000_000_000))
def test_a_time_axis_has_few_ticks_within(start: int, length: int) -> None:
    ticks = plot.TimeAxis(start, start + length).ticks()
    assert len(ticks) <= 10 and all(0 <= x <= plot.SIZE for x, _ in ticks)


@pytest.mark.parametrize(("width", "scheme", "ground"), [(1280, "light", 246), (400, "dark", 20)])
def test_a_browser_shows_it_without_a_network(tmp_path: Path, width: int, scheme: str, ground: int) -> None:
    found = program()
    if found is None:
        leave_out("no Chromium: make services installs it")
    rows = [*PANE_ROWS, *traffic_with_one_spike(), *many(30)]
    file = tmp_path / "report.html"
    file.write_text(page(tmp_path, rows))
    with Browser(found, tmp_path / "profile") as browser:
        browser.open(file, width, scheme)
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor").startswith(f"rgb({ground},")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        chart = "document.querySelector('#e-e1').closest('details')"
        assert browser.evaluate(f"{chart}.open") is False
        browser.evaluate(f"{chart}.firstChild.id = 'pressed'")
        browser.click("#pressed")
        assert browser.evaluate(f"{chart}.open") is True
        assert (
            browser.evaluate(f"{chart}.querySelector('.curve path.smooth').getBoundingClientRect().width") > width / 3
        )
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        browser.click('a[href="#e-id0003"]')
        assert browser.evaluate("document.querySelector('#e-id0003').closest('details').open") is True
        assert browser.said == []
        assert [url for url in browser.asked if not url.startswith(("file:", "data:"))] == []
