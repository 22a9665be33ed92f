"""The contract of a detector, and what it is given and gives.

A detector is asked twice about every pane: `score` says how abnormal each series is, and changes nothing; `learn`
moves what was learned, without the cells that are excluded. Its state is a dict of arrays whose first axis is the
slot (one series), so that a shard can grow, reuse, save and load it without knowing it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import log10
from statistics import NormalDist
from typing import Any, Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from operators.config import DetectConfig, EpisodesConfig, MetricConfig
from operators.detect.horizons import Horizons
from operators.errors import ConfigError
from operators.kernels.detect import EXPECTED, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT, Floats, Seen, count_column
from operators.kernels.limits import COLUMNS as LIMIT_COLUMNS
from operators.kernels.outlier import Requests
from operators.metrics import METRIC_INDEX, METRICS, RATES, Metric
from operators.model import Bools, Ints

OPEN_PANES: int = EpisodesConfig.model_fields["open_panes"].default
REAL = 4.0
"""False episodes for each that chance opens: the others happened to the traffic, and nobody calls them incidents."""

MOST_TAIL = 0.005
"""A pane's tail is no larger, however many false alarms are accepted."""

State = dict[str, NDArray[Any]]
"""Arrays with a leading slot axis, and then one of cells where a detector judges several.

What is excluded changes none of them but `dirty`, which says how long horizons hold something of it.
"""

METRIC_CELLS: Final = tuple(m.name for m in METRICS)
CELLS: Final = (*METRIC_CELLS, *(r.name for r in RATES))
"""All that can be judged of a series; a watch leaves out the metrics that are not watched."""

LEARNED: Final = "learned"
"""The array of a detector's state that counts the panes it has learned from; an alert tells how many they are."""

Finds = Literal["deviation", "outlier", "limit"]
"""What a finding of a detector is: a horizon that deviates from the usual, one single request, or a broken limit."""


class Traits(NamedTuple):
    """What a detector promises; the contract tests check each.

    `judges` are the cells that it can judge, `votes_on` those of them that it judges where settings do not say. A
    detector of limits judges where `detect.limits` has one: `detect.detectors` cannot name it, and the others do not
    outvote it. Outliers and limits are judged by values as they are, without regard to the mix, and need not last.
    `scale_free` and `shift_free`: scores stay when every total of a metric is multiplied by a constant, or has a
    constant added per request, from the start. `answers_step`: a lasting change by far more than the metric's least
    one reaches 0.5. `upward`: a decrease never does, even of a metric that is watched in both directions. What needs a
    warm-up is calibrated as well (`operators.detect.engine.calibration`): `prior` is how many independent horizons the
    detector's own tail weighs as much as. `keeps` are the arrays of its state that outlast a lasting change.
    """

    needs_warm_up: bool
    scale_free: bool
    shift_free: bool
    answers_step: bool
    prior: float = 100.0
    keeps: tuple[str, ...] = ()
    upward: bool = False
    judges: tuple[str, ...] = METRIC_CELLS
    votes_on: tuple[str, ...] = ()
    finds: Finds = "deviation"


class Watch:
    """What is judged: the watched metrics, then `requests` and `error_ratio`. A cell is one of these of one series."""

    def __init__(self, config: DetectConfig, pane_s: int, open_panes: int = OPEN_PANES) -> None:
        self.config = config
        self.pane_s = pane_s
        self.metrics: tuple[Metric, ...] = tuple(m for m in METRICS if config.metrics[m.name].watch)
        if not self.metrics:
            raise ConfigError("detect.metrics: nothing is watched; leave `watch` on for at least one metric")
        self.settings = tuple(config.metrics[m.name] for m in self.metrics)
        self.cells: tuple[str, ...] = (*(m.name for m in self.metrics), *(r.name for r in RATES))
        self.axis: Ints = np.array([METRIC_INDEX[m.name] for m in self.metrics], np.int64)
        self.horizons = Horizons(config.horizons_s, pane_s)
        self.own_columns = count_column(len(self.metrics))  # of a statistic; see operators.kernels.detect
        self.columns = self.own_columns + LIMIT_COLUMNS * len(config.limits)
        # An episode takes `open_panes` anomalous panes, so there are no more episodes than anomalous panes over that
        # number, however panes depend on each other: that gives the tail that a pane of one cell may have.
        panes = 86_400 / pane_s * len(self.cells)
        self.tail = min(config.false_alarms_per_series_day / REAL * open_panes / panes, MOST_TAIL)
        self.boundary = NormalDist().inv_cdf(1.0 - self.tail)
        self.threshold = -log10(self.tail)

    def panes(self, seconds: float) -> int:
        """So many seconds in panes, at least one."""
        return max(1, round(seconds / self.pane_s))

    @property
    def form(self) -> dict[str, str]:
        """By setting, what the arrays of what is learned are made for: with another form they mean something else."""
        judged = (f"{m.name} {f'in logs + {m.offset:g}' if s.in_logs else 'as it is'}" for m, s in self._watched)
        return {
            "time.pane_s": str(self.pane_s),
            "detect.horizons_s": ", ".join(str(w * self.pane_s) for w in self.horizons.widths.tolist()),
            "detect.metrics": ", ".join(judged),
            "detect.mix_by": self.config.mix_by,
        }

    @property
    def _watched(self) -> Iterable[tuple[Metric, MetricConfig]]:
        return zip(self.metrics, self.settings, strict=True)

    @property
    def keep(self) -> float:
        """What one pane leaves of the weight of what was learned before it."""
        return float(2.0 ** (-self.pane_s / self.config.half_life_s))


