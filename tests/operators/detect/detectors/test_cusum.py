"""Cumulative sums: against a plain reference, for small lasting shifts, resets and pauses."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.cusum import Cusum
from operators.kernels.detect import OBSERVED, SCORE, SPAN, WEIGHT
from tests.conftest import examples
from tests.watching import BEGIN, Feed, Row


def config(name: str = "latency", direction: str = "both") -> DetectConfig:
    metrics = {n: {"watch": n == name, "direction": direction} for n in DetectConfig().metrics}
    return DetectConfig.model_validate({"horizons_s": (10,), "warm_up_panes": 12, "metrics": metrics})


LEAST = math.log(1.5)


class Run:
    def __init__(self, settings: DetectConfig | None = None) -> None:
        self.watch = Watch(settings or config(), 10)
        self.detector = Cusum(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, *values: float, learn: bool = True) -> np.ndarray:
        block = self.feed.pane(self.pane, {0: Row(len(values), 0, {self.watch.cells[0]: values})})
        self.pane += 1
        verdict: np.ndarray = self.detector.score(self.state, block).table[0, 0]
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        return verdict


def warmed(spread: float = 0.1, settings: DetectConfig | None = None, value: float = 6.0) -> Run:
    run, draw = Run(settings), random.Random(3)
    for _ in range(200):
        run(*(value + draw.gauss(0, spread) for _ in range(4)))
    return run


@examples(25)
@given(st.lists(st.tuples(st.lists(st.floats(4, 8), min_size=1, max_size=4), st.booleans()), min_size=15, max_size=50))
def test_the_sums_equal_those_of_a_plain_reference(history: list[tuple[list[float], bool]]) -> None:
    run = Run()
    rate = 1.0 - run.watch.keep
    mean = between = within = 0.0
    learned, sums, fresh = 0, [0.0, 0.0], False
    for values, learn in history:
        x = sum(values) / len(values)
        sigma = math.sqrt(max(between, within / len(values), LEAST**2))
        run(*values, learn=learn)
        if not learn:
            fresh = True
        else:
            if fresh:
                sums, fresh = [0.0, 0.0], False
            d = x - mean
            if learned >= 12:
                sums = [max(0.0, sums[0] + d / sigma - 0.5), max(0.0, sums[1] - d / sigma - 0.5)]
                d = max(-4 * sigma, min(4 * sigma, d))
            share = max(rate, 1 / (learned + 1))
            mean += share * d
            if learned:
                between += share * (d * d - between)
                within += share * (sum((v - mean) ** 2 for v in values) / len(values) - within)
            learned += 1
        assert run.state["sums"][0, 0].tolist() == pytest.approx(sums, abs=1e-9)


def panes_until_it_answers(run: Run, value: float, most: int = 400) -> int:
    for i in range(most):
        if run(value, value)[SCORE] >= 0.5:
            return i + 1
    return most


@pytest.mark.parametrize("sign", [1, -1])
def test_a_small_shift_that_lasts_is_found_on_both_sides_and_a_large_one_sooner(sign: int) -> None:
    small = panes_until_it_answers(warmed(), 6.0 + sign * 1.2 * LEAST)
    large = panes_until_it_answers(warmed(), 6.0 + sign * 4.0 * LEAST)
    assert 5 <= small < 60
    assert large < small / 3


def test_a_shift_below_the_least_change_is_never_an_anomaly_however_long_it_lasts() -> None:
    run = warmed(0.0)
    for _ in range(2000):
        assert run(6.0 + 0.9 * LEAST, 6.0 + 0.9 * LEAST)[SCORE] < 0.5


def test_prices_of_a_thousandth_of_a_cent_accumulate() -> None:
    """The slack k = 0.5 is in standard deviations; in dollars such prices would never accumulate."""
    run = warmed(0.1, config("cost"), math.log(1e-5))
    assert panes_until_it_answers(run, math.log(5e-5)) < 40


def test_the_other_direction_is_not_an_anomaly() -> None:
    assert panes_until_it_answers(warmed(settings=config(direction="up")), 3.0, 100) == 100


def test_it_stands_still_while_excluded_and_begins_anew_afterwards() -> None:
    run = warmed()
    for _ in range(8):
        run(6.0 + 1.2 * LEAST)
    before = run.state["sums"].copy()
    assert before[0, 0, 0] > 1.0
    for _ in range(20):
        run(9.0, learn=False)
    assert np.array_equal(run.state["sums"], before)
    run(6.0)
    assert run.state["sums"].max() < 0.5


def test_it_tells_the_mean_since_the_sum_left_zero() -> None:
    run = warmed(0.0)
    verdicts = [run(7.0, 7.0) for _ in range(5)]
    assert verdicts[-1][WEIGHT] == 10
    assert verdicts[-1][SPAN] == 5
    assert verdicts[-1][OBSERVED] == pytest.approx(7.0, abs=0.02)


def test_ordinary_noise_does_not_accumulate() -> None:
    run, draw = warmed(0.6), random.Random(9)
    assert max(run(*(6.0 + draw.gauss(0, 0.6) for _ in range(4)))[SCORE] for _ in range(3000)) < 0.5
