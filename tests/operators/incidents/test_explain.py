"""The sentences of alerts."""

from __future__ import annotations

import math
from typing import Any

import pytest

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.incidents import explain
from operators.incidents.decompose import Told
from operators.metrics import MEASURES

SERIES = {"service": "chat-api", "model": "gpt-4o", "operation": ""}
SINCE = 1_741_065_500_000_000
ALL = DetectConfig.model_validate({"metrics": {name: {"watch": True} for name in DetectConfig().metrics}})


def sentence(cell: str, unit: str, **more: Any) -> str:
    given: dict[str, Any] = {
        "status": "firing", "observed": 6100.0, "expected": 1200.0, "bound": 1900.0, "span_s": 60, "requests": 34,
        "since": SINCE, "until": None, **more,
    }  # fmt: skip
    return explain.sentence(cell, unit, SERIES, **given)


def test_a_sentence_says_what_where_how_much_and_since_when() -> None:
    assert sentence("latency", "ms") == (
        "Latency of service chat-api, model gpt-4o is 6.1 s over the last 1 min (34 requests) where 1.2 s is usual "
        "(at most 1.9 s), since 2025-03-04 05:18:20 UTC."
    )


def test_a_fall_names_the_lower_bound() -> None:
    text = sentence("quality", "1", observed=0.41, expected=0.8, bound=0.71, span_s=1800, requests=1)
    assert "is 0.41 over the last 30 min (1 request) where 0.8 is usual (at least 0.71)" in text


def test_a_missing_bound_is_left_out() -> None:
    assert "usual, since" in sentence("latency", "ms", bound=None)


def test_errors_are_percent() -> None:
    text = sentence("error_ratio", "1", observed=0.407, expected=0.00525, bound=0.345)
    assert "Share of errors of service chat-api, model gpt-4o is 40.7 %" in text
    assert "0.525 % is usual (at most 34.5 %)" in text


def test_a_silence_says_for_how_long() -> None:
    text = sentence("requests", "1/min", observed=0.0, expected=24.0, bound=9.0, silent_s=7200)
    assert text == (
        "Service chat-api, model gpt-4o has sent nothing for 2 h where 24 requests/min is usual, "
        "since 2025-03-04 05:18:20 UTC."
    )


def test_a_resolved_alert_tells_the_worst_value() -> None:
    text = sentence("latency", "ms", status="resolved", until=SINCE + 90_000_000, reason="quiet")
    assert text == (
        "Latency of service chat-api, model gpt-4o is no longer abnormal: the episode began 2025-03-04 05:18:20 UTC "
        "and ended 2025-03-04 05:19:50 UTC, at worst 6.1 s where 1.2 s is usual."
    )


def test_an_expired_episode_is_not_called_normal() -> None:
    text = sentence("requests", "1/min", status="resolved", until=SINCE, reason="expired", silent_s=60)
    assert "is no longer watched, for nothing came any more" in text
    assert "no longer abnormal" not in text


def test_a_lasting_level_is_called_the_new_normal() -> None:
    text = sentence("latency", "ms", status="resolved", until=SINCE, reason="level_shift")
    assert "Latency of service chat-api, model gpt-4o is taken for the new normal, for it has lasted:" in text
    assert "no longer" not in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (340.2, "ms", "340 ms"), (1240, "ms", "1.24 s"), (0.0000244, "USD", "$0.0000244"), (12.5, "USD", "$12.50"),
        (1234.5, "USD", "$1,234.50"), (0, "USD", "$0"), (24.25, "1/min", "24.2 requests/min"),
        (36918, "tokens", "36,918 tokens"),
        (3.25, "tokens", "3.25 tokens"), (0.8125, "1", "0.812"), (31.4, "1/s", "31.4 1/s"),
    ],
)  # fmt: skip
def test_quantities_are_written_as_people_do(value: float, unit: str, text: str) -> None:
    assert explain.quantity(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(10, "10 s"), (60, "1 min"), (90, "90 s"), (1800, "30 min"), (3600, "1 h")]
)
def test_spans(seconds: float, text: str) -> None:
    assert explain.span_text(seconds) == text


def test_every_cell_has_a_kind_in_both_directions_a_name_and_a_unit() -> None:
    watch = Watch(ALL, 10)
    kinds = set()
    for i, cell in enumerate(watch.cells):
        kinds.add(explain.kind(cell, True, False))
        if cell != "error_ratio":
            kinds.add(explain.kind(cell, False, False))
        assert explain.unit(watch, i)
        assert sentence(cell, explain.unit(watch, i))
    assert kinds == {kind for m in MEASURES.values() for kind in (m.kind_up, m.kind_down) if kind}
    assert len(kinds) == 2 * len(MEASURES) - 1  # few errors are no anomaly


def test_a_drop_to_nothing_is_a_silence_of_traffic_alone() -> None:
    assert explain.kind("requests", False, True) == "silence"
    assert explain.kind("requests", True, True) == "traffic_surge"
    assert explain.kind("latency", False, True) == "latency_drop"


def test_verdicts_become_units() -> None:
    watch = Watch(ALL, 10)
    of = {cell: i for i, cell in enumerate(watch.cells)}
    assert explain.in_unit(watch, of["latency"], math.log(1234.5678 + 1.0)) == 1234.57
    assert explain.in_unit(watch, of["completion_tokens"], math.log(5.0)) == 0.0
    assert explain.in_unit(watch, of["latency"], 1e9) == float(f"{math.exp(700) - 1:.6g}")
    assert explain.in_unit(watch, of["quality"], 0.8) == 0.8
    assert explain.in_unit(watch, of["requests"], 2.5) == 15.0
    assert explain.in_unit(watch, of["error_ratio"], 0.25) == 0.25
    assert [explain.unit(watch, of[c]) for c in ("cost", "requests", "error_ratio")] == ["USD", "1/min", "1"]


def test_the_cause_is_the_first_contributor_and_the_main_factor() -> None:
    acme: Told = {"dimension": "tenant", "value": "acme", "share": 0.923, "usual_share": 0.004}
    kind: Told = {"dimension": "error_type", "value": "timeout", "share": 1.0}
    price: Told = {"factor": "price", "usual": 1.0, "observed": 3.0, "times": 3.0}
    mix: Told = {"factor": "mix", "usual": 2.0, "observed": 1.0, "times": 0.5, "dimension": "model"}
    assert explain.cause((), (), up=True) == ""
    assert explain.cause((acme, kind), (mix, price), up=True) == (
        "; 92 % of the difference comes from tenant acme (usually less than 1 % of the requests)"
        "; the price or time of a token makes it 3 times the usual"
    )
    assert explain.cause((kind,), (mix, price), up=False) == (
        "; 100 % of the difference comes from error type timeout; another mix by model makes it 0.5 times the usual"
    )
    assert sentence("latency", "ms", cause="; so it is").endswith("since 2025-03-04 05:18:20 UTC; so it is.")
