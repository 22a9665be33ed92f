"""The logs of gateways: Kong's log of a request with its `ai` object, and the access log of the Envoy AI Gateway.

A line that tells of no call of a model (another path, tools, an answer from the gateway's cache) is passed over. Counts
that are all 0 were not counted. A time to the first token is believed of streams only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from operators.config import DecodeConfig
from operators.decode import vocabulary
from operators.decode.base import Call, Reading
from operators.decode.fields import Gathered, at, items, number, once, parsed, text, words

_INFERENCE: Final = re.compile(
    r"/(chat/completions|completions|embeddings|messages|responses|rerank|converse(-stream)?|images/generations"
    r"|audio/(speech|transcriptions|translations))/?(\?|$)|:(stream)?generateContent"
)
_STREAMS: Final = {"stream": True, "streaming": True, "realtime": True, "oneshot": False}

_KONG_TOKENS: Final = {
    "prompt_tokens": ("prompt_tokens", "prompt_token", "input_tokens"),
    "completion_tokens": ("completion_tokens", "completion_token", "output_tokens"),
    "cached_tokens": ("prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens"),
    "reasoning_tokens": ("completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens"),
}


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
        calls: list[Call] = []
        passed_over = 0
        for line in items(parsed(value)):
            of_line = list(_kong(line)) if self.looks_like(line) else [Call({})]
            calls += of_line
            passed_over += not of_line
        return once(calls, passed_over)


def _kong(line: dict[str, Any]) -> Iterator[Call]:
    ai = line.get("ai")
    plugins = {name: of for name, of in (ai.items() if isinstance(ai, dict) else ()) if _called(of)}
    for name, of in plugins.items():
        call = Gathered()
        call.take("timestamp", line, "started_at")
        call.take("service", line, "service.name", "route.name")
        call.fields.setdefault("service", "kong")
        call.take("tenant", line, "consumer.username", "consumer.custom_id", "consumer.id")
        call.take("key", line, "authenticated_entity.id")
        call.take("trace_id", line, "trace_id.w3c")
        call.take("operation", line, "upstream_uri", "request.uri", read=_operation)
        if len(plugins) == 1:  # the whole request is the call's
            call.take("latency_ms", line, "latencies.request", read=number)
        _kong_plugin(call, of, f"ai.{name}.")
        _http(call, line, "response.status", "upstream_status")
        request = text(at(line, ("request", "id")))
        yield call.call(*([f"call:{request}/{name}"] if request else []))


def _called(plugin: Any) -> bool:
    """Whether a plugin's object tells of a call that reached a provider."""
    if not isinstance(plugin, dict):
        return False
    meta = plugin.get("meta")
    told = isinstance(meta, dict) and any(meta.get(name) for name in ("provider_name", "request_model"))
    return told and text(at(plugin, ("cache", "cache_status"))).lower() != "hit"


def _kong_plugin(call: Gathered, plugin: dict[str, Any], place: str) -> None:
    def take(name: str, *paths: str, read: Any = None) -> Any:
        return call.take(name, plugin, *paths, read=read, under=place)

    take("provider", "meta.provider_name", read=words(vocabulary.provider))
    take("model_requested", "meta.request_model")
    take("model", "meta.response_model", "meta.request_model")
    take("latency_ms", "meta.llm_latency", read=number)
    if take("streamed", "meta.request_mode", read=lambda mode: _STREAMS.get(text(mode))):
        take("ttft_ms", "usage.time_to_first_token", read=number)
    for name, places in _KONG_TOKENS.items():
        take(name, *(f"usage.{of}" for of in places), read=number)
    take("cost_usd", "usage.cost", read=number)
    take("quality_score", "ai-llm-as-judge.usage.llm_accuracy", "usage.llm_accuracy", read=_share)
    call.drop_zeros()
    call.drop_no_price()


def _share(percent: Any) -> Any:
    """A score of 1 to 100 as a share."""
    percent = number(percent)
    return percent / 100 if isinstance(percent, int | float) else percent


_AI: Final = "io.envoy.ai_gateway"
_ENVOY: Final = {
    "timestamp": ("start_time", "timestamp", "time", "@timestamp"),
    "service": ("service.name", "service_name"),
    "tenant": ("tenant.id", "tenant", "x-tenant-id"),
    "user": ("user.id", "x-user-id"),
    "session_id": ("session.id", "session_id"),
    "agent": ("agent.name", "agent.id"),
    "trace_id": ("trace_id", "traceId"),
    "span_id": ("span_id", "spanId"),
    "event_id": ("x-request-id",),
    "model_requested": ("gen_ai.original.model", "gen_ai.request.model", "genai_model_name", "x-ai-eg-model"),
    "model": (
        "gen_ai.response.model", "genai_response_model", "response_model", "genai_model_name_override",
        "model_name_override", "gen_ai.request.model", "genai_model_name", "x-ai-eg-model",
    ),
    "latency_ms": ("duration", "duration_ms"),
    "prompt_tokens": ("gen_ai.usage.input_tokens", "genai_tokens_input", "llm_input_token"),
    "completion_tokens": ("gen_ai.usage.output_tokens", "genai_tokens_output", "llm_output_token"),
    "cached_tokens": (
        "gen_ai.usage.cache_read.input_tokens", "genai_tokens_cached_input", "genai_tokens_cached",
        "llm_cached_input_token",
    ),
    "cache_write_tokens": (
        "gen_ai.usage.cache_write.input_tokens", "gen_ai.usage.cache_creation.input_tokens",
        "llm_cache_creation_input_token", "llm_cache_creation_token",
    ),
    "reasoning_tokens": ("gen_ai.usage.reasoning.output_tokens", "llm_reasoning_token"),
}  # fmt: skip
"""The names of Envoy's documents and examples, and of the gateway's own metadata, by field."""

