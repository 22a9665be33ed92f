"""Times as text and numbers, to and from integer microseconds since 1970-01-01T00:00:00Z.

Accepted: RFC 3339 (any offset; `T`, `t` or a space between date and time; any number of fraction digits, of which those
beyond microseconds are cut off), and epoch numbers or their decimal text in seconds, milliseconds, microseconds or
nanoseconds (text is cut too; a float is rounded, since it is not exact). The magnitude tells the unit: times are
accepted from 2000-01-01 until before 2100-01-01, and for those years the four ranges do not touch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from operators.kernels.times import read_rfc3339
from operators.model import SECOND, Bools, Ints

EARLIEST: Final = 946_684_800 * SECOND
"""2000-01-01T00:00:00Z, the first accepted time."""

LATEST: Final = 4_102_444_800 * SECOND
"""2100-01-01T00:00:00Z, the first time that is no longer accepted."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))?",
    re.ASCII,
)
_DECIMAL: Final = re.compile(r"(\d+)(?:\.(\d+))?", re.ASCII)
_UNITS: Final = (
    ("s", 1_000_000, 1),
    ("ms", 1_000, 1),
    ("us", 1, 1),
    ("ns", 1, 1_000),
)  # name, times, divided by


class BadTime(ValueError):
    """A value that is no accepted time; the message names the fault without quoting the value."""


def parse_time(value: str | float) -> int:
    """The time in microseconds; raises `BadTime`."""
    if isinstance(value, str):
        us = _parse_text(value)
    else:
        exact, ok = _epochs(_numbers([value]))
        us = int(exact[0]) if ok[0] else None
    if us is None:
        raise BadTime("no epoch time of the years 2000 to 2099, whether read as seconds, milli-, micro- or nanoseconds")
    if not EARLIEST <= us < LATEST:
        raise BadTime("outside the years 2000 to 2099")
    return us


def parse_times(values: Sequence[str | float]) -> tuple[Ints, Bools]:
    """A column of times in microseconds, and whether each is good (if not, the time is 0).

    Equal to `parse_time` of each. RFC 3339 and numbers are read by whole columns, about 0.1 us each; decimal text and
    leap seconds one by one, some 3 us each.
    """
    us = np.zeros(len(values), np.int64)
    ok = np.zeros(len(values), np.bool_)
    kinds = set(map(type, values))
    for kind in (int, float, str):
        if kind not in kinds:
            continue
        places = np.arange(len(values)) if len(kinds) == 1 else np.flatnonzero([type(v) is kind for v in values])
        column: list[Any] = list(values) if len(kinds) == 1 else [values[i] for i in places.tolist()]
        us[places], ok[places] = _texts(column) if kind is str else _epochs(_numbers(column))
    return us, ok


def format_time(us: int) -> str:
    """RFC 3339 in UTC, to milliseconds, or to microseconds if the time has any."""
    at = _EPOCH + timedelta(microseconds=us)
    return at.replace(tzinfo=None).isoformat(timespec="milliseconds" if us % 1_000 == 0 else "microseconds") + "Z"


def _parse_text(text: str) -> int | None:
    """The time in microseconds; None for a decimal number of no unit; raises `BadTime` for other text."""
    if number := _DECIMAL.fullmatch(text):
        return _parse_decimal(number[1], number[2] or "")
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise BadTime("neither RFC 3339, as in 2025-03-03T00:00:00.002Z, nor an epoch number")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, zulu, sign, offset_hour, offset_minute = match.groups()[6:]
    if zulu is None and sign is None:
        raise BadTime("no UTC offset: end it with Z, or an offset such as +01:00")
    try:
        days = date(year, month, day).toordinal() - _EPOCH.toordinal()
    except ValueError:
        raise BadTime("no such date") from None
    # Second 60 is a leap second: read as the first instant of the next minute.
    offset = 0 if zulu else int(sign + "1") * (int(offset_hour) * 60 + int(offset_minute))
    if hour > 23 or minute > 59 or second > 60 or (not zulu and (int(offset_hour) > 23 or int(offset_minute) > 59)):
        raise BadTime("no such time of day or UTC offset")
    return ((days * 24 + hour) * 60 + minute - offset) * 60 * SECOND + second * SECOND + _micros(fraction or "")


def _parse_decimal(whole: str, fraction: str) -> int | None:
    """The exact time in microseconds of an epoch number in decimal digits; None if no unit fits."""
    if len(whole) > 19:
        return None
    for _, times, divisor in _UNITS:
        digits = len(str(times)) - 1
        us = (int(whole) * times + int(fraction[:digits].ljust(digits, "0") or "0")) // divisor
        if EARLIEST <= us < LATEST:
            return us
    return None


def _micros(fraction: str) -> int:
    return int(fraction[:6].ljust(6, "0"))


def _numbers(column: list[int] | list[float]) -> NDArray[Any]:
    """The column as int64 or float64, with 0 for integers that do not fit: they are no time in any unit."""
    if type(column[0]) is float:
        return np.array(column, np.float64)
    try:
        return np.array(column, np.int64)
    except OverflowError:
        return np.array([v if abs(v) < 1 << 63 else 0 for v in column], np.int64)


def _epochs(numbers: NDArray[Any]) -> tuple[Ints, Bools]:
    """Epoch numbers in microseconds, floats rounded to the nearest, and whether each is accepted in some unit."""
    us = np.zeros(len(numbers), np.int64)
    ok = np.zeros(len(numbers), np.bool_)
    for _, times, divisor in _UNITS:
        low, high = EARLIEST * divisor // times, LATEST * divisor // times
        fits = (numbers >= low) & (numbers < high)
        if fits.any():
            exact = numbers[fits]
            scaled = np.rint(exact * times).astype(np.int64) if exact.dtype == np.float64 else exact * times
            us[fits] = scaled // divisor
            ok |= fits
    ok &= us < LATEST  # a float just below the end may round up to it
    us[~ok] = 0
    return us, ok


def _texts(column: Sequence[str]) -> tuple[Ints, Bools]:
    joined = "".join(column).encode("utf-8", "replace")
    ends = np.cumsum(np.fromiter(map(len, column), np.int64, len(column)))
    if len(joined) > ends[-1]:  # not ASCII: more bytes than characters
        return _texts([text if text.isascii() else "" for text in column])
    us, ok = read_rfc3339(np.frombuffer(joined, np.uint8), ends)
    ok &= (us >= EARLIEST) & (us < LATEST)
    us[~ok] = 0
    # A text that is not read there may still be good (a decimal number, a leap second): the general parser decides.
    for i in np.flatnonzero(~ok).tolist():
        try:
            us[i], ok[i] = parse_time(column[i]), True
        except BadTime:
            continue
    return us, ok
