"""The rules of privacy: text that is dropped or hashed as soon as a record is read, before anything else sees it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

from operators.decode.config import PrivacyConfig, Rule
from operators.decode.record import Record

_KNOWN: Final = 8_192
_KEY_BYTES: Final = 64


def rules(config: PrivacyConfig) -> dict[str, Rule]:
    """What becomes of each field that is not handed on as it is: the end user and the API key never are."""
    usual: Rule = "drop" if config.hash_key is None else "hash"
    return {"user": usual, "key": usual, **{str(name): rule for name, rule in config.rules.items()}}


def enforce(config: PrivacyConfig, records: Iterable[Record]) -> None:
    """Apply the rules to the records, in place; absent text stays absent."""
    key = _key(config)
    for name, rule in rules(config).items():
        for record in records:
            if text := getattr(record, name):
                setattr(record, name, hashed(text, key) if rule == "hash" else None)


def make_private(config: PrivacyConfig, fields: dict[str, Any]) -> None:
    """Apply the rules to the fields of one event, in place."""
    key = _key(config)
    for name, rule in rules(config).items():
        if name in fields and rule == "hash":
            fields[name] = hashed(str(fields[name]), key)
        else:
            fields.pop(name, None)


def _key(config: PrivacyConfig) -> bytes:
    return b"" if config.hash_key is None else config.hash_key.get_secret_value().encode("utf-8", "surrogatepass")


@lru_cache(_KNOWN)
def hashed(text: str, key: bytes) -> str:
    """The keyed hash of a text: 16 hexadecimal digits, the same for the same text and key."""
    fitting = key if len(key) <= _KEY_BYTES else blake2b(key).digest()
    return blake2b(text.encode("utf-8", "surrogatepass"), key=fitting, digest_size=8).hexdigest()
