"""Waiting for another process, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    holds: Callable[[], bool],
    what: str | Callable[[], str] = "the expected state",
    *,
    seconds: float = 100,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Return as soon as it holds; an exception means not yet.

    Between two looks `meanwhile` is called. After this many seconds it raises `AssertionError`, which says what did not
    come, and why if the last look failed.
    """
    deadline = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            if holds():
                return
        except Exception as e:  # noqa: BLE001 - the other side may not be there yet
            error = e
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}") from error
        if meanwhile is not None:
            meanwhile()
        time.sleep(0.05)
