"""The attributes by which libraries say what a span is."""

from __future__ import annotations

from typing import Final

ROLES: Final[dict[str, dict[str, str]]] = {
    "langfuse.observation.type": {"generation": "chat", "embedding": "embeddings"},
    "openinference.span.kind": {"llm": "chat", "embedding": "embeddings", "reranker": "rerank"},
    "langsmith.span.kind": {"llm": "chat", "embedding": "embeddings"},
    "mlflow.spanType": {"llm": "chat", "chat_model": "chat", "embedding": "embeddings"},
    "mastra.span.type": {"model_generation": "chat", "rag_embedding": "embeddings"},
    "lmnr.span.type": {"llm": "chat"},
    "agentops.span.kind": {"llm": "chat", "embedding": "embeddings"},
    "gen_ai.span.kind": {"llm": "chat", "embedding": "embeddings"},
    "gen_ai.span_kind_name": {"llm": "chat", "embedding": "embeddings"},
    "genkit:metadata:subtype": {"model": "chat", "embedder": "embeddings"},
    "traceloop.span.kind": {},
    "spring.ai.kind": {"chat_model": "chat", "embedding_model": "embeddings"},
    "braintrust.span_attributes#type": {"llm": "chat"},
    "span.type": {
        "llm_request": "chat", "claude_code.llm_request": "chat", "llm": "chat", "interaction": "", "agent": "",
        "tool": "", "claude_code.interaction": "", "claude_code.tool": "", "memory": "",
    },
}  # fmt: skip
"""What a span is, where a library has an attribute for that: the values that mean a call, in lower case. A span with
such an attribute and another value is no call, but for `span.type`, which others use for other things. The first
attribute that a span has decides."""

NO_ROLES: Final = frozenset({"", "unknown", "default", "span", "text", "generic"})
"""Values of these attributes that say nothing: the next attribute decides."""
