"""One score from the scores of many detectors: weighted votes and agreements."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.config import DetectConfig
from operators.kernels.detect import FIELDS, OBSERVED, SCORE, SPAN, Floats
from operators.kernels.voting import add_up, take_mean, take_stronger
from operators.model import Alert
from tests.operators.detect.engine.test_monitor import QUICK, incident
from tests.watching import closings, monitor, steady, watch_all
from tests.watching import table as table_of

votes = st.lists(
    st.tuples(st.floats(0, 1), st.just(0.0) | st.floats(0.01, 1), st.booleans()),  # score, weight, whether it judged
    min_size=1,
    max_size=5,
)
Votes = list[tuple[float, float, bool]]


def table(score: float, judged: bool, detector: int) -> Floats:
    out = np.zeros((1, 1, FIELDS))
    if judged:
        out[0, 0, SCORE], out[0, 0, SPAN], out[0, 0, OBSERVED] = score, 1.0, float(detector)
    return out


def strongest(cast: Votes, equal: bool = False) -> tuple[Floats, int]:
    best, winner = np.zeros((1, 1, FIELDS)), np.full((1, 1), -1, np.int8)
    for i, (score, weight, judged) in enumerate(cast):
        weights = np.array([np.sign(weight) if equal else weight])
        take_stronger(table(score, judged, i), weights, 0, i, best, winner)
    return best[0, 0], int(winner[0, 0])


def agreed(cast: Votes) -> Floats:
    best = strongest(cast, equal=True)[0].reshape(1, 1, FIELDS)
    total, mass = np.zeros((2, 1, 1))
    for i, (score, weight, judged) in enumerate(cast):
        add_up(table(score, judged, i), np.array([weight]), 0, total, mass)
    take_mean(total, mass, np.ones(1, np.bool_), best)
    return np.asarray(best[0, 0])


@given(cast=votes)
def test_the_score_lies_between_0_and_the_highest_score(cast: Votes) -> None:
    scores = [s for s, w, judged in cast if judged and w > 0] or [0.0]
    for score in (strongest(cast)[0][SCORE], agreed(cast)[SCORE]):
        assert 0.0 <= score <= max(scores) + 1e-12
    if max(scores) < 0.5:
        assert max(strongest(cast)[0][SCORE], agreed(cast)[SCORE]) < 0.5


@given(cast=votes)
def test_an_anomalous_score_comes_with_a_verdict_that_is_anomalous_alone(cast: Votes) -> None:
    for verdict in (strongest(cast)[0], agreed(cast)):
        if verdict[SCORE] >= 0.5:
            assert cast[int(verdict[OBSERVED])][0] >= 0.5 - 1e-12


@given(cast=votes)
def test_full_weights_leave_the_highest_score_as_it_is(cast: Votes) -> None:
    best, winner = strongest([(s, 1.0, judged) for s, _, judged in cast])
    scores = [s if judged else 0.0 for s, _, judged in cast]
    assert best[SCORE] == max(scores)
    assert winner == scores.index(max(scores))


@given(score=st.floats(0.01, 0.99), weight=st.floats(0.01, 1))
def test_a_weight_multiplies_the_ratio_to_the_boundary(score: float, weight: float) -> None:
    found = strongest([(score, weight, True)])[0][SCORE]
    assert found / (1 - found) == pytest.approx(weight * score / (1 - score))


@given(cast=votes, by=st.floats(0.01, 1))
def test_an_agreement_is_the_weighted_mean_of_those_that_judged(cast: Votes, by: float) -> None:
    heard = [(s, w) for s, w, judged in cast if judged and w > 0]
    mean = sum(s * w for s, w in heard) / sum(w for _, w in heard) if heard else 0.0
    assert agreed(cast)[SCORE] == pytest.approx(mean)
    assert agreed([(s, w * by, judged) for s, w, judged in cast if w * by > 0 or not w])[SCORE] == pytest.approx(
        mean, abs=1e-9
    )


PIECES = closings(table_of(steady(100, 12, incident, 1, "slow")), 100, range(1, 100))


def alerts(**detect: Any) -> list[Alert]:
    config = DetectConfig.model_validate({**QUICK.model_dump(), "outlier": {"min_factor": 1000.0}, **detect})
    return [a for a in watch_all(monitor(config), PIECES) if a.metric == "latency"]


def test_votes_in_the_flow() -> None:
    """Ten times the latency is a clear anomaly of the mean, for `mad` too, but no single request is an outlier."""
    pair = {"latency": ["zscore", "mad"]}
    alone = alerts(detectors={"latency": ["zscore"]})
    assert alerts(detectors=pair, votes={"latency": {"weights": {"mad": 0.01}}})[0].score == alone[0].score
    weak = alerts(detectors={"latency": ["zscore"]}, votes={"latency": {"weights": {"zscore": 0.5}}})
    assert weak[0].score < alone[0].score
    both = alerts(detectors=pair, votes={"latency": {"combine": "agreement"}})
    assert both[0].detectors == ("zscore", "mad")
    trio = {"latency": ["zscore", "request_outlier"]}
    outvoted = {"combine": "agreement", "weights": {"zscore": 0.01}}
    assert alerts(detectors=trio, votes={"latency": outvoted}) == []


def test_a_limit_is_not_outvoted() -> None:
    limit = {"metric": "latency", "above": 2000.0, "horizon_s": 10}
    outvoted = {"combine": "agreement", "weights": {"zscore": 0.01}}
    found = alerts(detectors={"latency": ["zscore", "request_outlier"]}, votes={"latency": outvoted}, limits=[limit])
    assert found[0].kind == "latency_limit"


@pytest.mark.parametrize(
    "wrong",
    [
        {"latncy": {"combine": "agreement"}},
        {"latency": {"weights": {"zscore": 0.0}}},
        {"latency": {"weights": {"zscore": 1.5}}},
    ],
)
def test_votes_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DetectConfig.model_validate({"votes": wrong})
