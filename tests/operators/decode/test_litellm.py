from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.decode.base import Call, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.litellm import LiteLLMFormat
from operators.decode.seen import response_keys
from operators.model import Reason
from tests.conftest import examples
from tests.mutations import check, mutated

SECRET = "zqxjv"
USAGE = {
    "prompt_tokens": 2048,
    "completion_tokens": 96,
    "total_tokens": 2144,
    "prompt_tokens_details": {"cached_tokens": 1536},
    "completion_tokens_details": {"reasoning_tokens": 64},
}
PAYLOAD: dict[str, Any] = {
    "id": "chatcmpl-1",
    "litellm_call_id": "c-1",
    "trace_id": "t-1",
    "session_id": "s-1",
    "call_type": "acompletion",
    "cache_hit": None,
    "stream": None,
    "status": "success",
    "custom_llm_provider": "openai",
    "startTime": 1796019224.25,
    "endTime": 1796019226.5,
    "completionStartTime": 1796019226.5,
    "response_time": 0.5,
    "model": "openai/gpt-4o-mini",
    "model_group": "gpt-main",
    "model_map_information": {"model_map_key": "gpt-4o-mini-2024-07-18", "model_map_value": None},
    "metadata": {
        "user_api_key_hash": "abc123",
        "user_api_key_alias": "team-key",
        "user_api_key_team_alias": "search",
        "user_api_key_team_id": "team-1",
        "usage_object": USAGE,
        "requester_metadata": None,
    },
    "response_cost": 0.0002496,
    "prompt_tokens": 2048,
    "completion_tokens": 96,
    "total_tokens": 2144,
    "end_user": "u-1",
    "messages": [{"role": "user", "content": SECRET}],
    "response": {
        "id": "chatcmpl-1",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"finish_reason": "stop", "message": {"content": SECRET}}],
        "usage": USAGE,
    },
    "error_str": None,
    "error_information": {"error_code": "", "error_class": "", "error_message": ""},
}
FAILURE = {
    "status": "failure",
    "id": "c-1",
    "response": {},
    "response_cost": 0.0,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "metadata": {},
    "error_str": SECRET,
    "error_information": {"error_code": "429", "error_class": "RateLimitError", "error_message": SECRET},
}
STREAM = {"stream": True, "completionStartTime": 1796019224.75}


def payload(**changes: Any) -> dict[str, Any]:
    return {**PAYLOAD, **changes}


def read(record: object) -> Reading:
    return LiteLLMFormat().read(orjson.dumps(record), DecodeConfig())


def call(**changes: Any) -> Call:
    reading = read(payload(**changes))
    assert len(reading.calls) == 1
    return reading.calls[0]


def test_a_call_in_full() -> None:
    assert call().fields == {
        "timestamp": 1796019224.25,
        "service": "litellm",
        "model": "gpt-4o-mini-2024-07-18",
        "model_requested": "gpt-main",
        "provider": "openai",
        "operation": "chat",
        "tenant": "search",
        "user": "u-1",
        "key": "team-key",
        "trace_id": "t-1",
        "session_id": "s-1",
        "event_id": "chatcmpl-1",
        "latency_ms": 2250.0,
        "prompt_tokens": 2048,
        "completion_tokens": 96,
        "cached_tokens": 1536,
        "reasoning_tokens": 64,
        "cost_usd": 0.0002496,
        "status": "ok",
        "finish_reason": "stop",
    }
    assert call().keys == ("call:c-1", *response_keys("chatcmpl-1", 1_796_019_226_500_000_000))
    assert call().found["cached_tokens"] == "metadata.usage_object.prompt_tokens_details.cached_tokens"


@pytest.mark.parametrize(
    "wrap",
    [
        lambda one: {"standard_logging_object": one, "messages": SECRET},
        lambda one: {"kwargs": {"standard_logging_object": one}, "response_obj": SECRET},
        lambda one: [one],
        lambda one: [{"standard_logging_object": one}],
    ],
)
def test_where_the_payload_may_stand(wrap: Any) -> None:
    assert read(wrap(PAYLOAD)) == read(PAYLOAD)
    assert LiteLLMFormat.looks_like(wrap(PAYLOAD))


