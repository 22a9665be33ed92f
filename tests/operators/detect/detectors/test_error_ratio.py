"""The share of errors: tails, over-dispersion, least sizes."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.error_ratio import ErrorRatio
from operators.kernels.detect import EXPECTED, OBSERVED, SCORE, SPAN, UPPER, WEIGHT
from operators.kernels.errors import divergence
from tests.conftest import examples
from tests.watching import BEGIN, Feed, Row


class Run:
    def __init__(self, **settings: object) -> None:
        self.watch = Watch(DetectConfig.model_validate({"horizons_s": (10, 60, 300), **settings}), 10)
        self.detector = ErrorRatio(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, requests: int, errors: int, learn: bool = True) -> np.ndarray:
        block = self.feed.pane(self.pane, {0: Row(requests, errors)} if requests else {})
        self.pane += 1
        table = self.detector.score(self.state, block).table
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        verdict: np.ndarray = table[0, 0]
        return verdict


def warmed(requests: int = 10, every: int = 10, panes: int = 400, **settings: object) -> Run:
    """A run with one error in every `every`-th pane."""
    run = Run(**settings)
    for p in range(panes):
        run(requests, 1 if p % every == 0 else 0)
    return run


def test_a_burst_of_errors_is_an_anomaly_and_usual_errors_are_none() -> None:
    run = warmed()
    assert run(10, 1)[SCORE] < 0.5
    verdict = run(10, 8)
    assert verdict[SCORE] >= 0.5
    assert verdict[OBSERVED] == pytest.approx(0.8)
    assert verdict[EXPECTED] == pytest.approx(0.01, abs=0.003)
    assert 0.1 <= verdict[UPPER] < 0.8
    assert verdict[WEIGHT] == 10


def test_fewer_errors_than_the_least_number_are_no_anomaly() -> None:
    run = warmed()
    assert run(3, 3)[SCORE] == 0.0


def test_a_share_below_the_least_is_no_anomaly() -> None:
    run = warmed(requests=2000, every=2)
    assert run(2000, 190, learn=False)[SCORE] == 0.0
    assert run(2000, 400, learn=False)[SCORE] >= 0.5


def test_a_series_full_of_errors_is_used_to_them() -> None:
    run = Run()
    for _ in range(400):
        run(10, 5)
    assert run(10, 6)[SCORE] < 0.5


def test_sparse_errors_are_found_over_a_longer_horizon() -> None:
    run = warmed(requests=1, every=100)
    scores = [run(1, 1, learn=False)[SCORE] for _ in range(12)]
    assert scores[0] == 0.0
    assert scores[-1] >= 0.5


def test_an_anomaly_ends_when_the_present_is_usual_again() -> None:
    run = warmed()
    for _ in range(6):
        assert run(10, 9, learn=False)[SCORE] >= 0.5
    assert run(40, 0)[SCORE] == 0.0


def test_a_pane_without_requests_is_not_judged() -> None:
    run = warmed()
    run(10, 9, learn=False)
    assert run(0, 0).tolist() == [0.0] * 7


def test_errors_weigh_less_in_a_series_where_they_cluster() -> None:
    draw = random.Random(4)
    even, clustered = Run(horizons_s=(10,)), Run(horizons_s=(10,))
    for _ in range(1000):
        even(20, sum(draw.random() < 0.05 for _ in range(20)))
        clustered(20, 10 if draw.random() < 0.1 else 0)
    assert even(20, 14)[SCORE] >= 0.5 > clustered(20, 14)[SCORE]


def test_the_bound_it_names_is_the_bound_it_uses() -> None:
    run = warmed(requests=1000, every=1, horizons_s=(10,))
    upper = run(1000, 300, learn=False)[UPPER]
    assert run(1000, math.ceil(upper * 1000) + 1, learn=False)[SCORE] >= 0.5
    assert run(1000, math.floor(upper * 1000) - 1, learn=False)[SCORE] < 0.5


def test_the_horizon_is_told() -> None:
    assert warmed()(10, 9)[SPAN] == 1


@examples(60)
@given(n=st.integers(1, 60), p=st.floats(0.001, 0.5), data=st.data())
def test_the_bound_on_the_tail_is_never_too_small(n: int, p: float, data: st.DataObject) -> None:
    """Chernoff: P(K >= k) <= exp(-n KL(k/n, p)) for k above the mean, against the exact sum."""
    k = data.draw(st.integers(math.ceil(n * p), n))
    exact = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))
    assert exact <= math.exp(-n * divergence(k / n, p)) * (1 + 1e-9)
