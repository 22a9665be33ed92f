"""What libraries write, in one vocabulary."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.decode.vocabulary import ERROR_TYPES, error_type, finish_reason, is_error, manages, operation, provider

ERRORS = {
    "rate_limit": (
        "RateLimitError", "openai.RateLimitError", "rate_limit_error", "429", "ModelRateLimitError", "ratelimit",
        "ThrottlingException", "throttled", "rate_limited", "TooManyRequests", "too_many_requests",
        "insufficient_quota",
        "RESOURCE_EXHAUSTED", "google.api_core.exceptions.ResourceExhausted", "HTTP 429",
        "HTTP/1.1 429 Too Many Requests",
        "litellm.exceptions.RateLimitError", "OpenAIRateLimitError", "status_code=429", "402", "billing_error",
        "AI_APICallError: Rate limit reached for gpt-4o-mini", "ClientError: 429 RESOURCE_EXHAUSTED. {}",
        "Error code: 429 - {'error': {'message': 'Slow down'}}",
    ),
    "server_error": (
        "InternalServerError", "500", "503", "599", "openai.InternalServerError", "server_error", "internal_error",
        "INTERNAL",
        "ServiceUnavailableError", "UNAVAILABLE", "unavailable", "BadGateway", "ServiceUnavailableException",
        "api_error",
        "ModelErrorException", "APIResponseValidationError", "InternalFailure", "503 Service Unavailable",
    ),
    "overloaded": (
        "overloaded_error", "OverloadedError", "529", "overloaded", "anthropic.OverloadedError", "server_overloaded",
    ),
    "timeout": (
        "APITimeoutError", "TimeoutError", "408", "504", "timeout", "timed_out", "Request timed out.",
        "httpx.ReadTimeout", "ServerError: 504 DEADLINE_EXCEEDED. {}",
        "ConnectTimeout", "DEADLINE_EXCEEDED", "DeadlineExceeded", "ETIMEDOUT", "GatewayTimeout", "litellm.Timeout",
    ),
    "authentication": (
        "AuthenticationError", "401", "403", "PermissionDenied", "PermissionDeniedError", "UNAUTHENTICATED",
        "unauthorized",
        "AccessDeniedException", "invalid_api_key", "Forbidden", "authentication_error", "permission_error",
        "UnrecognizedClientException", "InvalidSignatureException", "API key not valid. Please pass a valid one.",
    ),
    "content_filter": (
        "content_filter", "ContentPolicyViolationError", "content_policy_violation",
        "ContentFilterFinishReasonError", "blocked",
        "Error code: 400 - The response was filtered due to the prompt triggering content management policy.",
        "SAFETY",
    ),
    "invalid_request": (
        "BadRequestError", "400", "422", "413", "invalid_request_error", "INVALID_ARGUMENT", "ValidationException",
        "UnprocessableEntityError", "ContextWindowExceededError", "context_length_exceeded", "request_too_large",
        "UnsupportedParamsError", "ValueError", "Error code: 400 - {'error': {'message': 'temperature'}}",
    ),
    "not_found": (
        "NotFoundError", "404", "410", "model_not_found", "NOT_FOUND", "ResourceNotFoundException",
        "DeploymentNotFound",
    ),
    "connection": (
        "APIConnectionError", "openai.APIConnectionError", "RemoteProtocolError", "httpx.ReadError", "ECONNRESET",
        "ConnectionResetError", "ConnectionAbortedError", "connection_cut", "ServerDisconnectedError",
        "ClientConnectorError",
        "peer closed connection without sending complete message body (incomplete chunked read)", "IncompleteRead",
        "ConnectionRefusedError", "Connection refused (localhost:1)", "java.net.ConnectException",
        "java.io.IOException", "java.net.UnknownHostException", "Failed to connect to llm.example",
        "target machine actively refused it",
    ),
    "cancelled": (
        "CancelledError", "asyncio.exceptions.CancelledError", "canceled", "AbortError", "aborted", "499",
        "CANCELLED",
    ),
    "unknown": ("_OTHER", "unknown"),
}  # fmt: skip
FINISHES = {
    "stop": (
        "stop", "STOP", "end_turn", "stop_sequence", "completed", "COMPLETE", "endTurn", "FinishReason.STOP",
        "eos", "done",
        "FINISH_REASON_STOP", "FINISH",
    ),
    "length": (
        "length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "max_completion_tokens",
        "FinishReason.MAX_TOKENS", "max_length",
        "model_context_window_exceeded", "ERROR_LIMIT",
    ),
    "tool_calls": (
        "tool_calls", "tool_use", "tool_call", "tool-calls", "function_call", "TOOL_CALL", "ToolUse", "TOOL_EXECUTION",
    ),
    "content_filter": (
        "content_filter", "content-filter", "refusal", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST",
        "SPII",
        "guardrail_intervened", "content_filtered", "IMAGE_SAFETY", "ERROR_TOXIC",
    ),
    "error": ("error", "ERROR", "failed", "MALFORMED_FUNCTION_CALL"),
}  # fmt: skip
PROVIDERS = {
    "openai": (
        "openai", "OpenAI", "openai.chat", "openai.responses", "openai.embedding", "text-completion-openai",
        "open_ai",
    ),
    "anthropic": ("anthropic", "Anthropic", "anthropic.messages", "anthropic_text"),
    "azure": (
        "azure", "azure.ai.openai", "az.ai.openai", "azure-openai", "azure.ai.inference", "AzureOpenAI", "azure_ai",
        "microsoft.foundry",
    ),
    "aws.bedrock": (
        "aws.bedrock", "bedrock", "amazon-bedrock", "bedrock_converse", "AWS Bedrock", "AWS", "amazon_bedrock",
    ),
    "aws.sagemaker": ("sagemaker", "sagemaker_chat", "aws.sagemaker"),
    "gcp.vertex_ai": (
        "gcp.vertex_ai", "vertex_ai", "google-vertex", "google.vertex.chat", "vertex_ai-anthropic_models", "VertexAI",
    ),
    "gcp.gemini": ("gcp.gemini", "gemini", "google.generative-ai", "google_genai", "google", "Google", "google-gla"),
    "cohere": ("cohere", "cohere_chat", "Cohere"),
    "mistral_ai": ("mistral_ai", "mistral", "mistral.chat", "MistralAI", "mistralai"),
    "x_ai": ("xai", "x_ai", "xai.chat", "grok"),
    "groq": ("groq", "groq.chat", "Groq"),
    "deepseek": ("deepseek", "DeepSeek", "deepseek.chat"),
    "moonshot_ai": ("moonshot_ai", "moonshotai", "moonshot"),
    "openrouter": ("openrouter", "OpenRouter", "openrouter/anthropic"),
    "vllm": ("vllm", "hosted_vllm", "vLLM"),
    "openai-compatible": ("openai-compatible.chat",),
    "cerebras": ("cerebras.chat", "Cerebras", "cerebras.responses"),
    "custom_openai": ("custom_openai",),
    "gcp.vertex.agent": ("gcp.vertex.agent",),  # that of ADK's agents, whichever model they call
    "myllm": ("MyLLM",),
    "litellm_proxy": ("litellm_proxy", " litellm_proxy "),
}  # fmt: skip
OPERATIONS = {
    "chat": (
        "chat", "completion", "acompletion", "responses", "aresponses", "messages", "anthropic_messages",
        "generate_content",
        "agenerate_content_stream", "chat gpt-4o", "/v1/chat/completions", "/v1/messages", "LLM", "generation",
        "ai.generateText.doGenerate", "ai.streamText.doStream", "pass_through_endpoint",
    ),
    "text_completion": ("text_completion", "atext_completion", "/v1/completions", "text.streaming_completions"),
    "embeddings": ("embeddings", "embedding", "aembedding", "EMBEDDING", "/v1/embeddings", "ai.embedMany.doEmbed"),
    "rerank": ("rerank", "arerank"),
    "image_generation": ("image_generation", "aimage_generation", "/v1/images/generations"),
    "transcription": ("transcription", "atranscription"),
    "execute_tool": ("execute_tool", "execute_tool chat"),
    "invoke_agent": ("invoke_agent", "invoke_agent messages"),
    "count_tokens": ("/v1/messages/count_tokens",),
    "summarize": ("summarize",),
}  # fmt: skip


def cases(table: dict[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    return [(text, name) for name, texts in table.items() for text in texts]


@pytest.mark.parametrize(("text", "name"), cases(ERRORS))
def test_the_kind_of_an_error(text: str, name: str) -> None:
    assert error_type(text) == name
    assert name in ERROR_TYPES


@pytest.mark.parametrize(("text", "name"), cases(FINISHES))
def test_the_reason_of_the_end(text: str, name: str) -> None:
    assert finish_reason(text) == name


@pytest.mark.parametrize(("text", "name"), cases(PROVIDERS))
def test_the_provider(text: str, name: str) -> None:
    assert provider(text) == name


@pytest.mark.parametrize(
    "text", ["aretrieve_batch", "list_messages", "create_message", "call_mcp_tool", "count_tokens"]
)
def test_an_operation_that_looks_after_things(text: str) -> None:
    assert manages(text)


@pytest.mark.parametrize("text", [*OPERATIONS["chat"], *OPERATIONS["rerank"]])
def test_an_operation_that_calls_a_model(text: str) -> None:
    assert not manages(text)


@pytest.mark.parametrize(("text", "name"), cases(OPERATIONS))
def test_the_operation(text: str, name: str) -> None:
    assert operation(text) == name


@pytest.mark.parametrize(
    "text",
    ["E1234", "AI_APICallError", "openai.APIError", "APIStatusError", "Exception", "200", "gpt-4", "", "7", "Fehler"],
)
def test_an_error_that_names_no_kind_is_not_changed(text: str) -> None:
    assert error_type(text) == text


@pytest.mark.parametrize(
    "text", ["", "pause_turn", "other", "unknown", "incomplete", "USER_CANCEL", "stopgap", "toolbox"]
)
def test_a_finish_of_no_known_meaning_is_not_changed(text: str) -> None:
    assert finish_reason(text) == text


@pytest.mark.parametrize(
    "status",
    [
        "error", "ERROR", "failure", "failed", "Error", "timeout", "timed_out", "cancelled", "canceled",
        "rate_limited",
        "throttled", "content_filter", "exception", "aborted", "overloaded", "unavailable", "429", "503", "400",
        "599",
        "HTTP 500", "503 Service Unavailable", "STATUS_CODE_ERROR", "fail", "rejected", "denied",
        "completed with errors",
        "not_found", "RateLimitError", "errored", "blocked", "invalid_request", "disconnected",
    ],
)  # fmt: skip
def test_a_status_that_is_an_error(status: str) -> None:
    assert is_error(status) is True


@pytest.mark.parametrize(
    "status",
    [
        "ok", "OK", "success", "Succeeded", "completed", "complete", "done", "stop", "incomplete", "200", "204",
        "302", "200 OK",
        "HTTP/1.1 200 OK", "STATUS_CODE_OK", "length", "tool_calls", "end_turn",
    ],
)  # fmt: skip
def test_a_status_that_is_none(status: str) -> None:
    assert is_error(status) is False


@pytest.mark.parametrize(
    "status",
    [
        "", "unset", "in_progress", "connected", "running", "0", "1", "2", "42", "600", "4290", "no error",
        "without errors",
        "true", "false", "degraded", "purple", "429.5", "STATUS_CODE_UNSET", "UNSET", "canary", "timely", "authored",
    ],
)  # fmt: skip
def test_a_status_that_tells_neither(status: str) -> None:
    assert is_error(status) is None


ALL = (ERRORS, FINISHES, PROVIDERS, OPERATIONS)
FUNCTIONS: list[Callable[[str], str]] = [error_type, finish_reason, provider, operation]


@pytest.mark.parametrize("named", FUNCTIONS)
@given(text=st.text(max_size=300) | st.sampled_from([text for of in ALL for pair in cases(of) for text in pair]))
def test_what_is_named_once_keeps_its_name(named: Callable[[str], str], text: str) -> None:
    assert named(named(text)) == named(text)


@given(st.integers(400, 599))
def test_every_http_error_has_a_kind(status: int) -> None:
    assert error_type(str(status)) in ERROR_TYPES
    assert is_error(str(status)) is True


@given(st.integers(100, 399))
def test_no_other_http_status_is_an_error(status: int) -> None:
    assert error_type(str(status)) == str(status)
    assert is_error(str(status)) is False


@pytest.mark.parametrize("named", [*FUNCTIONS, is_error])
def test_only_the_beginning_of_a_text_is_read(named: Callable[[str], object]) -> None:
    text = "x" * 200 + " error 429 max_tokens openai chat"
    assert named(text) in (text, None)
