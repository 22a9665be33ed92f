"""The choice and the order of the requests that a pane keeps as evidence.

Requests are ordered by start, latency, time to first token, event id, trace id, caller, the other values and error: a
total order on their content, so the order of arrival does not matter. A row keeps the worst requests by each metric (of
equals the earlier in the order), and the first errors in the order. The same request counts once. The worst of a union
are among the worst of the parts, so merging loses none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Final

import numpy as np

from operators.kernels.grouping import sort_ties
from operators.kernels.panes import choose
from operators.metrics import METRICS
from operators.model import Bools, Ints

_LONGEST_RUN: Final = 64
_HIGH: Final[Bools] = np.array([m.worst == "high" for m in METRICS])


def content_order(
    start: Ints, values: Ints, content: Callable[[Ints], Iterable[tuple[object, ...]]], row: Ints | None = None
) -> tuple[Ints, Ints]:
    """The requests in their order (row by row if `row` is given), and a number for each place; equal requests share it.

    `values` is [n, M]. `content(members)` gives the rest of the content: (event id, trace id, caller, values, error).
    It is called only for requests that equal another of their row in start, latency and time to first token: with
    clocks that count in milliseconds many requests share a start, and texts are slow to compare.
    """
    keys = [start, values[:, 0], values[:, 1]]
    if row is not None:
        keys.insert(0, row.astype(np.int64))
        order = np.lexsort(keys[::-1])
    else:  # requests come nearly in the order of their start
        order = np.argsort(start, kind="stable")
        if not sort_ties(order, start, values[:, 0], values[:, 1], _LONGEST_RUN):
            order = np.lexsort(keys[::-1])
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for key in keys:
        placed = key[order]
        same &= placed[1:] == placed[:-1]
    if not same.any():
        return order, np.arange(len(order))
    tied = np.zeros(len(order), np.bool_)
    tied[1:] |= same
    tied[:-1] |= same
    places = np.flatnonzero(tied)
    members = order[places]
    # One number for each run of equals, so that runs stay where they are.
    run = np.cumsum(np.append(True, ~same))[places].tolist()
    keyed: list[tuple[object, ...]] = sorted(
        (r, *rest, i) for r, rest, i in zip(run, content(members), members.tolist(), strict=True)
    )
    order[places] = np.array([k[-1] for k in keyed], np.int64)
    new = np.ones(len(order), np.bool_)
    new[places[1:]] = [a[:-1] != b[:-1] for a, b in pairwise(keyed)]
    return order, np.cumsum(new)


def chosen(members: Ints, start: Ints, alike: Ints, values: Ints, error: Bools, most: int) -> Bools:
    """Whether each member is kept as evidence of its group, by the rule of this module.

    Group g is `members[start[g]:start[g + 1]]`, in the order of `content_order`; members index `alike` (equal for the
    same request), `values` [n, M] and `error`.
    """
    return choose(members, start, alike, values, error, _HIGH, most)
