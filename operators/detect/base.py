"""The contract of a detector, with its input and its output.

A shard calls a detector twice for each pane: `score` says how abnormal each series is and changes nothing; `learn`
updates the learned state, except for excluded cells. The state is a dict of arrays whose first axis is the slot (one
series), so a shard can grow, reuse, save and load it without knowing its contents.
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
"""False episodes for each one that chance opens; the others are real changes that nobody calls incidents."""

MOST_TAIL = 0.005
"""The largest tail of a pane, however many false alarms are accepted."""

State = dict[str, NDArray[Any]]
"""Arrays whose first axis is the slot; the second is the cell if a detector judges several.

An excluded cell changes none of them but `dirty`, which counts how long horizons still hold an excluded pane.
"""

METRIC_CELLS: Final = tuple(m.name for m in METRICS)
CELLS: Final = (*METRIC_CELLS, *(r.name for r in RATES))
"""All cells that a series can have; a watch leaves out the metrics that are not watched."""

LEARNED: Final = "learned"
"""The array of a detector's state that counts the panes it has learned from; an alert tells this number."""

Finds = Literal["deviation", "outlier", "limit"]
"""The kind of a detector's findings: a horizon that deviates from the usual, one single request, or a broken limit."""


class Traits(NamedTuple):
    """The promises of a detector; the contract tests check each one.

    `judges` are the cells that it can judge; `votes_on` are those that it judges by default. A detector of limits
    judges the cells with a limit in `detect.limits`: `detect.detectors` cannot name it, and the others do not outvote
    it. Outliers and limits are judged by plain values, without regard to the mix, and need not last. `scale_free` and
    `shift_free`: scores stay the same if, from the start, every total of a metric is multiplied by a constant, or a
    constant is added to it per request. `answers_step`: a lasting change by far more than the metric's least one
    reaches 0.5. `upward`: a decrease never reaches 0.5, even if the metric is watched in both directions. A detector
    with a warm-up is also calibrated (`operators.detect.engine.calibration`): `prior` is the weight of its own tail in
    independent horizons. `keeps` are the arrays of its state that remain when a lasting change becomes the usual.
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
    """The settings of detection and the cells to judge: the watched metrics, then `requests` and `error_ratio`.

    A cell is one of these of one series.
    """

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
        self.own_columns = count_column(len(self.metrics))  # those without limits; see operators.kernels.detect
        self.columns = self.own_columns + LIMIT_COLUMNS * len(config.limits)
        # An episode takes `open_panes` anomalous panes, so there are at most as many episodes as anomalous panes over
        # that number, however panes depend on each other. That gives the tail of a pane of one cell.
        panes = 86_400 / pane_s * len(self.cells)
        self.tail = min(config.false_alarms_per_series_day / REAL * open_panes / panes, MOST_TAIL)
        self.boundary = NormalDist().inv_cdf(1.0 - self.tail)
        self.threshold = -log10(self.tail)

    def panes(self, seconds: float) -> int:
        """This time in panes, at least one."""
        return max(1, round(seconds / self.pane_s))

    @property
    def form(self) -> dict[str, str]:
        """The settings on which the meaning of learned arrays depends; a snapshot of another form cannot be used."""
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
        """The factor by which one pane fades the weight of older panes."""
        return float(2.0 ** (-self.pane_s / self.config.half_life_s))


@dataclass(slots=True)
class Block:
    """One pane of a shard, dense: one row for each slot. Detectors only read it.

    Statistics have `Watch.columns` columns: requests, errors, then count and total of each watched metric, the total
    on the scale the metric is judged in (see `operators.detect.context.mix`); then those of each static limit
    (`operators.kernels.limits`). Only slots below `used` that were born at or before `pane` are live.
    """

    seen: Seen
    most: Floats  # [slots, K] largest value of this pane on the scale it is judged in, 0 if there is none
    requests: Requests
    limited: Bools  # [slots, limits] which static limits apply to the series
    counts: Floats  # [slots, K] all requests of this pane that carry the metric, judged or not

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
        """The block of this slot alone."""
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
    """The verdicts of a detector on a pane: [used, its cells, FIELDS], without NaN.

    Scores are in 0..1 with the boundary at 0.5. Values are on the scale that the metric is judged in
    (`operators.incidents.explain` turns them into units). All fields of a cell that was not judged are 0.
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
        """Panes of the judged horizon."""
        return self.table[:, :, SPAN]

    @property
    def weight(self) -> Floats:
        """Requests in the judged horizon."""
        return self.table[:, :, WEIGHT]


class Detector(Protocol):
    """One way to tell usual from unusual. It holds settings only; callers pass the learned state."""

    name: str
    traits: Traits
    cells: tuple[str, ...]
    """The cells that it judges, a run of the watch's cells; they are the second axis of its verdicts."""

    def __init__(self, watch: Watch) -> None: ...

    def state(self, slots: int) -> State:
        """The initial state of this number of slots.

        If the detector judges several cells, they are the second axis of each array. If it needs a warm-up, the array
        `LEARNED` counts the panes that it has learned from.
        """
        ...

    def score(self, state: State, block: Block) -> Verdicts:
        """Judge the pane by the state learned from earlier panes. Changes neither argument."""
        ...

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        """Learn from the pane, in place, without the cells of `excluded` [slots, cells of the watch]."""
        ...
