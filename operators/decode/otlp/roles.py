"""Which spans are calls of a model: decided by operation and kind, never by the presence of usage.

Spans of agents, tools, chains and frameworks often repeat the sums of the calls below them under the same names. So a
span is a call only if a convention says so: by a listed role, by the name of its operation, or, where it has neither,
as the client or server of a request that names its model.
"""

from __future__ import annotations

from typing import Final

from operators.decode import vocabulary
from operators.decode.conventions import ROLES
from operators.decode.otlp.signals import CLIENT, SERVER, Span

EMBEDDINGS: Final = "embeddings"
CALLS: Final = frozenset({"chat", "text_completion", "generate_content", EMBEDDINGS})
"""The operations that are calls of a model. Those of agents, tools, workflows, memories and retrieval are none."""

_VERCEL: Final = {"doGenerate": "chat", "doStream": "chat", "doEmbed": EMBEDDINGS}
_MODELS: Final = ("gen_ai.request.model", "gen_ai.response.model", "llm.request.model")


def operation(span: Span) -> str | None:
    """The operation of a span that is a call, "" if it is something else, None if no convention says what it is."""
    attributes = span.attributes
    for name, values in ROLES.items():
        role = values.get(str(attributes.get(name)).lower())
        if role is not None:
            return _named(attributes.get("gen_ai.operation.name")) or role if role == "chat" else role
    if (vercel := attributes.get("ai.operationId")) is not None:
        return _VERCEL.get(str(vercel).rpartition(".")[2], "")
    for name in ("gen_ai.operation.name", "llm.request.type"):
        if attributes.get(name):
            return _named(attributes[name])
    if span.kind == SERVER and "gen_ai.request.id" in attributes:  # an engine such as vLLM
        return "chat"
    if span.kind in (CLIENT, SERVER) and any(attributes.get(name) for name in _MODELS):
        return "chat"
    return None


def _named(name: object) -> str:
    """The operation of this name if it is a call, else ""."""
    found = vocabulary.operation(str(name or ""))
    return found if found in CALLS else ""
