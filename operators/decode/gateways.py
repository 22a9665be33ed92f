"""The logs of gateways: Kong's log of a request with its `ai` object, and the access logs of Envoy's gateways.

A line that tells of no call of a model (another path, tools, an answer from the gateway's cache) is passed over. Counts
that are all 0 were not counted. A time to the first token is believed of streams only.
"""

from __future__ import annotations

import re
from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.base import Call, Reading
from operators.decode.config import DecodeConfig
from operators.decode.fields import Gathered, Source, at_most, items, key, once, parsed, source, text, words
from operators.decode.paths import at
from operators.decode.values import inside, number

_INFERENCE: Final = re.compile(
    r"/(chat/completions|completions|embeddings|messages|responses|rerank|converse(-stream)?|images/generations"
    r"|audio/(speech|transcriptions|translations))/?(\?|$)|:(stream)?generateContent"
)
_RESPONSES: Final = {"stream": True, "normal": False}
_STREAMS: Final = {"stream": True, "streaming": True, "realtime": True, "oneshot": False}


def _operation(path: Any) -> str | None:
    """The operation of a path of inference; None for any other path."""
    found = _INFERENCE.search(path) if isinstance(path, str) else None
    return vocabulary.operation(found[1] or "chat") if found else None


def _http(call: Gathered, line: object, told: Source) -> None:
    """Status and error of an HTTP status; 0 is none, since no answer was sent."""
    status = call.take("status", line, told)
    if status is None:
        return
    failed = vocabulary.is_error(status)
    if failed:
        call.put("error_type", status, call.found["status"], words(vocabulary.error_type))
    if failed is not None:
        call.fields["status"] = "error" if failed else "ok"


def _status(status: Any) -> str | None:
    return text(status) if text(status) not in ("", "0") else None


def _share(percent: Any) -> Any:
    """A score of 1 to 100 as a share."""
    percent = number(percent)
    return percent / 100 if isinstance(percent, int | float) else percent


def _backend(name: Any) -> str | None:
    """The provider that the name of a backend tells of: `namespace/name/route/...`, chosen by the operator."""
    parts = text(name).split("/")
    named = f"backend {parts[1] if len(parts) > 1 else parts[0]}"
    provider = vocabulary.provider(named)
    return None if provider == named.strip().lower() else provider


_KONG: Final = {
    "timestamp": source("started_at"),
    "service": source("service.name", "route.name"),
    "tenant": source("consumer.username", "consumer.custom_id", "consumer.id"),
    "key": source("authenticated_entity.id"),
    "trace_id": source("trace_id.w3c"),
    "operation": source("upstream_uri", "request.uri", read=_operation),
}
_KONG_REQUEST: Final = {"event_id": source("request.id"), "latency_ms": source("latencies.request", read=number)}
"""What is the call's where the request made no other call."""

_KONG_PLUGIN: Final = {
    "provider": source("meta.provider_name", read=words(vocabulary.provider)),
    "model_requested": source("meta.request_model"),
    "model": source("meta.response_model", "meta.request_model"),
    "latency_ms": source("meta.llm_latency", read=number),
    "streamed": source("meta.request_mode", read=lambda mode: _STREAMS.get(text(mode))),
    "prompt_tokens": source("usage.prompt_tokens", "usage.prompt_token", "usage.input_tokens", read=number),
    "completion_tokens": source(
        "usage.completion_tokens", "usage.completion_token", "usage.output_tokens", read=number
    ),
    "cached_tokens": source("usage.prompt_tokens_details.cached_tokens", read=number),
    "reasoning_tokens": source("usage.completion_tokens_details.reasoning_tokens", read=number),
    "cost_usd": source("usage.cost", read=number),
    "quality_score": source("ai-llm-as-judge.usage.llm_accuracy", "usage.llm_accuracy", read=_share),
}  # fmt: skip
_KONG_TTFT: Final = source("usage.time_to_first_token", read=number)
_KONG_STATUS: Final = source("response.status", "upstream_status", read=_status)


