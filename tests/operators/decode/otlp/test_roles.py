"""Which spans are calls: by the role that a library gives, by operation, or as the client of a request."""

from __future__ import annotations

from typing import Any

import pytest

from operators.decode.otlp import json
from operators.decode.otlp.roles import operation
from operators.decode.otlp.signals import Span
from tests.otlp import AT, Plain, as_json

CLIENT, INTERNAL, SERVER = 3, 1, 2


def span(attributes: dict[str, Any], name: str = "span", kind: int = INTERNAL, status: int = 0) -> Span:
    raised = [("exception", AT, {"exception.type": "Error"})] if status == 2 else []
    plain = Plain(attributes, name=name, kind=kind, status=status, events=raised)
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
        ({"traceloop.span.kind": "workflow", "gen_ai.request.model": "m"}, ""),
        ({"span.type": "llm"}, "chat"),
        ({"span.type": "agent"}, ""),
        ({"span.type": "something of somebody else", "gen_ai.operation.name": "chat"}, "chat"),
        # Vercel, Haystack, Spring.
        ({"ai.operationId": "ai.generateText.doGenerate"}, "chat"),
        ({"ai.operationId": "ai.streamText.doStream"}, "chat"),
        ({"ai.operationId": "ai.embed.doEmbed"}, "embeddings"),
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
        ({"gen_ai.type": "embedding", "gen_ai.request.model": "m"}, "embeddings"),
        ({"gen_ai.type": "image", "gen_ai.request.model": "m"}, ""),
        ({"gen_ai.operation.name": "invoke_agent", "gen_ai.request.model": "m"}, ""),
        ({"gen_ai.operation.name": "execute_tool"}, ""),
        ({"gen_ai.operation.name": "count_tokens"}, ""),
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
        ({"http.response.status_code": 200}, "POST", CLIENT, None),
        ({"gen_ai.request.id": "cmpl-1"}, "llm_request", SERVER, "chat"),
        ({"gen_ai.model.provider": "openai"}, "x", INTERNAL, "chat"),
    ],
)  # fmt: skip
def test_without_them_the_kind_and_the_name_do(
    attributes: dict[str, Any], name: str, kind: int, expected: str | None
) -> None:
    assert operation(span(attributes, name, kind)) == expected


@pytest.mark.parametrize(
    ("name", "kind", "status", "expected"),
    [
        ("chat m", CLIENT, 2, "chat"),
        ("embeddings m", CLIENT, 2, "embeddings"),
        ("call_llm", INTERNAL, 2, "chat"),
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
    assert operation(span({}, name, kind, status)) == expected
