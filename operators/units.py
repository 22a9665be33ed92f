"""Values as people read them: `4.2 s`, `33.9 %`, `0.0021 USD`."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Final

from operators.metrics import ERROR_RATIO, MEASURES

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RATIOS: Final = (ERROR_RATIO, MEASURES[ERROR_RATIO].in_labels)


def digits(value: float, significant: int = 3) -> str:
    """The number with thousands separated and `significant` digits at most, never in exponent form below 1e15."""
    if not math.isfinite(value):
        return "?"
    rounded = float(f"{value:.{significant - 1}e}") if abs(value) < 10**significant else round(value)
    if abs(rounded) >= 1e15:
        return f"{rounded:.3g}"
    text = f"{rounded:,.12f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def duration(ms: float) -> str:
    """Milliseconds in the unit that suits them: `812 ms`, `4.2 s`, `3.1 min`, `2.5 h`."""
    for limit, size, unit in ((1e3, 1, "ms"), (120e3, 1e3, "s"), (7_200e3, 60e3, "min")):
        if abs(ms) < limit:
            return f"{digits(ms / size)} {unit}"
    return f"{digits(ms / 3_600e3)} h"


def readable(metric: str, unit: str, value: float | None) -> str:
    """A value of a metric with its unit; `?` where there is none."""
    if value is None or not math.isfinite(value):
        return "?"
    if metric in _RATIOS:
        return f"{digits(value * 100)} %"
    if unit == "ms":
        return duration(value)
    if unit.startswith("1/"):
        return digits(value) + unit[1:]
    return digits(value) if unit in ("", "1") else f"{digits(value)} {unit}"


def moment(us: int) -> str:
    """A time in microseconds as UTC text to the second: `2026-01-05 12:00:00`."""
    try:
        return f"{_EPOCH + timedelta(microseconds=us):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return "?"