class KongFormat:
    """The format of what Kong's logging plugins write: an object a request, or an array of them.

    Under `ai` each plugin that called a model has an object of its own, with `meta` and `usage`.
    """

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        first = record[0] if isinstance(record, list) and record else record
        return isinstance(first, dict) and "latencies" in first and "started_at" in first

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        return once(found for line in items(parsed(value)) for found in _kong(line))


def _kong(line: Any) -> list[Call | str]:
    """The calls of a line, or the name of what it tells of instead."""
    if not isinstance(line, dict) or not KongFormat.looks_like(line):
        return [Call({})]
    ai, request = line.get("ai"), text(at(line, ("request", "id")))
    plugins = {name: of for name, of in (ai.items() if isinstance(ai, dict) else ()) if _called(of)}
    at_most(len(plugins))
    calls: list[Call | str] = []
    for name, of in plugins.items():
        if text(at(of, ("cache", "cache_status"))).lower() == "hit":
            calls.append("cache_hit")
            continue
        call = Gathered(absent=("UNSPECIFIED",))
        for field, told in (_KONG | _KONG_REQUEST if len(plugins) == 1 else _KONG).items():
            call.take(field, line, told)
        for field, told in _KONG_PLUGIN.items():
            call.take(field, of, told, f"ai.{name}.")
        if call.fields.get("streamed"):
            call.take("ttft_ms", of, _KONG_TTFT, f"ai.{name}.")
        call.include_cache(number(at(of, ("usage", "total_tokens"))))
        call.fields.setdefault("service", "kong")
        call.drop_zeros()
        call.drop_no_price()
        _http(call, line, _KONG_STATUS)
        calls.append(call.call(*([f"call:{request}/{name}"] if request else [])))
    return calls or ["no_call"]


def _called(plugin: Any) -> bool:
    """Whether a plugin's object tells of a call of a model."""
    return any(text(at(plugin, ("meta", name))) for name in ("provider_name", "request_model"))


_AI: Final = "io.envoy.ai_gateway"
_HIGRESS: Final = "ai_log"
_ENVOY: Final = {
    "timestamp": key("start_time", "timestamp", "time", "@timestamp"),
    "service": key("service.name", "service_name"),
    "tenant": key("tenant.id", "tenant", "x-tenant-id", "consumer"),
    "user": key("user.id", "x-user-id"),
    "session_id": key("session.id", "session_id"),
    "agent": key("agent.name", "agent.id"),
    "trace_id": key("trace_id", "traceId"),
    "span_id": key("span_id", "spanId"),
    "model_requested": key("gen_ai.original.model", "gen_ai.request.model", "genai_model_name", "x-ai-eg-model"),
    "model": key(
        "gen_ai.response.model", "genai_response_model", "response_model", "genai_model_name_override",
        "model_name_override", "gen_ai.request.model", "genai_model_name", "x-ai-eg-model", "model",
    ),
    "provider": key(
        "gen_ai.provider.name", "genai_backend_name", "ai_service_backend_name", "backend_name", read=_backend
    ),
    "operation": key(
        "x-envoy-origin-path", "x-envoy-original-path", "request.path", "path", ":path", read=_operation
    ),
    "latency_ms": key("duration", "duration_ms", read=number),
    "prompt_tokens": key(
        "gen_ai.usage.input_tokens", "genai_tokens_input", "llm_input_token", "input_token", read=number
    ),
    "completion_tokens": key(
        "gen_ai.usage.output_tokens", "genai_tokens_output", "llm_output_token", "output_token", read=number
    ),
    "cached_tokens": key(
        "gen_ai.usage.cache_read.input_tokens", "genai_tokens_cached_input", "genai_tokens_cached",
        "llm_cached_input_token", read=number,
    ),
    "cache_write_tokens": key(
        "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
        "llm_cache_creation_input_token", "llm_cache_creation_token", read=number,
    ),
    "reasoning_tokens": key("gen_ai.usage.reasoning.output_tokens", "llm_reasoning_token", read=number),
    "streamed": key("response_type", read=lambda kind: _RESPONSES.get(text(kind))),
}  # fmt: skip
"""The names of Envoy's documents and examples, of the gateway's own metadata, and of Higress."""