_NUMBERS: Final = frozenset(name for name in _ENVOY if name.endswith(("_ms", "_tokens")))
_BACKENDS: Final = (
    "gen_ai.provider.name", "genai_backend_name", "ai_service_backend_name", "backend_name",
)  # fmt: skip
_PATHS: Final = ("x-envoy-origin-path", "x-envoy-original-path", "request.path", "path", ":path")
_STATUSES: Final = ("response_code", "response.code", "status")
_FLAGS: Final = {
    "UT": "timeout", "SI": "timeout", "DT": "timeout", "UMSDR": "timeout", "RL": "rate_limit", "RLSE": "server_error",
    "UO": "overloaded", "OM": "overloaded", "UAEX": "authentication", "NR": "not_found", "NC": "not_found",
    "UC": "connection", "UF": "connection", "UH": "connection", "UR": "connection", "LR": "connection",
    "UPE": "connection", "URX": "connection", "LH": "connection",
}  # fmt: skip
"""The error that a response flag means. A caller that left early (DC) made no error."""


class EnvoyFormat:
    """The format of the Envoy AI Gateway's access log: an object a line, keys as Envoy's documents name them.

    What the gateway tells may stand beside the other keys, or in an object `io.envoy.ai_gateway`.
    """

    @staticmethod
    def looks_like(record: object) -> bool:
        """Whether a parsed record has names that only this format has."""
        first = record[0] if isinstance(record, list) and record else record
        return isinstance(first, dict) and "start_time" in first and "response_code" in first

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`."""
        lines = items(parsed(value))
        calls = [call for line in lines if (call := _envoy(line)) is not None]
        return once(calls, len(lines) - len(calls))


def _envoy(line: Any) -> Call | None:
    if not isinstance(line, dict):
        return Call({})
    told = _flat(line)
    call = Gathered(absent=(None, "", "-"))
    for name, keys in _ENVOY.items():
        for key in keys:
            if name not in call.fields:
                call.put(name, told.get(key), key, number if name in _NUMBERS else None)
    place, path = _first(told, _PATHS)
    call.put("operation", path, place, _operation)
    posted = told.get("method", told.get(":method", "POST")) == "POST"
    of_model = "model" in call.fields or "prompt_tokens" in call.fields or (posted and "operation" in call.fields)
    if not of_model and "timestamp" in call.fields:
        return None
    call.fields.setdefault("service", "envoy-ai-gateway")
    place, backend = _first(told, _BACKENDS)
    call.put("provider", backend, place, _backend)
    call.drop_zeros()
    _http(call, told, *_STATUSES)
    _flags(call, text(told.get("response_flags")))
    request, start = text(call.fields.get("event_id")), call.fields.get("timestamp")
    # A caller may send the same request id with each call that it makes.
    return call.call(*([f"call:{request}/{start}"] if request else []))


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    """The line with the gateway's own metadata beside its other keys."""
    for outer in (line, line.get("dynamic_metadata"), line.get("filter_metadata")):
        if isinstance(outer, dict) and isinstance(outer.get(_AI), dict):
            return {**outer[_AI], **line}
    return line


def _first(told: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, Any]:
    return next(((key, told[key]) for key in keys if told.get(key) not in (None, "", "-")), ("", None))


def _backend(name: Any) -> str | None:
    """The provider that the name of a backend tells of: `namespace/name/route/...`, chosen by the operator."""
    parts = text(name).split("/")
    named = f"backend {parts[1] if len(parts) > 1 else parts[0]}"
    provider = vocabulary.provider(named)
    return None if provider == named.lower() else provider


def _operation(path: Any) -> str | None:
    """The operation of a path of inference; None for any other path."""
    found = _INFERENCE.search(path) if isinstance(path, str) else None
    return vocabulary.operation(found[1] or "chat") if found else None


def _flags(call: Gathered, flags: str) -> None:
    """A flag tells of an error that came when the status was already sent, or of one without a status."""
    kind = next((_FLAGS[flag] for flag in flags.split(",") if flag in _FLAGS), "")
    if kind and call.fields.get("status") != "error":
        call.fields |= {"status": "error", "error_type": kind}
        call.found |= {"status": "response_flags", "error_type": "response_flags"}


def _http(call: Gathered, line: dict[str, Any], *paths: str) -> None:
    """Status and error of an HTTP status; 0 is none, since no answer was sent."""
    status = call.take("status", line, *paths, read=lambda status: text(status) if text(status) != "0" else None)
    if status is None:
        return
    failed = vocabulary.is_error(status)
    if failed:
        call.fields["error_type"] = vocabulary.error_type(status)
        call.found["error_type"] = call.found["status"]
    if failed is not None:
        call.fields["status"] = "error" if failed else "ok"
