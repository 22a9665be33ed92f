"""Static limits: each kind against its meaning, from the first pane on, for the series that match."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.config import DetectConfig, EpisodesConfig, TimeConfig
from operators.detect.detectors.static_limits import applying
from operators.detect.engine.monitor import ShardMonitor
from operators.model import Alert
from tests.conftest import examples
from tests.watching import Request, closings, monitor, table, watch_all


def limited(*limits: dict[str, Any]) -> DetectConfig:
    return DetectConfig.model_validate({"horizons_s": (10, 60), "limits": limits})


def alerts_of(config: DetectConfig, panes: list[list[float]], name: str = "latency", errors: int = 0) -> list[Alert]:
    """The alerts on panes of requests with these values; the first `errors` requests of each pane failed."""
    requests = [
        Request(10 * p + 0.1 + 9 * i / len(values), {name: v}, i < errors)
        for p, values in enumerate(panes)
        for i, v in enumerate(values)
    ]
    return watch_all(monitor(config), closings(table(requests), len(panes)))


def firing(found: list[Alert]) -> list[str]:
    return [a.kind for a in found if a.status == "firing"]


@examples(40)
@given(
    values=st.lists(st.floats(100, 100_000), min_size=1, max_size=40),
    statistic=st.sampled_from(["p50", "p90", "p95", "p99", "max", "mean", "sum"]),
    side=st.sampled_from(["above", "below"]),
    factor=st.floats(0.2, 5),
)
def test_a_limit_is_broken_exactly_when_the_statistic_lies_beyond_it(
    values: list[float], statistic: str, side: str, factor: float
) -> None:
    if statistic == "max" and side == "below":
        return
    limit = factor * float(np.median(values))
    if any(abs(v / limit - 1) < 0.02 for v in values):
        return  # the statistic is within a bucket's width of the limit
    share = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}.get(statistic)
    if share is None:
        value = sum(values) / (len(values) if statistic == "mean" else 1)
        beyond = value > limit if side == "above" else value < limit
    elif side == "above":
        beyond = sum(v > limit for v in values) > (1 - share) * len(values) + 1e-9
    else:
        beyond = sum(v < limit for v in values) > share * len(values) + 1e-9
    config = limited({"metric": "latency", "statistic": statistic, side: limit, "horizon_s": 10})
    # The pane comes twice, because an episode needs two anomalous panes of three.
    assert (firing(alerts_of(config, [values, values])) == ["latency_limit"]) == beyond


def test_it_needs_no_warm_up_and_tells_the_limit() -> None:
    config = limited({"metric": "latency", "statistic": "p95", "above": 5000.0, "horizon_s": 60})
    (alert,) = alerts_of(config, [[1000.0] * 8 + [20_000.0] * 2])
    assert alert.status == "firing"
    assert alert.detectors == ("static_limits",)
    assert alert.expected == 5000
    assert 5000 < alert.observed < 100_000
    assert alert.text.startswith("Latency of service chat is ")
    assert "where 5 s is the limit, since" in alert.text


def test_the_share_of_errors_and_traffic_have_limits_too() -> None:
    config = limited({"metric": "error_ratio", "above": 0.2, "horizon_s": 10})
    assert firing(alerts_of(config, [[1.0] * 10] * 3, errors=3)) == ["error_ratio_limit"]
    assert firing(alerts_of(config, [[1.0] * 10] * 3, errors=2)) == []
    config = limited({"metric": "requests", "above": 100.0, "horizon_s": 10})
    assert firing(alerts_of(config, [[1.0] * 17] * 3)) == ["requests_limit"]
    assert firing(alerts_of(config, [[1.0] * 16] * 3)) == []


def test_silence_can_be_a_limit() -> None:
    config = limited({"metric": "requests", "below": 5.0, "horizon_s": 60})
    found = alerts_of(config, [[1.0] * 5] * 10 + [[]] * 12)
    assert firing(found) == ["requests_limit"]
    assert found[0].expected == pytest.approx(5.0)


def test_fewer_requests_than_asked_for_break_no_limit() -> None:
    few = {"metric": "latency", "statistic": "max", "above": 10.0, "horizon_s": 60, "min_count": 4}
    assert firing(alerts_of(limited(few), [[99.0]] * 3)) == []
    assert firing(alerts_of(limited(few), [[99.0]] * 4)) == ["latency_limit"]


def test_the_worse_broken_of_two_limits_is_told() -> None:
    mild = {"metric": "cost", "statistic": "sum", "above": 1.0, "horizon_s": 10}
    found = alerts_of(limited(mild, {**mild, "above": 0.5}), [[0.8, 0.8]] * 2, "cost")
    assert found[0].expected == pytest.approx(0.5)
    assert found[0].observed == pytest.approx(1.6)


def test_limits_are_for_the_series_that_match() -> None:
    config = limited({"metric": "latency", "above": 1.0}, {"metric": "latency", "above": 1.0, "series": "service=c*"})
    assert applying(config.limits, "service=chat").tolist() == [True, True]
    assert applying(config.limits, "tenant=chat").tolist() == [True, False]
    other = limited({"metric": "latency", "above": 1.0, "series": "service=other"})
    assert firing(alerts_of(other, [[99.0] * 5] * 5)) == []


def test_a_changed_limit_begins_anew_and_the_rest_goes_on() -> None:
    one = {"metric": "latency", "statistic": "sum", "above": 1000.0, "horizon_s": 60}
    two = {"metric": "cost", "statistic": "sum", "above": 1.0, "horizon_s": 60}
    requests = [Request(10.0 * p + 1, {"latency": 300.0, "cost": 0.3}) for p in range(5)]
    pieces = closings(table(requests), 5, [3])
    first = monitor(limited(one, two))
    watch_all(first, pieces[:1])
    args = (EpisodesConfig(), TimeConfig())
    swapped = ShardMonitor.load(first.save(), limited(two, one), *args)
    assert sorted(firing(watch_all(swapped, pieces[1:]))) == ["cost_limit", "latency_limit"]
    changed = ShardMonitor.load(first.save(), limited({**one, "above": 1001.0}, two), *args)
    assert firing(watch_all(changed, pieces[1:])) == ["cost_limit"]


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"metric": "latency"}, "either above or below"),
        ({"metric": "latency", "above": 1, "below": 1}, "either above or below"),
        ({"metric": "nonsense", "above": 1}, "no such metric"),
        ({"metric": "requests", "above": 1, "statistic": "p95"}, "has one value"),
        ({"metric": "latency", "below": 1, "statistic": "max"}, "max can only be above"),
        ({"metric": "latency", "above": 1, "horizon_s": 30}, r"none of detect\.horizons_s"),
        ({"metric": "cached_tokens", "above": 1}, "not watched"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limit: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        limited(limit)


def test_the_value_told_for_a_quantile_is_near_it() -> None:
    draw = np.random.default_rng(1)
    values = (1000 * np.exp(draw.normal(0, 0.5, 400))).tolist()
    config = limited({"metric": "latency", "statistic": "p95", "above": 1800.0, "horizon_s": 10})
    found = alerts_of(config, [values, values])
    assert found[0].observed == pytest.approx(float(np.quantile(values, 0.95)), rel=0.15)
    assert math.isfinite(found[0].score)


def test_limits_hold_for_all_requests_whatever_the_mix_or_the_speed_explains() -> None:
    """Detectors that judge against the usual leave out latencies of known speed, and tenants with few requests."""
    config = limited({"metric": "latency", "statistic": "mean", "above": 1000.0, "horizon_s": 10})
    for more in ({}, {"tokens_per_second": 50.0}):
        requests = [Request(10 * p + 1.0 + i, {"latency": 1500.0, **more}) for p in range(30) for i in range(4)]
        found = watch_all(monitor(config), closings(table(requests), 30))
        assert firing(found) == ["latency_limit"]
        assert all(a.observed == pytest.approx(1500.0, rel=1e-3) for a in found)
        assert found[0].since == found[0].at - 20_000_000  # from the first pane on
