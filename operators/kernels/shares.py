"""Compiled loops of the usual shares: sums that fade with time, entry by entry."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.model import Bools, Ints

Singles = NDArray[np.float32]


@compiled
def add_entries(place: Ints, pane: Ints, added: NDArray[Any], keep: float, sums: Singles, last: Ints) -> None:
    """Add each entry [E, V] to the sums [P, V] at its place; sums fade with each pane since their last entry."""
    for e in range(len(place)):
        p = place[e]
        fade = keep ** (pane[e] - last[p]) if last[p] >= 0 else 0.0
        last[p] = pane[e]
        for v in range(added.shape[1]):
            sums[p, v] = np.float32(float(sums[p, v]) * fade + float(added[e, v]))


class Wholes(NamedTuple):
    """The faded sums of whole rows, by slot."""

    sums: Singles  # [slots, V]
    panes: Singles  # learned panes; silent ones count with the row after them
    last: Ints


@compiled
def add_rows(slot: Ints, pane: Ints, added: Ints, held: Bools, keep: float, wholes: Wholes) -> None:
    """As `add_entries`, for whole rows."""
    sums, panes, last = wholes.sums, wholes.panes, wholes.last
    for r in range(len(slot)):
        s = slot[r]
        fade = keep ** (pane[r] - last[s]) if last[s] >= 0 else keep
        last[s] = pane[r]
        some = 0.0 if held[r] else 1.0
        panes[s] = np.float32(float(panes[s]) * fade + some * (1.0 - fade) / (1.0 - keep))
        for v in range(added.shape[1]):
            sums[s, v] = np.float32(float(sums[s, v]) * fade + some * float(added[r, v]))
