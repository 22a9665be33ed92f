"""Hours of the day and of the week: the usual traffic at a time, and its effect on silence, surges and drops."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.config import DetectConfig, TrafficConfig
from operators.detect.base import Watch
from operators.detect.context.season import Clock
from operators.detect.detectors.traffic import Traffic
from operators.kernels import season
from operators.kernels.detect import EXPECTED, SCORE, Seen
from tests.operators.detect.detectors.test_traffic import poisson
from tests.watching import BEGIN, Feed, Row

PANES = 24 * 12
"""A day, in panes of five minutes."""


class Days:
    """One series in panes of five minutes from Monday 2025-03-03 on."""

    def __init__(self, mean: Callable[[int, float], float], time_zone: str = "UTC") -> None:
        config = {"horizons_s": (300, 1800), "traffic": {"time_zone": time_zone}, "warm_up_panes": 12}
        self.watch = Watch(DetectConfig.model_validate(config), 300)
        self.detector = Traffic(self.watch)
        self.state = self.detector.state(1)
        self.feed = Feed(self.watch, 1)
        self.mean = mean
        self.draw = random.Random(5)
        self.pane = 0

    def __call__(self, panes: int, requests: int | None = None) -> list[np.ndarray]:
        """The verdicts of the next panes; if `requests` replaces the usual number, nothing is learned."""
        found = []
        for _ in range(panes):
            day, hour = self.pane // PANES, self.pane % PANES / 12
            mean = self.mean(day, hour)
            came = requests if requests is not None else poisson(self.draw, mean) if mean else 0
            block = self.feed.pane(BEGIN // 30 + self.pane, {0: Row(came)} if came or not self.pane else {})
            found.append(self.detector.score(self.state, block).table[0, 0])
            unlearned = np.full((1, len(self.watch.cells)), requests is not None)
            self.detector.learn(self.state, block, unlearned)
            self.pane += 1
        return found

    def at(self, requests: int, panes: int = 6) -> float:
        """The highest score over `panes` panes with this number of requests, judged on a copy of this run."""
        return max(float(v[SCORE]) for v in copy.deepcopy(self)(panes, requests))


def office(day: int, hour: float) -> float:
    return 60.0 if 8 <= hour < 18 else 0.0


@pytest.fixture(scope="module")
def office_week() -> Days:
    days = Days(office)
    days(6 * PANES)
    return days


def test_daily_opening_and_closing_is_no_anomaly_once_it_is_known(office_week: Days) -> None:
    verdicts = copy.deepcopy(office_week)(PANES)
    assert max(v[SCORE] for v in verdicts) < 0.5
    assert verdicts[12 * 12][EXPECTED] == pytest.approx(60, rel=0.2)
    assert verdicts[23 * 12][EXPECTED] < 0.5


def test_daily_opening_and_closing_is_an_anomaly_before_it_is_known() -> None:
    days = Days(office)
    days(2 * PANES)
    assert max(v[SCORE] for v in days(PANES)) >= 0.5


def test_silence_is_an_anomaly_by_day_and_none_at_night(office_week: Days) -> None:
    days = copy.deepcopy(office_week)
    days(3 * 12)
    assert days.at(0) < 0.5
    assert days.at(60) >= 0.5
    days(9 * 12)
    assert days.at(0) >= 0.5
    assert days.at(60) < 0.5


@pytest.mark.compiled
def test_a_day_of_the_week_counts_for_itself() -> None:
    days = Days(lambda day, hour: 4.0 if day % 7 >= 5 else 40.0)
    days(13 * PANES)
    assert max(v[SCORE] for v in days(PANES)) < 0.5
    verdicts = days(3 * 12)
    assert verdicts[-1][EXPECTED] > 15


def test_the_hours_are_those_of_the_time_zone() -> None:
    assert Clock("UTC", 10).hour(BEGIN) % 24 == 0
    berlin = Clock("Europe/Berlin", 60)
    spring = 29_054_880  # 2025-03-30T00:00:00Z, an hour before clocks go forward
    assert [berlin.hour(spring + 30 * i) % 24 for i in range(5)] == [1, 1, 3, 3, 4]
    assert Clock("Asia/Kolkata", 60).hour(BEGIN // 6) % 24 == 5
    assert Clock("UTC", 3_600).hour(BEGIN // 360) == BEGIN // 360


def test_an_unknown_time_zone_is_refused() -> None:
    for name in ("Europe/Nowhere", "", "../etc/passwd"):
        with pytest.raises(ValidationError, match="no such time zone"):
            TrafficConfig(time_zone=name)
    assert TrafficConfig(time_zone="Asia/Kolkata").time_zone == "Asia/Kolkata"


levels = st.one_of(st.just(-1.0), st.floats(0, 1_000, width=32))


def level(hours: np.ndarray, hour: int) -> tuple[int, float, float]:
    """The reference of `season._level`: the number of days, the level and the deviation."""
    days = [float(v) for v in hours[hour % 24 :: 24] if v >= 0]
    if not days:
        return 0, 0.0, 0.0
    middle = float(np.median(days))
    own = float(hours[hour])
    return len(days), (middle + own) / 2 if own >= 0 else middle, float(np.median(np.abs(np.array(days) - middle)))


@given(
    st.lists(levels, min_size=28, max_size=28),
    st.integers(0, season.WEEK - 1),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 500),
    st.floats(0, 500),
)
def test_the_usual_is_that_of_the_reference(
    few: list[float], hour: int, share: float, rate: float, late: float
) -> None:
    hours = np.resize(np.array(few, np.float32), season.WEEK)
    wanted, one = np.array([hour, (hour + 1) % season.WEEK]), np.array([1])
    times = season.Times(0, wanted, 1 - one, one, np.array([share]))
    of = season.Hours(hours[None], np.full(1, -1), np.zeros(1), np.zeros(1, np.int32))
    found = season.expect(1, times, of, np.array([rate]), np.array([late]))
    usual, seasonal, slack = (float(a[0, 0]) for a in found)
    (known, here, deviation), (near, there, other) = level(hours, hour), level(hours, (hour + 1) % season.WEEK)
    known = min(known, near)
    if known < 2:
        assert (usual, seasonal, slack) == (rate, rate, 0.0)
        return
    spread = math.hypot(1.4826 * max(deviation, other), min(share, 1 - share) * (there - here))
    assert seasonal == pytest.approx((1 - share) * here + share * there)
    damping = 0.2 * float(np.mean(hours[hours >= 0], dtype=np.float64)) + 1 / 360
    expected = seasonal * (rate + damping) / (late + damping)
    sure = min(1.0, (known - 1) / 3)
    blend = (rate + 1 / 360) ** (1 - sure) * (expected + 1 / 360) ** sure - 1 / 360
    assert usual == pytest.approx(max(blend, 0.0), rel=1e-6, abs=1e-9)
    below = max(1 - sure * spread / (seasonal + 1 / 360), 0)
    assert slack == pytest.approx((1 - math.sqrt(below)) ** 2, rel=1e-6, abs=1e-9)


def test_times_lie_between_the_middles_of_hours() -> None:
    times = Clock("UTC", 60).times(BEGIN // 6 + 10, np.array([1, 30, 120]))
    middles = times.wanted % 24
    seconds = [(middles[a] + 0.5 + w) % 24 * 3_600 for a, w in zip(times.left, times.share, strict=True)]
    assert seconds == pytest.approx([630, 23 * 3_600 + 3_360, 23 * 3_600 + 660, 630], abs=1)
    assert ((middles[times.left] + 1) % 24 == middles[times.right]).all()


def test_an_hour_of_which_half_was_excluded_is_not_kept() -> None:
    state = Traffic(Watch(DetectConfig(), 60)).state(1)
    of = season.Hours(state["hours"], state["hour"], state["hour_total"], state["hour_panes"])

    def remember(pane: int, requests: float, excluded: bool) -> None:
        row, none = np.array([[requests]]), np.zeros((1, 1))
        seen = Seen(pane, 1, np.zeros(1, np.int64), row, none, none[None], np.ones(1, np.int64), np.ones(1, np.int64))
        season.remember(seen, of, pane // 60, 30, np.array([excluded]))

    for hour, excluded in enumerate((10, 31, 0)):
        for minute in range(60):
            remember(hour * 60 + minute, 7.0, minute < excluded)
    remember(180, 1.0, False)
    assert state["hours"][0, :4].tolist() == [7.0, -1.0, 7.0, -1.0]
