"""Surges, drops and silence."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.traffic import Traffic
from operators.kernels.detect import EXPECTED, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT
from tests.watching import BEGIN, Feed, Row


class Run:
    def __init__(self, trusted_after_s: int = 0, **settings: object) -> None:
        traffic = {"trusted_after_s": trusted_after_s}
        self.watch = Watch(
            DetectConfig.model_validate({"horizons_s": (10, 60, 300), "traffic": traffic, **settings}), 10
        )
        self.detector = Traffic(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, requests: int, learn: bool = True) -> np.ndarray:
        block = self.feed.pane(self.pane, {0: Row(requests)} if requests else {})
        self.pane += 1
        table = self.detector.score(self.state, block).table
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        verdict: np.ndarray = table[0, 0]
        return verdict


def poisson(draw: random.Random, mean: float) -> int:
    """The number of arrivals of a Poisson process in one unit of time."""
    n, t = 0, draw.expovariate(mean)
    while t < 1:
        n, t = n + 1, t + draw.expovariate(mean)
    return n


def warmed(mean: float = 5.0, panes: int = 600, **settings: object) -> Run:
    run, draw = Run(**settings), random.Random(6)  # type: ignore[arg-type]
    run(1)
    for _ in range(panes):
        run(poisson(draw, mean))
    return run


def most(run: Run, requests: int, panes: int) -> np.ndarray:
    """The verdict with the highest score over `panes` panes with this number of requests; nothing is learned."""
    return max((run(requests, learn=False) for _ in range(panes)), key=lambda v: float(v[SCORE]))


def test_a_surge_and_a_drop_are_anomalies() -> None:
    surge = most(warmed(), 40, 6)
    assert surge[SCORE] >= 0.5
    assert surge[OBSERVED] > surge[UPPER] > surge[EXPECTED] == pytest.approx(5.0, rel=0.1)
    drop = most(warmed(mean=20.0), 1, 30)
    assert drop[SCORE] >= 0.5
    assert drop[OBSERVED] < drop[LOWER] < drop[EXPECTED] == pytest.approx(20.0, rel=0.1)


def test_silence_of_steady_traffic_is_an_anomaly() -> None:
    verdict = most(warmed(), 0, 30)
    assert verdict[SCORE] >= 0.5
    assert verdict[WEIGHT] == 0
    assert verdict[OBSERVED] == 0.0


def test_silence_of_rare_traffic_is_no_anomaly() -> None:
    assert most(warmed(mean=0.05), 0, 30)[SCORE] < 0.5


@pytest.mark.compiled
def test_ordinary_traffic_raises_nothing_over_a_day() -> None:
    run, draw = Run(), random.Random(7)
    assert max(float(run(poisson(draw, 3.0))[SCORE]) for _ in range(8640)) < 0.5


def test_a_change_below_the_least_is_no_anomaly_however_even_the_traffic() -> None:
    run = Run()
    for _ in range(600):
        run(100)
    assert most(run, 230, 40)[SCORE] < 0.5
    assert most(run, 300, 40)[SCORE] >= 0.5


def test_usual_bursts_are_no_anomaly() -> None:
    """Dispersion is learned: bursts are usual in a series that always has them."""
    bursty = Run()
    for minute in range(600):
        for _ in range(6):
            bursty(30 if minute % 10 < 2 else 1)
    even = warmed(mean=7.0, panes=3600)
    assert most(bursty, 30, 6)[SCORE] < 0.5 <= most(even, 30, 6)[SCORE]


def test_it_is_trusted_less_before_a_day_was_seen() -> None:
    young, old = (most(warmed(mean=20.0, trusted_after_s=s), 80, 6) for s in (86_400, 0))
    assert young[SCORE] < 0.5 <= old[SCORE]
    assert young[EXPECTED] == old[EXPECTED]
    assert young[UPPER] > old[UPPER]


def test_it_is_trusted_in_full_once_the_series_is_old_enough() -> None:
    run, later = (warmed(mean=20.0, trusted_after_s=s) for s in (6100, 6000))  # the series is 6010 s old
    assert most(run, 80, 6)[SCORE] < 0.5 <= most(later, 80, 6)[SCORE]


def test_an_anomaly_ends_when_the_present_is_usual_again() -> None:
    run = warmed()
    for _ in range(12):
        run(60, learn=False)
    for _ in range(6):
        verdict = run(5)
    assert verdict[SCORE] < 0.5


def test_horizons_under_a_minute_do_not_judge() -> None:
    run = warmed()
    assert run(30)[SPAN] >= 6


def test_the_longest_horizon_judges_if_all_are_short() -> None:
    run = warmed(horizons_s=(10, 30))
    assert most(run, 60, 3)[SPAN] == 3


def test_the_time_before_the_first_request_is_no_silence() -> None:
    run = Run()
    run(50)
    assert run.state["rate"][0] == 50.0
    assert not run.state["learned"].any()  # the rate is learned before the deviations from it
    for _ in range(40):
        run(50)
    assert run.state["rate"][0] == pytest.approx(50.0)
    assert run.state["learned"][0].tolist() == [40, 35, 11]  # a horizon is learned once the series is as old
    assert not run.state["below"].any()


@pytest.mark.compiled
def test_the_rate_follows_the_hours_of_the_day() -> None:
    run, draw = Run(), random.Random(9)
    for pane in range(2 * 8640):
        verdict = run(poisson(draw, 6.0 + 4.0 * math.sin(2 * math.pi * pane / 8640)))
        assert verdict[SCORE] < 0.5
    at_noon = run(poisson(draw, 6.0))[EXPECTED]
    for pane in range(2160):
        run(poisson(draw, 6.0 + 4.0 * math.sin(2 * math.pi * pane / 8640)))
    assert run(10)[EXPECTED] > at_noon + 2.0


def test_the_rate_stands_still_for_far_panes_and_follows_a_lasting_change() -> None:
    run = warmed(mean=20.0, adopt_after_s=600)
    before = run.state["rate"][0]
    for _ in range(66):
        run(100)
    assert run.state["rate"][0] == pytest.approx(before, rel=0.15)  # the first minute is not far out yet
    for _ in range(3000):
        run(100)
    assert run.state["rate"][0] == pytest.approx(100, rel=0.1)
    assert run(100)[SCORE] < 0.5
