"""The parts of a faulty record that may be shown: known fields that cannot hold content, and the size of all else.

Prompts, completions and messages stand under any name and in any type: token ids are numbers, log probabilities have
words for keys. So no value is shown for its look alone. The time, the metrics, and the names and ids of `SHOWN_TEXTS`
are shown, each only in its own field and in its own form. A known field of another type or form is shown by its type
and size. Other fields are counted, and their names are not shown.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Final

import msgspec
import orjson
from msgspec import Raw

from operators.decode.record import METRIC_FIELDS, MeasuredRecord
from operators.decode.times import BadTime, parse_time

_NAME: Final = re.compile(r"[A-Za-z0-9._:/+-]{1,64}(@[0-9]{1,8})?")
_ID: Final = re.compile(r"[0-9A-Fa-f-]{1,64}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?\s?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII)
SHOWN_TEXTS: Final = {
    "timestamp": _TIME,
    "service": _NAME,
    "model": _NAME,
    "provider": _NAME,
    "operation": _NAME,
    "region": _NAME,
    "event_id": _ID,
    "trace_id": _ID,
    "span_id": _ID,
}
"""The text fields that are shown, each only in this form. Senders also fill status, error_type and finish_reason with
messages, and tenant with persons: these are left out."""

_PRIVATE: Final = '"[private]"'
_HEAD: Final = 65_536  # bytes of a record that a sketch looks at
_REPEATS: Final = re.compile(rb"([a9 x?])\1+|([\[\]{},:\"\\])\2{3,}")


def _character_class(byte: int) -> int:
    char = chr(byte)
    if byte >= 128:
        return ord("x")
    if char.isalpha():
        return ord("a")
    if char.isdigit():
        return ord("9")
    if char.isspace():
        return ord(" ")
    return byte if char in '{}[]":,\\' else ord("?")


_CLASSES: Final = bytes(map(_character_class, range(256)))


def redact(fields: Mapping[str, Raw], most: int, private: Container[str] = ()) -> str:
    """The JSON object with these fields as JSON text, without its content, cut to `most` bytes (all of them ASCII).

    Of `private` fields not even type and size are shown.
    """
    parts = [
        f'"{name}":{_PRIVATE if name in private else _value(name, bytes(fields[name]).strip())}'
        for name in MeasuredRecord.__struct_fields__
        if name in fields
    ]
    others = len(fields) - len(parts)
    if others:
        parts.append(f'"[other fields]":{others}')
    return ("{" + ",".join(parts) + "}")[:most]


def sketch(value: bytes, most: int) -> str:
    """The shape of a record that is no JSON object: its size, and its bytes by kind, runs as one character.

    `a` letters, `9` digits, `x` bytes outside ASCII, `?` everything else that is not JSON's punctuation.
    """
    shape = _REPEATS.sub(rb"\1\2", value[:_HEAD].translate(_CLASSES)).decode("ascii")
    return f"[{len(value)} bytes] {shape}"[:most]


def _value(name: str, text: bytes) -> str:
    """The value of a known field, as JSON text that may be shown."""
    if text in (b"true", b"false", b"null"):
        return text.decode("ascii")
    match text[:1]:
        case b'"':
            plain = orjson.loads(text)
            shape = SHOWN_TEXTS.get(name)
            return f'"{plain}"' if shape and shape.fullmatch(plain) else f'"[cut {len(plain)} chars]"'
        case b"{":
            return f'"[cut object of {len(msgspec.json.decode(text, type=dict[str, Raw]))}]"'
        case b"[":
            return f'"[cut array of {len(msgspec.json.decode(text, type=list[Raw]))}]"'
        case _:
            return _number(name, text) or f'"[cut number of {len(text)} chars]"'


def _number(name: str, text: bytes) -> str:
    """A metric or a time in full if it is valid, else rounded; empty for other fields."""
    try:
        number = orjson.loads(text)
    except orjson.JSONDecodeError:  # beyond floats
        return ""
    if name == "timestamp":
        try:
            parse_time(number)
        except BadTime:
            return f"{number:.6g}"
        return f"{number}"
    if name not in METRIC_FIELDS:
        return ""
    return f"{number:.9g}" if 0 <= number <= METRIC_FIELDS[name].limit else f"{number:.6g}"
