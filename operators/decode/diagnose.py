"""The slow path: the fault of one record, or the event that it holds after all.

The first cause is reported, in this order: record_too_large, not_utf8, not_json (too deep, then malformed),
not_an_object; then, for each field in the order of `Fields`, missing_field, wrong_type, string_too_long, bad_number or
bad_time; and too_many_attributes last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, cast

import msgspec
import numpy as np
import orjson
from msgspec import Raw
from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from operators.decode.base import Fault
from operators.decode.config import DecodeConfig
from operators.decode.privacy import rules
from operators.decode.record import METRIC_FIELDS, MeasuredRecord, Record
from operators.decode.redact import redact, sketch
from operators.decode.times import BadTime, parse_time
from operators.model import TEXT_FIELDS, Reason

MAX_DEPTH: Final = 500
"""Deepest accepted nesting. Parsers have limits of their own, which depend on the stack they are called from; this one
is the same everywhere."""

_REASONS: Final = {
    "missing": Reason.MISSING_FIELD,
    "string_too_long": Reason.STRING_TOO_LONG,
    "greater_than_equal": Reason.BAD_NUMBER,
    "less_than_equal": Reason.BAD_NUMBER,
    "finite_number": Reason.BAD_NUMBER,
    "whole_number": Reason.BAD_NUMBER,
    "bad_time": Reason.BAD_TIME,
}
"""The reason of each kind of validation error; every other kind is a wrong type."""

_TOLD_AS_TEXT: Final = re.compile(rb"-?\d+|true|false")
"""Integers and booleans of JSON, which text fields take as they are written."""
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_FIELDS: Final = msgspec.json.Decoder(dict[str, Raw])


def _short_enough(text: str, info: ValidationInfo) -> str:
    most: int = cast(dict[str, int], info.context)["max_string"]
    if len(text) > most:
        raise PydanticCustomError(
            "string_too_long",
            "has {length} characters; at most {most} are accepted",
            {"length": len(text), "most": most},
        )
    return text


def _whole(number: float) -> float:
    if not number.is_integer():
        raise PydanticCustomError("whole_number", "must be a whole number")
    return number


def _time(value: str | float, info: ValidationInfo) -> str | float:
    if isinstance(value, str):
        _short_enough(value, info)
    try:
        parse_time(value)
    except BadTime as error:
        raise PydanticCustomError("bad_time", "{why}", {"why": str(error)}) from None
    return value


_Text = Annotated[str, AfterValidator(_short_enough)]


def _taken(name: str) -> Any:
    """The type that a field accepts, apart from null, and its default."""
    match name:
        case "timestamp":
            return Annotated[str | int | float, AfterValidator(_time)], ...
        case "service":
            return _Text, ...
        case "attributes":
            return dict[str, None] | None, None
        case "streamed":
            return bool | None, None
    if name not in METRIC_FIELDS:
        return _Text | None, None
    metric = METRIC_FIELDS[name]
    number = Annotated[float, Field(ge=0, le=metric.limit, allow_inf_nan=False)]
    return (Annotated[number, AfterValidator(_whole)] if metric.whole else number) | None, None


_REQUIRED: Final = ("timestamp", "service")
Fields: Final = create_model(
    "Fields",
    __config__=ConfigDict(strict=True, extra="forbid"),
    **{name: _taken(name) for name in dict.fromkeys((*_REQUIRED, *MeasuredRecord.__struct_fields__))},
)
"""The known fields of a record, nulls left out. Its order is the order of causes."""


def unreadable(value: bytes, limits: DecodeConfig) -> tuple[str, str] | None:
    """The reason and detail for which a record is not even parsed; None if it may be parsed."""
    if len(value) > limits.max_record_bytes:
        return (
            Reason.RECORD_TOO_LARGE,
            f"the record has {len(value)} bytes; at most {limits.max_record_bytes} are accepted",
        )
    if not value.isascii():
        try:
            value.decode("utf-8")
        except UnicodeDecodeError as error:
            return Reason.NOT_UTF8, f"byte {error.start} is not UTF-8"
    if _too_deep(value):
        return Reason.NOT_JSON, f"nested deeper than {MAX_DEPTH} levels"
    return None


def explain(record: int, value: bytes, limits: DecodeConfig) -> Record | Fault:
    """The event of a record that the fast path did not take, or its fault. Takes about 20 us."""
    most = limits.payload_bytes
    cause = unreadable(value, limits)
    if cause is not None:
        return Fault(record, *cause, sketch(value, most))
    try:
        fields = _FIELDS.decode(value)
        outcome = _event(fields, limits)
        return _fault(record, outcome, fields, limits) if isinstance(outcome, tuple) else outcome
    except msgspec.DecodeError:
        return Fault(record, *_no_object(value), sketch(value, most))
    except RecursionError:  # only where the caller's own stack is nearly used up
        return Fault(record, Reason.NOT_JSON, "nested too deeply for the stack that is left", sketch(value, most))


def _fault(record: int, cause: tuple[str, str], fields: Mapping[str, Raw], limits: DecodeConfig) -> Fault:
    return Fault(record, *cause, redact(fields, limits.payload_bytes, rules(limits.privacy)))


def _event(fields: Mapping[str, Raw], limits: DecodeConfig) -> Record | tuple[str, str]:
    """The event of an object with these fields, or the reason and detail of its fault."""
    known, attributes = _known(fields)
    try:
        good = Fields.model_validate(known, context={"max_string": limits.max_string})
    except ValidationError as error:
        return _describe(error.errors(include_url=False, include_context=False)[0])
    if attributes > limits.max_attributes:
        detail = f"attributes: has {attributes} entries; at most {limits.max_attributes} are accepted"
        return Reason.TOO_MANY_ATTRIBUTES, detail
    return MeasuredRecord(**good.model_dump(exclude={"attributes"}, exclude_none=True))


def _too_deep(value: bytes) -> bool:
    if value.count(b"{") + value.count(b"[") <= MAX_DEPTH:
        return False
    chars = np.frombuffer(_STRING.sub(b"", value), np.uint8) | 0x20  # [ becomes {, and ] becomes }
    depth = np.cumsum((chars == ord("{")).astype(np.int64) - (chars == ord("}")))
    return bool(depth.max(initial=0) > MAX_DEPTH)


def _no_object(value: bytes) -> tuple[str, str]:
    """The reason and detail of a record that is no JSON object."""
    if not value.strip():
        return Reason.NOT_JSON, "the record is empty"
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        return Reason.NOT_JSON, f"{error.msg} (byte {error.pos})"
    return Reason.NOT_AN_OBJECT, f"must be a JSON object, is {_type(found)}"


def _known(raw: Mapping[str, Raw]) -> tuple[dict[str, Any], int]:
    """The values of the known fields that are present, and the number of attributes (counted, but not built)."""
    fields: dict[str, Any] = {}
    attributes = 0
    for name in Fields.model_fields:
        if name not in raw:
            continue
        text = bytes(raw[name]).strip()
        if name == "attributes" and text[:1] == b"{":
            attributes = len(_FIELDS.decode(text))
            continue
        as_text = name in TEXT_FIELDS and _TOLD_AS_TEXT.fullmatch(text)
        value = text.decode("ascii") if as_text else _load(text)
        if value is not None and not (value == "" and name in _REQUIRED):
            fields[name] = value
    return fields, attributes


def _load(text: bytes) -> Any:
    """The value of a JSON text. Objects and arrays are returned empty: only their type matters."""
    if text[:1] == b"{":
        return {}
    if text[:1] == b"[":
        return []
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # a number beyond floats: the parser has found all other errors before
        return float("-inf" if text[:1] == b"-" else "inf")


def _describe(error: ErrorDetails) -> tuple[str, str]:
    """Reason and detail of a validation error. It shows the type of the value, or a number, but never a text."""
    name, value, kind = str(error["loc"][0]), error["input"], error["type"]
    reason = _REASONS.get(kind, Reason.WRONG_TYPE)
    match reason:
        case Reason.MISSING_FIELD:
            return reason, f"{name}: is required, and absent, null or empty"
        case Reason.WRONG_TYPE:
            return reason, f"{name}: must be {_expected(name)}, is {_type(value)}"
        case Reason.BAD_NUMBER:
            whole = " whole" if kind == "whole_number" else ""
            return (
                reason,
                f"{name}: must be a{whole} number from 0 to {METRIC_FIELDS[name].limit:.0f}, is {value:.6g}",
            )
        case _:
            return reason, f"{name}: {error['msg']}"


def _expected(name: str) -> str:
    kinds = {"timestamp": "RFC 3339 text or an epoch number", "attributes": "an object", "streamed": "a boolean"}
    return kinds.get(
        name,
        "text" if name in TEXT_FIELDS else "a number",
    )


def _type(value: object) -> str:
    names = {
        dict: "an object",
        list: "an array",
        str: "text",
        bool: "a boolean",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "null")
