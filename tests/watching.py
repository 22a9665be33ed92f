"""Panes for detectors in tests: dense blocks for one detector, closed panes for a whole shard."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from operators.config import DetectConfig, EpisodesConfig, LimitConfig, TimeConfig
from operators.detect.base import Block, Watch
from operators.detect.engine.monitor import ShardMonitor
from operators.kernels.detect import Seen
from operators.kernels.limits import COLUMNS as LIMIT_COLUMNS
from operators.kernels.outlier import Requests
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Alert, Events, caller_text
from operators.panes import fold
from operators.panes.table import Closed, PaneTable

PANE_S = 10
BEGIN = 174_096_000
"""The pane of 2025-03-03T00:00:00Z."""


@dataclass
class Row:
    """One series in one pane: requests, errors, and the values of its metrics on the scale in which they are judged."""

    requests: int
    errors: int = 0
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)


def _beyond(watch: Watch, limit: LimitConfig) -> Callable[[Row], tuple[float, ...]]:
    """A function from a row to the columns of a static limit.

    They are the requests beyond it (for `mean` and `sum` the total of values), their logarithmic excess, all requests.
    """
    settings = watch.config.metrics.get(limit.metric)
    if settings is None:
        return lambda row: (0.0, 0.0, 0.0)

    def numbers(row: Row) -> tuple[float, ...]:
        judged = row.values.get(limit.metric, ())
        values = [
            max(math.exp(min(v, 700.0)) - METRICS[METRIC_INDEX[limit.metric]].offset, 0.0) if settings.in_logs else v
            for v in judged
        ]
        if limit.statistic in ("mean", "sum"):
            return sum(values), 0.0, float(len(values))
        bound, sign = (limit.below or 0.0, -1.0) if limit.above is None else (limit.above, 1.0)
        excess = [abs(math.log(max(v, 1e-9) / bound)) for v in values if sign * (v - bound) > 0.0]
        return float(len(excess)), sum(excess), float(len(values))

    return numbers


class Feed:
    """Makes the blocks for a detector, pane by pane."""

    def __init__(self, watch: Watch, slots: int) -> None:
        self.watch = watch
        self.limits = [_beyond(watch, limit) for limit in watch.config.limits]
        self.slots = slots
        self._ring = watch.horizons.blank(slots, watch.columns)
        self._born = np.full(slots, -1, np.int64)
        self._last = -1

    def fork(self) -> Feed:
        """An independent copy of the feed."""
        other = copy.copy(self)
        other._ring, other._born = self._ring.copy(), self._born.copy()
        return other

    def pane(self, pane: int, rows: Mapping[int, Row]) -> Block:
        """The block of this pane, with its own arrays; a slot is born with its first row."""
        watch = self.watch
        slots = np.array(sorted(rows), np.int64)
        stats, squares = np.zeros((len(rows), watch.columns)), np.zeros((len(rows), len(watch.metrics)))
        for i, slot in enumerate(slots.tolist()):
            row = rows[slot]
            stats[i, :2] = row.requests, row.errors
            for j, limit in enumerate(self.limits):
                first = watch.own_columns + LIMIT_COLUMNS * j
                stats[i, first : first + LIMIT_COLUMNS] = limit(row)
            for k, metric in enumerate(watch.metrics):
                values = np.array(row.values.get(metric.name, ()))
                stats[i, 2 + 2 * k : 4 + 2 * k] = len(values), values.sum()
                squares[i, k] = (values * values).sum()
            if self._born[slot] < 0:
                self._born[slot] = pane
        now, square = np.zeros((self.slots, watch.columns)), np.zeros((self.slots, len(watch.metrics)))
        sums = np.zeros((self.slots, len(watch.horizons), watch.columns))
        spans, widths = watch.horizons.spans, watch.horizons.widths
        seen = Seen(pane, self.slots, self._born.copy(), now, square, sums, spans, widths)
        watch.horizons.advance(seen, self._last, slots, stats, squares, self._ring)
        self._last = pane
        most, start = np.zeros((self.slots, len(watch.metrics))), [0]
        found: list[float] = []
        for slot in slots.tolist():
            for k, metric in enumerate(watch.metrics):
                ordered = sorted(rows[slot].values.get(metric.name, ()))
                most[slot, k] = ordered[-1] if ordered else 0.0
                found += ordered
                start.append(len(found))
        ones = np.ones(len(found), np.int64)
        requests = Requests(slots, np.array(start, np.int64), np.array(found, np.float64), ones)
        limited = np.ones((self.slots, len(watch.config.limits)), np.bool_)
        counts = now[:, 2 : watch.own_columns : 2].copy()
        return Block(seen._replace(spans=spans.copy()), most, requests, limited, counts)


@dataclass
class Request:
    """A request: its end (in seconds since BEGIN), its values in the units of metrics, and its other labels."""

    end: float
    values: Mapping[str, float]
    error: bool = False
    service: str = "chat"
    labels: Mapping[str, str] = field(default_factory=dict)


def table(requests: Sequence[Request], sets: tuple[tuple[str, ...], ...] = (("service",),)) -> PaneTable:
    """The pane rows of the requests; a request is named by its place in the list."""
    ends = [BEGIN * PANE_S * SECOND + round(r.end * SECOND) for r in requests]
    values = np.full((len(METRICS), len(requests)), MISSING, np.int64)
    for i, r in enumerate(requests):
        for name, value in r.values.items():
            m = METRIC_INDEX[name]
            values[m, i] = round(value * METRICS[m].scale)
    labels = [tuple({**r.labels, "service": r.service}.get(label, "") for label in LABELS) for r in requests]
    combos = sorted(set(labels))
    latency = np.maximum(values[METRIC_INDEX["latency"]], 0)
    events = Events(
        record=np.arange(len(requests)),
        start=np.array(ends, np.int64) - latency,
        end=np.array(ends, np.int64),
        values=values,
        error=np.array([r.error for r in requests], np.bool_),
        combo=np.array([combos.index(mine) for mine in labels], np.int32),
        combos=combos,
        event_id=[f"e{i}" for i in range(len(requests))],
        trace_id=[f"t{i}" for i in range(len(requests))],
        caller=[caller_text("", "", f"s{i}") for i in range(len(requests))],
    )
    return fold.fold_events(events, np.ones(len(requests), np.bool_), sets, PANE_S * SECOND, 3, 10)


def closings(rows: PaneTable, count: int, cuts: Sequence[int] = (), final: bool = False) -> list[Closed]:
    """`count` panes from BEGIN on, in pieces that end at the `cuts` (panes after BEGIN)."""
    edges = sorted({0, count, *(c for c in cuts if 0 < c < count)})
    pieces = [(BEGIN + a, BEGIN + b) for a, b in pairwise(edges)]
    return [Closed(a, b, b, fold.between(rows, a, b), final=final and b == BEGIN + count) for a, b in pieces]


def monitor(
    detect: DetectConfig | None = None, episodes: EpisodesConfig | None = None, expiry_s: int = 86_400
) -> ShardMonitor:
    return ShardMonitor(detect or DetectConfig(), episodes or EpisodesConfig(), TimeConfig(), expiry_s)


def watch_all(watcher: ShardMonitor, pieces: Sequence[Closed]) -> list[Alert]:
    return [f.alert for closed in pieces for f in watcher.take(closed) if f.alert is not None and f.sure]


def steady(
    count: int,
    each: int,
    values: Callable[[int, random.Random], Mapping[str, float]],
    seed: int = 1,
    service: str = "chat",
) -> list[Request]:
    """`each` requests in each of `count` panes; `values` gives a request's values from its pane and a seeded random."""
    draw = random.Random(seed)
    return [
        Request(p * PANE_S + (i + 0.5) * PANE_S / each, values(p, draw), service=service)
        for p in range(count)
        for i in range(each)
    ]
