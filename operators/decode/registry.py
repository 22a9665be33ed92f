"""The formats that a topic can have. A new format needs a file, a line here, and a test."""

from __future__ import annotations

from typing import Final

from operators.decode.auto import AutoDecoder
from operators.decode.base import Decoder, Format, Recognizable
from operators.decode.earlier import EarlierFormat
from operators.decode.gateways import EnvoyFormat, KongFormat
from operators.decode.litellm import LiteLLMFormat
from operators.decode.mapped import MappedFormat
from operators.decode.mapping import MappingConfig
from operators.decode.native import NativeDecoder
from operators.decode.otlp.format import OTLP_PROTO, OtlpJsonFormat
from operators.decode.translate import TranslatingDecoder
from operators.errors import ConfigError

BINARY: Final = "otlp_proto"
MAPPED: Final = "mapped"
_RECOGNIZED: Final[dict[str, Recognizable]] = {
    "otlp_json": OtlpJsonFormat(),
    "litellm": LiteLLMFormat(),
    "kong": KongFormat(),
    "envoy": EnvoyFormat(),
    "earlier": EarlierFormat(),
}
"""Formats in JSON, in the order in which a record is held against them."""

FORMATS: Final[dict[str, Format]] = {BINARY: OTLP_PROTO, **_RECOGNIZED}
"""Formats that are translated to native records."""

_TRANSLATED: Final[dict[str, Decoder]] = {name: TranslatingDecoder(of) for name, of in FORMATS.items()}

NATIVE: Final = NativeDecoder()
AUTO: Final = AutoDecoder(_TRANSLATED, _RECOGNIZED, BINARY)

DECODERS: Final[dict[str, Decoder]] = {
    "native": NATIVE,
    **_TRANSLATED,
    "auto": AUTO,
}
"""The decoders that need no settings, by the names of their formats."""

NAMES: Final = (*sorted(DECODERS), MAPPED)
"""All formats; `mapped` needs a mapping."""


def decoder(name: str, mapping: MappingConfig | None = None) -> Decoder:
    """The decoder of this name; raises `ConfigError` for a name that is not registered.

    With a mapping, `auto` reads by it what has no other format.
    """
    if name == MAPPED and mapping is not None:
        return TranslatingDecoder(MappedFormat(mapping))
    if name == "auto" and mapping is not None:
        formats = {**_TRANSLATED, MAPPED: TranslatingDecoder(MappedFormat(mapping))}
        return AutoDecoder(formats, _RECOGNIZED, BINARY, MAPPED)
    if name not in DECODERS:
        raise ConfigError(f"unknown record format {name!r}: use one of {', '.join(sorted(DECODERS))}")
    return DECODERS[name]
