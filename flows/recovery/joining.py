"""The last thing before Bytewax, for a process that has only some of the partitions: it settles with the others.

All of them together remove what an unfinished epoch left (`flows.recovery.rewind`), and all leave for Bytewax at
once.
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
"""How long Bytewax may take to connect all processes, which come to it together."""


def join(where: Place, folder: Path, connected: threading.Event, token: str | None = None) -> None:
    """Wait for the others, remove what is not finished from the folder, and then wait no longer than `CONNECT_S`.

    A stop that is asked for meanwhile ends the process with exit code 130 or 143, as any stop before the flow runs does
    in a shell. Raises `ConfigError` where the partitions of all are not one store.
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
    """From now on end the process with exit code 1 unless all are `connected` in time.

    Bytewax can wait for ever: connected to a process that has died since, for another that gathers with its successor.
    """

    def watch() -> None:
        if not connected.wait(seconds):
            tell(logging.CRITICAL, f"llm-sentinel stopped: not all processes were connected within {seconds:g} s")
            os._exit(1)

    threading.Thread(target=watch, name="connecting", daemon=True).start()
