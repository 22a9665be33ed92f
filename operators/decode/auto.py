"""The format of each record found out by itself: native records first, then those that have names of one format alone.

A record that is native (it has a timestamp and a service) stays so. Of any other record the first bytes and the names
of its fields decide. What no format knows keeps the fault that it has as a native record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

import numpy as np
import orjson

from operators.decode.base import Decoded, Decoder, Fault, Recognizable, add_counts
from operators.decode.config import DecodeConfig
from operators.decode.diagnose import unreadable
from operators.decode.native import NativeDecoder
from operators.model import Events, Reason

_NATIVE: Final = NativeDecoder()
_DOUBTS: Final = frozenset(
    {Reason.NOT_UTF8, Reason.NOT_JSON, Reason.NOT_AN_OBJECT, Reason.MISSING_FIELD, Reason.WRONG_TYPE}
)
"""The faults that a record of another format has as a native one."""


class AutoDecoder:
    """The decoder of records of any of these formats.

    `binary` reads what is no JSON, and begins with 0x0A; `otherwise`, if any, the JSON that no format knows.
    """

    def __init__(
        self,
        decoders: Mapping[str, Decoder],
        formats: Mapping[str, Recognizable],
        binary: str,
        otherwise: str | None = None,
    ) -> None:
        self._decoders = decoders
        self._formats = formats
        self._binary = binary
        self._otherwise = otherwise

    def decode(
        self,
        values: Sequence[bytes],
        limits: DecodeConfig,
        timestamp_is: Literal["start", "end"] = "start",
    ) -> Decoded:
        """The events and faults of these records, each read in its own format; `Decoded.formats` counts these."""
        native = _NATIVE.decode(values, limits, timestamp_is)
        others: dict[str, list[int]] = {}
        for fault in native.faults:
            name = self.found(values[fault.record], limits) if fault.reason in _DOUBTS else None
            if name is not None:
                others.setdefault(name, []).append(fault.record)
        recognized = {i for records in others.values() for i in records}
        native.faults = [fault for fault in native.faults if fault.record not in recognized]
        parts = [native]
        for name, records in sorted(others.items()):
            part = self._decoders[name].decode([values[i] for i in records], limits)
            places = np.array(records, np.int64)
            part.events.record = places[part.events.record]
            part.faults = [replace(fault, record=records[fault.record]) for fault in part.faults]
            parts.append(part)
        decoded = joined(parts) if others else native
        decoded.formats = {name: len(records) for name, records in others.items()}
        plain = len(values) - len(recognized) - len(native.faults)
        decoded.formats |= {"native": plain} if plain else {}
        return decoded

    def found(self, value: bytes, limits: DecodeConfig) -> str | None:
        """The format of a record that is not native; None if no format knows it."""
        if value.lstrip()[:1] not in (b"{", b"["):
            return self._binary if value[:1] == b"\n" and len(value) <= limits.max_record_bytes else None
        if unreadable(value, limits) is not None:
            return None
        try:
            record = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
        return next((name for name, known in self._formats.items() if known.looks_like(record)), self._otherwise)


def joined(parts: Sequence[Decoded]) -> Decoded:
    """The parts as one, in the order of the records."""
    codes: dict[tuple[str, ...], int] = {}
    combo = [
        np.array([codes.setdefault(of, len(codes)) for of in part.events.combos], np.int32)[part.events.combo]
        for part in parts
    ]
    events = [part.events for part in parts]
    most = max(of.keys.shape[1] for of in events)
    keys = [np.pad(of.keys, ((0, 0), (0, most - of.keys.shape[1]), (0, 0))) for of in events]
    record, call = np.concatenate([of.record for of in events]), np.concatenate([of.call for of in events])
    order = np.lexsort((call, record))
    event_id = [text for of in events for text in of.event_id]
    trace_id = [text for of in events for text in of.trace_id]
    caller = [text for of in events for text in (of.caller or [""] * len(of))]
    together = Events(
        record=record[order],
        start=np.concatenate([of.start for of in events])[order],
        end=np.concatenate([of.end for of in events])[order],
        values=np.concatenate([of.values for of in events], axis=1)[:, order],
        error=np.concatenate([of.error for of in events])[order],
        combo=np.concatenate(combo)[order],
        combos=list(codes),
        event_id=[event_id[i] for i in order.tolist()],
        trace_id=[trace_id[i] for i in order.tolist()],
        keys=np.concatenate(keys)[order],
        call=call[order],
        caller=[caller[i] for i in order.tolist()] if any(caller) else [],
    )
    passed_over: dict[str, int] = {}
    unknown: dict[str, int] = {}
    for part in parts:
        add_counts(passed_over, part.passed_over)
        add_counts(unknown, part.unknown)
    faults: list[Fault] = sorted(
        (fault for part in parts for fault in part.faults), key=lambda fault: (fault.record, fault.call)
    )
    return Decoded(together, faults, sum(part.repeats for part in parts), passed_over, unknown=unknown)
