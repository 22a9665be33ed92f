"""The formats that a topic can have. A new format needs a file, a line here, and a test."""

from __future__ import annotations

from typing import Final

from operators.decode.auto import AutoDecoder
from operators.decode.base import Decoder, Format, Recognizable
from operators.decode.native import NativeDecoder
from operators.decode.otlp.format import OTLP_JSON, OTLP_PROTO
from operators.decode.translate import TranslatingDecoder
from operators.errors import ConfigError

FORMATS: Final[dict[str, Format]] = {
    "otlp_proto": OTLP_PROTO,
    "otlp_json": OTLP_JSON,
}
"""Formats that are translated to native records."""

_TRANSLATED: Final[dict[str, Decoder]] = {name: TranslatingDecoder(of) for name, of in FORMATS.items()}
_RECOGNIZED: Final[dict[str, Recognizable]] = {
    "otlp_json": OTLP_JSON,
}

NATIVE: Final = NativeDecoder()
AUTO: Final = AutoDecoder(_TRANSLATED, _RECOGNIZED, "otlp_proto")

DECODERS: Final[dict[str, Decoder]] = {"native": NATIVE, **_TRANSLATED, "auto": AUTO}


def decoder(name: str) -> Decoder:
    """The decoder of this name; raises `ConfigError` for a name that is not registered."""
    if name not in DECODERS:
        raise ConfigError(f"unknown record format {name!r}: use one of {', '.join(sorted(DECODERS))}")
    return DECODERS[name]
