"""Single requests: a monstrous one is an anomaly at once, everyday stragglers are none."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.detectors.request_outlier import RequestOutlier
from operators.kernels.detect import OBSERVED, SCORE, SPAN, UPPER
from tests.watching import BEGIN, Feed, Request, Row, closings, monitor, steady, table, watch_all

NAMES = ("latency", "tokens_per_second", "quality")


def config() -> DetectConfig:
    return DetectConfig.model_validate(
        {"warm_up_panes": 12, "metrics": {n: {"watch": n in NAMES} for n in DetectConfig().metrics}}
    )


class Run:
    def __init__(self) -> None:
        self.watch = Watch(config(), 10)
        self.detector = RequestOutlier(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, values: list[float], name: str = "latency", learn: bool = True) -> np.ndarray:
        block = self.feed.pane(self.pane, {0: Row(len(values), 0, {name: values})})
        self.pane += 1
        verdict: np.ndarray = self.detector.score(self.state, block).table[0, self.watch.cells.index(name)]
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        return verdict


def natural(draw: random.Random) -> float:
    """The logarithm of a latency: 0.8 % of the requests are stragglers, two to six times slower."""
    return 6.0 + draw.gauss(0, 0.5) + (math.log(draw.uniform(2, 6)) if draw.random() < 0.008 else 0.0)


def warmed(seed: int = 1, panes: int = 400) -> Run:
    run, draw = Run(), random.Random(seed)
    for _ in range(panes):
        run([natural(draw) for _ in range(6)])
    return run


def test_a_monstrous_request_among_ordinary_ones_is_an_anomaly_that_opens_at_once() -> None:
    run = warmed()
    verdict = run([6.0, 6.1, 6.0 + math.log(500), 5.9], learn=False)
    at_once = (run.watch.threshold + 2) / (2 * run.watch.threshold + 2)
    assert verdict[SCORE] >= at_once
    assert verdict[OBSERVED] == pytest.approx(6.0 + math.log(500))
    assert verdict[SPAN] == 1


@pytest.mark.compiled
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_natural_stragglers_are_no_anomaly(seed: int) -> None:
    run, draw = warmed(seed), random.Random(seed + 100)
    found = [run([natural(draw) for _ in range(6)])[SCORE] for _ in range(4000)]
    assert max(found) < 0.5


def test_the_bound_it_names_is_the_bound_it_uses_and_more_requests_move_it_up() -> None:
    run = warmed()
    for n in (1, 50):
        upper = run([6.0] * n, learn=False)[UPPER]
        assert run([*[6.0] * (n - 1), upper - 1e-6], learn=False)[SCORE] < 0.5
        assert run([*[6.0] * (n - 1), upper + 1e-6], learn=False)[SCORE] >= 0.5
    assert run([6.0], learn=False)[UPPER] <= run([6.0] * 50, learn=False)[UPPER]


def test_requests_that_never_varied_fire_from_the_least_factor_on_and_not_before() -> None:
    run = Run()
    for _ in range(200):
        run([6.0] * 6)
    least, bucket = math.log(5.0), 0.35
    assert run([6.0 + least - bucket], learn=False)[SCORE] < 0.5
    assert run([6.0 + least + bucket], learn=False)[SCORE] >= 0.5


def test_few_requests_tell_no_tail() -> None:
    run = Run()
    for _ in range(40):
        run([6.0])
    assert run([14.0], learn=False)[SCORE] == 0.0


@pytest.mark.parametrize("name", ["tokens_per_second", "quality"])
def test_metrics_whose_small_values_are_bad_are_left_to_others(name: str) -> None:
    run = Run()
    for _ in range(200):
        run([1.0] * 6, name)
    assert run([30.0], name)[SPAN] == 0.0


def test_an_alert_shows_the_request_and_says_so() -> None:
    requests = steady(200, 6, lambda p, d: {"latency": 1000 * math.exp(d.gauss(0, 0.3))})
    monster = Request(1905.0, {"latency": 900_000.0})
    alerts = watch_all(monitor(), closings(table([*requests, monster]), 200))
    told = [a for a in alerts if a.kind == "latency_outlier"]
    assert told[0].status == "firing"
    assert told[0].observed == pytest.approx(900_000, rel=1e-4)
    assert "request_outlier" in told[0].detectors
    assert [e["event_id"] for e in told[0].evidence] == [f"e{len(requests)}"]
    assert told[0].text.startswith("Latency of a single request of service chat is 900 s, among 7 in 10 s, where 1")
    assert {a.kind for a in alerts} == {"latency_outlier"}


def test_a_long_answer_at_the_usual_speed_is_no_outlier_of_latency() -> None:
    requests = steady(200, 6, lambda p, d: {"latency": 1000 * math.exp(d.gauss(0, 0.3)), "tokens_per_second": 50.0})
    long = Request(1905.0, {"latency": 900_000.0, "tokens_per_second": 50.0})
    assert watch_all(monitor(), closings(table([*requests, long]), 200)) == []
