"""Decoders of translated formats with one bug each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from operators.decode.base import Call, Decoded, Decoder, Format, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.litellm import LiteLLMFormat
from operators.decode.otlp import json, proto
from operators.decode.otlp.format import OtlpFormat
from operators.decode.otlp.signals import Signals, Span
from operators.decode.translate import TranslatingDecoder

Change = Callable[[Reading], Reading]


class _Changed:
    """A format whose readings are changed."""

    def __init__(self, of: Format, change: Change) -> None:
        self._of, self._change = of, change

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        return self._change(self._of.read(value, limits))


def _reading(change: Change, of: Format | None = None) -> Decoder:
    return TranslatingDecoder(_Changed(of or OtlpFormat(json.parse), change))


def _calls(change: Callable[[Call], Call]) -> Decoder:
    return _reading(lambda reading: replace(reading, calls=[change(call) for call in reading.calls]))


def _fields(**change: Callable[[Any], Any]) -> Decoder:
    """A decoder with other values of these fields; those that are not told are None."""
    return _calls(
        lambda call: replace(
            call, fields={**call.fields, **{name: made(call.fields.get(name)) for name, made in change.items()}}
        )
    )


def _spans(change: Callable[[list[Span]], list[Span]]) -> Decoder:
    """A decoder that reads other spans than the record has."""

    def parse(value: bytes, wanted: Collection[str]) -> Signals:
        found = json.parse(value, wanted)
        return replace(found, spans=change(found.spans))

    return TranslatingDecoder(OtlpFormat(parse))


def _each(change: Callable[[Span], Span]) -> Decoder:
    return _spans(lambda spans: [change(span) for span in spans])


def _agents_call(span: Span) -> Span:
    agent = span.attributes.get("gen_ai.operation.name") == "invoke_agent"
    return (
        replace(span, attributes={**span.attributes, "gen_ai.operation.name": "chat"}, parent_id="") if agent else span
    )


def _cut(parse: Callable[[bytes, Collection[str]], Signals]) -> Decoder:
    """What is left of a cut record is read as far as it goes."""

    def as_far_as_it_goes(value: bytes, wanted: Collection[str]) -> Signals:
        try:
            return parse(value, wanted)
        except Unreadable:
            return Signals()

    return TranslatingDecoder(OtlpFormat(as_far_as_it_goes))


class _Whole:
    """A decoder with a changed result, or one that raises."""

    def __init__(self, change: Callable[[Decoded, Sequence[bytes]], Decoded]) -> None:
        self._plain, self._change = TranslatingDecoder(OtlpFormat(json.parse)), change

    def decode(self, values: Sequence[bytes], limits: DecodeConfig, timestamp_is: Any = "start") -> Decoded:
        return self._change(self._plain.decode(values, limits, timestamp_is), values)


def _shown(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
    faults = [replace(f, payload=values[f.record][:200].decode("ascii", "ignore")) for f in decoded.faults]
    return replace(decoded, faults=faults)


def _in_one(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
    """Every call has the place of the first one."""
    return replace(decoded, events=replace(decoded.events, call=np.zeros(len(decoded.events), np.int64)))


def _all_or_none(decoded: Decoded, values: Sequence[bytes]) -> Decoded:
    """A record with a bad call loses all others."""
    bad = [fault.record for fault in decoded.faults]
    events = decoded.events
    keep = ~np.isin(events.record, bad)
    used, combo = np.unique(events.combo[keep], return_inverse=True)
    kept = replace(
        events, record=events.record[keep], start=events.start[keep], end=events.end[keep], error=events.error[keep],
        values=events.values[:, keep], combo=combo.astype(np.int32), combos=[events.combos[i] for i in used.tolist()],
        event_id=[text for text, kept in zip(events.event_id, keep, strict=True) if kept],
        trace_id=[text for text, kept in zip(events.trace_id, keep, strict=True) if kept],
        keys=events.keys[keep], call=events.call[keep],
    )  # fmt: skip
    return replace(decoded, events=kept)


MUTANTS: Final[dict[str, tuple[str, str, Callable[[], Decoder]]]] = {
    "counts the spans of agents": (
        "otlp_json", "what_is_no_call_and_what_is_told_again_add_no_event", lambda: _each(_agents_call),
    ),
    "counts outer and inner spans": (
        "otlp_json", "what_is_no_call_and_what_is_told_again_add_no_event",
        lambda: _each(lambda span: replace(span, parent_id="")),
    ),
    "passes over in silence": (
        "otlp_json", "what_is_no_call_and_what_is_told_again_add_no_event",
        lambda: _reading(lambda reading: replace(reading, passed_over={})),
    ),
    "does not count repeats": (
        "otlp_json", "what_is_no_call_and_what_is_told_again_add_no_event",
        lambda: _reading(lambda reading: replace(reading, repeats=0)),
    ),
    "takes unknown usage for 0": (
        "otlp_json", "what_a_record_tells_is_in_its_event",
        lambda: _fields(prompt_tokens=lambda told: 0 if told is None else told),
    ),
    "adds reasoning to the completion": (
        "otlp_json", "what_a_record_tells_is_in_its_event",
        lambda: _calls(lambda call: replace(call, fields={
            **call.fields, "completion_tokens": (call.fields.get("completion_tokens") or 0)
            + (call.fields.get("reasoning_tokens") or 0) or call.fields.get("completion_tokens"),
        })),
    ),
    "takes nanoseconds for microseconds": (
        "otlp_json", "what_a_record_tells_is_in_its_event",
        lambda: _fields(latency_ms=lambda told: told and told * 1_000),
    ),
    "takes seconds to the first token for milliseconds": (
        "otlp_json", "what_a_record_tells_is_in_its_event",
        lambda: _fields(ttft_ms=lambda told: told and told / 1_000),
    ),
    "takes the end for the start": (
        "otlp_json", "what_a_record_tells_is_in_its_event",
        lambda: _each(lambda span: replace(span, start=span.end or span.start)),
    ),
    "forgets that a call failed": (
        "otlp_json", "what_a_record_tells_is_in_its_event",
        lambda: _fields(status=lambda told: "ok", error_type=lambda told: None),
    ),
    "forgets half of a batch": (
        "otlp_json", "each_call_of_a_record_is_told_as_it_is_alone",
        lambda: _spans(lambda spans: spans[: (len(spans) + 1) // 2]),
    ),
    "keys a call by its place": (
        "otlp_json", "each_call_of_a_record_is_told_as_it_is_alone",
        lambda: _reading(lambda reading: replace(
            reading, calls=[replace(call, keys=(f"span:{i}",)) for i, call in enumerate(reading.calls)]
        )),
    ),
    "gives all calls one place": (
        "otlp_json", "each_call_of_a_record_is_told_as_it_is_alone", lambda: _Whole(_in_one),
    ),
    "lets a call end before it starts": (
        "otlp_json", "a_bad_record_is_refused_for_its_reason_and_spoils_no_other",
        lambda: _each(lambda span: replace(span, end=max(span.end, span.start) if span.end else 0)),
    ),
    "lets a cut record pass": (
        "otlp_json", "a_bad_record_is_refused_for_its_reason_and_spoils_no_other", lambda: _cut(json.parse),
    ),
    "lets a cut record in protobuf pass": (
        "otlp_proto", "a_bad_record_is_refused_for_its_reason_and_spoils_no_other", lambda: _cut(proto.parse),
    ),
    "loses a record for one bad call": (
        "otlp_json", "a_bad_call_spoils_no_other_of_its_record", lambda: _Whole(_all_or_none),
    ),
    "shows the record in the payload": (
        "otlp_json", "no_content_is_in_any_event_or_fault", lambda: _Whole(_shown),
    ),
    "counts answers from the cache": (
        "litellm", "what_is_no_call_and_what_is_told_again_add_no_event",
        lambda: _reading(
            lambda reading: replace(
                reading, passed_over={}, calls=reading.calls + [Call({})] * reading.passed_over.get("cache_hit", 0)
            ),
            LiteLLMFormat(),
        ),
    ),
}  # fmt: skip
"""By mistake: the format, the law that catches it, and the decoder."""
