"""Keeps back the panics that Rust writes to standard error when an error leaves the dataflow.

Bytewax panics on every error of a source, a step, a sink or the recovery store. Rust then writes two lines, or with
RUST_BACKTRACE a hundred, straight to descriptor 2, before Python knows of the error. So that descriptor becomes a pipe.
A thread hands on its lines, but keeps a panic back until the process says in one sentence why it ends. `sys.stderr`
writes past the pipe.
"""

from __future__ import annotations

import atexit
import faulthandler
import io
import os
import re
import select
import sys
import threading
import time
from contextlib import suppress
from typing import Final

HELD_S: Final = 10.0
"""How long a panic is kept back while the process lives, in seconds; after that it is shown."""

_PANIC: Final = re.compile(rb"thread '[^\n]*' panicked at ")
_BLOCK: Final = 65_536
_MOST: Final = 1 << 20


class Panics:
    """Keeps panics back until `end`. A process can have one of these."""

    def __init__(self) -> None:
        sys.stderr.flush()
        self._shown = os.dup(2)
        sys.stderr = io.TextIOWrapper(  # without a buffer, as Python makes its own
            open(self._shown, "wb", buffering=0, closefd=False),  # noqa: SIM115 - as long as the process
            sys.stderr.encoding, sys.stderr.errors, line_buffering=True, write_through=True,
        )  # fmt: skip
        # A crash of native code can lose the last lines in the pipe; this says where it happened.
        faulthandler.enable(sys.stderr)
        self._pipe, into = os.pipe()
        os.set_blocking(into, False)  # a writer may hold the lock that the thread below waits for
        os.dup2(into, 2)
        os.close(into)
        self._kept = b""
        self._thread = threading.Thread(target=self._read, name="panics", daemon=True)
        self._thread.start()
        atexit.register(self.end, False)

    def _read(self) -> None:
        """Hand on whole lines; keep everything from the line of a panic on."""
        line, until = b"", 0.0
        while True:
            if self._kept:
                left = max(0.0, until - time.monotonic())
                if len(self._kept) > _MOST or not select.select([self._pipe], [], [], left)[0]:
                    self._show(self._kept)
                    self._kept = b""
            if not (came := os.read(self._pipe, _BLOCK)):
                break
            if self._kept:
                self._kept += came
                continue
            whole, end, line = (line + came).rpartition(b"\n")
            found = _PANIC.search(whole)
            first = found.start() if found else len(whole + end)
            self._show((whole + end)[:first])
            if found:
                self._kept, line = (whole + end)[first:] + line, b""
                until = time.monotonic() + HELD_S
        if not self._kept:
            self._show(line)

    def _show(self, text: bytes) -> None:
        with suppress(OSError):  # the reader may have gone
            os.write(self._shown, text)

    def end(self, show: bool) -> None:
        """Give the descriptor back, and show or drop the kept text; returns when all is written."""
        if not self._thread.is_alive():
            return
        os.dup2(self._shown, 2)  # nothing holds the other end of the pipe any more
        self._thread.join(1)
        if show:
            self._show(self._kept)


def keep_back() -> Panics | None:
    """Keep panics back from now on if this process runs a dataflow; returns None otherwise."""
    program = getattr(sys.modules.get("__main__"), "__spec__", None)
    return Panics() if program is not None and program.name in ("bytewax.run", "flows.backtest.__main__") else None
