"""One default configuration serves all traffic: one request a minute, and ten thousand a second."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from operators.detect.engine.monitor import ShardMonitor
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Alert, Events
from operators.panes import fold
from operators.panes.table import Closed, PaneTable
from tests.watching import BEGIN, PANE_S, monitor, watch_all


def rows(ends: np.ndarray, latency_ms: np.ndarray) -> PaneTable:
    """The pane rows of one service whose requests ended at these seconds after BEGIN."""
    end = BEGIN * PANE_S * SECOND + np.round(ends * SECOND).astype(np.int64)
    values = np.full((len(METRICS), len(end)), MISSING, np.int64)
    values[METRIC_INDEX["latency"]] = np.round(latency_ms * 1_000)
    nothing = [""] * len(end)
    service = tuple("chat" if label == "service" else "" for label in LABELS)
    events = Events(
        record=np.arange(len(end)),
        start=end - values[METRIC_INDEX["latency"]],
        end=end,
        values=values,
        error=np.zeros(len(end), np.bool_),
        combo=np.zeros(len(end), np.int32),
        combos=[service],
        event_id=nothing,
        trace_id=nothing,
    )
    return fold.fold_events(events, np.ones(len(end), np.bool_), (("service",),), PANE_S * SECOND, 3, 10)


def closings(per_pane: float, count: int, slow_from: int, factor: float) -> Iterator[Closed]:
    """`count` panes in pieces of at most 60; from pane `slow_from` on, latencies are `factor` times as long."""
    draw = np.random.default_rng(1)
    piece = 60 if per_pane < 100 else 1
    for low in range(0, count, piece):
        high = min(low + piece, count)
        ends = np.sort(draw.uniform(low * PANE_S, high * PANE_S, draw.poisson(per_pane * (high - low))))
        latency = 800 * draw.lognormal(0, 0.5, len(ends)) * np.where(ends >= slow_from * PANE_S, factor, 1.0)
        yield Closed(BEGIN + low, BEGIN + high, BEGIN + high, rows(ends, latency))


def latency_alerts(watcher: ShardMonitor, pieces: Iterator[Closed]) -> list[Alert]:
    return [a for piece in pieces for a in watch_all(watcher, [piece]) if a.metric == "latency"]


@pytest.mark.compiled
def test_one_request_a_minute() -> None:
    """Latency four times as long after two days is told within forty requests, and nothing before."""
    day, slow = 8640, 2 * 8640
    first, *_ = latency_alerts(monitor(), closings(PANE_S / 60, slow + day // 24, slow, 4.0))
    assert (first.kind, first.status) == ("latency_spike", "firing")
    assert (BEGIN + slow) * PANE_S * SECOND <= first.since
    assert first.at <= (BEGIN + slow) * PANE_S * SECOND + 40 * 60 * SECOND


@pytest.mark.compiled
def test_ten_thousand_requests_a_second() -> None:
    """Latency two thirds longer after ten minutes is told within three panes and the lateness, and nothing before."""
    first, *_ = latency_alerts(monitor(), closings(10_000 * PANE_S, 64, 60, 1.65))
    assert (first.kind, first.status) == ("latency_spike", "firing")
    assert first.since == (BEGIN + 60) * PANE_S * SECOND
    assert first.at <= (BEGIN + 63) * PANE_S * SECOND + 10 * SECOND
