"""LiteLLM's standard logging payload, alone, in an array as the proxy sends it, or inside what a callback is given.

The rows of its proxy's spend logs are read as such payloads: they tell the same, some of it under other names.

- A call is a payload whose `call_type` is one of inference. An answer from LiteLLM's own cache reached no provider, and
  files, batches, vector stores and tools are none: these are passed over.
- The latency is `endTime` - `startTime`; `response_time` is the time to the first token of a stream. Other calls have
  `completionStartTime` = `endTime`.
- Counts that are all 0 were not counted (a failure, a stream without usage). A cost of 0 beside counts means a model
  without a price; beside none it is told as it is.
- A call id names one answer, but each failed attempt before it has the same one: the start tells these apart, and they
  have no `event_id`.
"""

from __future__ import annotations

from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.base import Call, Reading
from operators.decode.config import DecodeConfig
from operators.decode.fields import Gathered, elapsed_ms, items, once, parsed, source, text, words
from operators.decode.paths import at
from operators.decode.seen import response_keys
from operators.decode.times import parse_time
from operators.decode.values import flag, inside, number

_OBJECT: Final = "standard_logging_object"
_provider: Final = words(vocabulary.provider)

_WHENCE: Final = {
    "timestamp": source("startTime"),
    "service": source(
        "metadata.requester_metadata.service_name", "metadata.requester_metadata.service",
        "metadata.spend_logs_metadata.service_name", "metadata.spend_logs_metadata.service",
    ),
    "tenant": source(
        "metadata.user_api_key_team_alias", "metadata.team_alias", "metadata.user_api_key_team_id", "metadata.team_id",
        "metadata.user_api_key_org_id", "team_id",
    ),
    "user": source("end_user", "metadata.user_api_key_end_user_id", "model_parameters.user"),
    "key": source("metadata.user_api_key_alias", "metadata.user_api_key_hash"),
    "trace_id": source("trace_id"),
    "session_id": source("session_id"),
    "provider": source("custom_llm_provider", "model_map_information.model_map_value.litellm_provider", read=_provider),
    "operation": source("call_type", read=words(vocabulary.operation)),
    "streamed": source("stream", read=flag),
}  # fmt: skip
_ASKED: Final = source("model_group", "model")
_ANSWERED: Final = source("response.model")
_MAPPED: Final = source("model_map_information.model_map_key", "model")

_USAGES: Final = source("metadata.usage_object", "response.usage", "hidden_params.usage_object")
_COUNTS: Final = {name: source(name, read=number) for name in ("prompt_tokens", "completion_tokens")}
_DETAILS: Final = {
    "cached_tokens": source(
        "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens", "cache_read_input_tokens",
        read=number,
    ),
    "cache_write_tokens": source(
        "cache_creation_input_tokens", "prompt_tokens_details.cache_write_tokens",
        "prompt_tokens_details.cache_creation_tokens", read=number,
    ),
    "reasoning_tokens": source(
        "completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens", read=number
    ),
}  # fmt: skip
_COST: Final = source("response_cost", "spend", read=number)

_STATUS: Final = source("status", "status_fields.llm_api_status")
_ERRORS: Final = ("error_code", "error_class", "normalized_error", "error_message")
_GUARDRAIL: Final = source("status_fields.guardrail_status", read=words(vocabulary.error_type))
_INTERVENED: Final = ("guardrail_intervened", "blocked")
_FINISH: Final = source(
    "response.choices.0.finish_reason", "response.incomplete_details.reason", "response.status", "response.stop_reason",
    read=words(vocabulary.finish_reason),
)  # fmt: skip


class LiteLLMFormat:
    """The format of LiteLLM's standard logging payload."""

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        first = _payload(record[0] if isinstance(record, list) and record else record)
        return isinstance(first, dict) and "call_type" in first and "startTime" in first

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        return once(_passed_over(payload) or _call(payload) for payload in map(_payload, items(parsed(value))))


def _payload(item: Any) -> Any:
    """The payload that an item is, or that a callback's arguments hold."""
    for outer in (item, item.get("kwargs") if isinstance(item, dict) else None):
        if isinstance(outer, dict) and isinstance(outer.get(_OBJECT), dict):
            return outer[_OBJECT]
    return _of_spend(item) if isinstance(item, dict) and "spend" in item and "request_id" in item else item


def _of_spend(row: dict[str, Any]) -> dict[str, Any]:
    """The payload that a row of the spend logs tells; what came before its end came as a stream."""
    told, first = inside(row.get("metadata")), row.get("completionStartTime")
    metadata = told if isinstance(told, dict) else {}
    moved = {name: metadata.get(name) for name in ("status", "error_information", "model_map_information")}
    stream = None if first is None else first != row.get("endTime")
    return {**moved, "id": row["request_id"], "stream": stream, **row, "metadata": metadata}


