"""One span that is a call, as a native event."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.conventions import FIRST_TOKEN, Conventions, Found
from operators.decode.otlp.signals import ERROR, Span
from operators.decode.times import BadTime, parse_time
from operators.decode.values import flag, inside, is_number, number, text

_MS: Final = 1_000_000  # nanoseconds
_TO_MS: Final = {"s": 1_000.0, "ms": 1.0, "us": 0.001, "ns": 0.000_001}
_TEXTS: Final = ("service", "region", "tenant", "agent", "session_id", "user", "key", "model", "model_requested")
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_STATUS_CODE: Final = re.compile(r"\b(?:code|status)\D{0,3}([45]\d\d)\b", re.IGNORECASE)
_ERROR_NAME: Final = re.compile(r"[A-Za-z_.]{0,60}(?:Error|Exception|Timeout|error)\b")
_GENERIC: Final = frozenset({"invalid_request", "unknown"})
_SPECIFIC: Final = frozenset(
    {
        "rate_limit", "server_error", "overloaded", "timeout", "authentication", "content_filter", "not_found",
        "connection", "cancelled",
    }
)  # fmt: skip
EVALUATION: Final = "gen_ai.evaluation.result"


@dataclass(slots=True)
class Told:
    """What one span tells of its call; `operation` is what `roles` made of the span."""

    span: Span
    operation: str
    fields: dict[str, Any]
    found: dict[str, str]
    response_id: str = ""
    call_id: str = ""
    outer: list[Told] = field(default_factory=list)
    """Spans that tell of the same call too, the nearest first."""


def tell(span: Span, operation: str, conventions: Conventions) -> Told:
    """The call of this span."""
    read = conventions.read(span.attributes, span.resource)
    told = Told(span, operation, {}, {})
    fields, found = told.fields, told.found

    def put(name: str, value: Any, place: str) -> None:
        if value is not None:
            fields[name] = value
            found[name] = place

    put("timestamp", span.start, "start")
    if span.end:
        put("latency_ms", (span.end - span.start) / _MS, "end - start")
    put("trace_id", span.trace_id or None, "trace id")
    put("span_id", span.span_id or None, "span id")
    for name in _TEXTS:
        if name in read:
            put(name, text(read[name][0].value), read[name][0].row.place)
    if "service" not in fields:
        put("service", "unknown_service", "no service.name")
    if "model" not in fields and "model_requested" in fields:
        put("model", fields["model_requested"], found["model_requested"])
    originals: dict[str, Any] = {}
    _provider(read, span, put, originals)
    put("operation", operation, _place(read, "operation", "kind of the span"))
    _tokens(read, put)
    _cost(read, put)
    _stream(read, span, fields, put)
    reason = read.get("finish_reason")
    if reason is not None:
        sent = text(reason[0].value)
        put("finish_reason", _in_vocabulary(vocabulary.finish_reason, sent, reason[0], originals), reason[0].row.place)
    _status(read, span, put, originals)
    _quality(read, span, put)
    if originals:
        fields["attributes"] = originals
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


def _in_vocabulary(words: Any, sent: Any, found: Found, originals: dict[str, Any]) -> Any:
    """The word for a text that a library sent, which is kept beside it if it is another one."""
    if not isinstance(sent, str):
        return sent
    word = words(sent)
    if word != sent:
        originals[found.row.place] = sent
    return word


def _provider(read: Mapping[str, Sequence[Found]], span: Span, put: Any, originals: dict[str, Any]) -> None:
    if "provider" in read:
        found = read["provider"][0]
        put("provider", _in_vocabulary(vocabulary.provider, text(found.value), found, originals), found.row.place)
        return
    for word in re.split(r"[^a-z0-9]+", span.scope.lower()):
        if word in ("openai", "anthropic", "cohere", "mistralai", "groq", "bedrock", "vertexai", "gemini"):
            put("provider", vocabulary.provider(word), "scope")
            return


def _tokens(read: Mapping[str, Sequence[Found]], put: Any) -> None:
    """The counts: prompt tokens with cache, completion tokens with reasoning, whichever way they were told.

    A count that says more than its whole, or a total that is the sum of all parts, proves that the parts were not in
    the whole. Counts that are all 0 stand for a call whose usage nobody knows, since no call has an empty prompt.
    """
    firsts = {name: read[name][0] for name in (*_TOKENS, "total_tokens") if name in read}
    counts = {name: number(found.value) for name, found in firsts.items()}
    if not any(counts.get(name) for name in ("prompt_tokens", "completion_tokens")):
        counts = {name: count for name, count in counts.items() if count != 0}
    total = counts.pop("total_tokens", None)
    if all(map(is_number, counts.values())):
        if "prompt_tokens" in counts:
            counts["prompt_tokens"] += _left_out_of_prompt(firsts["prompt_tokens"], counts, total)
        if "completion_tokens" in counts:
            counts["completion_tokens"] += _left_out_of_completion(counts, total)
    for name, count in counts.items():
        put(name, count, firsts[name].row.place)


def _left_out_of_prompt(found: Found, counts: Mapping[str, Any], total: Any) -> Any:
    """The tokens of the cache that the count of prompt tokens lacks."""
    prompt, completion = counts["prompt_tokens"], counts.get("completion_tokens", 0)
    parts = counts.get("cached_tokens", 0) + counts.get("cache_write_tokens", 0)
    if found.row.basis == "without_cache" and isinstance(found.beside, dict):
        name = found.row.path
        siblings = [number(v) for k, v in found.beside.items() if k.startswith(f"{name}_") and is_number(number(v))]
        parts = sum(siblings)
        return 0 if is_number(total) and total == prompt + completion else parts
    if counts.get("cached_tokens", 0) > prompt or (parts and is_number(total) and total == prompt + completion + parts):
        return parts
    return 0


def _left_out_of_completion(counts: Mapping[str, Any], total: Any) -> Any:
    """The tokens of reasoning that the count of completion tokens lacks."""
    completion, reasoning = counts["completion_tokens"], counts.get("reasoning_tokens", 0)
    prompt = counts.get("prompt_tokens", 0)
    if reasoning > completion or (reasoning and is_number(total) and total == prompt + completion + reasoning):
        return reasoning
    return 0


def _cost(read: Mapping[str, Sequence[Found]], put: Any) -> None:
    """The cost; 0 stands for a price that the library does not know."""
    for found in read.get("cost_usd", ()):
        cost = number(found.value)
        if cost != 0:
            put("cost_usd", cost, found.row.place)
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
    for found in read.get("ttft_ms", ()):
        time = _first_token(found, span)
        # An answer that was not streamed has its first token at the end: that tells nothing.
        if time is not None and (streamed or not is_number(time) or time < 0.999 * fields.get("latency_ms", time + 1)):
            put("ttft_ms", time, found.row.place)
            return
    if first is not None and first.at >= span.start:
        put("ttft_ms", (first.at - span.start) / _MS, f"event {first.name}")


def _first_token(found: Found, span: Span) -> Any:
    if found.row.unit == "time":
        try:
            instant = parse_time(text(found.value))
        except (BadTime, TypeError):
            return None
        return max(0.0, instant / 1_000 - span.start / _MS)
    value = number(found.value)
    return value * _TO_MS[found.row.unit] if is_number(value) else value


def _status(read: Mapping[str, Sequence[Found]], span: Span, put: Any, originals: dict[str, Any]) -> None:
    """Whether the call failed, and how: unset is success unless an error says otherwise."""
    told = [f for f in read.get("error_type", ()) if not _is_fine(f.value)]
    level = read.get("level", ())
    failed = (
        span.status == ERROR
        or any(str(found.value).upper() == "ERROR" for found in level)
        or (span.status == 0 and bool(told))
    )
    if not failed:
        put("status", "ok", "status")
        return
    put("status", "error", "status" if span.status == ERROR else told[0].row.place if told else level[0].row.place)
    candidates = [(text(found.value), found.row.place) for found in told]
    candidates += [
        (event.attributes["exception.type"], "event exception")
        for event in span.events
        if isinstance(event.attributes.get("exception.type"), str)
    ]
    messages = [str(found.value) for found in read.get("message", ())] + [span.message]
    for message in messages:
        candidates += [(code, "message") for code in _STATUS_CODE.findall(message[:500])]
        candidates += [(name, "message") for name in _ERROR_NAME.findall(message[:200])[:1]]
    named = [(vocabulary.error_type(str(sent)), str(sent), place) for sent, place in candidates if sent is not None]
    best = next((n for n in named if n[0] in _SPECIFIC), None)
    best = best or next((n for n in named if n[0] in _GENERIC), None) or (named[0] if named else None)
    if best is None:
        put("error_type", "unknown", "status")
        return
    put("error_type", best[0], best[2])
    if best[0] != best[1]:
        originals[best[2]] = best[1][:200]


def _is_fine(value: Any) -> bool:
    """Whether a value of an error's attributes says that there was none: a status of HTTP below 400."""
    code = number(value)
    return is_number(code) and code < 400


def _quality(read: Mapping[str, Sequence[Found]], span: Span, put: Any) -> None:
    for event in span.events:
        if event.name == EVALUATION:
            score = number(event.attributes.get("gen_ai.evaluation.score.value"))
            if is_number(score):
                put("quality_score", score, f"event {EVALUATION}")
                return
    if "quality_score" in read:
        put("quality_score", number(read["quality_score"][0].value), read["quality_score"][0].row.place)
