"""The formats that a topic can have. A new format needs a file, a line here, and a test."""

from __future__ import annotations

from typing import Final

from operators.decode.base import Decoder
from operators.decode.native import NativeDecoder
from operators.errors import ConfigError

DECODERS: Final[dict[str, Decoder]] = {
    "native": NativeDecoder(),
}


def decoder(name: str) -> Decoder:
    """The decoder of this name; raises `ConfigError` for a name that is not registered."""
    if name not in DECODERS:
        raise ConfigError(f"unknown record format {name!r}: use one of {', '.join(sorted(DECODERS))}")
    return DECODERS[name]
