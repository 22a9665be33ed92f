"""OTLP in JSON, as the Collector, the SDKs and plain proto3 JSON write it.

Accepted beside the specification: names in snake case, ids in base64, 64-bit numbers as numbers, enums by name, and
null for any value. A field of a wrong type makes the record unreadable, since it is not OTLP then.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator
from typing import Any, Final

import orjson

from operators.decode.base import Unreadable
from operators.decode.otlp.signals import MAX_DEPTH, MAX_SPANS, Attributes, Event, LogRecord, Signals, Span
from operators.model import Reason

_KINDS: Final = {
    "SPAN_KIND_UNSPECIFIED": 0, "SPAN_KIND_INTERNAL": 1, "SPAN_KIND_SERVER": 2, "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4, "SPAN_KIND_CONSUMER": 5,
}  # fmt: skip
_STATUSES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_HEX: Final = re.compile(r"(?:[0-9A-Fa-f]{2})+")
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_UPPER: Final = re.compile(r"[A-Z]")


def parse(value: bytes, wanted: Collection[str]) -> Signals:
    """The content of a record, with the attributes that are wanted; raises `Unreadable`."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise Unreadable(Reason.NOT_JSON, f"{error.msg} (byte {error.pos})") from None
    if not isinstance(found, dict):
        raise Unreadable(Reason.NOT_AN_OBJECT, "must be a JSON object")
    return signals(found, wanted)


def looks_like(record: object) -> bool:
    """Whether a parsed JSON value is an OTLP record; the Collector writes an empty batch as {}."""
    return record == {} or (
        isinstance(record, dict)
        and any(_get(record, name) is not None for name in ("resourceSpans", "resourceLogs", "resourceMetrics"))
    )


def signals(record: dict[str, Any], wanted: Collection[str]) -> Signals:
    """The content of a parsed record; raises `Unreadable`."""
    found = Signals()
    known = False
    for name, scopes, items in (
        ("resourceSpans", "scopeSpans", "spans"),
        ("resourceLogs", "scopeLogs", "logRecords"),
        ("resourceMetrics", "scopeMetrics", "metrics"),
    ):
        if _get(record, name) is None:
            continue
        known = True
        for of_resource in _objects(record, name):
            resource = _attributes(_object(of_resource, "resource"), wanted)
            for of_scope in _scopes(of_resource, scopes, items):
                scope = _text(_object(of_scope, "scope") or _object(of_scope, "instrumentationLibrary"), "name")
                for item in _objects(of_scope, items):
                    _add(found, items, item, scope, resource, wanted)
    if not known and record:
        raise Unreadable(
            Reason.MISSING_FIELD, "resourceSpans, resourceLogs or resourceMetrics: is required, and absent"
        )
    return found


def _scopes(of_resource: dict[str, Any], scopes: str, items: str) -> Iterator[dict[str, Any]]:
    """The scopes of a resource; before OTLP 0.15 they were called instrumentation libraries."""
    yield from _objects(of_resource, scopes)
    yield from _objects(of_resource, {"spans": "instrumentationLibrarySpans"}.get(items, "instrumentationLibraryLogs"))


def _add(
    found: Signals, items: str, item: dict[str, Any], scope: str, resource: Attributes, wanted: Collection[str]
) -> None:
    if items == "metrics":
        found.metrics += 1
        return
    if len(found.spans) + len(found.logs) >= MAX_SPANS:
        raise Unreadable(Reason.TOO_MANY_CALLS, f"has more than {MAX_SPANS} spans or log records")
    attributes = _attributes(item, wanted)
    if items == "logRecords":
        found.logs.append(
            LogRecord(
                _id(item, "traceId"),
                _id(item, "spanId"),
                _text(item, "eventName") or str(attributes.get("event.name") or ""),
                scope,
                _number(item, "timeUnixNano") or _number(item, "observedTimeUnixNano"),
                attributes,
                resource,
            )
        )
        return
    status = _object(item, "status")
    found.spans.append(
        Span(
            _id(item, "traceId"),
            _id(item, "spanId"),
            _id(item, "parentSpanId"),
            _text(item, "name"),
            scope,
            _number(item, "kind", _KINDS),
            _number(item, "startTimeUnixNano"),
            _number(item, "endTimeUnixNano"),
            _number(status, "code", _STATUSES),
            _text(status, "message"),
            attributes,
            [
                Event(_text(event, "name"), _number(event, "timeUnixNano"), _attributes(event, wanted))
                for event in _objects(item, "events")
            ],
            resource,
        )
    )


