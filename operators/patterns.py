"""Patterns for names, and the choice among several that match.

`*` stands for any text, `?` for one character, `[ab]` for one of those; upper and lower case differ. If several
patterns match, the most specific one counts: the one with most characters that stand for themselves.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_WILD = re.compile(r"\[[^\]]+\]|[*?]")
_TOKEN = re.compile(r"\[[^\]]+\]|(?s:.)")


def matches(name: str, pattern: str) -> bool:
    """Whether the pattern matches the whole name."""
    return fnmatchcase(name, pattern)


def may_meet(one: str, other: str) -> bool:
    """Whether a name may match both patterns; a set of characters is taken for any character."""
    a, b = (_TOKEN.findall(p) for p in (one, other))
    below = [False] * (len(b) + 1)  # below[j]: whether b from j on may meet a from i + 1 on
    for i in range(len(a), -1, -1):
        here = [False] * (len(b) + 1)
        for j in range(len(b), -1, -1):
            if i == len(a) and j == len(b):
                here[j] = True
            elif i < len(a) and a[i] == "*":
                here[j] = below[j] or (j < len(b) and here[j + 1])
            elif j < len(b) and b[j] == "*":
                here[j] = here[j + 1] or (i < len(a) and below[j])
            elif i < len(a) and j < len(b):
                here[j] = below[j + 1] and (a[i] == b[j] or a[i][0] in "?[" or b[j][0] in "?[")
        below = here
    return below[0]


def literals(pattern: str) -> int:
    """The number of characters of the pattern that stand for themselves."""
    return len(_WILD.sub("", pattern))
