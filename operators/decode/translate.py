"""Decoders of formats that are translated: each call of a record becomes a native record, and is decoded as one.

So all formats have the rules of the native one: the same limits, the same reasons, the same labels and the same values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

import numpy as np
import orjson

from operators.decode.base import Decoded, Fault, Format, Reading, Unreadable, add_counts
from operators.decode.config import DecodeConfig
from operators.decode.native import NativeDecoder
from operators.decode.redact import sketch
from operators.decode.seen import keys_of
from operators.model import Reason
from operators.text import encodable

MAX_CALLS: Final = 10_000
"""Most calls of one record."""

_NATIVE: Final = NativeDecoder()
_LARGEST: Final = 1 << 63


class TranslatingDecoder:
    """The decoder of a format whose records are translated; times are as the format says, whatever `timestamp_is`."""

    def __init__(self, translated: Format) -> None:
        self._format = translated

    def decode(
        self,
        values: Sequence[bytes],
        limits: DecodeConfig,
        timestamp_is: Literal["start", "end"] = "start",
    ) -> Decoded:
        """The events and faults of all calls in these records."""
        natives: list[bytes] = []
        keys: list[tuple[str, ...]] = []
        owner: list[int] = []
        place: list[int] = []
        faults: list[Fault] = []
        passed_over: dict[str, int] = {}
        unknown: dict[str, int] = {}
        repeats = 0
        for i, value in enumerate(values):
            try:
                reading = read(self._format, value, limits)
            except Unreadable as error:
                faults.append(Fault(i, error.reason, error.detail, sketch(value, limits.payload_bytes)))
                continue
            add_counts(passed_over, reading.passed_over)
            add_counts(unknown, reading.unknown)
            repeats += reading.repeats
            for k, call in enumerate(reading.calls):
                natives.append(native_json(call.fields))
                keys.append(call.keys)
                owner.append(i)
                place.append(k)
        decoded = _NATIVE.decode(natives, limits.model_copy(update={"dedupe_s": 0}))
        owners, places = np.array(owner, np.int64), np.array(place, np.int64)
        events = decoded.events
        told = [keys[i] for i in events.record.tolist()] if limits.dedupe_s else [()] * len(events)
        events.keys = keys_of(told)
        events.call = places[events.record]
        events.record = owners[events.record]
        faults += [replace(fault, record=owner[fault.record], call=place[fault.record]) for fault in decoded.faults]
        faults.sort(key=lambda fault: (fault.record, fault.call))
        return Decoded(events, faults, repeats, passed_over, unknown=unknown)


def read(translated: Format, value: bytes, limits: DecodeConfig) -> Reading:
    """The calls of one record within the limits; raises `Unreadable`."""
    if len(value) > limits.max_record_bytes:
        detail = f"the record has {len(value)} bytes; at most {limits.max_record_bytes} are accepted"
        raise Unreadable(Reason.RECORD_TOO_LARGE, detail)
    reading = translated.read(value, limits)
    if len(reading.calls) > MAX_CALLS:
        raise Unreadable(
            Reason.TOO_MANY_CALLS, f"tells of {len(reading.calls)} calls; at most {MAX_CALLS} are accepted"
        )
    return reading


def native_json(fields: Mapping[str, Any]) -> bytes:
    """The native record of a call."""
    return orjson.dumps({name: _writable(value, 4) for name, value in fields.items()})


def _writable(value: Any, depth: int) -> Any:
    """The value in terms of JSON: numbers beyond 64 bits as floats, and what JSON has no form for as an empty list."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, int):
        return value if -_LARGEST <= value < _LARGEST else float(max(-1e300, min(1e300, value)))
    if isinstance(value, float):
        return value if not math.isinf(value) else math.copysign(1e300, value)
    if isinstance(value, Mapping) and depth:
        return {encodable(str(name)): _writable(inner, depth - 1) for name, inner in value.items()}
    return []
