"""LiteLLM's standard logging payload, alone, in an array as the proxy sends it, or inside what a callback is given.

- A call is a payload whose `call_type` is one of inference. An answer from LiteLLM's own cache reached no provider, and
  files, batches, vector stores and tools are none: these are passed over.
- The latency is `endTime` - `startTime`; `response_time` is the time to the first token of a stream. Other calls have
  `completionStartTime` = `endTime`.
- Counts that are all 0 were not counted (a failure, a stream without usage); so was a cost of 0 beside counts that are
  not. A cost of 0 beside none is told as it is.
- A call id names one answer, but each failed attempt before it has the same one: the start tells these apart.
"""

from __future__ import annotations

import re
from typing import Any, Final

from operators.config import DecodeConfig
from operators.decode import vocabulary
from operators.decode.base import Call, Reading
from operators.decode.fields import Gathered, elapsed_ms, items, number, once, parsed, text, words

_OBJECT: Final = "standard_logging_object"
_NO_INFERENCE: Final = re.compile(
    r"(^|_)(mcp|tools?|files?|batch(es)?|vector|containers?|list|get|delete|retrieve|cancel|search|skills?|health)(_|$)"
)
_USAGES: Final = ("metadata.usage_object", "response.usage", "hidden_params.usage_object")
_DETAILS: Final = {
    "cached_tokens": (
        "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens", "cache_read_input_tokens",
    ),
    "cache_write_tokens": (
        "cache_creation_input_tokens", "prompt_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_tokens",
    ),
    "reasoning_tokens": (
        "completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens",
    ),
}  # fmt: skip
_ERRORS: Final = tuple(
    f"error_information.{name}" for name in ("error_code", "error_class", "normalized_error", "error_code")
)


class LiteLLMFormat:
    """The format of LiteLLM's standard logging payload."""

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        first = _payload(record[0] if isinstance(record, list) and record else record)
        return isinstance(first, dict) and "call_type" in first and "startTime" in first

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        payloads = [_payload(item) for item in items(parsed(value))]
        calls = [payload for payload in payloads if not _passed_over(payload)]
        return once(map(_call, calls), len(payloads) - len(calls))


def _payload(item: Any) -> Any:
    """The payload that an item is, or that a callback's arguments hold."""
    for outer in (item, item.get("kwargs") if isinstance(item, dict) else None):
        if isinstance(outer, dict) and isinstance(outer.get(_OBJECT), dict):
            return outer[_OBJECT]
    return item


def _passed_over(payload: Any) -> bool:
    if not isinstance(payload, dict):
        return False
    from_cache = payload.get("cache_hit") in (True, "True", "true") or "_cache_hit" in text(payload.get("id"))
    return from_cache or bool(_NO_INFERENCE.search(text(payload.get("call_type"))))


def _call(payload: Any) -> Call:
    call = Gathered()
    call.take("timestamp", payload, "startTime")
    _whence(call, payload)
    _model(call, payload)
    _usage(call, payload)
    _outcome(call, payload)
    _times(call, payload)
    return call.call(*_keys(payload))


def _whence(call: Gathered, payload: Any) -> None:
    """The names of sender, tenant and user; the callbacks' metadata name them, and no field of LiteLLM's own does."""
    call.take("service", payload, *(
        f"metadata.{of}.{name}"
        for of in ("requester_metadata", "spend_logs_metadata")
        for name in ("service_name", "service")
    ))  # fmt: skip
    call.fields.setdefault("service", "litellm")
    names = ("user_api_key_team_alias", "team_alias", "user_api_key_team_id", "team_id", "user_api_key_org_id")
    call.take("tenant", payload, *(f"metadata.{name}" for name in names))
    call.take("user", payload, "end_user", "metadata.user_api_key_end_user_id", "model_parameters.user")
    call.take("key", payload, "metadata.user_api_key_alias", "metadata.user_api_key_hash")
    call.take("trace_id", payload, "trace_id")
    call.take("session_id", payload, "session_id")


def _model(call: Gathered, payload: Any) -> None:
    """Models without the prefix of their provider; a proxy may answer with its own alias, which names no model."""
    names = words(vocabulary.provider)
    call.take("provider", payload, "custom_llm_provider", read=names)
    call.take("provider", payload, "model_map_information.model_map_value.litellm_provider", read=names)
    call.take("operation", payload, "call_type", read=words(vocabulary.operation))
    prefix = text(payload.get("custom_llm_provider") if isinstance(payload, dict) else "") + "/"

    def bare(name: Any) -> Any:
        return name.removeprefix(prefix) if isinstance(name, str) else name

    alias = call.take("model_requested", payload, "model_group", "model", read=bare)
    call.take("model", payload, "response.model", read=lambda name: None if bare(name) == alias else bare(name))
    call.take("model", payload, "model", "response.model", read=bare)
    call.take("streamed", payload, "stream")


def _usage(call: Gathered, payload: Any) -> None:
    call.take("prompt_tokens", payload, "prompt_tokens", *(f"{usage}.prompt_tokens" for usage in _USAGES), read=number)
    if call.fields.get("operation") != "embeddings":  # these complete nothing, and the payload says 0
        outputs = (f"{usage}.completion_tokens" for usage in _USAGES)
        call.take("completion_tokens", payload, "completion_tokens", *outputs, read=number)
    for name, places in _DETAILS.items():
        call.take(name, payload, *(f"{usage}.{place}" for usage in _USAGES for place in places), read=number)
    call.take("cost_usd", payload, "response_cost", read=number)
    call.drop_zeros()
    call.drop_no_price()


def _outcome(call: Gathered, payload: Any) -> None:
    status = call.take("status", payload, "status", "status_fields.llm_api_status")
    if status == "failure":
        call.fields["status"] = "error"
        call.take("error_type", payload, *_ERRORS, read=_kind)
        call.take("error_type", payload, "error_information.error_class")
        return
    if status == "success":
        call.fields["status"] = "ok"
        call.take("event_id", payload, "id")
    places = ("response.choices.0.finish_reason", "response.incomplete_details.reason", "response.status")
    call.take("finish_reason", payload, *places, "response.stop_reason", read=words(vocabulary.finish_reason))


def _kind(name: Any) -> str | None:
    """The kind of an error that a code or the name of a class says; None if it says none."""
    kind = vocabulary.error_type(text(name))
    return kind if kind in vocabulary.ERROR_TYPES else None


def _times(call: Gathered, payload: Any) -> None:
    if not isinstance(payload, dict):
        return
    start, end, first = (payload.get(name) for name in ("startTime", "endTime", "completionStartTime"))
    call.put("latency_ms", elapsed_ms(start, end), "endTime - startTime")
    if payload.get("stream") is True and first != end:
        call.put("ttft_ms", elapsed_ms(start, first), "completionStartTime - startTime")


def _keys(payload: Any) -> list[str]:
    if not isinstance(payload, dict):
        return []
    response, call_id = text(payload.get("id")), text(payload.get("litellm_call_id"))
    if payload.get("status") == "failure":
        return [f"call:{call_id or response}/{text(payload.get('startTime'))}"] if call_id or response else []
    keys = [f"call:{call_id or response}"] if call_id or response else []
    return keys + [f"response:{response}"] * (response not in ("", call_id))
