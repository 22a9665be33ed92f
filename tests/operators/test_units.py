"""Values in readable form."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.units import digits, duration, moment, readable


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-0.0, "0"), (0.00293, "0.00293"), (7.6121, "7.61"), (999.6, "1,000"), (28319.7, "28,320"),
     (-1.5, "-1.5"),     (1e-9, "0.000000001"), (4e15, "4e+15"), (math.nan, "?"), (math.inf, "?")],
)  # fmt: skip
def test_digits(value: float, text: str) -> None:
    assert digits(value) == text


@given(st.floats(-1e14, 1e14))
def test_digits_are_close_to_the_value(value: float) -> None:
    shown = float(digits(value).replace(",", ""))
    assert math.isclose(shown, value, rel_tol=0.006, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (812, "812 ms"), (4_200, "4.2 s"), (119_000, "119 s"), (186_000, "3.1 min"), (9_000_000, "2.5 h")],
)
def test_duration(ms: float, text: str) -> None:
    assert duration(ms) == text


@pytest.mark.parametrize(
    ("metric", "unit", "value", "text"),
    [
        ("latency", "ms", 28_319.7, "28.3 s"),
        ("error_ratio", "1", 0.339, "33.9 %"),
        ("cost", "USD", 0.00293, "0.00293 USD"),
        ("quality", "1", 0.5907, "0.591"),
        ("requests", "1/min", 60.1, "60.1/min"),
        ("prompt_tokens", "tokens", 6401.6, "6,402 tokens"),
        ("latency", "ms", None, "?"),
        ("latency", "ms", math.nan, "?"),
    ],
)
def test_readable(metric: str, unit: str, value: float | None, text: str) -> None:
    assert readable(metric, unit, value) == text


def test_moment() -> None:
    assert moment(1_767_614_400_999_999) == "2026-01-05 12:00:00"
    assert moment(1 << 62) == "?"
