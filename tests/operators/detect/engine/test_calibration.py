"""Calibration: levels that it keeps, levels that it lowers, and the rate at which chance passes the boundary."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.config import DetectConfig, EpisodesConfig
from operators.detect.base import MOST_TAIL, REAL, Verdicts, Watch
from operators.detect.detectors.traffic import Traffic
from operators.detect.engine.calibration import Calibration
from operators.kernels.detect import EXPECTED, FIELDS, LOWER, SCORE, SPAN, UPPER
from tests.conftest import examples

WATCH = Watch(DetectConfig(), 10)
T = WATCH.threshold
NONE = np.zeros((1, len(WATCH.cells)), np.bool_)


def calibration() -> Calibration:
    return Calibration(WATCH, Traffic(WATCH))


def verdict(level: float, span: float = 1.0) -> Verdicts:
    table = np.zeros((1, 1, FIELDS))
    table[0, 0, [SCORE, SPAN, EXPECTED, LOWER, UPPER]] = level / (level + T), span, 10.0, 8.0, 13.0
    return Verdicts(table)


def level_of(verdicts: Verdicts) -> float:
    score = float(verdicts.score[0, 0])
    return T * score / (1 - score)


def trained(levels: list[float], span: float = 1.0) -> tuple[Calibration, dict[str, np.ndarray]]:
    made = calibration()
    state = made.state(1)
    for level in levels:
        made.learn(state, verdict(level, span), NONE)
    return made, state


def by_model(draw: random.Random, scale: float = 1.0) -> float:
    """A random level of the model's distribution, times `scale`."""
    return -math.log10(1.0 - draw.random()) * scale


@given(st.floats(0, 60))
def test_levels_stay_the_same_before_anything_was_seen(level: float) -> None:
    made = calibration()
    assert level_of(made.score(made.state(1), verdict(level))) == pytest.approx(level, abs=1e-9)


@examples(30)
@given(st.lists(st.floats(0, 100), max_size=200), st.floats(0, 100), st.floats(0, 100), st.sampled_from([1.0, 30.0]))
def test_it_never_raises_a_level_and_keeps_their_order_and_its_arguments(
    seen: list[float], a: float, b: float, span: float
) -> None:
    made, state = trained(seen, span)
    before = state["levels"].tobytes()
    low, high = (level_of(made.score(state, verdict(x))) for x in sorted((a, b)))
    assert low <= high + 1e-9
    assert low <= min(a, b) + 1e-6
    assert state["levels"].tobytes() == before


@pytest.mark.parametrize("scale", [1.0, 2.0, 4.0])
def test_a_level_becomes_the_frequency_with_which_it_really_comes(scale: float) -> None:
    draw = random.Random(5)
    made, state = trained([by_model(draw, scale) for _ in range(6000)])
    for true in (2.5, 4.0, T):
        assert level_of(made.score(state, verdict(true * scale))) == pytest.approx(true, rel=0.25)


def test_the_band_widens_with_the_needed_level() -> None:
    draw = random.Random(6)
    made, state = trained([by_model(draw, 4.0) for _ in range(6000)])
    table = made.score(state, verdict(5.0)).table[0, 0]
    assert table[EXPECTED] - table[LOWER] == pytest.approx(2 * 2.0, rel=0.2)
    assert table[UPPER] - table[EXPECTED] == pytest.approx(2 * 3.0, rel=0.2)


def test_panes_that_share_a_horizon_count_as_one_observation() -> None:
    once, many = trained([5.0] * 60, span=180.0), trained([5.0] * 60)
    level = 8.0
    assert level_of(once[0].score(once[1], verdict(level))) > level_of(many[0].score(many[1], verdict(level))) + 0.5


def test_excluded_and_unjudged_cells_are_not_learned() -> None:
    made = calibration()
    state = made.state(1)
    made.learn(state, verdict(50.0), ~NONE)
    made.learn(state, verdict(50.0, span=0.0), NONE)
    assert not state["levels"].any()


def test_levels_fade() -> None:
    made, state = trained([6.0] * 50)
    mass = float(state["levels"].sum())
    for _ in range(WATCH.panes(WATCH.config.half_life_s)):
        made.learn(state, verdict(0.1), NONE)
    assert state["levels"][0, 0, 3:].sum() == pytest.approx(mass / 2, rel=0.02)


def test_the_boundary_follows_from_the_accepted_false_alarms() -> None:
    for accepted in (0.002, 0.02, 2.0):
        for open_panes in (1, 2, 3):
            watch = Watch(DetectConfig(false_alarms_per_series_day=accepted), 10, open_panes)
            panes = 8640 * len(watch.cells)
            # An episode takes `open_panes` anomalous panes, so there are at most `tail * panes / open_panes` episodes.
            assert watch.tail * panes / open_panes * REAL == pytest.approx(accepted)
            assert watch.threshold == pytest.approx(-math.log10(watch.tail))
    assert Watch(DetectConfig(false_alarms_per_series_day=100), 3600).tail == MOST_TAIL
    assert EpisodesConfig().open_panes == 2
    for wrong in (0, -1, 101, math.nan):
        with pytest.raises(ValidationError):
            DetectConfig(false_alarms_per_series_day=wrong)
