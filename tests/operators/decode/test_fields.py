from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operators.decode.base import Call, Reading
from operators.decode.fields import Gathered, elapsed_ms, once, source
from operators.decode.times import EARLIEST, LATEST, parse_time
from operators.model import SECOND

START = "2026-11-30T06:00:00Z"


@given(time=st.floats(EARLIEST / SECOND, LATEST / SECOND - 0.001), later=st.floats(0, 1_000))
@example(LATEST / SECOND - 0.5, 0.4)
def test_the_time_between_numbers_is_that_between_their_times(time: float, later: float) -> None:
    end = min(time + later, LATEST / SECOND - 0.001)
    assert elapsed_ms(time, end) == (parse_time(end) - parse_time(time)) / 1_000


@pytest.mark.parametrize(
    ("start", "end", "ms"),
    [
        (START, "2026-11-30T07:00:01+01:00", 1000.0),
        (1796018400, 1796018400500, 500.0),
        (1796018400.5, 1796018400.25, -250.0),
        (None, START, None),
        (START, None, None),
        (START, "soon", "no time"),
        (True, START, "no time"),
        (START, 1e308, "no time"),
        (START, [START], "no time"),
        (START, 5, "no time"),
    ],
)
def test_elapsed(start: object, end: object, ms: object) -> None:
    assert elapsed_ms(start, end) == ms


def test_the_first_place_that_tells_something_fills_a_field() -> None:
    call = Gathered(absent=("-",))
    record = {"a": None, "b": "-", "c": {"d": ["", "x"]}, "e": "y"}
    assert call.take("model", record, source("a", "b", "c.d[0]", "c.d[1]", "e"), "outer.") == "x"
    assert call.found == {"model": "outer.c.d[1]"}
    assert call.take("model", record, source("e")) == "x", "it is filled"
    assert call.take("provider", record, source("a", "nowhere")) is None
    assert call.take("tenant", record, source("c.d[1]", "e", read={"y": "Y"}.get)) == "Y"


def test_a_call_that_shares_any_key_is_told_once() -> None:
    one, two, both = (
        Call({}, keys=("span:1", "call:1")),
        Call({}, keys=("call:2",)),
        Call({}, keys=("call:2", "span:1")),
    )
    assert once([one, "no_call", two, both, "no_call", Call({}), Call({})]) == Reading(
        [one, two, Call({}), Call({})], repeats=1, passed_over={"no_call": 2}
    )
