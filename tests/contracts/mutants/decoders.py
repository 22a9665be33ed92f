"""Decoders with one bug each, made from the decoder of native JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress, pairwise
from typing import Any, Final

import numpy as np
import orjson

from operators.decode.base import Decoded, Decoder
from operators.decode.config import DecodeConfig
from operators.decode.native import NativeDecoder
from operators.metrics import METRIC_INDEX
from operators.model import LABELS, Bools, Events, Reason

Change = Callable[[Decoded, Sequence[bytes]], Decoded]
_PLAIN: Final = NativeDecoder()
_LATENCY: Final = METRIC_INDEX["latency"]


class _Mutant:
    """A correct decoder with changed records, changed limits, another meaning of the timestamp, or a changed result."""

    def __init__(
        self,
        after: Change | None = None,
        before: Callable[[bytes], bytes] | None = None,
        limits: dict[str, int] | None = None,
        meant: Any = None,
    ) -> None:
        self._after, self._before, self._limits, self._meant = after, before, limits, meant

    def decode(self, values: Sequence[bytes], limits: DecodeConfig, timestamp_is: Any = "start") -> Decoded:
        read = [self._before(value) for value in values] if self._before else values
        limits = limits.model_copy(update=self._limits or {})
        decoded = _PLAIN.decode(read, limits, self._meant or timestamp_is)
        return self._after(decoded, values) if self._after else decoded


def _events(change: Callable[[Events], dict[str, Any]]) -> _Mutant:
    """A decoder with changed columns of events; without events it changes nothing."""

    def after(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
        events = decoded.events
        return replace(decoded, events=replace(events, **change(events))) if len(events) else decoded

    return _Mutant(after)


def _fault(**change: Callable[[Any, bytes], object]) -> _Mutant:
    """A decoder with changed fields of faults, each made from the fault and its record."""

    def after(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
        faults = [
            replace(f, **{name: make(f, values[f.record]) for name, make in change.items()})  # type: ignore[arg-type]
            for f in decoded.faults
        ]
        return replace(decoded, faults=faults)

    return _Mutant(after)


def _picked(events: Events, at: Any) -> Events:
    """The events at these places, with only the labels that they use."""
    places = np.arange(len(events))[at].tolist()
    used, combo = np.unique(events.combo[places], return_inverse=True)
    return Events(
        events.record[places], events.start[places], events.end[places], events.values[:, places],
        events.error[places], combo.astype(np.int32), [events.combos[i] for i in used.tolist()],
        [events.event_id[i] for i in places], [events.trace_id[i] for i in places],
        [events.caller[i] for i in places] if events.caller else [],
    )  # fmt: skip


def _raise_on_garbage(value: bytes) -> bytes:
    orjson.loads(value)
    return value


def _without_malformed(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
    return replace(decoded, faults=[f for f in decoded.faults if f.reason != Reason.NOT_JSON])


def _last_twice(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
    n = len(decoded.events)
    return replace(decoded, events=_picked(decoded.events, [*range(n), n - 1])) if n else decoded


def _spoiled_by_one(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
    """The records after a bad one in a batch are refused too."""
    if not decoded.faults:
        return decoded
    first = decoded.faults[0]
    rest = [replace(first, record=i) for i in range(first.record, len(values))]
    return Decoded(_picked(decoded.events, decoded.events.record < first.record), rest)


def _tenant_of_the_one_before(events: Events) -> dict[str, Any]:
    place = LABELS.index("tenant")
    labels = [list(events.combos[i]) for i in events.combo.tolist()]
    for before, one in pairwise(labels):
        one[place] = one[place] or before[place]
    combos = list(dict.fromkeys(map(tuple, labels)))
    return {"combos": combos, "combo": np.array([combos.index(tuple(one)) for one in labels], np.int32)}


def _lowered(events: Events) -> dict[str, Any]:
    lowered = [tuple(text.lower() for text in labels) for labels in events.combos]
    combos = list(dict.fromkeys(lowered))
    return {"combos": combos, "combo": np.array([combos.index(lowered[i]) for i in events.combo.tolist()], np.int32)}


def _rows_of(change: Callable[[Any], Any]) -> _Mutant:
    return _events(lambda events: {"values": change(events.values.copy())})


def _unscaled(values: Any) -> Any:
    values[_LATENCY] = np.where(values[_LATENCY] > 0, values[_LATENCY] // 1_000, values[_LATENCY])
    return values


class _Remembering(_Mutant):
    """Drops events with ids that came in earlier calls."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def decode(self, values: Sequence[bytes], limits: DecodeConfig, timestamp_is: Any = "start") -> Decoded:
        decoded = super().decode(values, limits, timestamp_is)
        fresh: Bools = np.array([not i or i not in self._seen for i in decoded.events.event_id], np.bool_)
        self._seen |= set(compress(decoded.events.event_id, fresh.tolist()))
        return replace(decoded, events=_picked(decoded.events, fresh))


