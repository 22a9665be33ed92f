"""Somebody's own JSON, read by a mapping (`operators.decode.mapping`)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Final

from operators.decode.base import Call, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.fields import Gathered, at_most, elapsed_ms, items, once, parsed, text
from operators.decode.mapping import UNITS, MappingConfig, Way
from operators.decode.paths import at, steps, whence
from operators.decode.values import flag, number
from operators.model import Reason

_NUMBERS: Final = frozenset({*UNITS, "quality_score"})


class MappedFormat:
    """The format that a mapping describes: an object a record or a call, or an array of them."""

    def __init__(self, mapping: MappingConfig) -> None:
        self._each = None if mapping.each is None else steps(mapping.each)
        self._ways = [_Way(name, way) for name, way in mapping.ways()]
        self._where = mapping.each

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        elements = [(record, element) for record in items(parsed(value)) for element in self._elements(record)]
        at_most(len(elements))
        return once(self._call(record, element) for record, element in elements)

    def _elements(self, record: object) -> list[Any]:
        if self._each is None:
            return [record]
        found = at(record, self._each)
        if not isinstance(found, list):
            raise Unreadable(Reason.MISSING_FIELD, f"each: the record has no array at {self._where}")
        return found

    def _call(self, record: object, element: object) -> Call:
        call = Gathered()
        end = Gathered()
        for way in self._ways:
            way.fill(end if way.name == "end" else call, record, element)
        if "latency_ms" not in call.fields and "end" in end.fields:
            call.put("latency_ms", elapsed_ms(call.fields.get("timestamp"), end.fields["end"]), end.found["end"])
        return call.call(*_keys(call))


class _Way:
    """A way to a field, its path and its factor made ready."""

    __slots__ = ("_constant", "_factor", "_from_record", "_map", "_path", "_place", "name")

    def __init__(self, name: str, way: Way) -> None:
        self.name = name
        self._from_record, self._path = whence(way.path) if way.path is not None else (False, ())
        self._place = way.path if way.path is not None else "a constant"
        self._constant = way.constant
        self._factor = Decimal(UNITS[name][way.unit]) if way.unit is not None else None
        self._map = way.map

    def fill(self, call: Gathered, record: object, element: object) -> None:
        """Fill the field if it is still open and the value is there."""
        if self.name not in call.fields:
            value = at(record if self._from_record else element, self._path) if self._path else self._constant
            call.put(self.name, value, self._place, self._read)

    def _read(self, value: Any) -> Any:
        if self._map is not None and not isinstance(value, dict | list):
            value = self._map.get(_plain(value), self._map.get("*", value))
        if self.name == "streamed":
            return value if flag(value) is None else flag(value)
        if self.name not in _NUMBERS:
            return value
        value = number(value)
        return value if self._factor is None else _scaled(value, self._factor)


def _plain(value: Any) -> str:
    """The value as a mapping names it."""
    return str(value).lower() if isinstance(value, bool) else text(value)


def _scaled(value: Any, factor: Decimal) -> Any:
    """The number times the factor, exact in decimals: 1.005 thousand tokens are 1005. Other values as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    exact = Decimal(str(value)) * factor
    return int(exact) if abs(exact) < 1 << 63 and exact == exact.to_integral_value() else float(exact)


def _keys(call: Gathered) -> Iterator[str]:
    trace, span, event = (text(call.fields.get(name)) for name in ("trace_id", "span_id", "event_id"))
    if trace and span:
        yield f"span:{trace}/{span}"
    if event:
        yield f"call:{event}"