def _get(record: dict[str, Any], name: str) -> Any:
    """The field of this name, in camel case or snake case."""
    found = record.get(name)
    return found if found is not None else record.get(_snake(name))


def _snake(name: str) -> str:
    return _SNAKE.get(name) or _SNAKE.setdefault(name, _UPPER.sub(lambda found: "_" + found[0].lower(), name))


_SNAKE: Final[dict[str, str]] = {}


def _objects(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = _get(record, name)
    if found is None:
        return []
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise _wrong(name, "an array of objects")
    return found


def _object(record: dict[str, Any], name: str) -> dict[str, Any]:
    found = _get(record, name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _wrong(name, "an object")
    return found


def _text(record: dict[str, Any], name: str) -> str:
    found = _get(record, name)
    if found is None:
        return ""
    if not isinstance(found, str):
        raise _wrong(name, "text")
    return found


def _number(record: dict[str, Any], name: str, names: dict[str, int] | None = None) -> int:
    found = _get(record, name)
    match found:
        case None | "":
            return 0
        case int() if not isinstance(found, bool):
            return found
        case float() if found.is_integer():
            return int(found)
        case str() if names is not None and found in names:
            return names[found]
        case str() if _WHOLE.fullmatch(found):
            return int(found)
    raise _wrong(name, "a whole number")


def _id(record: dict[str, Any], name: str) -> str:
    """An id as lower-case hexadecimal digits; ids of the wrong length are kept, since they still tell spans apart."""
    text = _text(record, name)
    size = 32 if name == "traceId" else 16
    if len(text) == size and _HEX.fullmatch(text):
        return text.lower()
    if not text:
        return ""
    try:
        return base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        raise _wrong(name, f"{size} hexadecimal digits, or base64") from None


def _wrong(name: str, kind: str) -> Unreadable:
    return Unreadable(Reason.WRONG_TYPE, f"{name}: must be {kind}")


def _attributes(record: dict[str, Any], wanted: Collection[str]) -> Attributes:
    found: Attributes = {}
    for pair in _objects(record, "attributes"):
        key = pair.get("key")
        if not isinstance(key, str):
            raise _wrong("attributes.key", "text")
        if key in wanted:
            found[key] = plain(pair.get("value"), MAX_DEPTH)
    return found


def plain(value: Any, depth: int) -> Any:
    """An attribute's value as a plain one; None if it is none, or lies too deep."""
    if not isinstance(value, dict) or not value or depth == 0:
        return None
    for name, inner in value.items():
        match name:
            case "stringValue" | "string_value" | "boolValue" | "bool_value" | "doubleValue" | "double_value":
                return inner if not isinstance(inner, (dict, list)) else None
            case "intValue" | "int_value" if not isinstance(inner, (dict, list)):
                return int(inner) if isinstance(inner, str) and _WHOLE.fullmatch(inner) else inner
            case "arrayValue" | "array_value":
                values = inner.get("values") if isinstance(inner, dict) else None
                return [plain(v, depth - 1) for v in values] if isinstance(values, list) else []
            case "kvlistValue" | "kvlist_value":
                pairs = inner.get("values") if isinstance(inner, dict) else None
                pairs = [p for p in pairs if isinstance(p, dict)] if isinstance(pairs, list) else []
                return {str(p.get("key")): plain(p.get("value"), depth - 1) for p in pairs}
    return None
