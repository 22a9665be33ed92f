"""The wait before another try: one rule for neighbours, peers and restarts."""

from __future__ import annotations

from random import Random
from typing import Final

_DOUBLED: Final = 60
"""The most doublings; every longest wait is reached earlier."""


def pause_s(owner: str, failures: int, first_s: float, most_s: float) -> float:
    """The wait after this many failures in a row, in seconds.

    It doubles from `first_s` up to `most_s`, less up to half by chance. Chance spreads the retries of owners that
    failed together, so `owner` must be unique, over all processes too. The same owner draws the same waits, so a test
    can repeat them.
    """
    whole = min(first_s * 2.0 ** min(failures - 1, _DOUBLED), most_s)
    return whole * Random(f"{owner} {failures}").uniform(0.5, 1.0)  # noqa: S311 - it keeps no secret
