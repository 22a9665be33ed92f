"""Attributes read by the table of conventions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from operators.decode.config import DecodeConfig
from operators.decode.conventions import MORE, TABLE, Row, Unit, rows
from operators.decode.log_events import EVENT_MORE, EVENT_ROWS
from operators.decode.paths import Path, at, steps
from operators.decode.span_roles import ROLES
from operators.decode.values import inside, told
from operators.errors import ConfigError

ROWS: Final = (*TABLE, *EVENT_ROWS)
FIELDS: Final = frozenset(row.field for row in ROWS)
"""The fields that a row can tell."""
_UNITS: Final[dict[str, Unit]] = {"ttft_ms": "ms", "latency_ms": "ms"}
"""The units of rows of the settings."""
_USAGE: Final = re.compile(r"(?i)usage|tokens?(?![a-z])|cost(?![a-z])")
_NO_USAGE: Final = re.compile(
    r"(?i)request|max|min|limit|settings|per[_.]|audio|image|video|modality|accepted|rejected|prediction|_id\b|_details?$"
    r"|definitions|ephemeral|budget|spend|type$|input_cost|output_cost|cost\.(?!total)|_cost$|noCache"
    r"|textTokens|text_|\.text$|details\.((in|out)put|cached_content)_tokens|system_instruction|tool_use"
)
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


@lru_cache(maxsize=4_096)
def looks_like_usage(name: str) -> bool:
    """Whether the name of an attribute looks like that of a count of tokens or of a cost."""
    return bool(_NAME.fullmatch(name) and _USAGE.search(name) and not _NO_USAGE.search(name))


class Wanted(frozenset[str]):
    """The names of attributes that are kept: those of the table, and those that look like usage and are not in it."""

    __slots__ = ()

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and looks_like_usage(name))


class Found(NamedTuple):
    """A value and the row by which it was found; `beside` is the list or dict that it stood in, if any."""

    value: Any
    row: Row
    beside: Any


class Conventions:
    """The table, ready to be asked. Never changes."""

    def __init__(self, extra: Iterable[Row] = ()) -> None:
        self._by_attribute: dict[str, list[tuple[int, Row, Path]]] = {}
        for rank, row in enumerate((*extra, *ROWS)):
            path = steps(row.path) if row.path else ()
            self._by_attribute.setdefault(row.attribute, []).append((rank, row, path))
            if path:  # a map may also be sent as an attribute for each of its values
                self._by_attribute.setdefault(f"{row.attribute}.{row.path}", []).append((rank, row, ()))
        roles = (place for name in ROLES for place in (name.partition("#")[0], name.replace("#", ".")))
        self._known: Final = frozenset((*self._by_attribute, *roles, *MORE, *EVENT_MORE))
        self.wanted: Final = Wanted(self._known)

    def read(self, *groups: Mapping[str, Any]) -> dict[str, list[Found]]:
        """What these attributes tell, by field, each in the order of the table. Takes about 1 us an attribute."""
        ranked: dict[str, list[tuple[int, Found]]] = {}
        for group in groups:
            for name, value in group.items():
                rows_of = self._by_attribute.get(name)
                if rows_of is None or not told(value):
                    continue
                within = inside(value) if any(path for _, _, path in rows_of) else None
                for rank, row, path in rows_of:
                    found = at(within, path) if path else value
                    if told(found):
                        ranked.setdefault(row.field, []).append((rank, Found(found, row, within)))
        return {field: [f for _, f in sorted(found, key=lambda f: f[0])] for field, found in ranked.items()}

    def unknown(self, attributes: Mapping[str, Any]) -> list[str]:
        """The attributes that look like usage, tell something, and are in no row: a sign that a library has changed."""
        return [
            name
            for name, value in attributes.items()
            if name not in self._known and looks_like_usage(name) and told(value) and value != 0
        ]


def conventions(limits: DecodeConfig) -> Conventions:
    """The conventions, with the rows of the settings before all others; raises `ConfigError` for a wrong one."""
    if not limits.attributes:
        return _conventions(())
    return _conventions(tuple((field, *places) for field, places in limits.attributes.items()))


@lru_cache(maxsize=8)
def _conventions(extra: tuple[tuple[str, ...], ...]) -> Conventions:
    for field, *places in extra:
        key = f"decode.attributes.{field}"
        if field not in FIELDS:
            raise ConfigError(f"{key}: no attribute tells this field: use one of {', '.join(sorted(FIELDS))}")
        for place in places:
            attribute, marked, path = place.partition("#")
            try:
                if not attribute or (marked and not steps(path)):
                    raise ValueError("names no attribute")
            except ValueError as error:
                raise ConfigError(f"{key}: {place!r} {error}") from None
    return Conventions(row for field, *places in extra for row in rows(field, *places, unit=_UNITS.get(field, "")))