_ENVOY_TOTAL: Final = ("gen_ai.usage.total_tokens", "genai_tokens_total", "llm_total_token", "total_token")
_ENVOY_TTFT: Final = key("llm_first_token_duration", read=number)
_ENVOY_STATUS: Final = key("response_code", "response.code", "status", read=_status)
_ENVOY_ERROR: Final = key("llm_error_code", "llm_error_type", "error.type")
_FLAGS: Final = {
    "UT": "timeout", "SI": "timeout", "DT": "timeout", "UMSDR": "timeout", "RL": "rate_limit", "RLSE": "server_error",
    "UO": "overloaded", "OM": "overloaded", "UAEX": "authentication", "NR": "not_found", "NC": "not_found",
    "UC": "connection", "UF": "connection", "UH": "connection", "UR": "connection", "LR": "connection",
    "UPE": "connection", "URX": "connection", "LH": "connection",
}  # fmt: skip
"""The error that a response flag means. A caller that left early (DC) made no error."""


class EnvoyFormat:
    """The format of the access logs of the Envoy AI Gateway and of Higress: an object a line, keys as Envoy names them.

    What the gateway tells may stand beside the other keys, in an object `io.envoy.ai_gateway`, or in the JSON text
    `ai_log` of Higress.
    """

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        first = record[0] if isinstance(record, list) and record else record
        return isinstance(first, dict) and "start_time" in first and "response_code" in first

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        return once(_envoy(line) or "no_call" for line in items(parsed(value)))


def _envoy(line: Any) -> Call | None:
    if not isinstance(line, dict):
        return Call({})
    told = _flat(line)
    call = Gathered(absent=("-",))
    for name, places in _ENVOY.items():
        call.take(name, told, places)
    posted = told.get("method", told.get(":method", "POST")) == "POST"
    of_model = "model" in call.fields or "prompt_tokens" in call.fields or (posted and "operation" in call.fields)
    if not of_model and "timestamp" in call.fields:
        return None
    call.include_cache(next((number(told[name]) for name in _ENVOY_TOTAL if told.get(name) is not None), None))
    call.fields.setdefault("service", "higress" if _HIGRESS in line else "envoy-ai-gateway")
    if call.fields.get("streamed"):
        call.take("ttft_ms", told, _ENVOY_TTFT)
    call.drop_zeros()
    _http(call, told, _ENVOY_STATUS)
    _upstream_error(call, told)
    _flags(call, text(told.get("response_flags")))
    request, start = text(told.get("x-request-id", told.get("request_id"))), text(call.fields.get("timestamp"))
    # A caller may send one request id with each call that it makes.
    return call.call(*([f"call:{request}/{start}"] if request not in ("", "-") else []))


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """The line with the gateway's own metadata beside its other keys."""
    if isinstance(of_higress := inside(line.get(_HIGRESS)), dict):
        return {**of_higress, **line}
    for outer in (line, line.get("dynamic_metadata"), line.get("filter_metadata")):
        if isinstance(outer, dict) and isinstance(outer.get(_AI), dict):
            return {**outer[_AI], **line}
    return line


def _upstream_error(call: Gathered, told: dict[str, Any]) -> None:
    """The provider's own name for its error, where that says more than the status."""
    if call.fields.get("status") != "error":
        return
    for path, place in _ENVOY_ERROR.places:
        sent = text(at(told, path))
        if vocabulary.vagueness(vocabulary.error_type(sent)) == 0:
            call.put("error_type", sent, place, words(vocabulary.error_type))
            return


def _flags(call: Gathered, flags: str) -> None:
    """A flag tells of an error that came when the status was already sent, or of one without a status."""
    flag = next((flag for flag in flags.split(",") if flag in _FLAGS), "")
    if flag and call.fields.get("status") != "error":
        call.put("status", "error", "response_flags")
        call.put("error_type", flag, "response_flags", _FLAGS.get)
