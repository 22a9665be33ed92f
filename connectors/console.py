"""Shared by all output for people: the colours of severities, and a console that survives the end of its reader."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from rich.console import Console

SEVERITY_STYLES: Final[Mapping[str, str]] = {
    "low": "cyan",
    "medium": "yellow",
    "high": "red",
    "critical": "bold white on red",
}
"""The rich style of each severity; text that is not one of our severities has none."""


class PipeConsole(Console):
    """A console that raises `BrokenPipeError` if its reader ends early; rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
