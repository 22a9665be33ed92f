"""Limits that need no history: on a mean, a sum, a quantile, the traffic or the share of errors.

A limit is checked on closed panes, over a configured horizon. A quantile breaks its limit if more requests are beyond
the limit than the quantile allows. This takes a few numbers a pane and no sketch; the value in the alert is estimated
from the tail beyond the limit. The score follows from the ratio to the limit: 0.5 at the limit, 0.67 at twice the
limit, 0.9 at nine times. The detector learns nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from operators import patterns
from operators.config import LimitConfig
from operators.detect.base import CELLS, Block, State, Traits, Verdicts, Watch
from operators.kernels import limits as kernels
from operators.kernels.detect import EXPECTED, LOWER, OBSERVED, SPAN, UPPER, Floats
from operators.kernels.limits import COLUMNS as LIMIT_COLUMNS
from operators.kernels.panes import Sums
from operators.kernels.sketch import Sketches
from operators.metrics import ERROR_RATIO, METRIC_INDEX, METRICS, REQUESTS
from operators.model import Bools, Ints
from operators.panes.sketch import MIDDLE

_KINDS = {REQUESTS: kernels.REQUESTS, ERROR_RATIO: kernels.ERRORS}
_STATISTICS = {"mean": kernels.MEAN, "sum": kernels.SUM}
_SHARE = {"p50": 0.5, "p90": 0.1, "p95": 0.05, "p99": 0.01, "max": 0.0}


def applying(limits: tuple[LimitConfig, ...], series: str) -> Bools:
    """Which of the limits apply to the series."""
    return np.array([patterns.matches(series, limit.series) for limit in limits], np.bool_)


class StaticLimits:
    """Judges every cell that has a limit."""

    name = "static_limits"
    traits = Traits(
        needs_warm_up=False, scale_free=False, shift_free=False, answers_step=True, judges=CELLS, finds="limit"
    )

    def __init__(self, watch: Watch) -> None:
        self.cells = watch.cells
        self._watch = watch
        limits = watch.config.limits
        metric: Ints = np.array([METRIC_INDEX.get(x.metric, 0) for x in limits], np.int64)
        self._limits = kernels.Limits(
            kind=np.array([_kind(x) for x in limits], np.int64),
            cell=np.array([watch.cells.index(x.metric) for x in limits], np.int64),
            metric=metric,
            scale=np.array([float(METRICS[m].scale) for m in metric.tolist()]),
            horizon=np.array([watch.horizons.index_of(x.horizon_s, watch.pane_s) for x in limits], np.int64),
            limit=np.array([float(x.below or 0.0) if x.above is None else x.above for x in limits]),
            sign=np.array([-1.0 if x.above is None else 1.0 for x in limits]),
            share=np.array([_share(x) for x in limits]),
            min_count=np.array([x.min_count for x in limits], np.int64),
            first=watch.own_columns,
            cells=len(self.cells),
            per_minute=60.0 / watch.pane_s,
        )

    def statistics(self, sums: Sums, sketches: Sketches, stats: Floats) -> None:
        """Write the limits' columns of the rows' statistics."""
        kernels.limit_statistics(sums, sketches, self._limits, MIDDLE, stats)

    def state(self, slots: int) -> State:
        return {}

    def score(self, state: State, block: Block) -> Verdicts:
        watch = self._watch
        table = kernels.score_limits(block.seen, self._limits, block.limited)
        values = [OBSERVED, EXPECTED, LOWER, UPPER]
        for cell in np.unique(self._limits.cell).tolist():
            if cell < len(watch.metrics):
                if watch.settings[cell].in_logs:
                    logs = np.log(table[:, cell, values] + max(watch.metrics[cell].offset, 1e-12))
                    table[:, cell, values] = np.where(table[:, cell, SPAN, np.newaxis] > 0.0, logs, 0.0)
            elif self.cells[cell] == REQUESTS:
                table[:, cell, values] *= watch.pane_s / 60.0
        return Verdicts(table)

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        """Does nothing: limits compare the horizons alone."""


def _kind(limit: LimitConfig) -> int:
    """The kind of statistic that the limit compares."""
    return _KINDS.get(limit.metric, _STATISTICS.get(limit.statistic, kernels.BEYOND))


def _share(limit: LimitConfig) -> float:
    """The share of requests that may lie beyond the limit."""
    share = _SHARE.get(limit.statistic, 0.0)
    return share if limit.above is not None or not share else 1.0 - share


def names_of(limits: Sequence[LimitConfig]) -> tuple[str, ...]:
    """The texts by which a snapshot identifies the limits."""
    return tuple(limit.model_dump_json() for limit in limits)


def refitted(watch: Watch, panes: State, limits: tuple[str, ...]) -> State:
    """The arrays of a snapshot with these limits (`names_of`), fitted to the watch; new limits have empty horizons."""
    ring, own = panes["ring"], watch.own_columns
    out = np.zeros((*ring.shape[:2], watch.columns), ring.dtype)
    out[:, :, :own] = ring[:, :, :own]
    for i, limit in enumerate(names_of(watch.config.limits)):
        if limit in limits:
            to, of = own + LIMIT_COLUMNS * i, own + LIMIT_COLUMNS * limits.index(limit)
            out[:, :, to : to + LIMIT_COLUMNS] = ring[:, :, of : of + LIMIT_COLUMNS]
    return {**panes, "ring": out}
