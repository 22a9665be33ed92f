"""What of a faulty record may be shown: its shape and its numbers, and of text only short identifiers.

Prompts, completions and messages stand under many names, so a text is shown only in a known field, and only where it
looks like an identifier. Other texts, arrays and objects are replaced by their size (arrays and objects as a whole:
token ids are numbers, log probabilities have words for keys, and both are content).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec
import orjson
from msgspec import Raw

from operators.decode.record import TEXT_FIELDS

_IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._:/@+-]{0,128}")
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_TIME: Final = re.compile(r"[0-9TtZz:.,+ -]{0,64}")
_NUMBER_CHARS: Final = 32

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


def redact(fields: Mapping[str, Raw], most: int) -> str:
    """The JSON object with these fields as JSON text, without its content, cut to `most` bytes (all of them ASCII)."""
    parts: list[str] = []
    size = 0
    for name, raw in fields.items():
        known = _KEY.fullmatch(name) is not None
        key = name if known else f"[cut {len(name)} chars]"
        parts.append(f'"{key}":{_value(name, bytes(raw).strip())}')
        size += len(parts[-1]) + 1
        if size > most:
            break
    return ("{" + ",".join(parts) + "}")[:most]


def sketch(value: bytes, most: int) -> str:
    """The shape of a record that is no JSON object: its size, and its bytes by kind, runs as one character.

    `a` letters, `9` digits, `x` bytes outside ASCII, `?` everything else that is not JSON's punctuation.
    """
    shape = _REPEATS.sub(rb"\1\2", value[:_HEAD].translate(_CLASSES)).decode("ascii")
    return f"[{len(value)} bytes] {shape}"[:most]


def _value(name: str, text: bytes) -> str:
    """One JSON value, as JSON text that may be shown."""
    if text in (b"true", b"false", b"null"):
        return text.decode("ascii")
    match text[:1]:
        case b'"':
            plain = orjson.loads(text)
            shape = _TIME if name == "timestamp" else _IDENTIFIER
            if (name in TEXT_FIELDS or name == "timestamp") and shape.fullmatch(plain):
                return f'"{plain}"'
            return f'"[cut {len(plain)} chars]"'
        case b"{":
            return f'"[cut object of {len(msgspec.json.decode(text, type=dict[str, Raw]))}]"'
        case b"[":
            return f'"[cut array of {len(msgspec.json.decode(text, type=list[Raw]))}]"'
        case _:
            return text.decode("ascii") if len(text) <= _NUMBER_CHARS else f'"[cut {len(text)} digits]"'
