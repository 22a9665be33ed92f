from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given

from operators.decode.base import Call, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.gateways import EnvoyFormat, KongFormat
from operators.model import Reason
from tests.conftest import examples
from tests.mutations import check, mutated

SECRET = "zqxjv"
PLUGIN: dict[str, Any] = {
    "meta": {
        "request_model": "gpt-4o",
        "response_model": "gpt-4o-2024-08-06",
        "provider_name": "azure",
        "llm_latency": 1200,
        "request_mode": "stream",
        "plugin_id": "p-1",
    },
    "usage": {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 60},
        "completion_tokens": 20,
        "completion_tokens_details": {"reasoning_tokens": 5},
        "total_tokens": 120,
        "time_to_first_token": 200,
        "time_per_token": 50.1,
        "cost": 0.002,
        "llm_accuracy": 85,
    },
    "payload": {"request": SECRET, "response": SECRET},
}
KONG: dict[str, Any] = {
    "started_at": 1796018400123,
    "latencies": {"request": 1250, "kong": 12, "proxy": 1238},
    "request": {"id": "r-1", "uri": "/chat", "method": "POST", "headers": {"authorization": SECRET}},
    "upstream_uri": "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21",
    "response": {"status": 200},
    "service": {"name": "assistant"},
    "consumer": {"username": "acme", "id": "c-1"},
    "authenticated_entity": {"id": "cred-1"},
    "trace_id": {"w3c": "5b8efff798038103d269b633813fc60c"},
    "ai": {"proxy": PLUGIN, "payload": {"request": SECRET}, "sanitizer": {"sanitized_items": [{"original": SECRET}]}},
}
ENVOY: dict[str, Any] = {
    "start_time": "2026-11-30T06:00:00.120Z",
    "method": "POST",
    "x-envoy-origin-path": "/v1/chat/completions",
    "response_code": 200,
    "response_flags": "-",
    "duration": 1904,
    "x-request-id": "r-1",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.provider.name": "default/openai/route/aigw/rule/0/ref/0",
    "gen_ai.usage.input_tokens": 812,
    "gen_ai.usage.output_tokens": 164,
    "session.id": "s-1",
}


def kong(**changes: Any) -> Reading:
    return KongFormat().read(orjson.dumps({**KONG, **changes}), DecodeConfig())


def envoy(*without: str, **changes: Any) -> Reading:
    line = {name: value for name, value in {**ENVOY, **changes}.items() if name not in without}
    return EnvoyFormat().read(orjson.dumps(line), DecodeConfig())


def plugin(meta: dict[str, Any] | None = None, usage: dict[str, Any] | None = None, **other: Any) -> dict[str, Any]:
    return {
        **PLUGIN,
        "meta": {**PLUGIN["meta"], **(meta or {})},
        "usage": PLUGIN["usage"] if usage is None else usage,
        **other,
    }


def test_a_call_through_kong() -> None:
    (call,) = kong().calls
    assert call.fields == {
        "timestamp": 1796018400123,
        "service": "assistant",
        "tenant": "acme",
        "key": "cred-1",
        "trace_id": "5b8efff798038103d269b633813fc60c",
        "event_id": "r-1",
        "operation": "chat",
        "latency_ms": 1250,
        "provider": "azure",
        "model": "gpt-4o-2024-08-06",
        "model_requested": "gpt-4o",
        "streamed": True,
        "ttft_ms": 200,
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "cached_tokens": 60,
        "reasoning_tokens": 5,
        "cost_usd": 0.002,
        "quality_score": 0.85,
        "status": "ok",
    }
    assert call.keys == ("call:r-1/proxy",)
    assert call.found["prompt_tokens"] == "ai.proxy.usage.prompt_tokens"
    assert SECRET not in repr(call)


def test_what_a_gateway_sent_is_kept_beside_a_word_of_the_vocabulary() -> None:
    (refused,) = kong(response={"status": 429}).calls
    assert refused.originals == {"error_type": "429"}
    (through,) = envoy().calls
    assert through.originals == {"provider": "default/openai/route/aigw/rule/0/ref/0"}
    (flagged,) = envoy(response_code=200, response_flags="UT").calls
    assert (flagged.fields["error_type"], flagged.originals["error_type"]) == ("timeout", "UT")
    assert flagged.found["status"] == flagged.found["error_type"] == "response_flags"


def test_the_first_generation_of_kongs_names() -> None:
    (call,) = kong(ai={"ai-proxy": plugin(usage={"prompt_token": 28, "completion_token": 20})}).calls
    assert (call.fields["prompt_tokens"], call.fields["completion_tokens"]) == (28, 20)


