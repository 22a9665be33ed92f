"""Log records that tell calls: the details of OpenTelemetry, and the events of coding agents."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData

from operators.decode.base import Reading
from operators.decode.config import DecodeConfig
from operators.decode.otlp.format import OTLP_PROTO, OtlpJsonFormat
from operators.decode.seen import response_keys
from tests.otlp import AT, json_pairs

CLAUDE, GEMINI, CODEX = "com.anthropic.claude_code.events", "gemini-cli", "codex_otel.log_only"
IDS = ("traceId", "spanId")
DETAILS = "gen_ai.client.inference.operation.details"
ASKED = {"event.name": "api_request", "session.id": "s1", "model": "claude-m", "duration_ms": "2000"}
ANSWERED = {**ASKED, "input_tokens": "5", "output_tokens": "7", "cost_usd": "0.25", "request_id": "req_1"}
FAILED = {**ASKED, "event.name": "api_error", "error": "zebra", "attempt": 11}
RESPONSE = {
    "event.name": "gemini_cli.api_response", "model": "gemini-m", "duration_ms": 2000, "status_code": 200,
    "input_token_count": 40, "output_token_count": 7, "cached_content_token_count": 30, "thoughts_token_count": 3,
    "total_token_count": 50, "finish_reasons": ["stop"], "response_text": "zebra",
}  # fmt: skip
REQUEST = {"event.name": "codex.api_request", "model": "gpt-m", "duration_ms": "2000", "attempt": 1}
COMPLETED = {"event.name": "codex.sse_event", "event.kind": "response.completed", "model": "gpt-m", "duration_ms": "2"}
COUNTED = {**COMPLETED, "input_token_count": "40", "output_token_count": "7", "cached_token_count": 30}


def read(*records: dict[str, Any], scope: str = "", **changed: Any) -> Reading:
    """The reading of records with these attributes, which both encodings give."""
    told = [{"timeUnixNano": str(AT), "attributes": json_pairs(of), **changed} for of in records]
    tree = {"resourceLogs": [{"scopeLogs": [{"scope": {"name": scope}, "logRecords": told}]}]}
    reading = OtlpJsonFormat().read(json.dumps(tree).encode(), DecodeConfig())
    for record in told:  # protobuf's own JSON has ids in base64
        record |= {name: b64encode(bytes.fromhex(record[name])).decode() for name in IDS if name in record}
    assert repr(OTLP_PROTO.read(ParseDict(tree, LogsData()).SerializeToString(), DecodeConfig())) == repr(reading)
    return reading


def fields(attributes: dict[str, Any], **changed: Any) -> dict[str, Any]:
    (call,) = read(attributes, **changed).calls
    assert set(call.found) == set(call.fields), "each field says where it was found"
    return call.fields


def test_a_request_of_an_agent_is_a_call_that_ended_when_it_was_written() -> None:
    told = fields({**ANSWERED, "cache_read_tokens": "30", "cache_creation_tokens": "4"}, scope=CLAUDE)
    assert told == {
        "timestamp": AT - 2_000_000_000, "latency_ms": 2_000.0, "service": "unknown_service", "model": "claude-m",
        "model_requested": "claude-m", "provider": "anthropic", "operation": "chat", "status": "ok", "session_id": "s1",
        "prompt_tokens": 39, "completion_tokens": 7, "cached_tokens": 30, "cache_write_tokens": 4, "cost_usd": 0.25,
    }  # fmt: skip


def test_an_answer_of_an_agent_is_a_call_with_thoughts_that_the_output_lacks() -> None:
    told = fields(RESPONSE, scope=GEMINI)
    assert {name: told.get(name) for name in ("prompt_tokens", "completion_tokens", "reasoning_tokens")} == {
        "prompt_tokens": 40, "completion_tokens": 10, "reasoning_tokens": 3,
    }  # fmt: skip
    assert (told["cached_tokens"], told["finish_reason"], told["status"]) == (30, "stop", "ok")
    assert (told["provider"], told["latency_ms"]) == ("gcp.gemini", 2_000.0)
    with_thoughts = fields({**RESPONSE, "total_token_count": 47})
    assert (with_thoughts["completion_tokens"], with_thoughts["reasoning_tokens"]) == (7, 3)


def test_the_last_event_of_a_stream_is_a_call_and_its_duration_is_not_the_calls() -> None:
    place = {"eventName": "event src/telemetry.rs:1"}
    told = fields({**COUNTED, "ttft_ms": 30, "conversation.id": "s1"}, scope=CODEX, **place)
    assert (told["prompt_tokens"], told["cached_tokens"], told["completion_tokens"]) == (40, 30, 7)
    assert (told["timestamp"], told["ttft_ms"], told["session_id"]) == (AT, 30, "s1") and "latency_ms" not in told


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (FAILED, "unknown"),
        ({**FAILED, "status_code": "529", "error": "529 Overloaded"}, "overloaded"),
        ({**FAILED, "status_code": "undefined", "error": "Connection error."}, "connection"),
        ({**RESPONSE, "event.name": "x.api_error", "error.type": "quota", "http.status_code": 429}, "rate_limit"),
        ({**REQUEST, "http.response.status_code": 401, "error.message": "zebra"}, "authentication"),
        ({**REQUEST, "http.response.status_code": 503, "endpoint": "/responses"}, "server_error"),
        ({**COMPLETED, "error.message": "stream disconnected before completion"}, "connection"),
    ],
)
def test_calls_that_failed(attributes: dict[str, Any], expected: str) -> None:
    reading = read(attributes)
    (call,) = reading.calls
    assert (call.fields["status"], call.fields["error_type"]) == ("error", expected)
    assert "zebra" not in repr(reading)


@pytest.mark.parametrize(
    "attributes",
    [
        ASKED,  # before the call, as Gemini CLI writes it
        {**ANSWERED, "model": ""},
        {**ANSWERED, "event.name": "api_retries_exhausted"},  # beside the error
        {**ANSWERED, "event.name": "tool_result", "tool_parameters": "zebra"},
        {"event.name": "claude_code.user_prompt", "model": "m", "prompt": "zebra", "duration_ms": 2},
        {**REQUEST, "http.response.status_code": 200},  # the answer comes as a stream
        {**REQUEST, "http.response.status_code": 503, "endpoint": "/models"},
        COMPLETED,  # the event of the transport
        {**COUNTED, "event.kind": "response.created"},
        {**ANSWERED, "event.name": "zebra"},
    ],
)
def test_what_is_no_call(attributes: dict[str, Any]) -> None:
    reading = read(attributes)
    assert (reading.calls, reading.passed_over) == ([], {"no_call": 1})
    assert "zebra" not in repr(reading)


def test_the_details_that_an_agent_writes_beside_its_own_events_are_passed_over() -> None:
    details = {"event.name": DETAILS, "gen_ai.operation.name": "generate_content", "gen_ai.request.model": "gemini-m"}
    (call,) = read(details, RESPONSE, details, scope=GEMINI).calls
    assert call.fields["cached_tokens"] == 30
    assert len(read(details, details, scope="other").calls) == 2


def within_a_span(*records: dict[str, Any]) -> Reading:
    return read(*records, traceId="0" * 30 + "b1", spanId="0" * 14 + "a1")


def test_a_call_is_known_by_its_request_and_not_by_the_span_that_it_is_written_in() -> None:
    calls = within_a_span(ANSWERED, {**ANSWERED, "request_id": "req_2"}, {**ANSWERED, "request_id": ""}, FAILED).calls
    assert len({key for call in calls for key in call.keys}) == 6, "two for an id, and one for a record without"
    assert all(call.fields["trace_id"] == "0" * 30 + "b1" and "span_id" not in call.fields for call in calls)


def test_details_are_known_by_their_response_and_without_one_by_their_span() -> None:
    details = {"event.name": DETAILS, "gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
    responses = within_a_span(*({**details, "gen_ai.response.id": name} for name in ("r-1", "r-2"))).calls
    assert [call.keys for call in responses] == [tuple(response_keys(name, AT)) for name in ("r-1", "r-2")]
    (without,) = within_a_span({**details, "error.type": "timeout"}).calls
    assert without.keys == (f"span:{'0' * 30}b1/{'0' * 14}a1",)
