"""OTLP records as calls: the formats `otlp_proto` and `otlp_json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final

from operators.decode.base import Reading
from operators.decode.config import DecodeConfig
from operators.decode.otlp import json, proto
from operators.decode.otlp.calls import tell
from operators.decode.otlp.logs import calls_of_logs
from operators.decode.otlp.once import counted, opens_stream
from operators.decode.otlp.roles import operation
from operators.decode.otlp.signals import Signals, Span
from operators.decode.resolve import Conventions, conventions


class OtlpFormat:
    """Spans and logs of one encoding. Takes some 60 us for a span that is a call."""

    def __init__(self, parse: Callable[[bytes, Collection[str]], Signals]) -> None:
        self._parse = parse

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; spans and logs that are none are passed over, and so are metrics."""
        known = conventions(limits)
        return calls_of(self._parse(value, known.wanted), known)


class OtlpJsonFormat(OtlpFormat):
    """Spans and logs in JSON."""

    def __init__(self) -> None:
        super().__init__(json.parse)

    def looks_like(self, record: object) -> bool:
        """Whether a parsed JSON value is an OTLP record."""
        return json.looks_like(record)


def calls_of(signals: Signals, known: Conventions) -> Reading:
    """The calls that these spans and logs tell of, each once."""
    spans: dict[tuple[str, str], tuple[Span, str | None]] = {}
    nameless: list[tuple[Span, str | None]] = []
    again = 0
    for span in signals.spans:
        key = (span.trace_id, span.span_id)
        of = operation(span)
        if not span.span_id:
            nameless.append((span, of))
        elif key in spans:
            again += bool(spans[key][1])
        else:
            spans[key] = span, of
    every = [*spans.values(), *nameless]
    told = [tell(span, of, known) for span, of in every if of]
    asked = [t for t in told if not t.cached]
    left = counted(asked, spans, known)
    opened = sum(map(opens_stream, left))
    calls = [t.call() for t in left if not opens_stream(t)]
    of_logs = [*calls_of_logs(signals.logs, known)]
    calls += of_logs
    passed = {
        "no_call": len(signals.spans) - len(told) - again + len(signals.logs) - len(of_logs),
        "cache_hit": len(told) - len(asked),
        "stream_opening": opened,
        "metric": signals.metrics,
    }
    unknown = Counter(name for t in left for name in known.unknown(t.span.attributes))
    return Reading(calls, again + len(asked) - len(left), {name: n for name, n in passed.items() if n}, dict(unknown))


OTLP_PROTO: Final = OtlpFormat(proto.parse)
