"""Log lines: for people and as JSON, both with times in UTC."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import orjson
import pytest

from flows.logs import JsonLines, Lines, set_up_logging


def record(message: str, *args: object, exc_info: bool = False) -> logging.LogRecord:
    made = logging.LogRecord(
        'a "name"', logging.WARNING, "f.py", 1, message, args, sys.exc_info() if exc_info else None
    )
    made.created = 1_767_225_600.125
    return made


def test_a_line_to_read_has_its_time_in_utc() -> None:
    assert Lines().format(record("%d left", 3)) == '2026-01-01T00:00:00.125Z WARNING a "name": 3 left'


def test_a_json_line_is_one_object_whatever_the_message() -> None:
    text = JsonLines().format(record('two\nlines, "quoted", a lone \ud800 and %s', "é"))
    assert "\n" not in text
    assert orjson.loads(text) == {
        "time": "2026-01-01T00:00:00.125Z",
        "level": "WARNING",
        "logger": 'a "name"',
        "message": 'two\nlines, "quoted", a lone ? and é',
    }


def test_a_traceback_stays_inside_the_json_object() -> None:
    try:
        raise ValueError("no \ud800")
    except ValueError:
        text = JsonLines().format(record("failed", exc_info=True))
    line = orjson.loads(text)
    assert "\n" not in text
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: no ?")


@pytest.mark.parametrize(("form", "kind"), [("text", Lines), ("json", JsonLines)])
def test_the_settings_choose_the_form_and_the_least_level(form: Literal["text", "json"], kind: type) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    for handler in before:
        root.removeHandler(handler)
    try:
        set_up_logging("warning", form)
        assert root.level == logging.WARNING
        assert [type(h.formatter) for h in root.handlers] == [kind]
    finally:
        root.handlers[:] = before
        root.setLevel(level)
