"""Flows that end early, for the tests of the supervisor, which name them in `--flow`."""

from __future__ import annotations

import os
import signal
import sys
import time

from bytewax.dataflow import Dataflow


def ending(code: int) -> Dataflow:
    """Ends with this code before it starts."""
    print("llm-sentinel cannot start: for a reason", file=sys.stderr, flush=True)
    sys.exit(code)


def deaf() -> Dataflow:
    """Waits for a minute, and ignores SIGTERM once it has said that it is at work."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("at work", flush=True)
    time.sleep(60)
    sys.exit(1)


def killed() -> Dataflow:
    """Process 1 is killed, the others wait for it."""
    if sys.argv[sys.argv.index("-i") + 1] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return deaf()
