"""How the process ends when it cannot go on: one sentence and an exit code, not a trace of calls.

Bytewax hands on the error of a source or a sink wrapped in its own; of a recovery store that cannot be written it
panics. Both reach `sys.excepthook`, the last place that sees them.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from flows.logs import tell
from flows.settings import CONFIG_EXIT_CODE
from operators.errors import ConfigError, SentinelError

ROOM: Final = 1 << 20
"""Bytes that a recovery store needs at least, to be made or to be gone on with."""

log = logging.getLogger(__name__)


def room(folder: Path) -> str | None:
    """What is wrong with this folder of a recovery store, or None where it can be written."""
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
    """The error of ours that this one came from, or None."""
    return next((e for e in _chain(error) if isinstance(e, SentinelError)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def say_why(recovery: Path | None) -> None:
    """From now on what ends the process is said in one sentence; what is no error of ours is still shown whole.

    The exit code is 78 where the set-up is wrong, else 1. `recovery` is the folder of the recovery store: Bytewax does
    not say why it could not write it, so it is looked at.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        known = cause(error)
        if known is None and recovery is not None and (wrong := room(recovery)) is not None:
            known = SentinelError(
                f"the recovery folder {recovery} cannot be written any more ({wrong}): mend that and start again, "
                "the run goes on from its last snapshot"
            )
        if known is None:
            tell(logging.CRITICAL, "".join(traceback.format_exception(kind, error, trace)).rstrip())
            return
        log.debug("what ended the flow", exc_info=(kind, error, trace))
        tell(logging.CRITICAL, f"llm-sentinel stopped: {known}")
        raise SystemExit(CONFIG_EXIT_CODE if isinstance(known, ConfigError) else 1)

    sys.excepthook = hook
