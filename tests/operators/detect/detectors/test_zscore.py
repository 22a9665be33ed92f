"""The standard score: against a plain reference, and against the known mistakes of such detectors."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.zscore import ZScore
from operators.kernels.detect import SCORE, SPAN, UPPER, surprise
from tests.conftest import examples
from tests.watching import BEGIN, Feed, Row

LATENCY, COMPLETION, QUALITY = 0, 1, 2


def config(**more: Any) -> DetectConfig:
    metrics = {
        name: {"watch": name in ("latency", "completion_tokens", "quality"), "min_count": 4}
        for name in DetectConfig().metrics
    }
    for name, values in more.pop("metrics", {}).items():
        metrics[name].update(values)
    return DetectConfig.model_validate({"horizons_s": (10, 60), "warm_up_panes": 12, "metrics": metrics, **more})


class Run:
    """One series through the detector."""

    def __init__(self, settings: DetectConfig) -> None:
        self.watch = Watch(settings, 10)
        self.detector = ZScore(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, learn: bool = True, **values: list[float]) -> np.ndarray:
        """One pane: its verdicts [metrics, fields]; without `learn` every cell is excluded."""
        n = max(len(v) for v in values.values())
        block = self.feed.pane(
            self.pane, {0: Row(n, 0, {k.replace("completion", "completion_tokens"): v for k, v in values.items()})}
        )
        self.pane += 1
        table = self.detector.score(self.state, block).table
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        verdict: np.ndarray = table[0]
        return verdict


def warmed(settings: DetectConfig, value: float = 6.0, spread: float = 0.0, panes: int = 400) -> Run:
    run, draw = Run(settings), random.Random(5)
    for _ in range(panes):
        run(latency=[draw.gauss(value, spread) for _ in range(8)])
    return run


class Reference:
    """The moments of one metric over one horizon of one pane, in plain floats."""

    def __init__(self, settings: DetectConfig, watch: Watch) -> None:
        self.mean = self.above = self.below = self.learned = self.request = 0.0
        self.warm, self.count = settings.warm_up_panes, settings.metrics["latency"].min_count
        self.floor = math.log(settings.metrics["latency"].min_change) / watch.boundary
        self.threshold = watch.threshold
        self.rate = 1.0 - watch.keep

    def score(self, values: list[float]) -> float:
        if len(values) < self.count or self.learned < max(self.warm, 2):
            return 0.0
        d = sum(values) / len(values) - self.mean
        if d < 0:
            return surprise(0.0) / (surprise(0.0) + self.threshold)
        shrunk = (4 * (2 * self.floor) ** 2 + self.learned * self.above) / (4 + self.learned)
        spread = math.sqrt(max(shrunk, self.request / len(values), self.floor**2))
        level = surprise(d / spread)
        return level / (level + self.threshold)

    def learn(self, values: list[float]) -> None:
        if len(values) >= self.count:
            d = sum(values) / len(values) - self.mean
            share = max(self.rate, 1 / (self.learned + 1))
            reach = 3.5 * max(math.sqrt(self.above if d > 0 else self.below), self.floor)
            if self.learned < self.warm or abs(d) <= reach:  # means further out are not learned
                self.mean += share * d
                if self.learned:
                    self.above += share * (2 * d * d * (d > 0) - self.above)
                    self.below += share * (2 * d * d * (d < 0) - self.below)
                self.learned += 1
        if values and self.learned:
            q = sum((v - self.mean) ** 2 for v in values) / len(values)
            self.request += max(self.rate, 1 / self.learned) * (q - self.request)


@examples(25)
@given(st.lists(st.tuples(st.lists(st.floats(4, 8), max_size=7), st.booleans()), min_size=15, max_size=60))
def test_it_equals_the_plain_reference(history: list[tuple[list[float], bool]]) -> None:
    chosen = config(horizons_s=(10,))
    run = Run(chosen)
    reference = Reference(chosen, run.watch)
    for values, learn in history:
        table = run(latency=values, learn=learn)
        # Learned values are kept in seven digits.
        assert table[LATENCY, SCORE] == pytest.approx(reference.score(values), abs=1e-4)
        if learn:
            reference.learn(values)


def test_a_series_that_never_varied_does_not_fire_on_a_change_below_the_least() -> None:
    run = warmed(config(), spread=0.0)
    assert run(latency=[6.0 + math.log(1.45)] * 8)[LATENCY, SCORE] < 0.5


def test_a_series_that_never_varied_is_not_blind() -> None:
    run = warmed(config(), spread=0.0)
    assert run(latency=[6.0 + math.log(1.6)] * 8)[LATENCY, SCORE] >= 0.5


def test_the_bound_it_names_is_the_bound_it_uses() -> None:
    run = warmed(config(horizons_s=(10,)), spread=0.2)
    upper = run(latency=[6.0] * 8, learn=False)[LATENCY, UPPER]
    assert run(latency=[upper - 1e-6] * 8, learn=False)[LATENCY, SCORE] < 0.5
    assert run(latency=[upper + 1e-6] * 8, learn=False)[LATENCY, SCORE] >= 0.5


def test_only_the_configured_direction_is_an_anomaly() -> None:
    run = warmed(config())
    assert run(latency=[2.0] * 8)[LATENCY, SCORE] < 0.1
    run = warmed(config(metrics={"latency": {"direction": "both"}}))
    assert run(latency=[2.0] * 8)[LATENCY, SCORE] > 0.9


def test_every_metric_is_judged_the_first_finding_does_not_hide_the_next() -> None:
    run = Run(config())
    for _ in range(100):
        run(latency=[6.0] * 8, completion=[4.0] * 8, quality=[0.8] * 8)
    table = run(latency=[8.0] * 8, completion=[1.0] * 8, quality=[0.4] * 8)
    assert (table[:, SCORE] >= 0.5).all()


def test_a_metric_of_tiny_values_is_judged_in_proportion() -> None:
    """Prices of a thousandth of a cent: the factor counts, not dollars."""
    watch = {name: {"watch": name == "cost", "min_count": 4} for name in DetectConfig().metrics}
    run = Run(DetectConfig.model_validate({"horizons_s": (10,), "metrics": watch}))
    for _ in range(100):
        run(cost=[math.log(1e-5)] * 8)
    assert run(cost=[math.log(4e-5)] * 8)[0, SCORE] >= 0.5


def test_it_judges_after_the_warm_up_and_not_after_a_thousand_requests() -> None:
    run = Run(config())
    for _ in range(12):
        run(latency=[6.0] * 4)
    assert run(latency=[9.0] * 4)[LATENCY, SCORE] >= 0.5


def test_young_spreads_are_trusted_less() -> None:
    chosen = config(horizons_s=(10,))
    young, old = (warmed(chosen, spread=0.2, panes=panes) for panes in (12, 400))
    pane = [6.0 + math.log(1.6)] * 8
    assert young(latency=pane)[LATENCY, SCORE] < 0.5 <= old(latency=pane)[LATENCY, SCORE]


def test_few_requests_are_judged_with_those_before_them() -> None:
    run = Run(config())
    for _ in range(200):
        run(latency=[6.0])
    verdict = run(latency=[6.0])[LATENCY]
    assert verdict[SPAN] == 6
    for _ in range(6):
        verdict = run(latency=[8.0])[LATENCY]
    assert verdict[SCORE] >= 0.5


def test_a_long_horizon_does_not_count_when_the_present_is_usual_again() -> None:
    run = warmed(config())
    for _ in range(4):
        run(latency=[9.0] * 8, learn=False)
    verdict = run(latency=[6.0] * 8)[LATENCY]
    assert verdict[SCORE] < 0.1


def test_the_spread_never_falls_below_the_error_of_sampling() -> None:
    """Requests vary by a factor of e, so chance alone moves the mean of four of them by half of that."""
    run = Run(config(horizons_s=(10,), metrics={"latency": {"min_change": 1.05}}))
    for _ in range(300):
        run(latency=[5.0, 7.0] * 8)  # the pane's mean never varies
    assert run(latency=[6.5] * 4)[LATENCY, SCORE] < 0.5
    assert run(latency=[6.5] * 400)[LATENCY, SCORE] >= 0.5


def test_one_outlier_that_was_learned_does_not_blind_it() -> None:
    run = warmed(config(horizons_s=(10,)), spread=0.05)
    run(latency=[12.0] * 8, learn=True)
    assert run(latency=[7.0] * 8)[LATENCY, SCORE] >= 0.5


def test_a_horizon_that_still_holds_what_was_excluded_is_not_learned() -> None:
    run = warmed(config())
    before = run.state["mean"].copy()
    run(latency=[9.0] * 8, learn=False)
    for _ in range(5):
        run(latency=[6.0] * 8)
        assert run.state["mean"][0, LATENCY, 1] == before[0, LATENCY, 1]
    learned = run.state["learned"][0, LATENCY, 1]
    for _ in range(2):
        run(latency=[6.0] * 8)
    assert run.state["learned"][0, LATENCY, 1] > learned
    assert run.state["mean"][0, LATENCY, 1] == pytest.approx(6.0, abs=1e-6)


@given(st.floats(0, 60))
def test_the_tail_of_the_normal_distribution(z: float) -> None:
    """Against the bounds z / (z^2 + 1) < tail / density < 1 / z, and against erfc in the range in which it is exact."""
    density = -0.5 * z * z - 0.5 * math.log(2 * math.pi)
    value = -surprise(z) * math.log(10)
    if z < 25:
        assert value == pytest.approx(math.log(0.5 * math.erfc(z / math.sqrt(2))), rel=1e-4)
    if z > 1:
        assert density + math.log(z / (z * z + 1)) <= value + 1e-3
        assert value <= density - math.log(z) + 1e-3
