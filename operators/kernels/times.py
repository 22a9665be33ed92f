"""Loop that reads times as text: RFC 3339 with an offset, in microseconds since 1970."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.model import Bools, Ints

Bytes = NDArray[np.uint8]

_PLUS, _DASH, _COLON = ord("+"), ord("-"), ord(":")


@compiled
def _number(chars: Bytes, at: int, digits: int) -> int:
    """The decimal number of this many digits, -1 if a character is no digit."""
    number = 0
    for i in range(at, at + digits):
        digit = int(chars[i]) - ord("0")
        if digit < 0 or digit > 9:
            return -1
        number = number * 10 + digit
    return number


@compiled
def read_rfc3339(chars: Bytes, ends: Ints) -> tuple[Ints, Bools]:
    """The times of texts that stand one after another, text i up to `ends[i]`; and whether each was read (else 0).

    Years 1900 to 2199; fraction digits beyond the sixth are cut off. A leap second is not read. Days since 1970 are
    counted in years that begin in March, so that a leap day is the last of its year.
    """
    us = np.zeros(len(ends), np.int64)
    ok = np.zeros(len(ends), np.bool_)
    first = 0
    for t in range(len(ends)):
        at, last = first, ends[t]
        first = last
        if last - at < 20:
            continue
        zulu = (chars[last - 1] | 0x20) == ord("z")
        body = last - (1 if zulu else 6)  # where the offset begins
        if body - at < 19 or body - at == 20:
            continue
        if chars[at + 4] != _DASH or chars[at + 7] != _DASH or chars[at + 13] != _COLON or chars[at + 16] != _COLON:
            continue
        if (chars[at + 10] | 0x20) != ord("t") and chars[at + 10] != ord(" "):
            continue
        year, month, day = _number(chars, at, 4), _number(chars, at + 5, 2), _number(chars, at + 8, 2)
        hour, minute, second = _number(chars, at + 11, 2), _number(chars, at + 14, 2), _number(chars, at + 17, 2)
        if not (1900 <= year < 2200 and 1 <= month <= 12 and day >= 1 and 0 <= hour < 24):
            continue
        if not (0 <= minute < 60 and 0 <= second < 60):
            continue
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        longest = 30 if month in {4, 6, 9, 11} else 31
        if month == 2:
            longest = 29 if leap else 28
        if day > longest:
            continue
        micros = 0
        if body - at > 19:
            if chars[at + 19] != ord("."):
                continue
            digits = min(body - at - 20, 6)
            micros = _number(chars, at + 20, digits)
            good = micros >= 0
            for i in range(at + 26, body):
                good &= _number(chars, i, 1) >= 0
            if not good:
                continue
            micros *= 10 ** (6 - digits)
        offset = 0
        if not zulu:
            hours, minutes = _number(chars, body + 1, 2), _number(chars, body + 4, 2)
            signed = chars[body] == _PLUS or chars[body] == _DASH
            if not (signed and chars[body + 3] == _COLON and 0 <= hours < 24 and 0 <= minutes < 60):
                continue
            offset = (hours * 60 + minutes) * (1 if chars[body] == _PLUS else -1)
        if month <= 2:
            year -= 1
            month += 12
        days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * (month - 3) + 2) // 5 + day - 719_469
        us[t] = (((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1_000_000 + micros
        ok[t] = True
    return us, ok