def test_each_plugin_that_called_a_model_is_a_call() -> None:
    reading = kong(ai={"ai-request-transformer": plugin({"llm_latency": 300}), "proxy": PLUGIN})
    assert [call.fields["latency_ms"] for call in reading.calls] == [300, 1200], "the request is longer than each"
    assert len({call.keys for call in reading.calls}) == 2
    assert not any("event_id" in call.fields for call in reading.calls)


@pytest.mark.parametrize("mode", ["oneshot", None, "unheard of"])
def test_kong_tells_a_first_token_of_streams_only(mode: str | None) -> None:
    (call,) = kong(ai={"proxy": plugin({"request_mode": mode})}).calls
    assert "ttft_ms" not in call.fields
    assert call.fields.get("streamed") is (False if mode == "oneshot" else None)


def test_a_request_that_kong_refused() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}
    (call,) = kong(response={"status": 429}, ai={"proxy": plugin(usage=zeros)}).calls
    assert (call.fields["status"], call.fields["error_type"]) == ("error", "rate_limit")
    assert not {name for name in call.fields if "token" in name}


def test_a_request_that_kong_refused_before_it_chose_a_model() -> None:
    unspecified = {"provider_name": "UNSPECIFIED", "request_model": "UNSPECIFIED", "response_model": "UNSPECIFIED"}
    (call,) = kong(response={"status": 400}, ai={"proxy": plugin(unspecified)}).calls
    assert not {"provider", "model", "model_requested"} & set(call.fields)


