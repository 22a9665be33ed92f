"""One span that is a call, as a native event."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.base import MAX_SENT, Call
from operators.decode.conventions import FIRST_TOKEN
from operators.decode.otlp.roles import failed_model
from operators.decode.otlp.signals import ERROR, Span
from operators.decode.otlp.usage import cost, tokens
from operators.decode.resolve import Conventions, Found
from operators.decode.seen import response_keys
from operators.decode.times import parse_time
from operators.decode.values import flag, inside, is_number, number, text
from operators.decode.vocabulary import ERROR_TYPES

_MS: Final = 1_000_000  # nanoseconds
_TO_MS: Final = {"s": 1_000.0, "ms": 1.0, "us": 0.001, "ns": 0.000_001}
_TEXTS: Final = ("service", "region", "tenant", "agent", "session_id", "user", "key", "model", "model_requested")
_FAILED: Final = ("error", "failed")
"""Finish reasons of answers that broke off."""
_STATUS_CODE: Final = re.compile(r"\b(?:code|status)\D{0,3}([45]\d\d)\b", re.IGNORECASE)
_RAISED: Final = re.compile(r"^(?:Caused by: )?([\w.$]*[A-Z]\w*)(?=:|$)", re.MULTILINE)
"""The types of exceptions in a stack trace of Python, Java or Node: a line each."""
_MAX_TRACE: Final = 20_000
_ANSWER: Final = frozenset({"completion_tokens", "finish_reason"})
"""What only a call with an answer tells."""
_PROVIDERS: Final = frozenset(
    {
        "openai", "anthropic", "cohere", "mistral", "mistralai", "groq", "bedrock", "vertexai", "gemini", "vllm",
        "sagemaker", "sglang", "ollama", "together", "replicate",
    }
)  # fmt: skip
"""Words in the name of a scope that name the provider where no attribute does."""
_FIRMS: Final = {"google": "gcp.vertex_ai", "aws": "aws.sagemaker", "amazon": "aws.sagemaker"}
"""Names of a firm, and its other service, which is meant where something else names it."""
_FRAMEWORKS: Final = frozenset(
    {"langchain", "langgraph", "llamaindex", "llama_index", "crewai", "agno", "haystack", "dspy", "strands-agents"}
)
"""What some write in place of a provider that they do not know."""
_UNKNOWN: Final = re.compile(r"unknown(_model|_service(:.*)?)?", re.IGNORECASE)
"""What some write in place of a name that they do not know."""
_SCOPE: Final = "scope"
EVALUATION_EVENT: Final = "gen_ai.evaluation.result"
"""The event that tells the quality of a call, of its span or as a log record."""


@dataclass(slots=True)
class Told:
    """What one span tells of its call; `operation` is what `roles` made of the span."""

    span: Span
    operation: str
    fields: dict[str, Any]
    found: dict[str, str]
    originals: dict[str, str] = field(default_factory=dict)
    response_id: str = ""
    call_id: str = ""
    sent: dict[str, Any] = field(default_factory=dict)
    """The counts of tokens as the library wrote them."""
    outer: list[Told] = field(default_factory=list)
    """Spans that tell of the same call too, the nearest first."""
    within: int = 0
    """How many calls count in place of this one."""
    paired: bool = False
    """Whether the span of another library around it was found."""

    def call(self) -> Call:
        """The call, known again by its span and its ids."""
        span = self.span
        keys = [f"span:{span.trace_id}/{span.span_id}"] if span.trace_id and span.span_id else []
        keys += response_keys(self.response_id, span.end or span.start)
        keys += [f"call:{self.call_id}"] if self.call_id else []
        return Call(self.fields, self.found, tuple(keys), self.originals)

    def forget(self, name: str) -> None:
        """Leave a field unknown."""
        self.fields.pop(name, None)
        self.found.pop(name, None)

    @property
    def cached(self) -> bool:
        """Whether LiteLLM answered from its own cache: no provider was called, so it has no headers and no cost."""
        hidden = inside(self.span.attributes.get("hidden_params"))
        return (
            isinstance(hidden, dict)
            and bool(hidden.get("cache_key"))
            and not hidden.get("additional_headers")
            and self.fields["status"] == "ok"
            and "cost_usd" not in self.fields
        )


def tell(span: Span, operation: str, conventions: Conventions) -> Told:
    """The call of this span."""
    read = conventions.read(span.attributes, span.resource)
    told = Told(span, operation, {}, {})
    fields, found = told.fields, told.found

    def put(name: str, value: Any, place: str, words: Callable[[str], str] | None = None) -> None:
        if value is None:
            return
        fields[name] = words(value) if words is not None and isinstance(value, str) else value
        found[name] = place
        if fields[name] != value:
            told.originals[name] = value[:MAX_SENT]

    put("timestamp", span.start, "start")
    if span.end:
        put("latency_ms", (span.end - span.start) / _MS, "end - start")
    put("trace_id", span.trace_id or None, "trace id")
    put("span_id", span.span_id or None, "span id")
    for name in _TEXTS:
        for told_of in read.get(name, ()):
            if not _UNKNOWN.fullmatch(str(value := text(told_of.value))):
                put(name, value, told_of.row.place)
                break
    if "service" not in fields:
        put("service", text(read["service"][0].value) if "service" in read else "unknown_service", "no service.name")
    if "model_requested" not in fields and (model := failed_model(span)):
        put("model_requested", model, "name of the span")
    if "model" not in fields and "model_requested" in fields:
        put("model", fields["model_requested"], found["model_requested"])
    _provider(read, span, put)
    put("operation", operation, _place(read, "operation", "kind of the span"))
    told.sent = tokens(read, operation, span.scope, put)
    _stream(read, span, fields, put)
    _finish(read, span, put)
    _status(read, span, fields, put)
    cost(read, fields["status"] == "error", put)
    _quality(read, span, put)
    told.response_id = _id(read, "response_id")
    told.call_id = _id(read, "call_id")
    return told


def _place(read: Mapping[str, Sequence[Found]], name: str, otherwise: str) -> str:
    return read[name][0].row.place if name in read else otherwise


def _id(read: Mapping[str, Sequence[Found]], name: str) -> str:
    for found in read.get(name, ()):
        if isinstance(found.value, str):
            return found.value
    return ""


@lru_cache(1_024)
def _named_by(scope: str) -> tuple[str, ...]:
    """The providers that the name of a scope names."""
    return tuple(word for word in re.split(r"[^a-z0-9]+", scope.lower()) if word in _PROVIDERS)


def _provider(read: Mapping[str, Sequence[Found]], span: Span, put: Any) -> None:
    told = [(text(found.value), found.row.place) for found in read.get("provider", ())]
    told += [(word, _SCOPE) for word in _named_by(span.scope)]
    told = [(sent, place) for sent, place in told if str(sent).lower() not in _FRAMEWORKS]
    if not told:
        return
    other = _FIRMS.get(str(told[0][0]).lower())
    # OpenInference calls every service of Google `vertexai` in llm.system.
    finer = (one for one in told if vocabulary.provider(str(one[0])) == other and one[1] != "llm.system")
    put("provider", *next(finer, told[0]), vocabulary.provider)


def _finish(read: Mapping[str, Sequence[Found]], span: Span, put: Any) -> None:
    """Why the model stopped, by an attribute of the span, or of its first event `gen_ai.choice`."""
    if "finish_reason" in read:
        found = read["finish_reason"][0]
        put("finish_reason", text(found.value), found.row.place, vocabulary.finish_reason)
        return
    for event in span.events:
        sent = event.attributes.get("finish_reason")
        if event.name == "gen_ai.choice" and isinstance(sent, str):
            put("finish_reason", sent, "event gen_ai.choice", vocabulary.finish_reason)
            return


def _stream(read: Mapping[str, Sequence[Found]], span: Span, fields: dict[str, Any], put: Any) -> None:
    """Whether the answer was streamed, and then the time to its first token."""
    first = next((event for event in span.events if event.name in FIRST_TOKEN), None)
    asked = read.get("streamed", ())
    streamed = next((known for found in asked if (known := flag(found.value)) is not None), None)
    place = asked[0].row.place if asked else ""
    if streamed is None and (called := span.attributes.get("ai.operationId")) is not None:
        streamed, place = str(called).endswith(".doStream"), "ai.operationId"
    if streamed is None and first is not None:
        streamed, place = True, f"event {first.name}"
    put("streamed", streamed, place)
    if streamed is False:
        return
    latency = fields.get("latency_ms", 0.0)
    for found in read.get("ttft_ms", ()):
        time = _first_token(found, span, latency)
        # An answer that was not streamed has its first token at the end: that tells nothing.
        if time is not None and (streamed or not latency or time < 0.999 * latency):
            put("ttft_ms", time, found.row.place)
            return
    # A gateway may write down the event when it has read the whole answer.
    if first is not None and first.at >= span.start and (not latency or first.at - span.start < 0.999 * latency * _MS):
        put("ttft_ms", (first.at - span.start) / _MS, f"event {first.name}")


def _first_token(found: Found, span: Span, latency: float) -> float | None:
    """The time to the first token in milliseconds; None if it is not told.

    Some libraries write milliseconds or nanoseconds under a name that others use for seconds: since the first token
    does not come after the end, a time that does is read in the largest unit in which it does not.
    """
    if found.row.unit == "time":
        try:
            return max(0.0, parse_time(text(found.value)) / 1_000 - span.start / _MS)
        except (ValueError, TypeError):  # no time at all
            return None
    value = number(found.value)
    if not is_number(value) or value < 0:
        return None
    units = (found.row.unit, "ms", "ns")
    times = [float(value * _TO_MS[unit]) for unit in units]
    return next((time for time in times if time <= latency * 1.01 + 5), None) if latency else times[0]


def _status(read: Mapping[str, Sequence[Found]], span: Span, fields: dict[str, Any], put: Any) -> None:
    """Whether the call failed, and how: unset is success unless an error says otherwise."""
    told = [f for f in read.get("error_type", ()) if not is_fine(f.value)]
    level = read.get("level", ())
    place = ""
    if span.status == ERROR:
        place = "status"
    elif any(str(found.value).upper() == "ERROR" for found in level):
        place = level[0].row.place
    elif span.status == 0 and told:
        place = told[0].row.place
    elif span.status == 0 and (reasons := read.get("finish_reason")) and text(reasons[0].value) in _FAILED:
        place = reasons[0].row.place
    elif _without_answer(span, fields) and not _id(read, "response_id") and _failed(span):
        place = "event exception"
    elif flag(span.attributes.get("success")) is False:
        place = "success"
    if not place:
        put("status", "ok", "status")
        return
    put("status", "error", place)
    candidates = [(text(found.value), found.row.place) for found in told]
    candidates += [(raised, "event exception") for raised in _raised(span)]
    named = [(vocabulary.error_type(str(sent)), str(sent), place) for sent, place in candidates if sent is not None]
    messages = [str(found.value) for found in read.get("message", ())] + [span.message]
    messages += [str(event.attributes.get("exception.message") or "") for event in span.events]
    # A message may quote a prompt: only what it says about the kind of the error is taken from it.
    named += [(kind, kind, "message") for message in messages for kind in _kinds(message)]
    if not any(kind in ERROR_TYPES for kind, _, _ in named):
        named += [(kind, kind, "event exception") for kind in _causes(span)]
    if not named:
        put("error_type", "unknown", place)
        return
    _, sent, place = min(named, key=lambda one: vocabulary.vagueness(one[0]))
    put("error_type", sent, place, vocabulary.error_type)


def _raised(span: Span) -> list[str]:
    """The types of the exceptions among the events of the span."""
    types = [event.attributes.get("exception.type") for event in span.events]
    return [raised for raised in types if isinstance(raised, str)]


def _causes(span: Span) -> list[str]:
    """The kinds of errors that the stack traces of a span name, the last one first: what a framework's own wraps."""
    traces = [str(event.attributes.get("exception.stacktrace") or "")[-_MAX_TRACE:] for event in span.events]
    kinds = [vocabulary.error_type(raised) for trace in traces for raised in _RAISED.findall(trace)]
    return [kind for kind in reversed(kinds) if kind in ERROR_TYPES]