def test_what_was_sent_is_kept_beside_a_word_of_the_vocabulary() -> None:
    assert call().originals == {}
    failed = call(**FAILURE, custom_llm_provider="vertex_ai")
    assert (failed.fields["provider"], failed.fields["error_type"]) == ("gcp.vertex_ai", "rate_limit")
    assert failed.originals == {"provider": "vertex_ai", "error_type": "RateLimitError"}
    assert failed.found["error_type"] == "error_information.error_class"
    ended = call(response={"choices": [{"finish_reason": "end_turn"}]})
    assert (ended.fields["finish_reason"], ended.originals) == ("stop", {"finish_reason": "end_turn"})


def test_a_stream_has_a_time_to_the_first_token() -> None:
    assert call(**STREAM).fields["ttft_ms"] == 500.0
    assert call(**STREAM).fields["streamed"] is True
    assert "ttft_ms" not in call(stream=True).fields, "the start of the completion is the end"
    assert "ttft_ms" not in call(stream=None, completionStartTime=1796019224.75).fields


def test_counts_that_are_all_0_were_not_counted() -> None:
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "completion_tokens_details": {"reasoning_tokens": 0}}
    stream = call(**STREAM, prompt_tokens=0, completion_tokens=0, metadata={"usage_object": zeros}, response_cost=0.0)
    assert not {name for name in stream.fields if "token" in name}
    assert stream.fields["cost_usd"] == 0.0, "it is told, and no count says otherwise"
    assert call(completion_tokens=0).fields["completion_tokens"] == 0, "the input was counted"
    assert "prompt_tokens" not in call(prompt_tokens=0, metadata={}).fields, "no input is empty"


def test_a_cost_of_0_beside_counted_tokens_is_no_price() -> None:
    assert "cost_usd" not in call(response_cost=0.0).fields
    assert "cost_usd" not in call(response_cost=None).fields


def test_cache_details_that_are_missing_are_unknown() -> None:
    fields = call(metadata={"usage_object": {**USAGE, "prompt_tokens_details": None}}).fields
    assert "cached_tokens" not in fields and fields["reasoning_tokens"] == 64


def test_a_failure() -> None:
    failed = call(**FAILURE)
    assert (failed.fields["status"], failed.fields["error_type"]) == ("error", "rate_limit")
    assert not {name for name in failed.fields if "token" in name}
    assert SECRET not in repr(failed)


@pytest.mark.parametrize(
    ("code", "of_class", "kind"),
    [
        ("content_filter", "BadRequestError", "content_filter"),
        ("400", "ContentPolicyViolationError", "content_filter"),
        ("400", "BadRequestError", "invalid_request"),
        ("500", "APIConnectionError", "connection"),
        ("408", "Timeout", "timeout"),
        ("503", "", "server_error"),
        ("529", "InternalServerError", "overloaded"),
        ("400", "BudgetExceededError", "rate_limit"),
        ("", "StrangeThing", "StrangeThing"),
    ],
)
def test_the_kind_of_an_error(code: str, of_class: str, kind: str) -> None:
    failed = call(**{**FAILURE, "error_information": {"error_code": code, "error_class": of_class}})
    assert failed.fields["error_type"] == kind


def test_the_message_tells_a_kind_that_the_class_does_not_and_is_not_kept() -> None:
    told = {"error_code": "500", "error_class": "InternalServerError", "error_message": f"Connection error. {SECRET}"}
    failed = call(**{**FAILURE, "error_information": told})
    assert failed.fields["error_type"] == "connection"
    assert SECRET not in repr(failed)