def _passed_over(payload: Any) -> str:
    """What a payload is that tells of no call to a provider, else ""."""
    if not isinstance(payload, dict):
        return ""
    if flag(payload.get("cache_hit")) or "_cache_hit" in text(payload.get("id")):
        return "cache_hit"
    return "no_call" if vocabulary.manages(text(payload.get("call_type"))) else ""


def _call(payload: Any) -> Call:
    call = Gathered()
    if not isinstance(payload, dict):
        return call.call()
    for name, told in _WHENCE.items():
        call.take(name, payload, told)
    call.fields.setdefault("service", "litellm")
    _models(call, payload)
    _usage(call, payload)
    _outcome(call, payload)
    _times(call, payload)
    return call.call(*_keys(payload))


def _models(call: Gathered, payload: dict[str, Any]) -> None:
    """Models without the prefix of their provider.

    A stream's answer repeats the model that was asked for, which may be an alias of the proxy: the key of LiteLLM's
    table of prices says more.
    """
    prefix = text(payload.get("custom_llm_provider")) + "/"

    def bare(name: Any) -> Any:
        return name.removeprefix(prefix) if isinstance(name, str) else name

    asked = call.take("model_requested", payload, _ASKED._replace(read=bare))
    call.take("model", payload, _ANSWERED._replace(read=lambda name: None if bare(name) == asked else bare(name)))
    call.take("model", payload, _MAPPED._replace(read=bare))


def _usage(call: Gathered, payload: dict[str, Any]) -> None:
    usage, place = next(
        ((found, place) for path, place in _USAGES.places if isinstance(found := at(payload, path), dict)), ({}, "")
    )
    for name, told in _COUNTS.items():
        call.take(name, payload, told)
        call.take(name, usage, told, f"{place}.")
    for name, told in _DETAILS.items():
        call.take(name, usage, told, f"{place}.")
    # Requests to `/v1/messages` were counted as Anthropic does, without their cache; their usage has the whole.
    call.include_cache(number(payload.get("total_tokens")), whole=number(usage.get("prompt_tokens")))
    call.take("cost_usd", payload, _COST)
    if call.fields.get("operation") == "embeddings":
        call.drop("completion_tokens")  # these complete nothing, and the payload says 0
    call.drop_zeros()
    call.drop_no_price()


def _outcome(call: Gathered, payload: dict[str, Any]) -> None:
    status = call.take("status", payload, _STATUS)
    if status == "failure":
        call.fields["status"] = "error"
        if text(at(payload, ("status_fields", "guardrail_status"))) in _INTERVENED:
            call.take("error_type", payload, _GUARDRAIL)
        else:
            _error(call, payload.get("error_information"))
        return
    if status == "success":
        call.fields["status"] = "ok"
        call.put("event_id", payload.get("id"), "id")
    call.take("finish_reason", payload, _FINISH)


def _error(call: Gathered, told: Any) -> None:
    """The kind of error by the first name that says more than that the call failed, else by any, else its class.

    LiteLLM gives its classes an HTTP status, also where there was none: a lost connection is 500. The message may quote
    a prompt: only what it says about the kind is taken from it.
    """
    if not isinstance(told, dict):
        return
    sent = {name: text(told.get(name)) for name in _ERRORS}
    code, of_class, normalized, message = _ERRORS
    order = (of_class, code, normalized, message) if sent[code].isdigit() else _ERRORS
    kinds = {name: kind for name in order if (kind := vocabulary.error_type(sent[name])) in vocabulary.ERROR_TYPES}
    name = min(kinds, key=lambda name: vocabulary.vagueness(kinds[name]), default=of_class)
    named = kinds[name] if name == message else sent[name]
    call.put("error_type", named, f"error_information.{name}", words(vocabulary.error_type))


def _times(call: Gathered, payload: dict[str, Any]) -> None:
    start, end, first = (payload.get(name) for name in ("startTime", "endTime", "completionStartTime"))
    call.put("latency_ms", elapsed_ms(start, end), "endTime - startTime")
    if call.fields.get("streamed") and first != end:
        call.put("ttft_ms", elapsed_ms(start, first), "completionStartTime - startTime")


def _keys(payload: dict[str, Any]) -> list[str]:
    response, call_id = text(payload.get("id")), text(payload.get("litellm_call_id"))
    if payload.get("status") == "failure":
        return [f"call:{call_id or response}/{text(payload.get('startTime'))}"] if call_id or response else []
    keys = [f"call:{call_id or response}"] if call_id or response else []
    try:
        ended = parse_time(payload["endTime"]) * 1_000
    except (KeyError, ValueError, TypeError):  # of a value that is no time
        return keys
    return keys + (response_keys(response, ended) if response != call_id else [])