def _without_answer(span: Span, fields: Mapping[str, Any]) -> bool:
    """Whether nothing that a span tells is of an answer; LangSmith sets the status to OK whatever happened."""
    return not fields.keys() & (_ANSWER if span.status == 0 else _ANSWER | {"prompt_tokens"})


def _failed(span: Span) -> bool:
    """Whether an exception of the span is a failure; that the caller went away is none."""
    return any(vocabulary.error_type(raised) != "cancelled" for raised in _raised(span))


def _kinds(message: str) -> list[str]:
    """The kinds of errors that a message names: by a status of HTTP in it, else by its words; of 400 by both."""
    codes = _STATUS_CODE.findall(message[:500])
    by_words = [kind for kind in [vocabulary.error_type(message)] if kind in ERROR_TYPES]
    if not codes or ("400" in codes and by_words == ["content_filter"]):
        return by_words
    return [vocabulary.error_type(code) for code in codes]


def is_fine(value: Any) -> bool:
    """Whether a value of an error's attributes tells of none: a status of HTTP below 400, `OK`, `UNSET`, `false`."""
    code = number(value)
    if is_number(code):
        return bool(code < 400)
    word = str(value)
    return flag(value) is False or vocabulary.is_error(word) is False or word.lower().endswith("unset")


def _quality(read: Mapping[str, Sequence[Found]], span: Span, put: Any) -> None:
    for event in span.events:
        if event.name == EVALUATION_EVENT:
            score = number(event.attributes.get("gen_ai.evaluation.score.value"))
            if is_number(score):
                put("quality_score", score, f"event {EVALUATION_EVENT}")
                return
    if "quality_score" in read:
        put("quality_score", number(read["quality_score"][0].value), read["quality_score"][0].row.place)
