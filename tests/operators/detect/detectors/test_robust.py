"""MAD and IQR: against plain quantiles, and against the known mistakes of such detectors."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.iqr import Iqr
from operators.detect.detectors.mad import Mad
from operators.kernels import histogram
from operators.kernels.detect import EXPECTED, LOWER, OBSERVED, SCORE, UPPER
from tests.conftest import examples
from tests.watching import BEGIN, Feed, Row

LATENCY = 0
CONFIG = DetectConfig.model_validate(
    {
        "horizons_s": (10,),
        "warm_up_panes": 12,
        "metrics": {n: {"watch": n == "latency", "min_count": 4, "direction": "both"} for n in DetectConfig().metrics},
    }
)
LEAST = math.log(1.5)
Make = Callable[[Watch], Mad | Iqr]
both = pytest.mark.parametrize("make", [Mad, Iqr])


class Run:
    """One series through a detector that judges the mean of a pane."""

    def __init__(self, make: Make) -> None:
        self.watch = Watch(CONFIG, 10)
        self.detector = make(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, value: float, learn: bool = True) -> np.ndarray:
        block = self.feed.pane(self.pane, {0: Row(8, 0, {"latency": [value] * 8})})
        self.pane += 1
        verdict: np.ndarray = self.detector.score(self.state, block).table[0, LATENCY]
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        return verdict


def warmed(make: Make, spread: float = 0.0, panes: int = 300, odd: float = 0.0) -> Run:
    """A run over panes around 6, of which a share `odd` lies far off."""
    run, draw = Run(make), random.Random(4)
    for _ in range(panes):
        run(6.0 + draw.gauss(0, spread) + (3.0 if draw.random() < odd else 0.0))
    return run


@both
@examples(20)
@given(values=st.lists(st.floats(5.5, 6.5), min_size=20, max_size=60))
def test_expectation_and_band_are_those_of_plain_quantiles(make: Make, values: list[float]) -> None:
    run = Run(make)
    for v in values:
        run(v)
    verdict = run(6.0, learn=False)
    q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75], method="inverted_cdf")
    width = LEAST / 4
    upper = np.quantile(values, 0.5, method="higher")
    assert median - width <= verdict[EXPECTED] <= upper + width
    floor = LEAST / run.watch.boundary
    if make is Mad:
        mad = np.quantile(np.abs(np.array(values) - median), 0.5)
        limit = median + run.watch.boundary * max(1.4826 * mad, floor)
    else:
        sigma = max((q3 - q1) / 1.349, floor)
        limit = q3 + (run.watch.boundary - 0.6745) * sigma
    # A quantile of few values may lie anywhere between two of them, and a bucket blurs it by its width.
    gap = max(np.diff(np.sort(values)).max(initial=0.0), width)
    assert abs(verdict[UPPER] - limit) <= 12 * gap


@both
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.2])
def test_the_bounds_it_names_are_the_bounds_it_uses(make: Make, spread: float) -> None:
    run = warmed(make, spread)
    verdict = run(6.0, learn=False)
    for bound, outwards in ((verdict[UPPER], 1), (verdict[LOWER], -1)):
        assert run(bound - outwards * 1e-6, learn=False)[SCORE] < 0.5
        beyond = run(bound + outwards * 1e-6, learn=False)
        assert beyond[SCORE] >= 0.5
        assert (beyond[OBSERVED] - beyond[EXPECTED]) * outwards > 0


@both
def test_a_series_that_never_varied_neither_fires_on_every_change_nor_is_blind(make: Make) -> None:
    run = warmed(make)
    for sign in (1, -1):
        usual = run(6.0, learn=False)[EXPECTED]
        assert run(usual + sign * 0.95 * LEAST, learn=False)[SCORE] < 0.5
        assert run(usual + sign * 1.05 * LEAST, learn=False)[SCORE] >= 0.5


@both
def test_a_fifth_of_odd_panes_does_not_blind_it(make: Make) -> None:
    run = warmed(make, 0.03, odd=0.2)
    assert run(6.0, learn=False)[EXPECTED] == pytest.approx(6.0, abs=0.15)
    assert run(8.0, learn=False)[SCORE] >= 0.5


@pytest.mark.compiled
@both
def test_it_follows_a_level_that_drifts_far_beyond_its_buckets(make: Make) -> None:
    run, draw = Run(make), random.Random(2)
    level = 6.0
    for _ in range(12_000):
        level += 0.0005
        run(level + draw.gauss(0, 0.03))
    verdict = run(level, learn=False)
    assert verdict[SCORE] < 0.5
    assert run(level + 4.0, learn=False)[SCORE] >= 0.5
    assert level - 4.0 < verdict[EXPECTED] < level


@given(
    values=st.lists(st.floats(-3, 3), min_size=1, max_size=60),
    share=st.floats(0.01, 0.99),
)
def test_a_histogram_s_quantile_lies_within_a_bucket_of_the_true_one(values: list[float], share: float) -> None:
    mass, low, width = np.zeros(64, np.float32), 0.0, 0.25
    for v in values:
        low = histogram.enter(mass, low, width, v, 1.0, 32)
    assert mass.sum() == len(values)
    found = histogram.quantile(mass, low, width, share)
    ordered = sorted(values)
    rank = share * len(values)
    below = ordered[max(math.ceil(rank - 1e-3) - 1, 0)]
    above = ordered[min(math.floor(rank + 1e-3), len(values) - 1)]
    assert below - width <= found <= above + width
    assert histogram.share_below(mass, low, width, found) == pytest.approx(rank, abs=1e-2)


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=60), st.floats(-2, 2))
def test_half_of_the_mass_lies_within_the_distance(values: list[float], centre: float) -> None:
    mass, low, width = np.zeros(64, np.float32), 0.0, 0.25
    for v in values:
        low = histogram.enter(mass, low, width, v, 1.0, 32)
    far = histogram.distance(mass, low, width, centre)
    within = sum(abs(v - centre) <= far + width for v in values)
    inside = sum(abs(v - centre) < far - width for v in values)
    assert inside <= len(values) / 2 + 1e-6
    assert within >= len(values) / 2 - 1e-6
