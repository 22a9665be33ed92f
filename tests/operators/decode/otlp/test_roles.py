"""Which spans are calls: by the role that a library gives, by operation, or as the client of a request."""

from __future__ import annotations

from typing import Any

import pytest

from operators.decode.otlp import json
from operators.decode.otlp.roles import operation
from operators.decode.otlp.signals import Span
from tests.otlp import AT, Plain, as_json

CLIENT, INTERNAL, SERVER = 3, 1, 2


def span(
    attributes: dict[str, Any], name: str = "span", kind: int = INTERNAL, scope: str = "x", status: int = 0
) -> Span:
    raised = [("exception", AT, {"exception.type": "Error"})] if status == 2 else []
    plain = Plain(attributes, name=name, kind=kind, scope=scope, status=status, events=raised)
    found = json.signals(as_json([plain]), {"exception.type", *attributes})
    return found.spans[0]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        # The role that a library gives decides first.
        ({"openinference.span.kind": "LLM"}, "chat"),
        ({"openinference.span.kind": "EMBEDDING"}, "embeddings"),
        ({"openinference.span.kind": "CHAIN", "gen_ai.operation.name": "chat"}, ""),
        ({"openinference.span.kind": "AGENT", "llm.token_count.prompt": 5}, ""),
        ({"langfuse.observation.type": "generation"}, "chat"),
        ({"langfuse.observation.type": "agent", "gen_ai.usage.input_tokens": 5}, ""),
        ({"langfuse.observation.type": "span", "langfuse.observation.model.name": "m"}, "chat"),
        ({"langfuse.observation.type": "span"}, None),
        ({"gen_ai.span.kind": "LLM", "gen_ai.operation.name": "text_completion"}, "text_completion"),
        ({"braintrust.span_attributes": '{"type": "llm"}'}, "chat"),
        ({"braintrust.span_attributes": '{"type": [[["llm"]]]}'}, ""),
        ({"braintrust.span_attributes.type": "llm"}, "chat"),
        ({"braintrust.span_attributes.type": "task"}, ""),
        ({"traceloop.span.kind": "workflow", "gen_ai.request.model": "m"}, ""),
        # OpenLLMetry's tasks of LlamaIndex are calls too, of clients that it has no instrumentation for.
        ({"traceloop.span.kind": "workflow", "llm.request.type": "chat"}, "chat"),
        ({"traceloop.span.kind": "task", "llm.request.type": "chat"}, "chat"),
        ({"traceloop.span.kind": "task", "embedding.model_name": "e"}, "embeddings"),
        ({"traceloop.span.kind": "task", "gen_ai.operation.name": "invoke_agent"}, ""),
        ({"traceloop.span.kind": "task"}, None),
        ({"traceloop.span.kind": "agent", "llm.request.type": "chat"}, ""),
        ({"span.type": "llm"}, "chat"),
        ({"span.type": "agent"}, ""),
        ({"span.type": "something of somebody else", "gen_ai.operation.name": "chat"}, "chat"),
        # Vercel, Haystack, Spring.
        ({"ai.operationId": "ai.generateText.doGenerate"}, "chat"),
        ({"ai.operationId": "ai.streamText.doStream"}, "chat"),
        ({"ai.operationId": "ai.embed.doEmbed"}, "embeddings"),
        ({"ai.operationId": "ai.rerank.doRerank"}, "rerank"),
        ({"ai.operationId": "ai.generateText", "ai.usage.promptTokens": 5}, ""),
        ({"ai.operationId": "ai.toolCall"}, ""),
        ({"haystack.component.type": "OpenAIChatGenerator"}, "chat"),
        ({"haystack.component.type": "OpenAITextEmbedder"}, "embeddings"),
        ({"haystack.component.type": "PromptBuilder"}, ""),
        # Operations.
        ({"gen_ai.operation.name": "chat"}, "chat"),
        ({"gen_ai.operation.name": "generate_content"}, "chat"),
        ({"gen_ai.operation.name": "embeddings"}, "embeddings"),
        ({"llm.request.type": "completion"}, "chat"),
        ({"llm.request.type": "rerank"}, "rerank"),
        ({"gen_ai.type": "embedding", "gen_ai.request.model": "m"}, "embeddings"),
        ({"gen_ai.type": "image", "gen_ai.request.model": "m"}, "image_generation"),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m"}, ""),
        ({"gen_ai.operation.name": "execute_tool"}, ""),
        ({"gen_ai.operation.name": "count_tokens"}, ""),
        ({"gen_ai.operation.name": "speech_group"}, ""),
        ({"openinference.span.kind": "RERANKER", "llm.system": "cohere"}, "rerank"),
        ({"openinference.span.kind": "RERANKER", "reranker.model_name": "m"}, ""),
        ({"llm.request.type": "aimage_generation"}, "image_generation"),
        ({"llm.request.type": "atranscription"}, "transcription"),
        ({"llm.request.type": "pass_through_endpoint"}, "chat"),
        ({"llm.request.type": "aget_responses"}, ""),
        ({"gen_ai.operation.name": "litellm.responses_management"}, ""),
        # SGLang.
        ({"gen_ai.request.id": "r-1", "gen_ai.response.model": "m"}, "chat"),
        ({"gen_ai.operation.type": "framework", "gen_ai.operation.name": "chat"}, ""),
        # An attempt of a router within its call.
        ({"gen_ai.operation.name": "chat", "gen_ai.response.id": "gen-1:attempt-2"}, ""),
        # Usage alone makes no call.
        ({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 5}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_role_or_the_operation_decides(attributes: dict[str, Any], expected: str | None) -> None:
    assert operation(span(attributes)) == expected


@pytest.mark.parametrize(
    ("attributes", "name", "kind", "expected"),
    [
        ({"gen_ai.request.model": "m"}, "x", CLIENT, "chat"),
        ({"gen_ai.request.model": "m"}, "x", SERVER, "chat"),
        ({"gen_ai.request.model": "m"}, "x", INTERNAL, None),
        ({"gen_ai.request.model": "m"}, "chat m", INTERNAL, "chat"),
        ({"gen_ai.request.model": "m"}, "embeddings m", INTERNAL, "embeddings"),
        ({"gen_ai.request.model": "m"}, "invoke_agent m", INTERNAL, None),
        ({"gen_ai.request.model": "m"}, "call_llm", INTERNAL, "chat"),
        ({"gen_ai.request.model": "m"}, "Model invoke", INTERNAL, "chat"),
        ({"gen_ai.request.model": "m"}, "Chat Completion with 'm'", INTERNAL, "chat"),
        ({"gen_ai.request.model": "m"}, "Message with {request_data[model]!r}", INTERNAL, "chat"),
        ({"gen_ai.request.model": "m"}, "Embedding Creation with {request_data[model]!r}", INTERNAL, "embeddings"),
        ({"gen_ai.request.model": "m"}, "retry.attempt.1", INTERNAL, "chat"),
        ({"gen_ai.request.model": "m"}, "a message with much text", INTERNAL, None),
        ({"http.response.status_code": 200}, "POST", CLIENT, None),
        ({"gen_ai.request.id": "cmpl-1"}, "llm_request", SERVER, "chat"),
        ({"gen_ai.model.provider": "openai"}, "x", INTERNAL, "chat"),
        # A completion is a chat, unless the span is named for the older kind.
        ({"llm.request.type": "completion"}, "gemini.generate_content", CLIENT, "chat"),
        ({"llm.request.type": "completion"}, "openai.completion", CLIENT, "text_completion"),
        ({"llm.request.type": "completion"}, "bedrock.completion", CLIENT, "chat"),
        ({"openinference.span.kind": "LLM"}, "Completion", INTERNAL, "text_completion"),
        ({"langfuse.observation.type": "generation"}, "Completion", INTERNAL, "chat"),
        ({"langfuse.observation.type": "generation"}, "OpenAI.embeddings", INTERNAL, "embeddings"),
    ],
)  # fmt: skip
def test_without_them_the_kind_and_the_name_do(
    attributes: dict[str, Any], name: str, kind: int, expected: str | None
) -> None:
    assert operation(span(attributes, name, kind)) == expected


@pytest.mark.parametrize(
    ("name", "scope", "kind", "expected"),
    [
        ("bedrock.completion", "opentelemetry.instrumentation.bedrock", CLIENT, "chat"),
        ("bedrock.converse", "@traceloop/instrumentation-bedrock", CLIENT, "chat"),
        ("bedrock.converse", "opentelemetry.instrumentation.bedrock", INTERNAL, None),
        ("bedrock.converse", "my.own.scope", CLIENT, None),
        ("pinecone.query", "opentelemetry.instrumentation.pinecone", CLIENT, None),
    ],
)
def test_a_failed_call_may_tell_nothing_but_its_name(name: str, scope: str, kind: int, expected: str | None) -> None:
    assert operation(span({}, name, kind, scope)) == expected


def test_a_builder_of_prompts_is_no_call_whatever_its_role() -> None:
    llm, scope = {"openinference.span.kind": "LLM"}, "openinference.instrumentation.haystack"
    assert operation(span(llm, "PromptBuilder.run", scope=scope)) == ""
    assert operation(span(llm, "OpenAIChatGenerator.run", scope=scope)) == "chat"
    assert operation(span({**llm, "llm.model_name": "m"}, "MyWriter.run", scope=scope)) == "chat"
    assert operation(span(llm, "PromptBuilder.run")) == "chat"


@pytest.mark.parametrize(
    ("name", "kind", "status", "expected"),
    [
        ("chat m", CLIENT, 2, "chat"),
        ("embeddings m", CLIENT, 2, "embeddings"),
        ("call_llm", INTERNAL, 2, "chat"),
        ("Message with some text", INTERNAL, 2, None),
        ("chat m", CLIENT, 0, None),
        ("chat m", INTERNAL, 2, None),
        ("chat with somebody", CLIENT, 2, None),
        ("execute_tool m", CLIENT, 2, None),
        ("POST", CLIENT, 2, None),
    ],
)
def test_a_failure_without_attributes_is_a_call_by_its_name(
    name: str, kind: int, status: int, expected: str | None
) -> None:
    assert operation(span({}, name, kind, status=status)) == expected
