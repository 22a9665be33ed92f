"""OTLP records as calls: the formats `otlp_proto` and `otlp_json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Final

from operators.decode.base import Call, Reading
from operators.decode.config import DecodeConfig
from operators.decode.otlp import json, proto
from operators.decode.otlp.calls import EVALUATION_EVENT, Told, tell
from operators.decode.otlp.once import counted, opens_stream
from operators.decode.otlp.roles import operation
from operators.decode.otlp.signals import ERROR, LogRecord, Signals, Span
from operators.decode.resolve import Conventions, conventions
from operators.decode.seen import response_keys
from operators.decode.values import is_number, number
from operators.model import EVALUATION

DETAILS: Final = "gen_ai.client.inference.operation.details"
"""The log record that tells a whole call, but not how long it took."""
CLAUDE_CODE: Final = {"api_request": 0, "api_error": ERROR}
"""The log records of Claude Code that tell a whole call, and the status of its span."""
_CLAUDE_CODE_SCOPE: Final = "com.anthropic.claude_code"

_TIME_OF_LOG: Final = "time of the log record"
_OF_EVALUATIONS: Final = (
    "timestamp", "service", "model", "provider", "operation", "tenant", "region", "agent", "session_id", "user",
    "trace_id", "span_id", "quality_score",
)  # fmt: skip


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
    calls = [_call(t) for t in left if not opens_stream(t)]
    of_logs = [call for record in signals.logs if (call := _of_log(record, known)) is not None]
    calls += of_logs
    passed = {
        "no_call": len(signals.spans) - len(told) - again + len(signals.logs) - len(of_logs),
        "cache_hit": len(told) - len(asked),
        "stream_opening": opened,
        "metric": signals.metrics,
    }
    unknown = Counter(name for t in left for name in known.unknown(t.span.attributes))
    return Reading(calls, again + len(asked) - len(left), {name: n for name, n in passed.items() if n}, dict(unknown))


def _call(told: Told) -> Call:
    span = told.span
    keys = [f"span:{span.trace_id}/{span.span_id}"] if span.trace_id and span.span_id else []
    keys += response_keys(told.response_id, span.end or span.start)
    keys += [f"call:{told.call_id}"] if told.call_id else []
    return Call(told.fields, told.found, tuple(keys), told.originals)


def _of_log(record: LogRecord, known: Conventions) -> Call | None:
    """The call that a log record tells, or its evaluation; None if it tells neither.

    Its time is the end of the call, whose latency is unknown.
    """
    if record.scope.startswith(_CLAUDE_CODE_SCOPE):
        return _of_claude_code(record, known)
    span = _span_of(record)
    if record.name == EVALUATION_EVENT:
        return _evaluation(tell(span, EVALUATION, known), record)
    of = operation(span) if record.name == DETAILS else None
    if not of:
        return None
    told = tell(span, of, known)
    told.fields.pop("latency_ms", None)
    told.found.pop("latency_ms", None)
    told.found["timestamp"] = _TIME_OF_LOG
    return _call(told)


def _of_claude_code(record: LogRecord, known: Conventions) -> Call | None:
    """The call that a log record of Claude Code tells; None if it tells none, as prompts and tools do.

    Its ids are those of the span around it, which may hold many calls: its place in its session knows it again.
    """
    status = CLAUDE_CODE.get(record.name.removeprefix("claude_code."))
    if status is None:
        return None
    span, attributes = _span_of(record), record.attributes
    span.status, span.message = status, str(attributes.get("error") or "")
    if is_number(lasted := number(attributes.get("duration_ms"))) and lasted >= 0:
        span.start = record.at - round(lasted * 1_000_000)
    if status == ERROR and "status_code" in attributes:
        span.attributes = {**attributes, "http.response.status_code": attributes["status_code"]}
    told = tell(span, "chat", known)
    if span.start == record.at:
        told.fields.pop("latency_ms", None)
        told.found.pop("latency_ms", None)
    told.found["timestamp"] = _TIME_OF_LOG
    place = f"{attributes.get('session.id')}/{attributes.get('event.sequence')}/{record.at}"
    return Call(told.fields, told.found, (f"claude_code:{place}",), told.originals)


def _evaluation(told: Told, record: LogRecord) -> Call | None:
    """A quality that was judged later: an event that is no request; None without a score."""
    fields: dict[str, Any] = {name: told.fields[name] for name in _OF_EVALUATIONS if name in told.fields}
    if not is_number(fields.get("quality_score")):
        return None
    found: dict[str, str] = {name: told.found[name] for name in fields} | {"timestamp": _TIME_OF_LOG}
    name = record.attributes.get("gen_ai.evaluation.name")
    key = f"evaluation:{record.trace_id}/{record.span_id}/{told.response_id}/{name}/{record.at}"
    return Call(fields, found, (key,))


def _span_of(record: LogRecord) -> Span:
    status = ERROR if record.attributes.get("error.type") else 0
    return Span(
        record.trace_id, record.span_id, "", record.name, record.scope, 0, record.at, record.at, status, "",
        record.attributes, [], record.resource,
    )  # fmt: skip


OTLP_PROTO: Final = OtlpFormat(proto.parse)
