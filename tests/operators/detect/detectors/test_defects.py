"""Known mistakes of simple detectors, tested on every detector that judges metrics."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig, EpisodesConfig, TimeConfig
from operators.detect import registry
from operators.detect.base import Detector, Watch
from operators.detect.engine.monitor import ShardMonitor
from operators.errors import ConfigError
from operators.kernels.detect import EXPECTED, LOWER, OBSERVED, SCORE, UPPER
from operators.model import Alert
from tests.conftest import examples
from tests.watching import BEGIN, Feed, Request, Row, closings, monitor, steady, table, watch_all

MEANS = ("zscore", "mad", "iqr", "cusum")
LEARNING = (*MEANS, "request_outlier")
learning = pytest.mark.parametrize("name", LEARNING)
means = pytest.mark.parametrize("name", MEANS)


def config(*metrics: str, direction: str = "both") -> DetectConfig:
    chosen = {n: {"watch": n in metrics, "direction": direction, "min_count": 4} for n in DetectConfig().metrics}
    return DetectConfig.model_validate({"horizons_s": (10,), "warm_up_panes": 12, "metrics": chosen})


class Run:
    """One series through one detector; every pane has 8 requests with the same value of each metric."""

    def __init__(self, name: str, *metrics: str) -> None:
        self.watch = Watch(config(*metrics), 10)
        self.detector: Detector = registry.DETECTORS[name](self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.pane = BEGIN

    def __call__(self, *, learn: bool = True, **values: float) -> np.ndarray:
        return self.pane_of(values, learn)

    def pane_of(self, values: dict[str, float], learn: bool = True) -> np.ndarray:
        block = self.feed.pane(self.pane, {0: Row(8, 0, {k: [v] * 8 for k, v in values.items()})})
        self.pane += 1
        table = self.detector.score(self.state, block).table[0]
        self.detector.learn(self.state, block, np.full((1, len(self.watch.cells)), not learn))
        verdicts: np.ndarray = table
        return verdicts

    def lasting(self, panes: int, **values: float) -> np.ndarray:
        """The highest score of each metric over this number of equal panes."""
        scores = [self.pane_of(values)[:, SCORE] for _ in range(panes)]
        worst: np.ndarray = np.max(scores, axis=0)
        return worst


@learning
@examples(12)
@given(value=st.floats(-5, 12), share=st.floats(0.05, 0.9), sign=st.sampled_from([1, -1]))
def test_a_series_that_never_varied_does_not_fire_on_every_change(
    name: str, value: float, share: float, sign: int
) -> None:
    run = Run(name, "latency")
    run.lasting(80, latency=value)
    assert run.lasting(30, latency=value + sign * share * math.log(1.5)) < 0.5


@learning
@examples(12)
@given(value=st.floats(-5, 12), factor=st.floats(12, 1000), sign=st.sampled_from([1, -1]))
def test_a_series_that_never_varied_is_not_blind_to_a_large_change(
    name: str, value: float, factor: float, sign: int
) -> None:
    if name == "request_outlier":
        sign = 1  # a small request is no anomaly
    run = Run(name, "latency")
    run.lasting(80, latency=value)
    assert run.lasting(20, latency=value + sign * math.log(factor)) >= 0.5


@means
def test_a_fall_is_not_told_as_a_rise(name: str) -> None:
    run = Run(name, "latency")
    run.lasting(80, latency=6.0)
    verdicts = [run(latency=2.0)[0] for _ in range(12)]
    worst = max(verdicts, key=lambda v: float(v[SCORE]))
    assert worst[SCORE] >= 0.5
    assert worst[OBSERVED] < worst[LOWER] < worst[EXPECTED]


@learning
def test_every_metric_is_judged_and_the_first_finding_does_not_hide_the_next(name: str) -> None:
    run = Run(name, "latency", "prompt_tokens", "cost")
    run.lasting(80, latency=6.0, prompt_tokens=5.0, cost=-9.0)
    assert (run.lasting(25, latency=12.0, prompt_tokens=11.0, cost=-3.0) >= 0.5).all()


@learning
def test_a_metric_of_tiny_values_is_judged_in_proportion(name: str) -> None:
    """The price of a call rises from a hundredth of a cent to half a dollar; no threshold is in dollars."""
    run = Run(name, "cost")
    run.lasting(80, cost=math.log(1e-4))
    assert run.lasting(12, cost=math.log(0.5)) >= 0.5


@learning
def test_a_pane_is_counted_once_and_a_full_window_is_not_waited_for(name: str) -> None:
    run = Run(name, "latency")
    for _ in range(12 if name != "request_outlier" else 64):  # about 500 requests, so that ten of them are in the tail
        run(latency=6.0)
    assert run.lasting(25, latency=12.0) >= 0.5
    learned = run.state["learned"].copy()
    run(latency=6.0)
    assert float((run.state["learned"] - learned).max()) == 1.0


@pytest.mark.parametrize("name", [n for n in MEANS if n != "cusum"])  # the sum of cusum decides, not its band
def test_it_begins_to_fire_at_the_bound_that_it_tells(name: str) -> None:
    run, draw = Run(name, "latency"), random.Random(3)
    for _ in range(300):
        run(latency=6.0 + draw.gauss(0, 0.1))
    upper = float(run(learn=False, latency=6.0)[0, UPPER])
    assert run(learn=False, latency=upper - 1e-6)[0, SCORE] < 0.5 <= run(learn=False, latency=upper + 1e-6)[0, SCORE]


def everything(names: tuple[str, ...]) -> DetectConfig:
    return DetectConfig.model_validate(
        {
            "horizons_s": (10, 60),
            "warm_up_panes": 12,
            "false_alarms_per_series_day": 0.08,
            "metrics": {n: {"min_count": 4} for n in DetectConfig().metrics},
            "detectors": {"latency": names, "cost": names},
        }
    )


def usual(_: int, draw: random.Random) -> dict[str, float]:
    return {"latency": 500 * math.exp(draw.gauss(0, 0.2)), "cost": 0.001 * math.exp(draw.gauss(0, 0.2))}


def sick(pane: int, draw: random.Random) -> dict[str, float]:
    return {k: v * (40 if 120 <= pane < 150 else 1) for k, v in usual(pane, draw).items()}


def told(names: tuple[str, ...], requests: list[Request], panes: int = 260) -> list[Alert]:
    return watch_all(monitor(everything(names)), closings(table(requests), panes))


@learning
def test_each_alone_finds_the_incident_and_nothing_else(name: str) -> None:
    found = [a for a in told((name,), steady(260, 8, sick)) if a.status == "firing"]
    assert {a.metric for a in found} == {"latency", "cost"}
    assert {a.detectors for a in found} == {(name,)}
    begin = closings(table(steady(1, 1, usual)), 1)[0].low
    assert all(120 <= a.since // 10_000_000 - begin < 150 for a in found)


def test_detectors_that_agree_are_all_named_and_one_incident_is_one_episode() -> None:
    found = [a for a in told(LEARNING, steady(260, 8, sick)) if a.metric == "latency"]
    assert len({a.episode_id for a in found}) == 1
    assert {"zscore", "mad", "iqr", "request_outlier"} <= {d for a in found for d in a.detectors}
    assert [a.status for a in found if a.status != "updated"] == ["firing", "resolved"]


@learning
def test_the_incident_is_not_learned(name: str) -> None:
    """A second incident is found even if one like it lasted half an hour before."""

    def twice(pane: int, draw: random.Random) -> dict[str, float]:
        return {k: v * (40 if 120 <= pane < 300 or 400 <= pane < 420 else 1) for k, v in usual(pane, draw).items()}

    found = [a for a in told((name,), steady(440, 8, twice), 440) if a.metric == "latency" and a.status == "firing"]
    assert len(found) == 2


def test_a_detector_that_is_switched_on_later_begins_cold_and_the_others_go_on() -> None:
    pieces = closings(table(steady(200, 8, usual)), 200)
    before = monitor(everything(("zscore",)))
    watch_all(before, pieces)
    args = (EpisodesConfig(), TimeConfig())
    after = ShardMonitor.load(before.save(), everything(("mad", "zscore")), *args)
    states = {d.name: o.state for d, o in zip(after._panel.detectors, after._panel.owners, strict=False)}
    assert not states["mad"]["learned"].any()
    assert states["zscore"]["learned"].any()
    assert len(ShardMonitor.load(after.save(), everything(("iqr",)), *args)) == 1


def test_detectors_can_be_chosen_by_metric_and_are_checked() -> None:
    watch = Watch(everything(("mad",)), 10)
    built = {d.name: d for d in registry.build(watch)}
    assert list(built) == ["zscore", "traffic", "error_ratio", "mad", "request_outlier"]
    voting = {
        name: {c for c, v in zip(d.cells, registry.votes(watch, d), strict=True) if v} for name, d in built.items()
    }
    assert voting["mad"] == {"latency", "cost"}
    assert voting["request_outlier"] == {"ttft"}
    assert voting["zscore"] == {"ttft", "tokens_per_second", "prompt_tokens", "completion_tokens", "quality"}
    mistakes = (("latency", "traffic"), ("requests", "zscore"), ("nonsense", "zscore"), ("latency", "nonsense"))
    for metric, name in mistakes:
        with pytest.raises((ValueError, ConfigError), match=r"cannot judge|no such metric|there is no detector"):
            registry.build(Watch(DetectConfig.model_validate({"detectors": {metric: [name]}}), 10))
    with pytest.raises(ValueError, match="valid dictionary"):
        DetectConfig.model_validate({"detectors": "all"})
