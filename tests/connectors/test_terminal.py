"""Alerts on the terminal."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.base import Message, WriterFactory
from connectors.config import TerminalConfig
from connectors.terminal import TerminalFactory
from operators.errors import DataError
from tests.connectors.samples import alert
from tests.contracts.systems import Alerts, Maker, after


class TerminalSystem(Alerts):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "screen"
        self.path.touch()
        self.stream = self.path.open("a", buffering=1)

    def factory(self) -> WriterFactory[Message]:
        return TerminalFactory(TerminalConfig(width=500), self.stream)

    def good(self, number: int) -> Message:
        return alert(number, text=f"alert-{number}")

    def contents(self) -> list[object]:
        return [line.split()[-1] for line in self.path.read_text().splitlines()]

    def trouble(self, tries: int) -> Callable[[], None]:
        return after(tries, lambda: None)  # a terminal has no transient fault

    def close(self) -> None:
        self.stream.close()


@contextmanager
def systems() -> Iterator[Maker]:
    """The systems for the laws of writers."""
    yield TerminalSystem


class Tty(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def printed(stream: io.StringIO, *records: Message, width: int | None = 200) -> str:
    factory = TerminalFactory(TerminalConfig(width=width), stream)
    writer = factory.open("terminal", None)
    writer.write(records)
    assert writer.snapshot() is None
    writer.close()
    return stream.getvalue()


def test_a_line_has_time_severity_series_and_text() -> None:
    assert printed(io.StringIO(), alert(1)) == (
        "2026-01-01 00:00:10.000Z  high      firing    service=a  latency 4.2 s, expected 800 ms\n"
    )


def test_the_text_of_the_alert_is_used_where_it_has_one() -> None:
    out = printed(io.StringIO(), alert(1, text="Latency is five times what it was", status="resolved"))
    assert out.endswith("resolved  service=a  Latency is five times what it was\n")


def test_a_missing_field_is_a_question_mark() -> None:
    out = printed(io.StringIO(), Message("x", "x", {}, b'{"series": 5, "observed": "no"}'))
    assert out.split() == ["?", "?", "?", "?", "?", "?,", "expected", "?"]


def test_no_colour_outside_a_terminal_and_one_line_an_alert_however_narrow() -> None:
    out = printed(io.StringIO(), alert(1, text="word " * 60), alert(2), width=40)
    assert "\x1b" not in out
    assert out.count("\n") == 2


def test_colour_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31mhigh" in printed(Tty(), alert(1))
    assert "\x1b[1;37;41mcritical" in printed(Tty(), alert(1, severity="critical"))
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in printed(Tty(), alert(1))


def test_a_narrow_terminal_gets_two_lines_within_its_width() -> None:
    out = re.sub(r"\x1b\[[0-9;]*m", "", printed(Tty(), alert(1, text="It is slow. " * 8), width=50))
    lines = out.rstrip("\n").split("\n")
    assert max(map(len, lines)) <= 50
    assert any(line.startswith("    It is slow.") for line in lines)


def test_names_from_outside_cannot_steer_the_terminal() -> None:
    out = printed(io.StringIO(), alert(1, series={"service": "\x1b[2Jevil\n\r\x07"}, text="[red]x[/red]\x9b"))
    assert "service=?[2Jevil???" in out
    assert "[red]x[/red]?" in out
    assert out.count("\n") == 1


@pytest.mark.parametrize("value", [b"", b"[1]", b"\xff"])
def test_a_message_that_is_no_alert_is_a_data_error(value: bytes) -> None:
    with pytest.raises(DataError, match="x is not a JSON object"):
        printed(io.StringIO(), Message("x", "x", {}, value))


class Gone(io.StringIO):
    """A pipe whose reader has ended."""

    tries = 0

    def write(self, text: str) -> int:
        self.tries += 1
        raise BrokenPipeError(32, "Broken pipe")


def test_a_terminal_that_goes_away_does_not_end_the_flow(caplog: pytest.LogCaptureFixture) -> None:
    stream = Gone()
    writer = TerminalFactory(TerminalConfig(), stream).open("terminal", None)
    with caplog.at_level(logging.WARNING):
        writer.write([alert(1)])
        tries = stream.tries
        writer.write([alert(2)])
    assert stream.tries == tries
    assert caplog.text.count("alerts are no longer shown") == 1


def test_there_is_one_partition() -> None:
    factory = TerminalFactory(TerminalConfig())
    assert (factory.partitions(), factory.route("anything")) == (["terminal"], 0)
