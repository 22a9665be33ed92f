"""Lets processes that hold only some of the partitions each agree on the epoch to resume from, right before Bytewax.

Together they remove the leftovers of an unfinished epoch (`flows.recovery.rewind`), and all start Bytewax at once.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Final

from flows.process.logs import tell
from flows.recovery.gather import Stopped, gather
from flows.recovery.rewind import forget, resumed_from, shares
from flows.recovery.store import Place
from flows.recovery.upkeep import keep_up

CONNECT_S: Final = 30.0
"""How long Bytewax may take to connect all processes, in seconds; they start it together."""


def join(where: Place, folder: Path, connected: threading.Event, token: str | None = None) -> None:
    """Wait for the others, remove unfinished snapshots from the folder, and give Bytewax `CONNECT_S` to connect.

    A stop signal meanwhile ends the process with exit code 130 or 143, as in a shell. Raises `ConfigError` where the
    partitions of all processes are not one store.
    """
    came: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        told = gather(where.addresses, where.process, shares(folder), lambda: bool(came), token)
    except Stopped:
        tell(logging.INFO, f"{signal.Signals(came[0]).name}: stopped before the start, while waiting for the others")
        raise SystemExit(128 + came[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    epoch = resumed_from(told)
    if epoch is not None:
        forget(epoch, folder)
        keep_up(epoch, folder)
    end_unless(connected, CONNECT_S)


def end_unless(connected: threading.Event, seconds: float) -> None:
    """End the process with exit code 1 unless all processes are `connected` within this number of seconds.

    Bytewax can wait for ever: it is connected to a process that has died since, and waits for another process, which
    gathers with the dead one's successor.
    """

    def watch() -> None:
        if not connected.wait(seconds):
            tell(logging.CRITICAL, f"llm-sentinel stopped: not all processes were connected within {seconds:g} s")
            os._exit(1)

    threading.Thread(target=watch, name="connecting", daemon=True).start()
