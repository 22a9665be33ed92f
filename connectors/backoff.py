"""How long to wait before something that failed is tried again: the one rule for neighbours, peers and restarts."""

from __future__ import annotations

from random import Random
from typing import Final

_DOUBLED: Final = 60
"""More doublings than this change nothing: every longest wait is reached before."""


def pause_s(owner: str, failures: int, first_s: float, most_s: float) -> float:
    """The wait after so many failures in a row: it doubles from `first_s` up to `most_s`, less up to half by chance.

    Chance keeps those who failed together from coming back together, so `owner` must tell one who waits from all
    others, in other processes too. The same owner draws the same waits, so a test can repeat them.
    """
    whole = min(first_s * 2.0 ** min(failures - 1, _DOUBLED), most_s)
    return whole * Random(f"{owner} {failures}").uniform(0.5, 1.0)  # noqa: S311 - it keeps no secret