@pytest.mark.parametrize("status", ["guardrail_intervened", "blocked"])
def test_what_a_guardrail_refused_was_filtered(status: str) -> None:
    told = {"error_code": "400", "error_class": "HTTPException"}
    failed = call(**{**FAILURE, "error_information": told, "status_fields": {"guardrail_status": status}})
    assert failed.fields["error_type"] == "content_filter"


@pytest.mark.parametrize(
    ("prompt", "total", "usage", "whole"),
    [
        (25, 115, {"prompt_tokens": 1_865, "cache_read_input_tokens": 1_800, "cache_creation_input_tokens": 40}, 1_865),
        (500, 590, {"prompt_tokens": 600, "cache_read_input_tokens": 100}, 600),
        (500, 690, {"cache_read_input_tokens": 100}, 600),
        (600, 690, {"prompt_tokens": 600, "cache_read_input_tokens": 100}, 600),
    ],
)
def test_prompts_that_were_counted_without_their_cache(prompt: int, total: int, usage: Any, whole: int) -> None:
    told = call(prompt_tokens=prompt, completion_tokens=90, total_tokens=total, metadata={"usage_object": usage})
    assert told.fields["prompt_tokens"] == whole


def test_a_cache_hit_is_no_call() -> None:
    hit = payload(cache_hit=True, id="chatcmpl-1_cache_hit1796019227.5", response_cost=0.0)
    assert read(hit) == Reading([], passed_over={"cache_hit": 1})
    assert read([PAYLOAD, hit, hit]).passed_over == {"cache_hit": 2}


@pytest.mark.parametrize(
    "kind", ["call_mcp_tool", "list_mcp_tools", "afile_content", "aretrieve_batch", "avector_store_search"]
)
def test_other_requests_are_no_calls(kind: str) -> None:
    assert read(payload(call_type=kind)) == Reading([], passed_over={"no_call": 1})


@pytest.mark.parametrize(
    ("kind", "operation"),
    [
        ("completion", "chat"),
        ("aembedding", "embeddings"),
        ("aresponses", "chat"),
        ("anthropic_messages", "chat"),
        ("atext_completion", "text_completion"),
        ("pass_through_endpoint", "chat"),
    ],
)
def test_operations(kind: str, operation: str) -> None:
    assert call(call_type=kind).fields["operation"] == operation
    assert ("completion_tokens" in call(call_type=kind).fields) is (operation != "embeddings")


def test_both_callbacks_of_a_stream_are_one_call() -> None:
    reading = read([payload(**STREAM), payload(**STREAM, startTime=1796019224.2504, endTime=1796019226.502)])
    assert (len(reading.calls), reading.repeats) == (1, 1)


def test_attempts_under_one_call_id_are_calls_of_their_own() -> None:
    second = {**FAILURE, "startTime": 1796019225.5}
    reading = read([payload(**FAILURE), payload(**second), payload(**FAILURE), PAYLOAD])
    assert [one.fields["status"] for one in reading.calls] == ["error", "error", "ok"]
    assert reading.repeats == 1, "the first failure came twice"


def test_an_alias_is_no_model() -> None:
    alias = {**PAYLOAD["response"], "model": "gpt-main"}
    assert call(response=alias).fields["model"] == "gpt-4o-mini-2024-07-18"
    assert call(response=alias, model_map_information=None).fields["model"] == "gpt-4o-mini"


