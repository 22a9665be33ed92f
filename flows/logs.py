"""Log lines on standard error: for people, or one JSON object a line; times are RFC 3339 in UTC."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Literal

import orjson


class Lines(logging.Formatter):
    """Lines to read: time, level, logger, message, and the traceback below where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging calls it
        return _time(record)


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, and `exception` with the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _sound(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = _sound(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()


def set_up_logging(level: str, form: Literal["text", "json"]) -> None:
    """Send log lines of at least this level to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sound(text: str) -> str:
    """Without lone surrogates, which JSON cannot hold."""
    return text.encode(errors="replace").decode()
