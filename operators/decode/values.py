"""Values out of attributes and records of other formats, freed from the forms that libraries give them."""

from __future__ import annotations

import ast
import math
import re
import warnings
from typing import Any, Final

import orjson

_LONGEST: Final = 262_144  # characters of text that is parsed for a value inside it
_LONGEST_REPR: Final = 16_384
_DEEPEST: Final = 100
"""Deepest nesting in a text: deeper values could not be compared or written within the stack that is left."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
_NOTHING: Final = frozenset({"", "none", "null", "undefined", "nan", "n/a"})


def told(value: Any) -> bool:
    """Whether a value tells anything: None, NaN, empty text and empty lists do not, nor do their names."""
    if isinstance(value, float):
        return not math.isnan(value)
    if isinstance(value, str):
        return len(value) > 9 or value.strip().lower() not in _NOTHING
    return value is not None and value not in ([], {})


def inside(value: Any) -> Any:
    """The list or dict in a text of JSON, or in the repr of one in Python; None if there is none.

    A repr must hold what JSON has a form for, too.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] not in ("{", "[") or len(text) > _LONGEST:
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        found = _from_repr(text)
    return found if text.count("[") + text.count("{") <= _DEEPEST or _shallow(found) else None


def _from_repr(text: str) -> Any:
    if len(text) > _LONGEST_REPR:
        return None
    try:
        with warnings.catch_warnings(action="ignore"):  # about escapes in somebody else's text
            found = ast.literal_eval(text)
        return orjson.loads(orjson.dumps(found, option=orjson.OPT_NON_STR_KEYS))
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return None


def _shallow(value: Any) -> bool:
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return not level


def text(value: Any) -> Any:
    """The text in JSON quotes, or the first one of a list, which may be JSON text itself; else the value."""
    if isinstance(value, str):
        if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
            try:
                return orjson.loads(value)
            except orjson.JSONDecodeError:
                return value
        if value[:1] == "[":
            value = inside(value) or value
    if isinstance(value, list):
        return next((item for item in value if told(item)), None)
    return value


def number(value: Any) -> Any:
    """The number that a text is in full; else the value."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        plain = value.strip()
        return int(plain) if plain.lstrip("+-").isdecimal() else float(plain)
    return value


def flag(value: Any) -> bool | None:
    """A truth value, also as text; None for anything else."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    if isinstance(value, (bool, int)):
        return bool(value)
    return None


def is_number(value: Any) -> bool:
    """Whether the value is a number and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
