"""The line that says how far a flow has come."""

from __future__ import annotations

import io

import pytest

from flows.process.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str, /) -> int:
        raise BrokenPipeError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


NOON = 1_767_614_400_000_000


def test_a_pipe_gets_a_line_at_once_then_every_five_seconds_and_at_the_end() -> None:
    stream, clock = io.StringIO(), Clock()
    progress = Progress(stream, clock)
    for _ in range(110):  # 11 s
        progress.update(events=100, event_time_us=NOON, dead=1, late=2)
        clock.now += 0.1
    progress.update(alerts=3, event_time_us=NOON - 60_000_000)
    progress.finish()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "100 events, at 2026-01-05 12:00:00, 0 alerts, 2 late, 1 dead letters"
    assert lines[-1] == "11,000 events, 1,000/s, at 2026-01-05 12:00:00, 3 alerts, 220 late, 110 dead letters"


def test_a_terminal_gets_one_line_that_is_rewritten_each_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    stream, clock = Terminal(), Clock()
    progress = Progress(stream, clock)
    for _ in range(35):  # 3.5 s
        progress.update(events=1_000, event_time_us=NOON)
        clock.now += 0.1
    progress.finish()
    shown = stream.getvalue()
    assert shown.count("\n") == 1 and shown.endswith("\n")
    rewritten = shown[:-1].split("\r")
    assert len(rewritten) == 5
    for line in rewritten:
        assert line.startswith("\x1b[2K") and len(line) - len("\x1b[2K") <= 39


def test_a_dumb_terminal_is_written_to_as_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    Progress(stream, Clock()).update(events=1)
    assert stream.getvalue() == "1 events, 0 alerts, 0 late, 0 dead letters\n"


def test_the_reader_may_go_away() -> None:
    progress = Progress(Gone(), Clock())
    progress.update(events=1)
    progress.update(events=1)
    progress.finish()
    assert progress.events == 2


def test_a_flow_that_never_began_prints_nothing() -> None:
    stream = io.StringIO()
    Progress(stream, Clock()).finish()
    assert stream.getvalue() == ""