def test_a_row_of_the_spend_logs_is_the_payload_of_its_call() -> None:
    counts = ("prompt_tokens", "completion_tokens")
    names = ("call_type", "custom_llm_provider", "model_group", "end_user", "status", *counts)
    row = {name: PAYLOAD[name] for name in names} | {"request_id": PAYLOAD["id"], "model": "gpt-4o-mini"}
    row |= {"startTime": "2026-11-30T06:13:44.250Z", "endTime": "2026-11-30T06:13:46.500Z", "cache_hit": "False"}
    row |= {"metadata": orjson.dumps(PAYLOAD["metadata"]).decode(), "spend": 0.0002496, "messages": SECRET}
    told, of_payload = read({**row, "completionStartTime": "2026-11-30T06:13:44.750Z"}).calls[0], call(**STREAM)
    same = (
        "latency_ms",
        "ttft_ms",
        "cost_usd",
        "cached_tokens",
        "tenant",
        "key",
        "user",
        "event_id",
        "streamed",
        *counts,
    )
    assert {name: told.fields[name] for name in same} == {name: of_payload.fields[name] for name in same}
    assert set(told.keys) & set(read(payload(**STREAM)).calls[0].keys), "the payload has a key in common"
    error = {"status": "failure", "metadata": {**FAILURE, "usage_object": None}}
    (failed,) = read({**row, **error, "spend": 0, **dict.fromkeys(counts, 0)}).calls
    assert (failed.fields["status"], failed.fields["error_type"]) == ("error", "rate_limit")
    assert "streamed" not in failed.fields and SECRET not in repr((told, failed))
    assert read({**row, "cache_hit": "True"}).passed_over == {"cache_hit": 1}


def test_the_caller_may_name_its_service() -> None:
    assert call(metadata={"requester_metadata": {"service_name": "shop"}}).fields["service"] == "shop"


def test_bad_values_are_handed_on_to_be_refused() -> None:
    assert call(endTime="soon").fields["latency_ms"] == "no time"
    assert call(endTime=1796019220.25).fields["latency_ms"] == -4000.0
    assert call(prompt_tokens=[SECRET]).fields["prompt_tokens"] == [SECRET]
    assert "timestamp" not in call(startTime=None).fields
    assert read([PAYLOAD, "text"]).calls[1] == Call({})


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.NOT_JSON),
        (b'{"id": "x', Reason.NOT_JSON),
        (b'"text"', Reason.NOT_AN_OBJECT),
        (orjson.dumps([{}] * 10_001), Reason.TOO_MANY_CALLS),
    ],
)
def test_unreadable_records(value: bytes, reason: str) -> None:
    with pytest.raises(Unreadable) as refused:
        LiteLLMFormat().read(value, DecodeConfig())
    assert refused.value.reason == reason


@examples(300)
@given(
    value=mutated(
        [
            PAYLOAD,
            payload(**FAILURE),
            payload(**STREAM),
            [PAYLOAD, payload(**FAILURE)],
            {"kwargs": {"standard_logging_object": PAYLOAD}},
        ]
    )
)
def test_any_record_is_read_or_refused(value: bytes) -> None:
    check(LiteLLMFormat(), value)


@examples(100)
@given(
    where=st.sampled_from(
        ["messages", "error_str", "prompt", "guardrail_information", "standard_built_in_tools_params"]
    ),
    value=st.recursive(st.just(SECRET), st.lists),
)
def test_content_never_leaves(where: str, value: object) -> None:
    for base in (PAYLOAD, payload(**FAILURE)):
        assert SECRET not in repr(read({**base, where: value}))


def test_recorded_payloads(shared: Path) -> None:
    files = sorted((shared / "data/payloads").glob("*/*.jsonl"))
    files = [file for file in files if file.parent.name == "litellm_slp" or file.name.startswith("litellm")]
    assert files
    for file in files:
        expected = orjson.loads(file.with_suffix(".expect.json").read_bytes())["calls"]
        calls, seen = [], set[str]()
        for line in file.read_bytes().splitlines():
            assert LiteLLMFormat.looks_like(orjson.loads(line))
            for one in read(orjson.loads(line)).calls:
                calls += [one] * seen.isdisjoint(one.keys)
                seen.update(one.keys)
        assert len(calls) == len(expected), file
        for one, truth in zip(calls, expected, strict=True):
            for name in ("prompt_tokens", "completion_tokens", "status", "provider", "operation", "error_type"):
                assert one.fields.get(name) == truth[name], (file, name)
            low, high = truth["window"]["latency_ms"]
            assert low - 5 <= one.fields["latency_ms"] <= high + 5, file
            assert ("ttft_ms" in one.fields) is truth["stream"], file
