"""Log lines on standard error: for people, or one JSON object a line; times are RFC 3339 in UTC.

All other text of the program goes there through `tell`, so that a reader of JSON never meets anything else. Each line
loses the secrets of the settings, also where another library has put one into it.
"""

from __future__ import annotations

import logging
import secrets
import signal
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType
from typing import Final, Literal

import orjson

from operators.section import without
from operators.text import encodable

OURS: Final = ("flows", "connectors", "operators")
"""The packages whose level can be changed while the process lives; debug lines of libraries do not belong in logs."""


@dataclass(frozen=True, slots=True)
class Who:
    """The origin of the lines: the number of the process in the cluster, and the run, a new name at each start."""

    process: int = 0
    run: str = field(default_factory=lambda: secrets.token_hex(4))


class Lines(logging.Formatter):
    """Lines for people: time, level, logger, message, and a traceback below if there is one; without `secrets`."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        return without(super().format(record), self.secrets)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802 - logging calls it
        return _time(record)


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, logger, message, process, run.

    A traceback stands in `exception`. None of the `secrets` stands in a line.
    """

    def __init__(self, who: Who, secrets: Iterable[str] = ()) -> None:
        super().__init__()
        self._who = who
        self.secrets = tuple(secrets)

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": without(encodable(record.getMessage()), self.secrets),
            "process": self._who.process,
            "run": self._who.run,
        }
        if record.exc_info:
            line["exception"] = without(encodable(self.formatException(record.exc_info)), self.secrets)
        return orjson.dumps(line).decode()


def set_up_logging(
    level: str, form: Literal["text", "json"], who: Who | None = None, secrets: Iterable[str] = ()
) -> None:
    """Send log lines of at least this level to standard error, without these secrets."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(who or Who(), secrets) if form == "json" else Lines(secrets))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def tell(level: int, text: str) -> None:
    """Print the text at any log level, as it is or as a JSON line if log lines are JSON; a lost reader is no error."""
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    json = next((f for f in formatters if isinstance(f, JsonLines)), None)
    lines = next((f for f in formatters if isinstance(f, Lines)), None)
    if lines is not None:
        text = without(text, lines.secrets)
    if json is not None:
        text = json.format(logging.LogRecord("flows", level, "", 0, text.strip(), (), None))
    with suppress(OSError, RuntimeError):  # a signal handler may have interrupted a write to the same stream
        print(text, file=sys.stderr, flush=True)


def debug_on_signal() -> None:
    """SIGUSR1 shows the debug lines of our packages, the next one hides them again.

    Only the same user can send a signal; the listener could not promise that.
    """
    shown = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal shown
        shown = not shown
        for name in OURS:
            logging.getLogger(name).setLevel(logging.DEBUG if shown else logging.NOTSET)
        tell(logging.INFO, f"debug lines are {'shown' if shown else 'hidden'} from now on")

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, handler)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
