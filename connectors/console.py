"""What all that prints for people shares: the colours of severities, and a console that outlives its reader."""

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
"""The rich style of each severity; text that is no severity of ours has none."""


class PipeConsole(Console):
    """A console that raises BrokenPipeError when its reader has gone away, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
