"""The common parts of the detectors' loops: columns of statistics and of verdicts, live slots, and scores.

The columns of a statistic are 0 requests, 1 errors, then for metric k its count (2 + 2k) and its total (3 + 2k). A slot
is live from the pane in which it was born; free slots have born = -1.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import inner
from operators.model import Ints

Floats = NDArray[np.float64]
Learned = NDArray[np.float32]
"""Values that a series keeps from pane to pane, in seven digits: its noise leaves fewer."""

SCORE, OBSERVED, EXPECTED, LOWER, UPPER, SPAN, WEIGHT = range(7)
"""Columns of a verdict: score, four values on the detector's own scale, panes and requests of the judged horizon."""
FIELDS = 7

REQUESTS_COLUMN, ERRORS_COLUMN = range(2)

FAR = 3.5
"""Deviations beyond this number of spreads are not learned unless they last."""

LN10 = math.log(10.0)
LN_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)


class Seen(NamedTuple):
    """The statistics of each slot in a pane, and over the horizons that end with the pane."""

    pane: int
    used: int  # slots in use; of these, those born at or before the pane are live
    born: Ints  # [slots] first pane of the series, -1 where the slot is free
    now: Floats  # [slots, V] this pane
    square: Floats  # [slots, K] this pane's sum of squares
    sums: Floats  # [slots, H, V] over each horizon, this pane included
    spans: Ints  # [H] panes that each horizon spans now
    widths: Ints  # [H] panes that each horizon spans once it is full


@inner
def count_column(metric: int) -> int:
    """The column of the requests that carry the metric."""
    return 2 + 2 * metric


@inner
def total_column(metric: int) -> int:
    """The column of the metric's total."""
    return 3 + 2 * metric


@inner
def is_live(seen: Seen, s: int) -> bool:
    """Whether the slot holds a series that was born by now."""
    return bool(0 <= seen.born[s] <= seen.pane)


@inner
def is_excluded(excluded: bool, dirty: Ints, at: tuple[int, ...], longest: int) -> bool:
    """Returns `excluded`; keeps `dirty`, the number of panes until the longest horizon holds nothing excluded."""
    if excluded:
        dirty[at] = longest
    elif dirty[at] > 0:
        dirty[at] -= 1
    return excluded


@inner
def surprise(z: float) -> float:
    """-log10 of the upper tail of the normal distribution at z >= 0; beyond 8 by its asymptotic series."""
    if z < 8.0:
        return -math.log10(0.5 * math.erfc(z / math.sqrt(2.0)))
    return (0.5 * z * z + math.log(z) + LN_SQRT_2PI + 1.0 / (z * z)) / LN10


@inner
def score_of(level: float, threshold: float) -> float:
    """The score of a level, which is -log10 of a tail: 0.5 at the threshold."""
    return level / (level + threshold)


@inner
def level_of(score: float, threshold: float) -> float:
    """The level that has this score."""
    return threshold * score / (1.0 - score) if score < 1.0 else math.inf


@inner
def square_deviation(seen: Seen, s: int, k: int, mean: float) -> float:
    """The mean square deviation of this pane's requests from the mean."""
    n, total = seen.now[s, count_column(k)], seen.now[s, total_column(k)]
    return float(max((seen.square[s, k] - 2.0 * mean * total) / n + mean * mean, 0.0))
