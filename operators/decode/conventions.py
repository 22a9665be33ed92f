"""The table of conventions: under which attribute each library tells a field of a call.

A row is an attribute. Rows of a field stand in the order in which they are asked: the newest OpenTelemetry name first,
then its older names, then those of single libraries. The first one that tells something counts. A `path` leads into a
value that is JSON text (or the repr of a Python dict, as LiteLLM writes it) or a map. To read another library, add its
rows; the settings can add rows too (`decode.attributes`), which are asked before all others.

Sources: the GenAI semantic conventions of OpenTelemetry from 1.27 on and their changelog, the specification of
OpenInference, the attribute constants of OpenLLMetry, Langfuse, LiteLLM, the Vercel AI SDK, logfire, MLflow, LangSmith
and vLLM, and what these libraries were seen to write.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Unit = Literal["", "s", "ms", "us", "ns", "time", "usd"]
"""How a number is to be read; `time` is an instant, from which the start of the call is taken away."""

Basis = Literal["", "without_cache", "parts", "beside"]
"""What a count of tokens stands for: the whole; the input without its cached part; what is left of the whole beside
other parts that stand in the same map (`input`, `input_audio`, `cache_read_input_tokens`); or a part that the whole
lacks."""


@dataclass(frozen=True, slots=True)
class Row:
    """An attribute that tells a field: `path` leads into its value, "" if the value itself is meant."""

    field: str
    attribute: str
    path: str = ""
    unit: Unit = ""
    basis: Basis = ""

    @property
    def place(self) -> str:
        """The attribute and the path in it, as people read it."""
        return f"{self.attribute}#{self.path}" if self.path else self.attribute


def rows(field: str, *places: str, unit: Unit = "", basis: Basis = "") -> tuple[Row, ...]:
    """A row for each place, which is an attribute or `attribute#path`."""
    split = (place.partition("#") for place in places)
    return tuple(Row(field, attribute, path, unit, basis) for attribute, _, path in split)


def _in(attribute: str, *paths: str) -> tuple[str, ...]:
    """The places at these paths in an attribute."""
    return tuple(f"{attribute}#{path}" for path in paths)


_LANGFUSE: Final = "langfuse.observation.usage_details"
_ANSWERS: Final = ("output.value", "gen_ai.completion", "mlflow.spanOutputs")
"""Attributes that hold the answer of a provider or of LangChain as it came."""
_LANGCHAIN: Final = "generations.0.0.message.kwargs.response_metadata"
"""Where LangChain has what a provider told of its answer."""


def _answers(*paths: str) -> tuple[str, ...]:
    """The places at these paths in an answer, whichever attribute holds it."""
    return tuple(f"{attribute}#{path}" for path in paths for attribute in _ANSWERS)


TABLE: Final[tuple[Row, ...]] = (
    # The model that answered; where none did, the one that was asked.
    *rows(
        "model",
        "gen_ai.response.model",
        "llm.response.model_name",
        "llm.response.model",
        "ai.response.model",
        "llm.model_name",
        "embedding.model_name",
        "reranker.model_name",
        "langfuse.observation.model.name",
        "mlflow.llm.model",
        f"gen_ai.completion#{_LANGCHAIN}.model_name",
        "langsmith.metadata.model_name",
        "braintrust.metadata#model",
        "haystack.component.output#replies.0.meta.model",
        "llm.openai.model",
    ),
    *rows(
        "model_requested",
        "gen_ai.request.model",
        "llm.request.model_name",
        "llm.request.model",
        "ai.model.id",
        "aisdk.model.id",
        "langsmith.metadata.ls_model_name",
        "llm.invocation_parameters#model",
        "llm.invocation_parameters#model_name",
        "embedding.invocation_parameters#model",
        "litellm.provider.model",
        "request_data#model",
        "langfuse.observation.metadata.ls_model_name",
        "metadata#ls_model_name",
        "traceloop.association.properties.ls_model_name",
        "gen_ai.request_model",
        "gen_ai.model_name",
        "ai.model_id",
        "model_name",
        "model",
    ),
    *rows(
        "provider",
        "langsmith.metadata.ls_provider",
        "gen_ai.provider.name",
        "gen_ai.system",
        "gen_ai.model.provider",
        "llm.provider",
        "llm.system",
        "llm.vendor",
        "ai.model.provider",
        "aisdk.model.provider",
        "langfuse.observation.metadata.ls_provider",
        "metadata#ls_provider",
        "traceloop.association.properties.ls_provider",
        "mlflow.llm.provider",
        "braintrust.metadata#provider",
    ),
    *rows("operation", "gen_ai.operation.name", "gen_ai.type", "llm.request.type"),
    *rows(
        "prompt_tokens",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.usage.input_tokens",
        "llm.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
        *_in(_LANGFUSE, "prompt_tokens"),
    ),
    *rows("prompt_tokens", *_in(_LANGFUSE, "input_tokens", "input"), basis="parts"),
    *rows(
        "prompt_tokens",
        "mlflow.chat.tokenUsage#input_tokens",
        "metadata.usage_object#prompt_tokens",
        "gen_ai.usage.raw#prompt_tokens",
        "haystack.component.output#replies.0.meta.usage.prompt_tokens",
        "braintrust.metrics#prompt_tokens",
        *_in("usage", "input_tokens", "prompt_tokens"),
        "gen_ai.response.prompt_tokens",
        "output.value#usage.prompt_tokens",
        "gen_ai.response.input_tokens",
    ),
    *rows("prompt_tokens", "input_tokens", basis="without_cache"),
    *rows(
        "completion_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.output_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        *_in(_LANGFUSE, "completion_tokens", "output_tokens"),
    ),
    *rows("completion_tokens", f"{_LANGFUSE}#output", basis="parts"),
    *rows(
        "completion_tokens",
        "mlflow.chat.tokenUsage#output_tokens",
        "metadata.usage_object#completion_tokens",
        "gen_ai.usage.raw#completion_tokens",
        "haystack.component.output#replies.0.meta.usage.completion_tokens",
        "gen_ai.usage.raw#output_tokens",
        "braintrust.metrics#completion_tokens",
        *_in("usage", "output_tokens", "completion_tokens"),
        "gen_ai.response.completion_tokens",
        "output.value#usage.completion_tokens",
        "gen_ai.response.output_tokens",
        "output_tokens",
    ),
    *rows(
        "cached_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.cached_tokens",
        "gen_ai.usage.cached_input_tokens",
        "gen_ai.usage.cache_read_tokens",
        "gen_ai.usage.input_tokens.cached",
        "gen_ai.usage.input_token_details#cache_read",
        "langsmith.metadata.usage_metadata#input_token_details.cache_read",
        "gen_ai.usage.input_tokens_details.cached_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "gen_ai.usage.details.cache_read_input_tokens",
        "gen_ai.usage.details.cached_tokens",
        "gen_ai.usage.prompt_tokens_details.cached_tokens",
        "gen_ai.usage.prompt_tokens_details.cache_read",
        "gen_ai.usage.input_token_details.cached_tokens",
        "gen_ai.usage.prompt_token_details.cached_read_tokens",
        "llm.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "llm.token_count.prompt_details.cache_input",
        "ai.usage.inputTokenDetails.cacheReadTokens",
        "ai.usage.cachedInputTokens",
        "ai.response.providerMetadata#openai.cachedPromptTokens",
        "ai.response.providerMetadata#anthropic.usage.cache_read_input_tokens",
        "ai.response.providerMetadata#bedrock.usage.cacheReadInputTokens",
        *_in(_LANGFUSE, "prompt_tokens_details.cached_tokens", "input_tokens_details.cached_tokens"),
        *_in(_LANGFUSE, "input_cached_tokens", "input_cache_read", "cache_read_input_tokens"),
        *_in(_LANGFUSE, "cacheReadInputTokenCount", "cached_content_token_count"),
        "mlflow.chat.tokenUsage#cache_read_input_tokens",
        *_in("metadata.usage_object", "prompt_tokens_details.cached_tokens", "cache_read_input_tokens"),
        *_in("gen_ai.usage.raw", "cache_read_input_tokens", "prompt_tokens_details.cached_tokens"),
        "gen_ai.usage.raw#input_tokens_details.cached_tokens",
        "braintrust.metrics#prompt_cached_tokens",
        *_in("usage", "input_tokens_details.cached_tokens", "prompt_tokens_details.cached_tokens"),
        "cache_read_tokens",
    ),
    *rows("cached_tokens", "ai.response.providerMetadata#anthropic.cacheReadInputTokens", basis="beside"),
    *rows("uncached_tokens", "ai.response.providerMetadata#anthropic.usage.input_tokens"),
    *rows(
        "cache_write_tokens",
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.cache_write_input_tokens",
        "gen_ai.usage.cache_write_tokens",
        "gen_ai.usage.input_tokens.cache_write",
        "gen_ai.usage.input_tokens.cache_creation",
        "gen_ai.usage.input_token_details#cache_creation",
        "langsmith.metadata.usage_metadata#input_token_details.cache_creation",
        "gen_ai.usage.details.cache_write_tokens",
        "gen_ai.usage.details.cache_creation_input_tokens",
        "gen_ai.usage.prompt_token_details.cached_write_tokens",
        "llm.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "ai.usage.inputTokenDetails.cacheWriteTokens",
        "ai.response.providerMetadata#anthropic.cacheCreationInputTokens",
        "ai.response.providerMetadata#anthropic.usage.cache_creation_input_tokens",
        "ai.response.providerMetadata#bedrock.usage.cacheWriteInputTokens",
        *_in(_LANGFUSE, "input_cache_creation", "cache_creation_input_tokens", "cacheWriteInputTokenCount"),
        "mlflow.chat.tokenUsage#cache_creation_input_tokens",
        *_in("metadata.usage_object", "cache_creation_input_tokens", "prompt_tokens_details.cache_write_tokens"),
        "gen_ai.usage.raw#cache_creation_input_tokens",
        "braintrust.metrics#prompt_cache_creation_tokens",
        "cache_creation_tokens",
    ),
    *rows(
        "reasoning_tokens",
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.output_tokens.reasoning",
        "gen_ai.usage.output_token_details#reasoning",
        "langsmith.metadata.usage_metadata#output_token_details.reasoning",
        "gen_ai.usage.output_tokens_details.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "gen_ai.usage.completion_tokens_details.reasoning_tokens",
        "gen_ai.usage.completion_tokens_details.reasoning",
        "gen_ai.usage.details.thoughts_tokens",
        "gen_ai.usage.output_token_details.reasoning_tokens",
        "gen_ai.usage.completion_token_details.reasoning_tokens",
        "llm.usage.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
        "ai.usage.outputTokenDetails.reasoningTokens",
        "ai.usage.reasoningTokens",
        "ai.response.providerMetadata#openai.reasoningTokens",
        *_in(_LANGFUSE, "completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens"),
        *_in(_LANGFUSE, "output_reasoning_tokens", "output_reasoning", "thoughts_token_count"),
        "metadata.usage_object#completion_tokens_details.reasoning_tokens",
        *_in(
            "gen_ai.usage.raw", "completion_tokens_details.reasoning_tokens", "output_tokens_details.reasoning_tokens"
        ),
        "braintrust.metrics#completion_reasoning_tokens",
        *_in("usage", "output_tokens_details.reasoning_tokens", "completion_tokens_details.reasoning_tokens"),
        "mlflow.spanOutputs#usage.completion_tokens_details.reasoning_tokens",
        "mlflow.spanOutputs#usage.output_tokens_details.reasoning_tokens",
    ),
    *rows("reasoning_tokens", "gen_ai.usage.experimental.reasoning_tokens", basis="beside"),
    *rows(
        "total_tokens",
        "gen_ai.usage.total_tokens",
        "llm.usage.total_tokens",
        "llm.token_count.total",
        "ai.usage.totalTokens",
        *_in(_LANGFUSE, "total_tokens", "total"),
        "metadata.usage_object#total_tokens",
        "mlflow.chat.tokenUsage#total_tokens",
        "braintrust.metrics#tokens",
        "usage#total_tokens",
        "gen_ai.client.token.usage",
    ),
    *rows(
        "cost_usd",
        "gen_ai.usage.cost.amount",
        "gen_ai.cost.total_cost",
        "gen_ai.usage.total_cost",
        "gen_ai.usage.cost",
        "llm.cost.total",
        "operation.cost",
        "langfuse.observation.cost_details#total",
        "langfuse.observation.cost_details",
        "litellm.cost.total",
        "mlflow.llm.cost#total_cost",
        "gen_ai.cost.total_tokens",
        "braintrust.metrics#estimated_cost",
        "ai.total_cost",
        "gen_ai.client.estimated_cost",
        "metadata.usage_object#cost",
        unit="usd",
    ),
    *rows(
        "finish_reason",
        "gen_ai.response.finish_reasons",
        "gen_ai.response.finish_reason",
        "llm.response.finish_reason",
        "llm.finish_reason",
        "llm.response.stop_reason",
        "llm.stop_reason",
        "ai.response.finishReason",
        "anthropic.message.stop_reason",
        "gen_ai.completion.0.finish_reason",
        "llm.completions.0.finish_reason",
        "haystack.component.output#replies.0.meta.finish_reason",
        "gen_ai.response.stop_reason",
        "stop_reason",
        "langfuse.observation.metadata.finish_reason",
        *_answers("choices.0.finish_reason", "stop_reason"),
        *_answers(f"{_LANGCHAIN}.finish_reason", f"{_LANGCHAIN}.stop_reason"),
    ),
    *rows("ttft_ms", "gen_ai.response.time_to_first_chunk", "gen_ai.client.operation.time_to_first_chunk", unit="s"),
    *rows("ttft_ms", "ai.response.msToFirstChunk", "ai.stream.msToFirstChunk", "ttft_ms", unit="ms"),
    *rows("ttft_ms", "trace.metadata.openrouter.first_token_ms", unit="ms"),
    *rows("ttft_ms", "langfuse.observation.completion_start_time", "mastra.completion_start_time", unit="time"),
    *rows(
        "ttft_ms",
        "gen_ai.server.time_to_first_token",
        "gen_ai.latency.time_to_first_token",
        "gen_ai.response.time_to_first_token",
        "llm.response.time_to_first_token",
        "braintrust.metrics#time_to_first_token",
        "gen_ai.server.ttft",
        unit="s",
    ),
    *rows(
        "streamed",
        "gen_ai.request.stream",
        "gen_ai.is_streaming",
        "llm.is_streaming",
        "gen_ai.request.is_stream",
        "llm.request.is_stream",
        "gen_ai.request.streaming",
        "gen_ai.response.streaming",
        "langsmith.request.streaming",
        "litellm.request.streaming",
        "spring.ai.chat.client.stream",
        "ai.streaming",
        "stream",
        "llm.invocation_parameters#stream",
        "request_data#stream",
    ),
    # The same response has one id, whoever tells of it: vLLM calls it the id of the request.
    *rows(
        "response_id",
        "gen_ai.response.id",
        "llm.response.id",
        "ai.response.id",
        "gen_ai.request.id",
        *_answers("id", "llm_output.id", f"{_LANGCHAIN}.id"),
    ),
    *rows("call_id", "litellm.call_id"),
    *rows("error_type", "error.type", "error.code", "gen_ai.error.type", "gen_ai.error.code"),
    *rows("error_type", "http.response.status_code", "http.status_code"),
    *rows("message", "langfuse.observation.status_message", "error.message", "gen_ai.error"),
    *rows("level", "langfuse.observation.level"),
    *rows(
        "user",
        "user.id",
        "enduser.id",
        "gen_ai.user",
        "gen_ai.request.user",
        "llm.user",
        "langfuse.user.id",
        "langfuse.trace.user_id",
        "langfuse.observation.metadata.langfuse_user_id",
        "langsmith.metadata.user_id",
        "traceloop.association.properties.user_id",
        "traceloop.association.properties.userId",
        "ai.telemetry.metadata.userId",
        "gen_ai.user.id",
        "metadata#user_id",
        "metadata.user_api_key_end_user_id",
        "litellm.end_user.id",
        "user_id",
    ),
    *rows(
        "session_id",
        "gen_ai.conversation.id",
        "session.id",
        "langfuse.session.id",
        "langfuse.observation.metadata.langfuse_session_id",
        "langsmith.metadata.session_id",
        "langsmith.metadata.thread_id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "ai.telemetry.metadata.sessionId",
        "gcp.vertex.agent.session_id",
        "gen_ai.session.id",
        "metadata#session_id",
        "metadata#thread_id",
        "session_id",
    ),
    *rows(
        "tenant",
        "tenant.id",
        "tenant",
        "organization.id",
        "traceloop.association.properties.tenant",
        "traceloop.association.properties.tenant_id",
        "ai.telemetry.metadata.tenant",
        "dify.tenant_id",
        "metadata#tenant",
        "metadata.user_api_key_team_alias",
        "metadata.user_api_key_team_id",
        "litellm.team.alias",
        "litellm.team.id",
    ),
    *rows("key", "metadata.user_api_key_alias", "metadata.user_api_key_hash", "litellm.api_key.hash"),
    *rows(
        "agent", "gen_ai.agent.name", "agent.name", "agent_name", "ai.telemetry.functionId", "traceloop.workflow.name"
    ),
    *rows("quality_score", "gen_ai.evaluation.score.value"),
    # What the process tells of itself.
    *rows("service", "service.name", "openinference.project.name"),
    *rows("region", "cloud.region"),
)

FIRST_TOKEN: Final = frozenset(
    {
        "First Token Stream Event", "gen_ai.content.completion.chunk", "llm.content.completion.chunk",
        "ai.stream.firstChunk", "gen_ai.first_token", "mlflow.chunk.item.0",
    }
)  # fmt: skip
"""Events of a span whose first one marks the first token of the answer."""

MORE: Final = (
    "ai.operationId", "duration", "event.name", "exception.type", "exception.message", "exception.stacktrace",
    "finish_reason", "gen_ai.evaluation.name", "gen_ai.operation.type", "haystack.component.type", "hidden_params",
    "logfire.span_type", "service.instance.id", "success",
)  # fmt: skip
"""Attributes that single rules ask for, beside those of the table and the roles."""
