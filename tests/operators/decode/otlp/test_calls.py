"""What a span tells of its call: tokens, times, errors and costs, whichever way a library says it."""

from __future__ import annotations

import math
from typing import Any

import orjson
import pytest

from operators.decode.base import MAX_SENT, Call, Reading
from operators.decode.config import DecodeConfig
from operators.decode.otlp.format import OTLP_PROTO, OtlpJsonFormat
from operators.decode.translate import TranslatingDecoder
from tests.otlp import AT, Plain, as_proto, json_text

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
IN, OUT = "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"
CACHED, REASONING = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.reasoning.output_tokens"
WRITTEN = "gen_ai.usage.cache_creation.input_tokens"
TOTAL = "gen_ai.usage.total_tokens"
NAMES = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")


def read(*spans: Plain) -> Reading:
    """The reading of these spans, which both encodings give."""
    reading = OtlpJsonFormat().read(json_text(spans), DecodeConfig())
    assert repr(OTLP_PROTO.read(as_proto(spans), DecodeConfig())) == repr(reading)
    return reading


def call(attributes: dict[str, Any], **changed: Any) -> Call:
    (one,) = read(Plain({**CHAT, **attributes}, **changed)).calls
    assert set(one.found) == set(one.fields), "each field says where it was found"
    return one