MUTANTS: Final[dict[str, Callable[[], Decoder]]] = {
    "raises on garbage": lambda: _Mutant(before=_raise_on_garbage),
    "drops malformed records in silence": lambda: _Mutant(_without_malformed),
    "counts the last record twice": lambda: _Mutant(_last_twice),
    "takes what is missing for zero": lambda: _rows_of(lambda values: np.maximum(values, 0)),
    "shows the record in the payload": lambda: _fault(payload=lambda f, record: record[:200].decode("ascii", "ignore")),
    "shows the record in the detail": lambda: _fault(detail=lambda f, record: f"{f.detail}: {record!r}"),
    "takes a missing tenant from the record before": lambda: _events(_tenant_of_the_one_before),
    "swaps start and end": lambda: _events(lambda events: {"start": events.end, "end": events.start}),
    "ignores that the timestamp is the end": lambda: _Mutant(meant="start"),
    "takes every timestamp for the end": lambda: _Mutant(meant="end"),
    "ignores the limit of a record's bytes": lambda: _Mutant(limits={"max_record_bytes": 10**9}),
    "ignores the limit of a text": lambda: _Mutant(limits={"max_string": 10**9}),
    "ignores the limit of attributes": lambda: _Mutant(limits={"max_attributes": 10**9}),
    "shows more of a record than is allowed": lambda: _fault(payload=lambda f, record: f.payload + "." * 200),
    "lets NaN through": lambda: _Mutant(before=lambda value: value.replace(b"NaN", b"0")),
    "lets numbers beyond all bounds through": lambda: _Mutant(before=lambda value: value.replace(b"1e999", b"9")),
    "gives one reason for all": lambda: _fault(reason=lambda f, record: Reason.NOT_JSON),
    "gives a fault the index after its own": lambda: _fault(record=lambda f, record: f.record + 1),
    "gives an event the index after its own": lambda: _events(lambda events: {"record": events.record + 1}),
    "leaves the latency in milliseconds": lambda: _rows_of(_unscaled),
    "remembers ids between calls": _Remembering,
    "gives events backwards": lambda: _Mutant(
        lambda decoded, values: replace(decoded, events=_picked(decoded.events, slice(None, None, -1)))
    ),
    "writes labels in small letters": lambda: _events(_lowered),
    "tells no error": lambda: _events(lambda events: {"error": np.zeros(len(events), np.bool_)}),
    "forgets the trace": lambda: _events(lambda events: {"trace_id": [""] * len(events)}),
    "cuts times to seconds": lambda: _events(
        lambda events: {"start": events.start // 10**6 * 10**6, "end": events.end // 10**6 * 10**6}
    ),
    "refuses all that follows a bad record": lambda: _Mutant(_spoiled_by_one),
    "keeps the labels of what was refused": lambda: _events(lambda e: {"combos": [*e.combos, ("x",) * len(LABELS)]}),
}
"""The decoders by their mistake."""
