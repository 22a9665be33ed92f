"""Compiled loops of static limits: their statistics of a pane's requests, and whether a horizon breaks them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from operators.kernels import compiled, in_place
from operators.kernels.detect import (
    ERRORS_COLUMN,
    EXPECTED,
    FIELDS,
    LOWER,
    OBSERVED,
    REQUESTS_COLUMN,
    SCORE,
    SPAN,
    UPPER,
    WEIGHT,
    Floats,
    Seen,
    is_live,
)
from operators.kernels.panes import Sums
from operators.kernels.sketch import Sketches
from operators.model import Bools, Ints

REQUESTS, ERRORS, MEAN, SUM, BEYOND = range(5)
"""Kinds of limits: on requests a minute, the share of errors, a mean, a sum, the share of requests beyond the limit."""

COLUMNS = 3
"""Columns of a limit in a statistic: its total or the requests beyond it, their excess, and all requests."""


class Limits(NamedTuple):
    """The L static limits; each one has a place in every array."""

    kind: Ints  # REQUESTS, ERRORS, MEAN, SUM or BEYOND
    cell: Ints
    metric: Ints  # index on the metric axis
    scale: Floats  # fixed-point steps in a unit
    horizon: Ints
    limit: Floats  # in units
    sign: Floats  # 1 for an upper limit, -1 for a lower
    share: Floats  # of requests that may lie beyond
    min_count: Ints
    first: int  # column of the first limit in a statistic
    cells: int
    per_minute: float  # panes in a minute


@in_place
def limit_statistics(sums: Sums, sketches: Sketches, limits: Limits, middle: Floats, stats: Floats) -> None:
    """Per row and limit: the total in units, or the requests beyond and their logarithmic excess; then all requests.

    All requests are counted here, since the metrics' own counts have only those that are judged against the usual.
    `middle` is the fixed-point value of each bucket; the limits' columns of `stats` [R, V] are written.
    """
    count = sums.counts
    kind, metric, scale, limit, sign = limits.kind, limits.metric, limits.scale, limits.limit, limits.sign
    axis = count.shape[1]
    for r in range(len(count)):
        for i in range(len(kind)):
            one, two = 0.0, 0.0
            if kind[i] == MEAN or kind[i] == SUM:
                one = sums.totals[r, metric[i]] / scale[i]
            elif kind[i] == BEYOND:
                cell = r * axis + metric[i]
                for e in range(sketches.start[cell], sketches.start[cell + 1]):
                    v = middle[sketches.bucket[e]] / scale[i]
                    if sign[i] * (v - limit[i]) > 0.0:
                        one += sketches.counts[e]
                        two += sketches.counts[e] * abs(math.log(max(v, 1e-9) / max(limit[i], 1e-9)))
            column = limits.first + COLUMNS * i
            stats[r, column] = one
            stats[r, column + 1] = two
            stats[r, column + 2] = count[r, metric[i]] if kind[i] >= MEAN else 0.0


@compiled
def score_limits(seen: Seen, limits: Limits, limited: Bools) -> Floats:
    """Verdicts [used, cells, FIELDS] in units; of several limits on a cell, the one that is broken worst.

    `limited` [slots, L] says whether the limit applies to the series.
    """
    sums, kind, limit, sign, share = seen.sums, limits.kind, limits.limit, limits.sign, limits.share
    horizon, cell, min_count, widths, spans = limits.horizon, limits.cell, limits.min_count, seen.widths, seen.spans
    out = np.zeros((seen.used, limits.cells, FIELDS))
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for i in range(len(kind)):
            h, c, column = horizon[i], cell[i], limits.first + COLUMNS * i
            n = sums[s, h, column + 2] if kind[i] >= MEAN else sums[s, h, REQUESTS_COLUMN]
            if not limited[s, i]:
                continue
            if n < min_count[i] and kind[i] != REQUESTS:
                continue
            # While a series is younger than the horizon, the requests before its birth are unknown, not zero.
            if kind[i] == REQUESTS and seen.pane - seen.born[s] + 1 < widths[h]:
                continue
            a, b = sums[s, h, column], sums[s, h, column + 1]
            if kind[i] == REQUESTS:
                x = n * limits.per_minute / spans[h]
            elif kind[i] == ERRORS:
                x = sums[s, h, ERRORS_COLUMN] / n
            elif kind[i] == MEAN:
                x = a / n
            elif kind[i] == SUM:
                x = a
            else:
                # The quantile itself is estimated by an exponential tail of the logarithms beyond the limit.
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