def test_a_prompt_without_its_cache_is_made_whole() -> None:
    cached = {"cached_tokens": 60}
    for usage in (
        {"prompt_tokens": 40, "completion_tokens": 9, "prompt_tokens_details": cached},
        {"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 109, "prompt_tokens_details": cached},
    ):
        (call,) = kong(ai={"proxy": plugin(usage=usage)}).calls
        assert (call.fields["prompt_tokens"], call.fields["cached_tokens"]) == (100, 60)
    told = {"gen_ai.usage.input_tokens": 90, "gen_ai.usage.output_tokens": 9, "llm_cached_input_token": 60}
    for total, whole in ((159, 150), (99, 90), ("-", 90)):
        (call,) = envoy(**told, **{"gen_ai.usage.total_tokens": total}).calls
        assert call.fields["prompt_tokens"] == whole


def test_embeddings_through_gateways_complete_nothing() -> None:
    usage = {"prompt_tokens": 8, "completion_tokens": 0}
    (call,) = kong(upstream_uri="/v1/embeddings", ai={"proxy": plugin(usage=usage)}).calls
    assert "completion_tokens" not in call.fields


def test_a_model_without_a_price_has_no_cost() -> None:
    (call,) = kong(ai={"proxy": plugin(usage={"prompt_tokens": 14, "cost": 0})}).calls
    assert "cost_usd" not in call.fields


@pytest.mark.parametrize(
    "ai",
    [
        None,
        {},
        {"mcp": {"rpc": [{"method": "tools/call", "latency": 6}]}},
        {"compressor": {"original_token_count": 845}},
    ],
)
def test_lines_of_kong_without_a_call(ai: object) -> None:
    assert kong(ai=ai) == Reading([], passed_over={"no_call": 1})


def test_an_answer_from_kongs_cache_is_no_call() -> None:
    assert kong(ai={"proxy": plugin(cache={"cache_status": "Hit"})}) == Reading([], passed_over={"cache_hit": 1})
    assert len(kong(ai={"proxy": plugin(cache={"cache_status": "Miss"})}).calls) == 1


def test_kongs_http_log_sends_arrays() -> None:
    other = {**KONG, "request": {"id": "r-2"}}
    reading = KongFormat().read(orjson.dumps([KONG, {**KONG, "ai": None}, other, KONG, {"foo": 1}]), DecodeConfig())
    assert (len(reading.calls), reading.repeats, reading.passed_over) == (3, 1, {"no_call": 1})
    assert reading.calls[2] == Call({}), "it becomes a dead letter"


def test_a_call_through_envoy() -> None:
    (call,) = envoy().calls
    assert call.fields == {
        "timestamp": "2026-11-30T06:00:00.120Z",
        "service": "envoy-ai-gateway",
        "session_id": "s-1",
        "model": "gpt-4o-mini-2024-07-18",
        "model_requested": "gpt-4o-mini",
        "provider": "openai",
        "operation": "chat",
        "latency_ms": 1904,
        "prompt_tokens": 812,
        "completion_tokens": 164,
        "status": "ok",
    }


def test_a_call_through_higress() -> None:
    told = {"model": "qwen-max", "input_token": "21", "output_token": "17", "total_token": "38", "consumer": "acme"}
    stream = {"response_type": "stream", "llm_first_token_duration": "309", "question": SECRET}
    line = {
        "start_time": "2026-11-30T06:00:00.120Z", "method": "POST", "path": "/v1/chat/completions", "duration": "1590",
        "response_code": "200", "response_flags": "-", "trace_id": "-", "request_id": "r-1",
    }  # fmt: skip
    reading = EnvoyFormat().read(orjson.dumps({**line, "ai_log": orjson.dumps(told | stream).decode()}), DecodeConfig())
    (call,) = reading.calls
    assert call.fields == {
        "timestamp": line["start_time"], "service": "higress", "tenant": "acme", "model": "qwen-max", "status": "ok",
        "operation": "chat", "latency_ms": 1590, "streamed": True, "ttft_ms": 309, "prompt_tokens": 21,
        "completion_tokens": 17,
    }  # fmt: skip
    assert SECRET not in repr(reading)
    whole = told | stream | {"response_type": "normal"}
    (call,) = EnvoyFormat().read(orjson.dumps({**line, "ai_log": orjson.dumps(whole).decode()}), DecodeConfig()).calls
    assert call.fields["streamed"] is False and "ttft_ms" not in call.fields
    beside = EnvoyFormat().read(orjson.dumps([{**line, **told}, {**line, "path": "/", "ai_log": "-"}]), DecodeConfig())
    assert [call.fields["prompt_tokens"] for call in beside.calls] == [21] and beside.passed_over == {"no_call": 1}


@pytest.mark.parametrize(
    "told",
    [
        {"genai_model_name": "m", "genai_model_name_override": "m-1", "genai_tokens_input": 15,
         "genai_tokens_output": 7, "genai_backend_name": "default/my-anthropic/route/r/rule/0/ref/0"},
        {"x-ai-eg-model": "m", "io.envoy.ai_gateway": {
            "model_name_override": "m-1", "llm_input_token": 15, "llm_output_token": "7", "backend_name": "claude-eu"}},
        {"x-ai-eg-model": "m", "dynamic_metadata": {"io.envoy.ai_gateway": {
            "response_model": "m-1", "llm_input_token": 15, "llm_output_token": 7,
            "ai_service_backend_name": "ns/anthropic"}}},
    ],
)  # fmt: skip
def test_the_names_that_envoys_documents_use(told: dict[str, Any]) -> None:
    (call,) = envoy(*(name for name in ENVOY if name.startswith("gen_ai")), **told).calls
    wanted = {
        "model_requested": "m",
        "model": "m-1",
        "prompt_tokens": 15,
        "completion_tokens": 7,
        "provider": "anthropic",
    }
    assert wanted.items() <= call.fields.items()


@pytest.mark.parametrize("backend", ["default/tars/route/aigw/rule/0/ref/0", "tars", "-", None, 5])
def test_a_backends_name_need_not_be_a_provider(backend: object) -> None:
    (call,) = envoy(**{"gen_ai.provider.name": backend}).calls
    assert "provider" not in call.fields


@pytest.mark.parametrize(
    ("code", "flags", "status", "kind"),
    [
        (429, "-", "error", "rate_limit"),
        ("503", "UH", "error", "server_error"),
        (504, "UT", "error", "timeout"),
        (200, "UC", "error", "connection"),
        (200, "DC", "ok", None),
        (0, "UF,URX", "error", "connection"),
        (0, "DC", None, None),
        (None, None, None, None),
    ],
)
def test_envoys_statuses_and_flags(code: object, flags: object, status: str | None, kind: str | None) -> None:
    (call,) = envoy(response_code=code, response_flags=flags).calls
    assert (call.fields.get("status"), call.fields.get("error_type")) == (status, kind)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        ({"llm_error_type": "invalid_request_error", "llm_error_code": "content_filter"}, "content_filter"),
        ({"io.envoy.ai_gateway": {"llm_error_type": "overloaded_error"}}, "overloaded"),
        ({"llm_error_type": "invalid_request_error", "llm_error_code": "400"}, "invalid_request"),
        ({"llm_error_type": None, "llm_error_code": "-"}, "invalid_request"),
    ],
)
def test_the_providers_own_name_of_an_error(told: dict[str, Any], kind: str) -> None:
    (call,) = envoy(response_code=400, **told).calls
    assert call.fields["error_type"] == kind