@dataclass(slots=True)
class Block:
    """One pane of a shard, dense: a row a slot. Detectors read it and change nothing in it.

    Statistics have `Watch.columns` columns: requests, errors, then count and total of each watched metric, the total
    on the scale the metric is judged in (see `operators.detect.context.mix`); then those of each static limit
    (`operators.kernels.limits`). Only slots below `used` that were born at or before `pane` are live.
    """

    seen: Seen
    most: Floats  # [slots, K] largest value of this pane on the scale it is judged in, 0 without any
    requests: Requests
    limited: Bools  # [slots, limits] which static limits are meant for the series
    counts: Floats  # [slots, K] requests of this pane that carry the metric, whether or not they are judged by the mix

    @property
    def pane(self) -> int:
        return self.seen.pane

    @property
    def used(self) -> int:
        return self.seen.used

    @property
    def born(self) -> Ints:
        return self.seen.born

    @property
    def now(self) -> Floats:
        return self.seen.now

    def alone(self, slot: int) -> Block:
        """The same with this slot as its only one."""
        one = slice(slot, slot + 1)
        metrics = self.most.shape[1]
        rows = np.flatnonzero(self.requests.slots == slot)
        first = int(rows[0]) * metrics if len(rows) else 0
        edges = self.requests.start[first : first + len(rows) * metrics + 1]
        values = slice(edges[0], edges[-1])
        requests = Requests(
            np.zeros(len(rows), np.int64), edges - edges[0], self.requests.value[values], self.requests.counts[values]
        )
        seen = self.seen
        seen = seen._replace(
            used=1, born=seen.born[one], now=seen.now[one], square=seen.square[one], sums=seen.sums[one]
        )
        return Block(seen, self.most[one], requests, self.limited[one], self.counts[one])


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What a detector says of a pane: [used, its cells, FIELDS], without NaN.

    Scores are in 0..1 with the boundary at 0.5. The values stand on the scale that the metric is judged in
    (`operators.incidents.explain` turns them into units); they are 0 where nothing was judged, and then the span is 0
    too.
    """

    table: Floats

    @property
    def score(self) -> Floats:
        return self.table[:, :, SCORE]

    @property
    def observed(self) -> Floats:
        return self.table[:, :, OBSERVED]

    @property
    def expected(self) -> Floats:
        return self.table[:, :, EXPECTED]

    @property
    def lower(self) -> Floats:
        return self.table[:, :, LOWER]

    @property
    def upper(self) -> Floats:
        return self.table[:, :, UPPER]

    @property
    def span(self) -> Floats:
        """Panes of the horizon that was judged."""
        return self.table[:, :, SPAN]

    @property
    def weight(self) -> Floats:
        """Requests in the horizon that was judged."""
        return self.table[:, :, WEIGHT]


class Detector(Protocol):
    """One way to tell usual from unusual. Holds settings only; what it learns is in the state that it is handed."""

    name: str
    traits: Traits
    cells: tuple[str, ...]
    """The cells of the watch that it judges, neighbours in its order; they are the second axis of its verdicts."""

    def __init__(self, watch: Watch) -> None: ...

    def state(self, slots: int) -> State:
        """What is known before anything was seen.

        If it judges several cells, they are the second axis of each array. If it needs a warm-up, the array `LEARNED`
        counts the panes that it has learned from.
        """
        ...

    def score(self, state: State, block: Block) -> Verdicts:
        """Judge the pane by what was learned from the panes before it. Changes neither argument."""
        ...

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        """Learn from the pane, in place, without the cells of `excluded` [slots, cells of the watch]."""
        ...
