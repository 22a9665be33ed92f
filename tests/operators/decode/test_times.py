from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operators.decode.times import EARLIEST, LATEST, BadTime, format_time, parse_time, parse_times
from tests.conftest import examples

MIDNIGHT = 1_740_960_000_000_000  # 2025-03-03T00:00:00Z
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "us"),
    [
        ("2025-03-03T00:00:00Z", MIDNIGHT),
        ("2025-03-03t00:00:00z", MIDNIGHT),
        ("2025-03-03 00:00:00Z", MIDNIGHT),
        ("2025-03-03T00:00:00.002Z", MIDNIGHT + 2_000),
        ("2025-03-03T00:00:00.5Z", MIDNIGHT + 500_000),
        ("2025-03-03T00:00:00.000001Z", MIDNIGHT + 1),
        ("2025-03-03T00:00:00.0000019Z", MIDNIGHT + 1),
        ("2025-03-03T00:00:00.000001999999999999999999Z", MIDNIGHT + 1),
        ("2025-03-03T01:30:00+01:30", MIDNIGHT),
        ("2025-03-02T16:00:00-08:00", MIDNIGHT),
        ("2025-03-03T00:00:00-00:00", MIDNIGHT),
        ("2025-03-03T00:00:00.002000+00:00", MIDNIGHT + 2_000),
        ("2025-03-02T23:59:60Z", MIDNIGHT),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
        ("2000-01-01T00:00:00Z", EARLIEST),
        ("1999-12-31T23:00:00-01:00", EARLIEST),
        ("2099-12-31T23:59:59.999999Z", LATEST - 1),
        ("2100-01-01T00:59:59.999999+01:00", LATEST - 1),
        (1_740_960_000, MIDNIGHT),
        (1_740_960_000_000, MIDNIGHT),
        (1_740_960_000_000_000, MIDNIGHT),
        (1_740_960_000_000_000_999, MIDNIGHT),
        (1_740_960_000.25, MIDNIGHT + 250_000),
        (1_740_960_000_000.5, MIDNIGHT + 500),
        ("1740960000", MIDNIGHT),
        ("1740960000.0000019", MIDNIGHT + 1),
        ("1740960000000", MIDNIGHT),
        ("1740960000000.5", MIDNIGHT + 500),
        ("1740960000000001", MIDNIGHT + 1),
        ("1740960000000001999", MIDNIGHT + 1),
    ],
)
def test_good(value: str | float, us: int) -> None:
    assert parse_time(value) == us
    assert parse_times([value])[0].tolist() == [us]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("2025-03-03T00:00:00", "no UTC offset"),
        ("2025-03-03 00:00:00.000", "no UTC offset"),
        ("2025-02-29T00:00:00Z", "no such date"),
        ("2025-13-01T00:00:00Z", "no such date"),
        ("2025-00-01T00:00:00Z", "no such date"),
        ("2025-03-00T00:00:00Z", "no such date"),
        ("2025-03-03T24:00:00Z", "no such time of day"),
        ("2025-03-03T00:60:00Z", "no such time of day"),
        ("2025-03-03T00:00:61Z", "no such time of day"),
        ("2025-03-03T00:00:00+24:00", "UTC offset"),
        ("2025-03-03T00:00:00+00:60", "UTC offset"),
        ("2025-03-03T00:00:00.Z", "neither"),
        ("2025-03-03T00:00Z", "neither"),
        ("2025-03-03T00:00:00+0100", "neither"),
        ("2025-03-03T00:00:00.002Z ", "neither"),
        ("2025-03-03T00:00:00.002Z\n", "neither"),
        ("٢٠٢٥-03-03T00:00:00Z", "neither"),
        ("\ud8005-03-03T00:00:00.0Z", "neither"),
        ("yesterday", "neither"),
        ("-1740960000", "neither"),
        ("1e9", "neither"),
        ("", "neither"),
        ("1999-12-31T23:59:59.999Z", "outside"),
        ("2100-01-01T00:00:00Z", "outside"),
        ("0001-01-01T00:00:00+00:00", "outside"),
        ("9999-12-31T23:59:59-23:59", "outside"),
        (0, "no epoch time"),
        (-1_740_960_000, "no epoch time"),
        (10**30, "no epoch time"),
        (4_102_444_800, "no epoch time"),
        (4_102_444_799.9999999, "no epoch time"),
        (float("inf"), "no epoch time"),
        (float("nan"), "no epoch time"),
        ("2025", "no epoch time"),
        ("20250303", "no epoch time"),
        ("9" * 5_000, "no epoch time"),
    ],
)
def test_bad(value: str | float, why: str) -> None:
    with pytest.raises(BadTime, match=why) as caught:
        parse_time(value)
    us, ok = parse_times([value])
    assert (us.tolist(), ok.tolist()) == ([0], [False])
    assert isinstance(value, float | int) or not value or value not in str(caught.value)