def test_lines_of_envoy_without_a_call() -> None:
    models = {"method": "GET", "x-envoy-origin-path": "/v1/models"}
    tools = {"method": "POST", "x-envoy-origin-path": "/mcp", "mcp_method": "tools/call"}
    for line in (models, tools):
        for none in ("-", None):
            absent = {name: none for name in ENVOY if name.startswith("gen_ai")}
            assert envoy(**line, **absent) == Reading([], passed_over={"no_call": 1})


def test_a_request_that_envoy_could_not_read_is_a_call() -> None:
    (call,) = envoy(
        "gen_ai.request.model", "gen_ai.response.model", "gen_ai.usage.input_tokens", response_code=400
    ).calls
    assert call.fields["error_type"] == "invalid_request"


def test_a_request_id_may_be_that_of_several_calls() -> None:
    lines = [ENVOY, ENVOY, {**ENVOY, "start_time": "2026-11-30T06:00:01.120Z"}]
    reading = EnvoyFormat().read(orjson.dumps(lines), DecodeConfig())
    assert (len(reading.calls), reading.repeats) == (2, 1)


def test_an_object_that_is_no_line_becomes_a_dead_letter() -> None:
    for of in (KongFormat(), EnvoyFormat()):
        (call,) = of.read(b'{"foo": 1}', DecodeConfig()).calls
        assert "timestamp" not in call.fields
        with pytest.raises(Unreadable) as refused:
            of.read(b"1796018400 POST /chat", DecodeConfig())
        assert refused.value.reason == Reason.NOT_JSON


def test_a_line_of_kong_may_not_hold_too_many_calls() -> None:
    plugins = {f"p{i}": {"meta": {"request_model": "m"}} for i in range(10_001)}
    with pytest.raises(Unreadable) as refused:
        kong(ai=plugins)
    assert refused.value.reason == Reason.TOO_MANY_CALLS


def test_the_formats_are_told_apart() -> None:
    for line, of in ((KONG, KongFormat), (ENVOY, EnvoyFormat)):
        for record in (line, [line]):
            assert [of.looks_like(record) for of in (KongFormat, EnvoyFormat)] == [of is KongFormat, of is EnvoyFormat]
    nothings: list[object] = [None, 1, "x", [], {}, [[]], [1]]
    for nothing in nothings:
        assert not KongFormat.looks_like(nothing) and not EnvoyFormat.looks_like(nothing)


@examples(200)
@given(value=mutated([KONG, [KONG, KONG], {**KONG, "ai": {"a": PLUGIN, "b": PLUGIN}}, ENVOY]))
def test_any_record_of_kong_is_read_or_refused(value: bytes) -> None:
    reading = check(KongFormat(), value)
    assert SECRET not in repr(reading)


@examples(200)
@given(value=mutated([ENVOY, [ENVOY], {**ENVOY, "io.envoy.ai_gateway": {"llm_input_token": 15}}, KONG]))
def test_any_record_of_envoy_is_read_or_refused(value: bytes) -> None:
    check(EnvoyFormat(), value)


@pytest.mark.parametrize(
    ("name", "of"), [("kong_kafka_log", KongFormat()), ("envoy_ai_gateway_access_log", EnvoyFormat())]
)
def test_recorded_logs(shared: Path, name: str, of: KongFormat | EnvoyFormat) -> None:
    file = shared / f"data/payloads/from_docs/{name}.jsonl"
    expected = orjson.loads(file.with_suffix(".expect.json").read_bytes())
    lines = file.read_bytes().splitlines()
    assert all(of.looks_like(orjson.loads(line)) for line in lines)
    readings = [of.read(line, DecodeConfig()) for line in lines]
    calls = [call.fields for reading in readings for call in reading.calls]
    assert sum(sum(reading.passed_over.values()) for reading in readings) == len(expected.get("not_calls", ()))
    assert len(calls) == len(expected["calls"])
    for call, truth in zip(calls, expected["calls"], strict=True):
        for field in (
            "model_requested",
            "provider",
            "prompt_tokens",
            "completion_tokens",
            "status",
            "latency_ms",
            "tenant",
        ):
            assert call.get(field) == truth.get(field), field
        assert call.get("error_type") == truth.get("error_type")
        assert call["model"] == (truth["model_answered"] or truth["model_requested"])
