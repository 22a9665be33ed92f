"""Times as text and numbers, to and from integer microseconds since 1970-01-01T00:00:00Z.

Accepted: RFC 3339 (any offset; `T`, `t` or a space between date and time; any number of fraction digits, of which those
beyond microseconds are cut off), and epoch numbers or their decimal text in seconds, milliseconds, microseconds or
nanoseconds (text is cut too; a float is rounded, since it is not exact). Which unit is told by magnitude: times are
accepted from 2000-01-01 until before 2100-01-01, and for those years the four ranges do not touch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from operators.model import SECOND, Bools, Ints

EARLIEST: Final = 946_684_800 * SECOND
"""2000-01-01T00:00:00Z, the first accepted time."""

LATEST: Final = 4_102_444_800 * SECOND
"""2100-01-01T00:00:00Z, the first time that is no longer accepted."""

_DAY: Final = 86_400
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

# Local dates reach one day beyond the accepted range on either side, hence a year more at both ends.
_FIRST_YEAR: Final = 1999
_MONTH_START: Final = (
    np.arange(f"{_FIRST_YEAR}-01", "2101-02", dtype="datetime64[M]").astype("datetime64[D]").astype(np.int64)
)


class BadTime(ValueError):
    """A value that is no accepted time; the message says what is wrong, without quoting the value."""


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
    """A column of times in microseconds, and which of them are good (0 where not).

    Equal to `parse_time` of each. Text of fixed width (`2025-03-03T00:00:00.002Z`, or with an offset) and numbers are
    read by whole columns, about 0.1 us each; every other shape one by one, some 3 us each.
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
    """RFC 3339 in UTC: milliseconds, or microseconds where the time has any."""
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
    """The time in microseconds of an epoch number in decimal digits, exactly; None where no unit fits."""
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
    """Epoch numbers in microseconds, floats rounded to the nearest; and which are an accepted time in some unit."""
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


def _texts(column: list[str]) -> tuple[Ints, Bools]:
    us = np.zeros(len(column), np.int64)
    ok = np.zeros(len(column), np.bool_)
    widths = sorted(set(map(len, column)))
    for width in widths:
        if not 20 <= width <= 35:
            continue
        alone = len(widths) == 1
        texts = column if alone else [text for text in column if len(text) == width]
        joined = "".join(texts).encode("utf-8", "replace")
        if len(joined) > len(texts) * width:  # not ASCII: more bytes than characters
            continue
        read = _fixed_width(np.frombuffer(joined, np.uint8).reshape(len(texts), width))
        if alone:
            us, ok = read
        else:
            places = np.flatnonzero([len(text) == width for text in column])
            us[places], ok[places] = read
    for i in np.flatnonzero(~ok).tolist():
        try:
            us[i], ok[i] = parse_time(column[i]), True
        except BadTime:
            continue
    return us, ok


def _fixed_width(rows: NDArray[np.uint8]) -> tuple[Ints, Bools]:
    """RFC 3339 texts of one width, as [n, width] bytes: the times, and which were read.

    A text that is not read here may still be good (a leap second): the general parser has the last word.
    """
    width = rows.shape[1]
    chars = np.ascontiguousarray(rows.T)
    us = np.zeros(len(rows), np.int64)
    ok = np.zeros(len(rows), np.bool_)
    zulu = (chars[-1] | 0x20) == ord("z")
    for is_zulu, body in ((True, width - 1), (False, width - 6)):
        mine = zulu == is_zulu
        if body >= 19 and body != 20 and mine.any():
            everything = bool(mine.all())
            part = chars if everything else chars[:, mine]
            us[mine], ok[mine] = _columns(part, body, is_zulu)
    return us, ok


def _columns(chars: NDArray[np.uint8], body: int, zulu: bool) -> tuple[Ints, Bools]:
    """As `_fixed_width`, for [width, n] characters of which `body` stand before the offset."""
    digits = chars.astype(np.int32) - ord("0")

    def two(i: int) -> NDArray[np.int32]:
        number: NDArray[np.int32] = digits[i] * 10 + digits[i + 1]
        return number

    numeric = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, *range(20, body)]
    signs = [(4, "-"), (7, "-"), (13, ":"), (16, ":")] + ([(19, ".")] if body > 19 else [])
    if not zulu:
        numeric += [body + 1, body + 2, body + 4, body + 5]
        signs += [(body + 3, ":")]
    ok = (digits[numeric].view(np.uint32) <= 9).all(axis=0)
    for i, sign in signs:
        ok &= chars[i] == ord(sign)
    ok &= ((chars[10] | 0x20) == ord("t")) | (chars[10] == ord(" "))

    month, day, hour, minute, second = two(5), two(8), two(11), two(14), two(17)
    months = (two(0) * 100 + two(2) - _FIRST_YEAR) * 12 + month - 1
    ok &= (months >= 0) & (months < len(_MONTH_START) - 1) & (month >= 1) & (month <= 12)
    months = np.where(ok, months, 0)
    first = _MONTH_START[months]
    ok &= (day >= 1) & (day <= _MONTH_START[months + 1] - first) & (hour < 24) & (minute < 60) & (second < 60)
    seconds = (first + day - 1) * _DAY + (hour * 60 + minute) * 60 + second
    if not zulu:
        offset_hour, offset_minute = two(body + 1), two(body + 4)
        ok &= ((chars[body] == ord("+")) | (chars[body] == ord("-"))) & (offset_hour < 24) & (offset_minute < 60)
        seconds += np.where(chars[body] == ord("-"), 1, -1) * (offset_hour * 60 + offset_minute) * 60
    micros = np.zeros(chars.shape[1], np.int64)
    for i in range(20, min(body, 26)):
        micros += digits[i] * 10 ** (25 - i)
    us = seconds * SECOND + micros
    ok &= (us >= EARLIEST) & (us < LATEST)
    us[~ok] = 0
    return us, ok
