"""Patterns for names: which of several that match is meant.

`*` stands for any text, `?` for one character, `[ab]` for one of those; upper and lower case differ. Of several
patterns the most specific one is meant: the one with most characters that stand for themselves.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_WILD = re.compile(r"\[[^\]]+\]|[*?]")


def matches(name: str, pattern: str) -> bool:
    """Whether the pattern stands for the whole name."""
    return fnmatchcase(name, pattern)


def literals(pattern: str) -> int:
    """How many of the pattern's characters stand for themselves."""
    return len(_WILD.sub("", pattern))