def fields(attributes: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return call(attributes, **changed).fields


def tokens(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: count for name, count in fields(attributes).items() if name in NAMES}


def langfuse(**usage: int) -> dict[str, str]:
    return {"langfuse.observation.usage_details": orjson.dumps(usage).decode()}


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({IN: 5, OUT: 7}, {"prompt_tokens": 5, "completion_tokens": 7}),
        ({"llm.token_count.prompt": "5"}, {"prompt_tokens": 5}),
        ({IN: 5, "gen_ai.usage.prompt_tokens": 6}, {"prompt_tokens": 5}),
        ({"output.value": '{"usage": {"prompt_tokens": 5}}'}, {"prompt_tokens": 5}),
        ({IN: None, "gen_ai.usage.prompt_tokens": 6}, {"prompt_tokens": 6}),
        # Unknown, not zero.
        ({IN: 0, OUT: 0}, {}),
        ({IN: -1, OUT: 7}, {"completion_tokens": 7}),
        ({IN: math.nan, OUT: 7}, {"completion_tokens": 7}),
        ({IN: "", OUT: "None"}, {}),
        ({IN: "N/A", OUT: 7}, {"completion_tokens": 7}),
        ({IN: 5, OUT: 0}, {"prompt_tokens": 5, "completion_tokens": 0}),
        ({IN: 5, OUT: 7, CACHED: 0}, {"prompt_tokens": 5, "completion_tokens": 7, "cached_tokens": 0}),
        ({IN: 0, OUT: 7, CACHED: 0}, {"completion_tokens": 7}),
        ({OUT: 7, WRITTEN: 0, REASONING: 0}, {"completion_tokens": 7, "reasoning_tokens": 0}),
        ({IN: 0, OUT: 7, CACHED: 5}, {"prompt_tokens": 5, "completion_tokens": 7, "cached_tokens": 5}),
        # With cache, by the name; a part that is more than its whole proves that it was not in it.
        ({IN: 2065, CACHED: 1800}, {"prompt_tokens": 2065, "cached_tokens": 1800}),
        ({IN: 25, CACHED: 1800}, {"prompt_tokens": 1825, "cached_tokens": 1800}),
        ({IN: 4, WRITTEN: 700}, {"prompt_tokens": 704, "cache_write_tokens": 700}),
        ({IN: 90, CACHED: 80, WRITTEN: 30}, {"prompt_tokens": 200, "cached_tokens": 80, "cache_write_tokens": 30}),
        ({IN: 90, CACHED: 80, WRITTEN: 10}, {"prompt_tokens": 90, "cached_tokens": 80, "cache_write_tokens": 10}),
        ({"input_tokens": 2000, "cache_read_tokens": 1800}, {"prompt_tokens": 3800, "cached_tokens": 1800}),
        (
            {"langfuse.observation.usage_details": '{"input": 512, "input_cache_read": 1536}'},
            {"prompt_tokens": 2048, "cached_tokens": 1536},
        ),
        (
            {"langfuse.observation.usage_details": "{'input': 512, 'input_cache_read': 1536, 3: 4}"},
            {"prompt_tokens": 2048, "cached_tokens": 1536},
        ),
        (
            {"langfuse.observation.usage_details": '{"prompt_tokens": 2048, "input_cache_read": 1536}'},
            {"prompt_tokens": 2048, "cached_tokens": 1536},
        ),
        # What LangChain's callback makes of the usage of Anthropic, of Bedrock and of Vertex.
        (
            langfuse(input=500, output=90, cache_read_input_tokens=100, cache_creation_input_tokens=40),
            {"prompt_tokens": 640, "completion_tokens": 90, "cached_tokens": 100, "cache_write_tokens": 40},
        ),
        (
            langfuse(input=30, output=9, total=1_079, input_cache_read=800, input_cache_creation=0,
                     input_ephemeral_5m_input_tokens=200, input_ephemeral_1h_input_tokens=40),
            {"prompt_tokens": 1_070, "completion_tokens": 9, "cached_tokens": 800, "cache_write_tokens": 240},
        ),
        (
            langfuse(input=30, output=9, cacheReadInputTokenCount=800, cacheWriteInputTokenCount=0, firstByteLatency=3),
            {"prompt_tokens": 830, "completion_tokens": 9, "cached_tokens": 800, "cache_write_tokens": 0},
        ),
        (
            langfuse(input=0, output=0, total=960, input_modality_TEXT=200, cached_modality_TEXT=700,
                     output_modality_TEXT=40, thoughts_token_count=20, cached_content_token_count=700),
            {"prompt_tokens": 900, "completion_tokens": 60, "cached_tokens": 700, "reasoning_tokens": 20},
        ),
        (
            langfuse(input=500, output=90, total=590, cache_read_input_tokens=100),
            {"prompt_tokens": 500, "completion_tokens": 90, "cached_tokens": 100},
        ),
        (
            langfuse(input_tokens=500, output_tokens=90, cache_read_input_tokens=100),
            {"prompt_tokens": 600, "completion_tokens": 90, "cached_tokens": 100},
        ),
        # The Vercel AI SDK hands on what Anthropic counts: in 4, in 5; from 6 on it adds up.
        (
            {"ai.usage.promptTokens": 500,
             "ai.response.providerMetadata": '{"anthropic": {"cacheReadInputTokens": 100}}'},
            {"prompt_tokens": 600, "cached_tokens": 100},
        ),
        (
            {"ai.usage.inputTokens": 500, "ai.usage.outputTokens": 9, "ai.usage.totalTokens": 509,
             "ai.usage.cachedInputTokens": 100,
             "ai.response.providerMetadata": '{"anthropic": {"usage": {"input_tokens": 500}}}'},
            {"prompt_tokens": 600, "completion_tokens": 9, "cached_tokens": 100},
        ),
        (
            {"ai.usage.inputTokens": 600, "ai.usage.cachedInputTokens": 100,
             "ai.response.providerMetadata": '{"anthropic": {"usage": {"input_tokens": 500}}}'},
            {"prompt_tokens": 600, "cached_tokens": 100},
        ),
        # A map whose values are attributes of their own.
        ({"braintrust.metrics.prompt_tokens": 5, "braintrust.metrics.completion_tokens": 7},
         {"prompt_tokens": 5, "completion_tokens": 7}),
        # By the total.
        ({IN: 9, OUT: 1, CACHED: 4, TOTAL: 14}, {"prompt_tokens": 13, "completion_tokens": 1, "cached_tokens": 4}),
        ({IN: 9, OUT: 1, CACHED: 4, TOTAL: 10}, {"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 4}),
        ({IN: 9, "gen_ai.usage.cache_write_tokens": 4}, {"prompt_tokens": 9, "cache_write_tokens": 4}),
        ({"gen_ai.response.input_tokens": 9}, {"prompt_tokens": 9}),
        # Reasoning is part of the output.
        ({OUT: 59, "gen_ai.usage.details.thoughts_tokens": 58}, {"completion_tokens": 59, "reasoning_tokens": 58}),
        ({OUT: 90, REASONING: 64}, {"completion_tokens": 90, "reasoning_tokens": 64}),
        ({OUT: 26, REASONING: 64}, {"completion_tokens": 90, "reasoning_tokens": 64}),
        (
            {OUT: 90, "gen_ai.usage.experimental.reasoning_tokens": 64},  # beside it under this name
            {"completion_tokens": 154, "reasoning_tokens": 64},
        ),
        ({IN: 5, OUT: 6, REASONING: 2, TOTAL: 13}, {"prompt_tokens": 5, "completion_tokens": 8, "reasoning_tokens": 2}),
        # What is wrong is told as it is, and becomes a dead letter.
        ({IN: 1.5}, {"prompt_tokens": 1.5}),
        ({IN: -2}, {"prompt_tokens": -2}),
    ],
)  # fmt: skip
def test_tokens(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert tokens(attributes) == expected


@pytest.mark.parametrize(
    ("scope", "total", "expected"),
    [
        ("openinference.instrumentation.bedrock", None, 700),
        ("openinference.instrumentation.bedrock", 790, 700),
        ("openinference.instrumentation.bedrock", 590, 500),  # it counts otherwise now
        ("openinference.instrumentation.anthropic", None, 500),
    ],
)
def test_a_library_that_leaves_the_cache_out_of_the_input(scope: str, total: int | None, expected: int) -> None:
    """OpenInference's spans of Bedrock hand on what AWS counts."""
    prompt, cached = "llm.token_count.prompt", "llm.token_count.prompt_details.cache_read"
    told = {prompt: 500, "llm.token_count.completion": 90, cached: 200, "llm.token_count.total": total}
    assert fields(told, scope=scope)["prompt_tokens"] == expected


STREAM = {"gen_ai.request.stream": True}
FIRST = "First Token Stream Event"


@pytest.mark.parametrize(
    ("attributes", "events", "expected"),
    [
        ({**STREAM, "gen_ai.response.time_to_first_chunk": 0.3}, [], 300.0),
        ({**STREAM, "ai.response.msToFirstChunk": 300}, [], 300.0),
        ({**STREAM, "langfuse.observation.completion_start_time": '"2025-03-03T00:00:00.300Z"'}, [], 300.0),
        ({**STREAM, "gen_ai.server.time_to_first_token": 300}, [], 300.0),  # milliseconds: 300 s are after the end
        ({**STREAM, "gen_ai.server.time_to_first_token": 300_000_000}, [], 300.0),  # nanoseconds
        ({**STREAM, "gen_ai.server.time_to_first_token": 1e18}, [], None),
        ({**STREAM, "gen_ai.server.time_to_first_token": -1}, [], None),
        ({**STREAM, "gen_ai.server.time_to_first_token": "soon"}, [], None),
        ({}, [(FIRST, AT + 300_000_000, {})], 300.0),
        ({}, [(FIRST, AT + 300_000_000, {}), (FIRST, AT + 600_000_000, {})], 300.0),
        ({}, [(FIRST, AT - 1, {})], None),
        ({}, [(FIRST, AT + 1_999_000_000, {})], None),  # a gateway that wrote it down at the end
        ({"gen_ai.request.stream": "False"}, [(FIRST, AT + 300_000_000, {})], None),
        ({"gen_ai.server.time_to_first_token": 2.0}, [], None),  # not streamed: the first token is the last
        ({"gen_ai.server.time_to_first_token": 0.3}, [], 300.0),
    ],
)  # fmt: skip
def test_the_time_to_the_first_token(attributes: dict[str, Any], events: Any, expected: float | None) -> None:
    found = fields(attributes, events=events).get("ttft_ms")
    assert found == (expected if expected is None else pytest.approx(expected))


WRAPPED = {
    "exception.type": "agents.ProviderError",
    "exception.stacktrace": 'Traceback (most recent call last):\n  File "x.py", line 1\nopenai.RateLimitError: busy\n\n'
    "The above exception was the direct cause of the following exception:\n\nagents.ProviderError: busy",
}
JAVA = {
    "exception.type": "com.acme.NoAnswer",
    "exception.stacktrace": "com.acme.NoAnswer: no answer\n\tat com.acme.Model.ask(Model.java:5)\n"
    "Caused by: java.net.http.HttpTimeoutException: request timed out",
}


@pytest.mark.parametrize(
    ("attributes", "changed", "expected"),
    [
        ({}, {}, None),
        ({}, {"status": 1}, None),
        ({"error.type": "RateLimitError"}, {"status": 1}, None),
        ({"http.response.status_code": 200}, {}, None),
        ({"status_code": "STATUS_CODE_UNSET"}, {}, None),
        ({"error.type": "RateLimitError"}, {}, "rate_limit"),
        ({"error.type": "openai.APITimeoutError"}, {"status": 2}, "timeout"),
        ({"http.response.status_code": 429}, {"status": 2}, "rate_limit"),
        ({"error.type": "429"}, {"status": 2}, "rate_limit"),
        ({}, {"status": 2}, "unknown"),
        ({}, {"status": 2, "message": "Error code: 503 - {'error': 'x'}"}, "server_error"),
        ({}, {"status": 2, "message": "the model is overloaded"}, "overloaded"),
        ({}, {"status": 2, "message": "Error code: 400 - {'error': 'content management policy'}"}, "content_filter"),
        ({}, {"status": 2, "message": "Error code: 400 - {'error': 'max_tokens'}"}, "invalid_request"),
        ({}, {"status": 2, "events": [("exception", AT, {"exception.type": "AuthenticationError"})]}, "authentication"),
        ({"langfuse.observation.level": "ERROR"}, {}, "unknown"),
        ({"success": False}, {}, "unknown"),
        ({"gen_ai.error.type": "rate_limit_error"}, {"status": 2}, "rate_limit"),
        # An answer that broke off, whatever the status of its span.
        ({"gen_ai.response.finish_reasons": ["error"]}, {}, "unknown"),
        ({"gen_ai.response.finish_reasons": ["malformed_function_call"]}, {}, None),
        # The more specific of two says more.
        ({"error.type": "BadRequestError"}, {"status": 2, "message": "content_filter"}, "content_filter"),
        ({"error.type": "InternalServerError"}, {"status": 2, "message": "Connection error."}, "connection"),
        (
            {"error.type": "BadRequestError"},
            {"status": 2, "message": "Error code: 400 - {'error': {'code': 'content_filter'}}"},
            "content_filter",
        ),
        ({"error.type": "ServerError"}, {"status": 2, "message": "504 DEADLINE_EXCEEDED. {}"}, "timeout"),
        ({"error.type": "TaskCanceledException"}, {"status": 2, "message": "HttpClient.Timeout elapsed"}, "timeout"),
        # An exception and no answer are a failure, whatever the status lacks.
        ({}, {"events": [("exception", AT, {"exception.type": "RateLimitException"})]}, "rate_limit"),
        ({IN: 0, OUT: 0}, {"events": [("exception", AT, {"exception.type": "RateLimitException"})]}, "rate_limit"),
        ({OUT: 3}, {"events": [("exception", AT, {"exception.type": "RateLimitException"})]}, None),
        ({}, {"events": [("exception", AT, {"exception.type": "GeneratorExit"})]}, None),
        ({}, {"status": 1, "events": [("exception", AT, {"exception.type": "RateLimitException"})]}, "rate_limit"),
        ({IN: 3}, {"status": 1, "events": [("exception", AT, {"exception.type": "RateLimitException"})]}, None),
        ({IN: 3}, {"events": [("exception", AT, {"exception.type": "RateLimitException"})]}, "rate_limit"),
        # A framework's own exception wraps what its stack trace names.
        ({}, {"status": 2, "events": [("exception", AT, WRAPPED)]}, "rate_limit"),
        ({}, {"status": 2, "events": [("exception", AT, {**WRAPPED, "exception.type": "TimeoutError"})]}, "timeout"),
        ({}, {"status": 2, "events": [("exception", AT, JAVA)]}, "timeout"),
        ({}, {"status": 2, "events": [("exception", AT, {"exception.stacktrace": 5})]}, "unknown"),
    ],
)  # fmt: skip
def test_errors(attributes: dict[str, Any], changed: dict[str, Any], expected: str | None) -> None:
    found = fields(attributes, **changed)
    assert (found["status"], found.get("error_type")) == ("ok" if expected is None else "error", expected)


@pytest.mark.parametrize(("operation", "told"), [("embeddings", None), ("rerank", None), ("chat", 0)])
def test_embeddings_complete_nothing(operation: str, told: int | None) -> None:
    found = fields({"gen_ai.operation.name": operation, IN: 5, OUT: 0})
    assert found.get("completion_tokens") == told


def test_the_message_of_an_error_gives_its_kind_and_is_not_kept() -> None:
    found = fields({}, status=2, message="Rate limit reached for: tell me about zebras")
    assert found["error_type"] == "rate_limit"
    assert "zebra" not in repr(found)


@pytest.mark.parametrize(
    ("attributes", "status", "expected"),
    [
        ({"gen_ai.usage.cost": 0.5}, 0, 0.5),
        ({"gen_ai.client.estimated_cost": "0.5USD"}, 0, 0.5),
        ({"gen_ai.usage.cost": 0}, 0, None),  # a price that the library does not know
        ({"gen_ai.usage.cost": 0}, 2, 0),
        ({"gen_ai.cost.total_cost": 0, "gen_ai.usage.cost": 0.5}, 0, 0.5),
        ({"langfuse.observation.cost_details": '{"total": 0.5}'}, 0, 0.5),
        ({"langfuse.observation.cost_details": '{"input": 0.25, "output": 0.5}'}, 0, 0.75),
        ({"langfuse.observation.cost_details": '{"input": "?"}'}, 0, None),
        ({"litellm.cost.total": 0.5, "litellm.cost.input": 0.25}, 0, 0.5),
    ],
)  # fmt: skip
def test_the_cost(attributes: dict[str, Any], status: int, expected: float | None) -> None:
    assert fields(attributes, status=status).get("cost_usd") == expected


def test_words_of_libraries_become_those_of_the_vocabulary_and_are_kept_beside() -> None:
    sent = {"gen_ai.system": "OpenAI", "gen_ai.response.finish_reasons": '["end_turn"]', "error.type": "429"}
    found = call(sent)
    assert {"provider": "openai", "finish_reason": "stop", "error_type": "rate_limit"}.items() <= found.fields.items()
    assert found.originals == {"provider": "OpenAI", "finish_reason": "end_turn", "error_type": "429"}
    long = call({"error.type": "RateLimitError" + "x" * 1_000}).originals["error_type"]
    assert len(long) == MAX_SENT
    record = json_text([Plain({**CHAT, **sent})])
    decoded = TranslatingDecoder(OtlpJsonFormat()).decode([record], DecodeConfig(max_attributes=0))
    assert (len(decoded.events), decoded.faults) == (1, []), "they are no attributes of the event"


@pytest.mark.parametrize(
    ("attributes", "scope", "expected"),
    [
        ({"llm.provider": "google"}, "x", "gcp.gemini"),
        ({"llm.provider": "google", "llm.system": "vertexai"}, "x", "gcp.gemini"),
        (
            {"llm.provider": "google", "llm.system": "vertexai"},
            "openinference.instrumentation.vertexai",
            "gcp.vertex_ai",
        ),
        ({"llm.provider": "google", "metadata": '{"ls_provider": "google_vertexai"}'}, "x", "gcp.vertex_ai"),
        ({"llm.provider": "google", "metadata": '{"ls_provider": "google_genai"}'}, "x", "gcp.gemini"),
        ({"gen_ai.system": "Google"}, "opentelemetry.instrumentation.vertexai", "gcp.vertex_ai"),
        ({"gen_ai.system": "AWS"}, "opentelemetry.instrumentation.sagemaker", "aws.sagemaker"),
        ({"llm.provider": "aws", "llm.system": "anthropic"}, "x", "aws.bedrock"),
        ({"gen_ai.system": "gemini"}, "opentelemetry.instrumentation.vertexai", "gcp.gemini"),
        ({"llm.provider": "azure", "llm.system": "openai"}, "openinference.instrumentation.openai", "azure"),
        ({"gen_ai.system": "Langchain", "traceloop.association.properties.ls_provider": "openai"}, "x", "openai"),
        ({"gen_ai.system": "Langchain"}, "opentelemetry.instrumentation.langchain", None),
        ({"gen_ai.provider.name": "strands-agents"}, "strands.telemetry.tracer", None),
        ({}, "opentelemetry.instrumentation.groq", "groq"),
        ({}, "x", None),
    ],
)
def test_the_provider(attributes: dict[str, Any], scope: str, expected: str | None) -> None:
    """The name of a firm with two services leaves it to others to say which; that of a framework names no provider."""
    assert fields(attributes, scope=scope).get("provider") == expected


LANGCHAIN = {"generations": [[{"text": "zebra", "message": {"kwargs": {"response_metadata": {
    "model_name": "m-2", "id": "r-1", "finish_reason": "stop",
}}}}]]}  # fmt: skip
OPENAI = {"id": "r-1", "choices": [{"finish_reason": "stop", "message": {"content": "zebra"}}]}


@pytest.mark.parametrize("attribute", ["output.value", "gen_ai.completion", "mlflow.spanOutputs"])
@pytest.mark.parametrize("answer", [OPENAI, LANGCHAIN, {"id": "r-1", "stop_reason": "end_turn"}])
def test_an_answer_as_it_came_tells_what_no_attribute_does(attribute: str, answer: object) -> None:
    told = call({attribute: orjson.dumps(answer).decode()})
    assert (told.fields["finish_reason"], told.keys[1].partition(":")[0]) == ("stop", "response")
    assert "r-1" in told.keys[1]
    assert "zebra" not in repr(told)


def test_a_name_that_says_unknown_leaves_it_to_the_next() -> None:
    asked = "traceloop.association.properties.ls_model_name"
    found = fields({"gen_ai.request.model": "unknown", "gen_ai.response.model": "unknown", asked: "m-2"})
    assert (found["model"], found["model_requested"]) == ("m-2", "m-2")
    assert "model" not in fields({"gen_ai.request.model": "unknown"}) | fields({"gen_ai.request.model": "UNKNOWN"})
    nameless = {"service.name": "unknown_service:python"}
    assert fields({}, resource=nameless)["service"] == "unknown_service:python"
    assert fields({}, resource={**nameless, "openinference.project.name": "shop"})["service"] == "shop"


def test_a_span_without_an_end_or_before_its_start_says_so() -> None:
    assert "latency_ms" not in fields({}, end=0)
    assert fields({}, end=AT - 1_000_000)["latency_ms"] == -1
    assert fields({}, start=0)["timestamp"] == 0


def test_a_call_that_failed_before_its_library_wrote_attributes_has_its_model_in_its_name() -> None:
    raised = [("exception", AT, {"exception.type": "RateLimitError"})]
    (call,) = read(Plain({}, name="embeddings e-small", status=2, events=raised)).calls
    assert (call.fields["operation"], call.fields["status"]) == ("embeddings", "error")
    assert (call.fields["model"], call.found["model"]) == ("e-small", "name of the span")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gen_ai.usage.brand_new_tokens", {"gen_ai.usage.brand_new_tokens": 1}),
        (IN, {}),
        # Parts that no field holds, and counts as the provider sent them.
        ("gen_ai.usage.details.input_tokens", {}),
        ("gen_ai.usage.input_text_tokens", {}),
        ("gen_ai.usage.experimental.system_instruction_tokens", {}),
    ],
)
def test_usage_that_no_row_names_is_counted_by_its_name(name: str, expected: dict[str, int]) -> None:
    assert read(Plain({**CHAT, name: 5})).unknown == expected
