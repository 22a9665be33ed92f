"""The three shapes of records that the Rust LLM-Sentinel's users send.

- nested: `prompt` and `response` are objects, each with its text and its tokens.
- flat, as its Python and Go producers write: `model_name`, `prompt_tokens`, `prompt_text`.
- documented only: `operation`, `duration_ms`, and `attributes` such as `llm.model`.

They differ in names alone, so that one table reads all three. Of texts, embeddings and messages of errors nothing is
kept but the kind of error that the words of a message tell.
"""

from __future__ import annotations

from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.base import Call, Reading
from operators.decode.config import DecodeConfig
from operators.decode.fields import Gathered, items, once, parsed, source, text, words
from operators.decode.paths import at
from operators.decode.values import number

_NAMES: Final = {
    "event_id": source("event_id", "request_id"),
    "timestamp": source("timestamp"),
    "service": source("service_name", "service", 'attributes."service.name"'),
    "model": source("model", "model_name", 'attributes."llm.model"'),
    "provider": source("provider", 'attributes."llm.provider"', "metadata.provider", read=words(vocabulary.provider)),
    "operation": source("operation", "metadata.operation", read=words(vocabulary.operation)),
    "tenant": source("metadata.tenant", "metadata.tenant_id", 'attributes."tenant.id"'),
    "region": source("metadata.region", "attributes.region"),
    "user": source("user_id", 'attributes."user.id"', "metadata.user_id"),
    "key": source('attributes."api.key_id"'),
    "session_id": source("session_id", 'attributes."session.id"', "metadata.session_id"),
    "trace_id": source("trace_id"),
    "span_id": source("span_id"),
    "latency_ms": source("latency_ms", "duration_ms", read=number),
    "prompt_tokens": source(
        "prompt.tokens", "prompt_tokens", 'attributes."llm.usage.prompt_tokens"',
        'attributes."llm.usage.input_tokens"', read=number,
    ),
    "completion_tokens": source(
        "response.tokens", "completion_tokens", 'attributes."llm.usage.completion_tokens"',
        'attributes."llm.usage.output_tokens"', read=number,
    ),
    "cost_usd": source("cost_usd", 'attributes."llm.usage.cost_usd"', read=number),
    "finish_reason": source("response.finish_reason", "finish_reason", read=words(vocabulary.finish_reason)),
    "status": source("status", 'attributes."http.status_code"'),
}  # fmt: skip
_HTTP_STATUS: Final = ("attributes", "http.status_code")


class EarlierFormat:
    """The format of the Rust LLM-Sentinel's topic, in any of its shapes."""

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        first = record[0] if isinstance(record, list) and record else record
        if not isinstance(first, dict):
            return False
        nested = isinstance(first.get("prompt"), dict) and isinstance(first.get("response"), dict)
        flat = "model_name" in first and "service_name" in first
        attributes = first.get("attributes")
        documented = "duration_ms" in first and isinstance(attributes, dict) and "llm.model" in attributes
        return documented or ("timestamp" in first and (flat or (nested and "service_name" in first)))

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        return once(map(_call, items(parsed(value))))


def _call(record: Any) -> Call:
    call = Gathered()
    for name, told in _NAMES.items():
        call.take(name, record, told)
    _outcome(call, record)
    if call.fields.get("status") == "error":
        call.drop_zeros()
    return call.call(*_keys(call))


def _outcome(call: Gathered, record: Any) -> None:
    """Whether the call failed, and how: `errors` say most of it, then the status of HTTP, then `status`."""
    errors, status = at(record, ("errors",)), text(call.fields.get("status"))
    told = [_told(error) for error in errors] if isinstance(errors, list) else []
    told += [(text(at(record, _HTTP_STATUS)), "http.status_code"), (status, "status")]
    if errors or any(vocabulary.is_error(sent) for sent, _ in told):
        place = "errors" if errors else "status"
        named = (one for one in told if vocabulary.error_type(one[0]) in vocabulary.ERROR_TYPES)
        call.put("status", "error", place)
        call.put("error_type", *next(named, ("unknown", place)), words(vocabulary.error_type))
    elif vocabulary.is_error(status) is False:
        call.fields["status"] = "ok"


def _told(error: Any) -> tuple[str, str]:
    """What names the error, and its place: its type or code, else the kind that its message tells."""
    for name in ("type", "error_type", "code") if isinstance(error, dict) else ():
        if error.get(name):
            return text(error[name]), f"errors.{name}"
    message = error.get("message") if isinstance(error, dict) else error
    return vocabulary.error_type(text(message)), "errors"


def _keys(call: Gathered) -> list[str]:
    """By the span, or by the id of the event; a request id may be that of several calls, which begin apart."""
    event, trace, span = (text(call.fields.get(name)) for name in ("event_id", "trace_id", "span_id"))
    keys = [f"span:{trace}/{span}"] if trace and span else []
    if event and call.found["event_id"] == "event_id":
        keys.append(f"call:{event}")
    elif event:
        keys.append(f"call:{event}/{text(call.fields.get('timestamp'))}")
    return keys