def test_columns_of_other_types_are_not_read() -> None:
    us, ok = parse_times([True, 1_740_960_000])
    assert (us.tolist(), ok.tolist()) == ([0, MIDNIGHT], [False, True])
    assert len(parse_times([])[0]) == 0


def test_format() -> None:
    assert format_time(MIDNIGHT + 2_000) == "2025-03-03T00:00:00.002Z"
    assert format_time(MIDNIGHT) == "2025-03-03T00:00:00.000Z"
    assert format_time(MIDNIGHT + 2_001) == "2025-03-03T00:00:00.002001Z"


times = st.integers(EARLIEST, LATEST - 1)
offsets = st.integers(-23 * 60 - 59, 23 * 60 + 59)


@given(times)
def test_a_written_time_is_read_back(us: int) -> None:
    assert parse_time(format_time(us)) == us


@given(times, offsets, st.integers(0, 12), st.sampled_from("Tt "))
@example(EARLIEST, -23 * 60 - 59, 3, "T")
@example(LATEST - 1, 23 * 60 + 59, 6, "T")
def test_any_offset_and_precision(us: int, offset: int, digits: int, separator: str) -> None:
    at = (EPOCH + timedelta(microseconds=us)).astimezone(timezone(timedelta(minutes=offset)))
    fraction = f"{us % 1_000_000:06d}789012"[:digits]
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    text = at.strftime(f"%Y-%m-%d{separator}%H:%M:%S") + (f".{fraction}" if fraction else "")
    text += f"{sign}{minutes // 60:02d}:{minutes % 60:02d}"
    kept = int(fraction[:6].ljust(6, "0"))
    assert parse_time(text) == us - us % 1_000_000 + kept
    assert parse_times([text, text])[0].tolist() == [parse_time(text)] * 2


def mutated(text: str, place: int, char: str) -> str:
    place %= len(text)
    return text[:place] + char + text[place + 1 :]


near = st.builds(
    mutated,
    st.builds(
        lambda us, digits, zone: format_time(us)[:19] + (f".{us % 10**digits:0{digits}d}" if digits else "") + zone,
        times,
        st.integers(0, 9),
        st.sampled_from(["Z", "z", "+00:00", "-05:30"]),
    ),
    st.integers(0, 40),
    st.sampled_from([*"0123456789-:TtZz +.", "é", "٣", "\x00"]),
)
numbers = st.one_of(
    times,
    times.map(lambda us: us // 1_000),
    times.map(lambda us: us // 1_000_000),
    times.map(lambda us: us * 1_000 + 7),
    times.map(lambda us: us / 1_000_000),
    times.map(lambda us: us / 1_000),
    st.integers(),
    st.floats(),
)


@given(st.lists(st.one_of(near, near, times.map(format_time), numbers, st.text()), max_size=12))
@examples(300)
def test_a_column_is_read_as_its_values_are(values: list[str | float]) -> None:
    us, ok = parse_times(values)
    assert us.dtype == np.int64
    for value, found, good in zip(values, us.tolist(), ok.tolist(), strict=True):
        try:
            expected: int | None = parse_time(value)
        except BadTime:
            expected = None
        assert (found if good else None) == expected
