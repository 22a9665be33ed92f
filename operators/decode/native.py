"""Native JSON: one record is one event.

Required are `timestamp` and `service`; every other field may be absent or null, and unknown fields are skipped.

- An event is an error if `error_type` is given, or if `status` tells of one (`operators.decode.vocabulary`): a word
  such as "error" or "timeout", or an HTTP status from 400 on. Every other status, known or not, is no error: only the
  sender can know its meaning.
- Text may be an integer or a boolean too, and is taken as it is written.
- Labels: an absent model is the one that was asked for, or "unknown"; other absent labels are "". An error without a
  type gets the type that its status names, or "unknown". Labels that were sent are not changed.
- A call that was not streamed has no time to first token: senders who give one mean the latency.
- The rules of privacy are applied to a slice before anything but the length of its texts is looked at.
- Metrics: an absent one is `MISSING`. Numbers must be finite and lie between 0 and the metric's limit; tokens must be
  whole.
- If a key is given twice, the last one counts.
- If a record has several faults, `operators.decode.diagnose` chooses the one that is reported.

On the fast path msgspec reads well-formed records, skipping unknown fields without building them, and they become
columns. A record that the fast path does not take goes through the slow path alone. Both give the same events.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, compress
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from operators.decode.base import Decoded, Fault
from operators.decode.config import DecodeConfig
from operators.decode.diagnose import MAX_DEPTH, explain, unreadable
from operators.decode.privacy import enforce
from operators.decode.record import ABSENT, METRIC_FIELDS, NAN, MeasuredRecord, Record, label_texts
from operators.decode.seen import hashed
from operators.decode.times import parse_times
from operators.decode.vocabulary import ERROR_TYPES, error_type, is_error
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, TEXT_FIELDS, Bools, Events, Ints, caller_text

_SLICE: Final = 1_000  # the records of a slice, as objects, stay in the cache of a core

_read_record = msgspec.json.Decoder(MeasuredRecord).decode
_texts = attrgetter(*TEXT_FIELDS)
_numbers = attrgetter(*METRIC_FIELDS)
_ROWS: Final = [METRIC_INDEX[metric.name] for metric in METRIC_FIELDS.values()]
_SCALES: Final = np.array([metric.scale for metric in METRIC_FIELDS.values()], np.float64)[:, None]
_WHOLE: Final = [i for i, metric in enumerate(METRIC_FIELDS.values()) if metric.whole]
_LATENCY: Final = METRIC_INDEX["latency"]
_VERSION: Final = LABELS.index("model_version")
_MODEL: Final = LABELS.index("model")
_ERROR_TYPE: Final = LABELS.index("error_type")


class NativeDecoder:
    """The decoder of native JSON. Takes about 1.5 us for each event."""

    def decode(
        self,
        values: Sequence[bytes],
        limits: DecodeConfig,
        timestamp_is: Literal["start", "end"] = "start",
    ) -> Decoded:
        """One event or one fault for each of the values."""
        codes = _Codes()
        faults: list[Fault] = []
        longest = max(map(len, values), default=0)
        parts = [
            _part(first, values[first : first + _SLICE], longest, limits, codes, faults)
            for first in range(0, max(len(values), 1), _SLICE)
        ]
        record = np.concatenate([part.record for part in parts])
        at = np.concatenate([part.at for part in parts])
        scaled = np.concatenate([part.scaled for part in parts], axis=1)
        combo = np.concatenate([part.combo for part in parts])
        event_id = list(chain.from_iterable(part.event_id for part in parts))
        trace_id = list(chain.from_iterable(part.trace_id for part in parts))
        caller = list(chain.from_iterable(part.caller for part in parts))

        rounded = np.rint(scaled)
        broken = np.abs(rounded[_WHOLE] - scaled[_WHOLE]) > 0
        doubtful = np.concatenate([part.doubtful for part in parts]) | broken.any(axis=0)
        for i in np.flatnonzero(doubtful).tolist():
            outcome = explain(int(record[i]), values[int(record[i])], limits)
            if isinstance(outcome, Fault):
                faults.append(outcome)
            else:
                doubtful[i] = False
        faults.sort(key=lambda fault: fault.record)
        combos = list(codes.combos)
        if doubtful.any():
            keep = ~doubtful
            record, at, rounded = record[keep], at[keep], rounded[:, keep]
            used, place = np.unique(combo[keep], return_inverse=True)
            combo, combos = place.astype(np.int32), [combos[code] for code in used.tolist()]
            event_id, trace_id, caller = (
                list(compress(texts, keep.tolist())) for texts in (event_id, trace_id, caller)
            )

        fixed = np.full((len(METRICS), len(record)), MISSING, np.int64)
        fixed[_ROWS] = np.where(np.isnan(rounded), MISSING, rounded)
        latency = np.maximum(fixed[_LATENCY], 0)  # an absent latency counts as no time
        events = Events(
            record=record,
            start=at - latency if timestamp_is == "end" else at,
            end=at if timestamp_is == "end" else at + latency,
            values=fixed,
            error=np.array([labels[_ERROR_TYPE] != "" for labels in combos], np.bool_)[combo],
            combo=combo,
            combos=combos,
            event_id=event_id,
            trace_id=trace_id,
            keys=hashed(event_id)[:, None] if limits.dedupe_s else np.zeros((len(record), 0, 2), np.uint64),
            call=np.zeros(len(record), np.int64),
            caller=caller if any(caller) else [],
        )
        return Decoded(events, faults)


class _Part(NamedTuple):
    """The columns of one slice; `scaled` is [field, n] in fixed-point steps, not yet rounded, NaN where absent.

    `doubtful` marks records that may break a rule which their types do not state.
    """

    record: Ints
    at: Ints
    scaled: NDArray[np.float64]
    doubtful: Bools
    combo: NDArray[np.int32]
    event_id: list[str]
    trace_id: list[str]
    caller: list[str]


class _Codes(dict[tuple[str | None, ...], int]):
    """The code of the labels of each distinct tuple of texts as sent; different tuples can give the same labels."""

    def __init__(self) -> None:
        super().__init__()
        self.combos: dict[tuple[str, ...], int] = {}

    def __missing__(self, sent: tuple[str | None, ...]) -> int:
        *labels, requested, status = ["" if text is None else text for text in sent]
        labels.insert(_VERSION, "")
        labels[_MODEL] = labels[_MODEL] or requested or "unknown"
        if not labels[_ERROR_TYPE] and is_error(status):
            kind = error_type(status)
            labels[_ERROR_TYPE] = kind if kind in ERROR_TYPES else "unknown"
        code = self[sent] = self.combos.setdefault(tuple(labels), len(self.combos))
        return code


def _part(
    first: int, values: Sequence[bytes], longest: int, limits: DecodeConfig, codes: _Codes, faults: list[Fault]
) -> _Part:
    """The columns of these values, the first of which is record `first`; unreadable ones are added to `faults`.

    `longest` is the length of the longest value of all slices.
    """
    records, places = _read(first, values, longest, limits, faults)
    at, in_time = parse_times([record.timestamp for record in records])
    rare = [
        r for r in records if r.session_id or r.user or r.key or r.streamed is not None or r.attributes is not ABSENT
    ]
    doubtful = ~in_time | _doubtful(records, rare, longest, limits)
    enforce(limits.privacy, records if limits.privacy.rules else rare)
    _untimed(rare)
    return _Part(
        record=places,
        at=at,
        scaled=_scaled(records),
        doubtful=doubtful,
        combo=np.fromiter(map(codes.__getitem__, label_texts(records)), np.int32, len(records)),
        event_id=[record.event_id or "" for record in records],
        trace_id=[record.trace_id or "" for record in records],
        caller=[caller_text(r.user or "", r.key or "", r.session_id or "") for r in records]
        if rare
        else [""] * len(records),
    )


def _read(
    first: int, values: Sequence[bytes], longest: int, limits: DecodeConfig, faults: list[Fault]
) -> tuple[list[Record], Ints]:
    """The records that have the right form, and the index of each."""
    suspects = _suspects(values, longest, limits)
    records: list[Record] = []
    lost: list[int] = []
    rest = iter([b"" if i in suspects else value for i, value in enumerate(values)] if suspects else values)
    while len(records) + len(lost) < len(values):
        try:
            records.extend(map(_read_record, rest))
        except (msgspec.DecodeError, RecursionError):  # records before it are added, those after it are left
            i = len(records) + len(lost)
            outcome = explain(first + i, values[i], limits)
            if isinstance(outcome, Fault):
                faults.append(outcome)
                lost.append(i)
            else:
                records.append(outcome)
    places = np.arange(first, first + len(values))
    return records, np.delete(places, lost) if lost else places


def _suspects(values: Sequence[bytes], longest: int, limits: DecodeConfig) -> set[int]:
    """The indexes of values that must not be parsed. Short ASCII values, nearly all, are cleared together.

    The parser cannot find these: it does not check the encoding of skipped fields, and its limit of nesting varies.
    """
    if longest <= min(MAX_DEPTH, limits.max_record_bytes) and b"".join(values).isascii():
        return set()
    return {i for i, value in enumerate(values) if unreadable(value, limits)}


def _untimed(records: list[Any]) -> None:
    """Remove the time to first token of calls that were not streamed: it would be the latency."""
    for record in records:
        if record.streamed is False:
            record.ttft_ms = NAN


def _scaled(records: list[Record]) -> NDArray[np.float64]:
    """[field, n] in fixed-point steps, not yet rounded, in the order of `METRIC_FIELDS`; NaN where absent."""
    # Read as one run of numbers: for a list of tuples numpy would first look for a type that holds all of them.
    numbers = chain.from_iterable(map(_numbers, records))
    found = np.fromiter(numbers, np.float64, len(records) * len(METRIC_FIELDS))
    return np.ascontiguousarray(found.reshape(len(records), len(METRIC_FIELDS)).T) * _SCALES


def _doubtful(records: list[Record], rare: list[Record], longest: int, limits: DecodeConfig) -> Bools:
    """Whether each record may have texts or attributes beyond a limit; only those that are `rare` have attributes."""
    doubts = [False] * len(records)
    if rare:
        doubts = [_doubtful_attributes(bytes(record.attributes), limits.max_attributes) for record in records]
    if longest > limits.max_string:  # no text is longer than its record
        lengths = [max(map(len, filter(None, _texts(record)))) for record in records]
        doubts = [doubt or length > limits.max_string for doubt, length in zip(doubts, lengths, strict=True)]
    return np.array(doubts, np.bool_)


def _doubtful_attributes(text: bytes, most: int) -> bool:
    """Whether the attributes may be no object, or too many: an object has at most one entry more than commas."""
    return text not in {b"", b"null"} and (text[:1] != b"{" or text.count(b",") >= most)
