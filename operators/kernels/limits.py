"""Compiled loops of static limits: what a pane's requests say of each limit, and whether a horizon breaks it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import EXPECTED, FIELDS, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT, Floats
from operators.model import Ints

REQUESTS, ERRORS, MEAN, SUM, BEYOND = range(5)
"""What a limit compares: requests a minute, the share of errors, a mean, a sum, the share of requests beyond it."""

COLUMNS = 3
"""Of a limit in a statistic: what it adds up, what goes with it, and the requests that carry the metric."""


@compiled
def limit_statistics(
    count: Ints,  # [R, M]
    total: Ints,  # [R, M] fixed-point
    sketch_start: Ints,
    sketch_bucket: NDArray[np.int16],
    sketch_count: Ints,
    kind: Ints,  # [L]
    metric: Ints,  # [L] index on the metric axis
    scale: Floats,  # [L] fixed-point steps in a unit
    limit: Floats,  # [L] in units
    sign: Floats,  # [L] 1 for an upper limit, -1 for a lower
    middle: Floats,  # [buckets] fixed-point value of each
    stats: Floats,  # [R, V], columns from `first` on are written
    first: int,
) -> None:
    """Per row and limit: the total in units, or the requests beyond and their logarithmic excess; then all requests.

    These are counted here, for the metrics' own counts hold only what is judged against the usual.
    """
    axis = count.shape[1]
    for r in range(len(count)):
        for i in range(len(kind)):
            one, two = 0.0, 0.0
            if kind[i] == MEAN or kind[i] == SUM:
                one = total[r, metric[i]] / scale[i]
            elif kind[i] == BEYOND:
                cell = r * axis + metric[i]
                for e in range(sketch_start[cell], sketch_start[cell + 1]):
                    v = middle[sketch_bucket[e]] / scale[i]
                    if sign[i] * (v - limit[i]) > 0.0:
                        one += sketch_count[e]
                        two += sketch_count[e] * abs(math.log(max(v, 1e-9) / max(limit[i], 1e-9)))
            stats[r, first + COLUMNS * i] = one
            stats[r, first + COLUMNS * i + 1] = two
            stats[r, first + COLUMNS * i + 2] = count[r, metric[i]] if kind[i] >= MEAN else 0.0


@compiled
def score_limits(
    used: int,
    pane: int,
    born: Ints,
    sums: Floats,  # [slots, H, V]
    spans: Ints,
    widths: Ints,
    limited: NDArray[np.bool_],  # [slots, L] whether the limit is meant for the series
    kind: Ints,
    cell: Ints,  # [L]
    first: int,  # of the limits' columns
    horizon: Ints,  # [L]
    limit: Floats,
    sign: Floats,
    share: Floats,  # [L] of requests that may lie beyond
    min_count: Ints,
    per_minute: float,  # panes in a minute
    cells: int,
) -> Floats:
    """Verdicts [used, cells, FIELDS] in units; of several limits on a cell, the one that is broken worst."""
    out = np.zeros((used, cells, FIELDS))
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for i in range(len(kind)):
            h, c = horizon[i], cell[i]
            n = sums[s, h, first + COLUMNS * i + 2] if kind[i] >= MEAN else sums[s, h, 0]
            if not limited[s, i]:
                continue
            if n < min_count[i] and kind[i] != REQUESTS:
                continue
            # Before a series is as old as the horizon, what it lacks is not known to be zero.
            if kind[i] == REQUESTS and pane - born[s] + 1 < widths[h]:
                continue
            a, b = sums[s, h, first + COLUMNS * i], sums[s, h, first + COLUMNS * i + 1]
            if kind[i] == REQUESTS:
                x = n * per_minute / spans[h]
            elif kind[i] == ERRORS:
                x = sums[s, h, 1] / n
            elif kind[i] == MEAN:
                x = a / n
            elif kind[i] == SUM:
                x = a
            else:
                # The quantile itself, by the exponential tail of the logarithms of what lies beyond.
                x = limit[i]
                over = a / n
                if over > share[i]:
                    far = (b / a) * math.log(over / share[i]) if share[i] > 0.0 else b / a
                    x = limit[i] * math.exp(sign[i] * max(far, 1e-6))
                elif a == 0.0:
                    x = limit[i] * (0.5 if sign[i] > 0.0 else 2.0)
            if sign[i] * (x - limit[i]) > 0.0:
                ratio = x / limit[i] if sign[i] > 0.0 else limit[i] / max(x, 1e-9)
                score = max(ratio / (1.0 + ratio), 0.5) if limit[i] > 0.0 else 1.0
            else:
                ratio = x / limit[i] if sign[i] > 0.0 else limit[i] / max(x, 1e-9)
                score = min(max(ratio / (1.0 + ratio), 0.0), 0.499)
            if out[s, c, SPAN] == 0.0 or score > out[s, c, SCORE]:
                out[s, c, SCORE] = min(score, 1.0)
                out[s, c, OBSERVED] = x
                out[s, c, EXPECTED] = limit[i]
                out[s, c, LOWER] = limit[i]
                out[s, c, UPPER] = limit[i]
                out[s, c, SPAN] = widths[h]
                out[s, c, WEIGHT] = n
    return out
