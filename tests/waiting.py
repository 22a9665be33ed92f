"""Waiting for another process, on a machine that may be busy."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(
    holds: Callable[[], bool],
    what: str | Callable[[], str] = "the expected state",
    *,
    seconds: float = 60,
    ignore: type[Exception] | tuple[type[Exception], ...] = (),
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Return as soon as `holds()` is true; an exception of the types in `ignore` counts as false.

    `meanwhile` is called between two checks. Raises `AssertionError` after this many seconds: it names `what`, and its
    cause is the ignored exception of the last check, if any.
    """
    deadline = time.monotonic() + seconds
    while True:
        error: Exception | None = None
        try:
            if holds():
                return
        except ignore as e:
            error = e
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}") from error
        if meanwhile is not None:
            meanwhile()
        time.sleep(0.05)
