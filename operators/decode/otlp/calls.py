"""One span that is a call, as a native event."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.base import MAX_SENT
from operators.decode.conventions import FIRST_TOKEN
from operators.decode.otlp.roles import failed_model
from operators.decode.otlp.signals import ERROR, Span
from operators.decode.paths import at, steps
from operators.decode.resolve import Conventions, Found
from operators.decode.times import parse_time
from operators.decode.values import flag, inside, is_number, number, text
from operators.decode.vocabulary import ERROR_TYPES

_MS: Final = 1_000_000  # nanoseconds
_TO_MS: Final = {"s": 1_000.0, "ms": 1.0, "us": 0.001, "ns": 0.000_001}
_TEXTS: Final = ("service", "region", "tenant", "agent", "session_id", "user", "key", "model", "model_requested")
_TOKENS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_PARTS_OF: Final = {
    "prompt_tokens": re.compile(r"input_(?!tokens$)|cached_modality_|cache_?(read|creation|write)", re.IGNORECASE),
    "completion_tokens": re.compile(r"output_(?!tokens$)|thoughts_"),
}
"""Names of the parts that stand beside what is left of the whole."""
_WITHOUT_COMPLETION: Final = ("embeddings", "rerank")
"""Operations that complete nothing: some libraries write 0."""
_FAILED: Final = ("error", "failed")
"""Finish reasons of answers that broke off."""
_STATUS_CODE: Final = re.compile(r"\b(?:code|status)\D{0,3}([45]\d\d)\b", re.IGNORECASE)
_ANSWER: Final = frozenset({"completion_tokens", "finish_reason"})
"""What only a call with an answer tells."""
_COST: Final = re.compile(r"\$?\s*([0-9.]+(?:[eE]-?[0-9]+)?)\s*(?:USD)?")
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
    {"langchain", "langgraph", "llamaindex", "llama_index", "crewai", "agno", "haystack", "dspy"}
)
"""What some write in place of a provider that they do not know."""
_UNKNOWN: Final = re.compile(r"unknown(_model|_service(:.*)?)?")
"""What some write in place of a name that they do not know."""
_WITHOUT_CACHE: Final = frozenset(
    {"openinference.instrumentation.bedrock", "@arizeai/openinference-instrumentation-bedrock"}
)
"""Scopes of libraries that hand on counts of input that lack the cached part under a name that includes it."""
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
    told.sent = _tokens(read, operation, span.scope, put)
    _stream(read, span, fields, put)
    _finish(read, span, put)
    _status(read, span, fields, put)
    _cost(read, fields["status"] == "error", put)
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


def _provider(read: Mapping[str, Sequence[Found]], span: Span, put: Any) -> None:
    told = [(text(found.value), found.row.place) for found in read.get("provider", ())]
    told += [(word, _SCOPE) for word in re.split(r"[^a-z0-9]+", span.scope.lower()) if word in _PROVIDERS]
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


def _tokens(read: Mapping[str, Sequence[Found]], operation: str, scope: str, put: Any) -> dict[str, Any]:
    """The counts: prompt tokens with cache, completion tokens with reasoning, whichever way they were told.

    Parts that are more than their whole, or a total that is the sum of whole and parts, prove that the parts were not
    in the whole. A count of -1 is unknown. Counts that are all 0 stand for a call whose usage nobody knows, since no
    call has an empty prompt. Gives the counts as they were told.
    """
    firsts = {name: read[name][0] for name in (*_TOKENS, "total_tokens") if name in read}
    counts = {name: number(found.value) for name, found in firsts.items()}
    counts = {name: count for name, count in counts.items() if count != -1}
    total = counts.pop("total_tokens", None)
    if operation in _WITHOUT_COMPLETION and counts.get("completion_tokens") == 0:
        del counts["completion_tokens"]
    if counts.get("cache_write_tokens") == 0:
        counts["cache_write_tokens"] = _by_lifetime(firsts["cache_write_tokens"])
    sent = dict(counts)
    if all(map(is_number, counts.values())):
        prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
        cache = counts.get("cached_tokens", 0) + counts.get("cache_write_tokens", 0)
        reasoning = counts.get("reasoning_tokens", 0)
        added = total - (prompt or 0) - (completion or 0) if is_number(total) and total else None
        if prompt is not None:
            first, proofs = firsts["prompt_tokens"], {cache, cache + reasoning}
            basis = "without_cache" if scope in _WITHOUT_CACHE else first.row.basis
            lacks = _is_beside("cached_tokens", firsts) or _uncached(read) == prompt
            counts["prompt_tokens"] += cache if lacks else _left_out(first, basis, prompt, cache, added, proofs)
        if completion is not None:
            first, proofs = firsts["completion_tokens"], {reasoning, cache + reasoning}
            lacks = _is_beside("reasoning_tokens", firsts)
            counts["completion_tokens"] += (
                reasoning if lacks else _left_out(first, first.row.basis, completion, reasoning, added, proofs)
            )
    if not any(counts.get(name) for name in ("prompt_tokens", "completion_tokens")):
        counts = {name: count for name, count in counts.items() if count != 0}
    for name, count in counts.items():
        put(name, count, firsts[name].row.place)
    return {name: sent[name] for name in counts}


def _is_beside(part: str, firsts: Mapping[str, Found]) -> bool:
    """Whether the name of a part says that its whole lacks it."""
    return part in firsts and firsts[part].row.basis == "beside"


def _uncached(read: Mapping[str, Sequence[Found]]) -> Any:
    """The provider's own count of an input without its cache: until 5 the Vercel AI SDK hands on Anthropic's."""
    return number(read["uncached_tokens"][0].value) if "uncached_tokens" in read else None


def _by_lifetime(found: Found) -> Any:
    """The tokens written to the cache, summed over lifetimes: LangChain has 0 for their sum where it tells each."""
    beside = at(found.beside, steps(found.row.path)[:-1]) if found.row.path else None
    counts = (
        [number(value) for name, value in beside.items() if "ephemeral" in name] if isinstance(beside, dict) else []
    )
    return sum(filter(is_number, counts))


def _left_out(found: Found, basis: str, whole: Any, parts: Any, added: Any, proofs: set[Any]) -> Any:
    """The tokens of the parts that the count of the whole lacks.

    `added` is what the total has beyond prompt and completion, None if there is no total; `proofs` the values of it
    that prove that the parts are missing.
    """
    if basis == "parts" and isinstance(found.beside, dict):
        of_whole = _PARTS_OF[found.row.field]
        siblings = [number(value) for name, value in found.beside.items() if of_whole.match(name)]
        parts = sum(filter(is_number, siblings))
    elif basis != "without_cache":
        return parts if parts > whole or (parts and added in proofs) else 0
    return 0 if added == 0 else parts


def _cost(read: Mapping[str, Sequence[Found]], failed: bool, put: Any) -> None:
    """The cost; 0 stands for a price that the library does not know, unless the call failed."""
    for found in read.get("cost_usd", ()):
        written = _COST.fullmatch(found.value.strip()) if isinstance(found.value, str) else None
        cost = number(written[1] if written else found.value)
        if isinstance(of_parts := inside(cost), dict):
            costs = [number(part) for part in of_parts.values()]
            cost = sum(filter(is_number, costs)) if any(map(is_number, costs)) else None
        if cost != 0 or failed:
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
    told = [f for f in read.get("error_type", ()) if not _is_fine(f.value)]
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
    elif span.status == 0 and not _ANSWER & fields.keys() and not _id(read, "response_id") and _failed(span):
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
    if not named:
        put("error_type", "unknown", place)
        return
    _, sent, place = min(named, key=lambda one: vocabulary.vagueness(one[0]))
    put("error_type", sent, place, vocabulary.error_type)


def _raised(span: Span) -> list[str]:
    """The types of the exceptions among the events of the span."""
    types = [event.attributes.get("exception.type") for event in span.events]
    return [raised for raised in types if isinstance(raised, str)]


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


def _is_fine(value: Any) -> bool:
    """Whether a value of an error's attributes says that there was none: a status of HTTP below 400."""
    code = number(value)
    return is_number(code) and code < 400


def _quality(read: Mapping[str, Sequence[Found]], span: Span, put: Any) -> None:
    for event in span.events:
        if event.name == EVALUATION_EVENT:
            score = number(event.attributes.get("gen_ai.evaluation.score.value"))
            if is_number(score):
                put("quality_score", score, f"event {EVALUATION_EVENT}")
                return
    if "quality_score" in read:
        put("quality_score", number(read["quality_score"][0].value), read["quality_score"][0].row.place)
