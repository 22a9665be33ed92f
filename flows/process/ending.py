"""Ends a process that cannot go on with one sentence and an exit code instead of a traceback.

Bytewax wraps the error of a source or a sink in its own error, and turns that of a recovery store into a panic. Both
reach `sys.excepthook`, the last place that sees them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from flows.process.logs import tell
from flows.process.panics import Panics
from flows.settings.model import CONFIG_EXIT_CODE
from operators.errors import ConfigError, SentinelError

ROOM: Final = 1 << 20
"""The least free bytes that a recovery store needs."""

_SQLITE: Final = re.compile(r"SqliteFailure\(.*Some\(\"(.*)\"\)\)")
"""Matches a panic of SQLite, which is one of the recovery store: Rust writes no other SQLite file."""

log = logging.getLogger(__name__)


def room(folder: Path) -> str | None:
    """The reason why this folder of a recovery store cannot be written; None where it can."""
    probe = folder / f"room-{os.getpid()}.tmp"
    try:
        with probe.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, ROOM)
    except OSError as error:
        return error.strerror
    finally:
        try:
            probe.unlink(missing_ok=True)
        except OSError as error:
            log.debug("%s stays: %s", probe, error.strerror)
    return None


def cause(error: BaseException) -> SentinelError | None:
    """The `SentinelError` that this error came from, or None."""
    return next((e for e in _chain(error) if isinstance(e, SentinelError)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def unwritten(recovery: Path, error: BaseException) -> str | None:
    """The reason why the recovery store in this folder cannot be written any more; None for another kind of error.

    Bytewax repeats the message of SQLite, which blames the disk for much, so this looks at the folder first.
    """
    if (wrong := room(recovery)) is not None:
        return wrong
    said = next((found for e in _chain(error) if (found := _SQLITE.search(str(e)))), None)
    return said[1] if said else None


def say_why(recovery: Path | None, panics: Panics | None = None) -> None:
    """From now on say in one sentence which error ends the process; errors that are not ours are shown whole.

    The exit code is 78 where the set-up is wrong, else 1. `recovery` is the folder of the recovery store. `panics`
    keeps back the text that Rust prints for an error that has a sentence.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = cause(error)
        if known is None and recovery is not None and (wrong := unwritten(recovery, error)) is not None:
            known = SentinelError(
                f"the recovery folder {recovery} cannot be written any more ({wrong}): mend that and start again, "
                "the run goes on from its last snapshot"
            )
        if panics is not None:
            panics.end(show=known is None)
        if known is None:
            tell(logging.CRITICAL, "".join(traceback.format_exception(kind, error, trace)).rstrip())
            return
        log.debug("what ended the flow", exc_info=(kind, error, trace))
        tell(logging.CRITICAL, f"llm-sentinel stopped: {known}")
        raise SystemExit(CONFIG_EXIT_CODE if isinstance(known, ConfigError) else 1)

    sys.excepthook = hook
