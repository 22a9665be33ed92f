"""The demo's frames, from fixed scenes, on terminals of several widths."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from flows.demo.feed import POINTS, Scene, Series
from flows.demo.view import WIDE, frame, sparkline, status, what, where

NOW = 1_790_000_000_000_000


def alert(episode: str, status: str, severity: str, **changes: object) -> dict[str, Any]:
    found: dict[str, Any] = {
        "episode_id": episode,
        "status": status,
        "severity": severity,
        "series": {"service": "rag-search", "model": "helios-flash", "operation": "chat"},
        "metric": "error_ratio",
        "unit": "1",
        "at": "2026-09-21T14:10:00.000Z",
        "since": "2026-09-21T14:05:00.000Z",
        "observed": 0.339,
        "expected": 0.004,
    }
    return found | changes


SCENE = Scene(
    now=NOW,
    started=True,
    phase="60 x real time",
    rates=[10, 20, 40, 80],
    events=1_234_567,
    late=3,
    dead=7,
    watermark=NOW - 95_000_000,
    series=[
        Series(
            f"chat-assistant / model-{n}", 120.0 / (n + 1), 0.2 if n == 0 else 0.001, 812.0, 1.25, tuple(range(POINTS))
        )
        for n in range(12)
    ],
    open=[alert(f"e{n}", "firing", severity) for n, severity in enumerate(("critical", "high", "low"))],
    recent=[alert("e3", "resolved", "medium"), alert("e2", "updated", "low"), alert("e1", "firing", "high")],
    episodes=4,
    injected=[{"type": "error_burst", "entity": {"service": "rag-search"}}],
)


def drawn(scene: Scene, width: int, height: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as captured:
        console.print(frame(scene, width, height))
    return captured.get().splitlines()


@pytest.mark.parametrize(("width", "height"), [(40, 24), (40, 50), (80, 24), (96, 30), (120, 40), (200, 60)])
def test_a_frame_fits_and_says_what_there_is(width: int, height: int) -> None:
    lines = drawn(SCENE, width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for word in ("80 events/s", "1,234,567 events", "7 dead letters", "watermark 09-21 14:11:45", "95 s ago"):
        assert word in text
    assert "Open episodes: 3 (4 in all)" in text
    assert "chat-assistant / mod" in text and "20 %" in text
    if width >= WIDE:
        assert "critical rag-search helios-flash  error ratio 33.9 %, usual 0.4 %" in text
    else:
        assert "critical error ratio" in text and "  rag-search helios-flash: 33.9 %" in text
    assert "injected: error burst, rag-search" in text
    if height >= 30:
        assert "✓ medium" in text and "14:10:00" in text


def test_more_room_shows_more() -> None:
    small, large = drawn(SCENE, 120, 20), drawn(SCENE, 120, 60)
    assert len(small) <= 20 < len(large)
    assert sum("chat-assistant" in line for line in large) == 12
    crowd = replace(SCENE, open=[alert(f"e{n}", "firing", "low") for n in range(40)])
    assert any(line.startswith("and ") and line.endswith(" more") for line in drawn(crowd, 120, 30))


def test_a_flow_that_has_not_answered_yet() -> None:
    lines = drawn(Scene(now=NOW), 40, 24)
    assert "starting" in lines[0]
    text = "\n".join(lines)
    assert "watermark ?" in text and "nothing yet" in text and "none yet" in text
    assert status(Scene(now=NOW)) == "starting, 0 events, 0/s, 0 open episodes, 0 late, 0 dead letters"


def test_a_unit_that_the_name_holds_is_left_out() -> None:
    tokens = alert("e", "firing", "low", metric="completion_tokens", unit="tokens", observed=7.5, expected=120.0)
    assert what(tokens) == "completion tokens 7.5, usual 120"
    latency = alert("e", "firing", "low", metric="latency", unit="ms", observed=4_510.0, expected=72.6)
    assert what(latency) == "latency 4.51 s, usual 72.6 ms"
    assert where(alert("e", "firing", "low", series={"operation": "chat"})) == "chat"


def test_names_cannot_steer_the_terminal() -> None:
    evil = "\x1b[2J\x07\n"
    scene = replace(
        SCENE,
        open=[alert("e", "firing", "high", series={"service": evil}, metric=evil)],
        series=[replace(SCENE.series[0], name=evil)],
        injected=[{"type": evil, "entity": {"service": evil}}],
    )
    text = "\n".join(drawn(scene, 80, 40))
    assert "\x1b" not in text and "\x07" not in text and "?[2J??" in text


@settings(max_examples=60, deadline=None)
@given(st.integers(20, 160), st.integers(20, 60), st.integers(0, 30), st.integers(0, 12), st.integers(0, 40))
def test_any_size_and_number_fits(width: int, height: int, open_: int, series: int, recent: int) -> None:
    scene = replace(
        SCENE,
        open=[alert(f"e{n}", "firing", "high") for n in range(open_)],
        series=SCENE.series[:series],
        recent=[alert(f"r{n}", "resolved", "low") for n in range(recent)],
    )
    lines = drawn(scene, width, height)
    assert len(lines) <= height and max(map(len, lines)) <= width


@given(st.lists(st.floats(0, 1e9), max_size=80), st.integers(0, 100))
def test_a_sparkline_shows_the_last_values(values: list[float], width: int) -> None:
    line = sparkline(values, width)
    assert len(line) == min(len(values), width)
    if shown := values[-width:] if width else []:
        assert ("█" in line) == (max(shown) > 0)
        assert [c == " " for c in line] == [v == 0 for v in shown]


def test_the_status_line() -> None:
    assert status(SCENE) == (
        "60 x real time, 1,234,567 events, 80/s, at 2026-09-21 14:11:45 (95 s ago), "
        "3 open episodes, 3 late, 7 dead letters"
    )
