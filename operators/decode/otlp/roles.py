"""Which spans are calls of a model: decided by operation and kind, never by the presence of usage.

Spans of agents, tools, chains and frameworks often repeat the sums of the calls below them under the same names. So a
span is a call only if a convention says so: by the role that its library gives it, by the name of its operation, or,
where it has neither, as the client or the server of a request that names its model.
"""

from __future__ import annotations

import re
from typing import Final

from operators.decode import vocabulary
from operators.decode.otlp.signals import CLIENT, ERROR, SERVER, Span
from operators.decode.paths import Path, at, steps
from operators.decode.span_roles import NO_ROLES, ROLES
from operators.decode.values import inside, text

EMBEDDINGS: Final = "embeddings"
CALLS: Final = frozenset(
    {"chat", "text_completion", EMBEDDINGS, "rerank", "image_generation", "transcription", "speech"}
)
"""The operations that are calls of a model. Those of agents, tools, workflows, memories and searches are none."""

_VERCEL: Final = {"doGenerate": "chat", "doStream": "chat", "doEmbed": EMBEDDINGS, "doRerank": "rerank"}
_OPERATIONS: Final = ("gen_ai.operation.name", "gen_ai.type", "llm.request.type")
_MODELS: Final = ("gen_ai.request.model", "gen_ai.response.model", "llm.request.model")
_ROLES: Final = tuple(
    (name, place, steps(path) if path and place == attribute else ())
    for name in ROLES
    for attribute, _, path in [name.partition("#")]
    for place in dict.fromkeys((attribute, name.replace("#", ".")))
)
_SYSTEMS: Final = frozenset({"llm.system", "llm.provider"})
_LANGFUSE_MODEL: Final = "langfuse.observation.model.name"
_ATTEMPT: Final = re.compile(r":attempt-[0-9]+")
_NAMES: Final = re.compile(
    r"llm\.call|retry\.attempt\.[0-9]+|streaming response from .*"
    r"|(?:responses api|(?:chat )?completion|embedding creation|image generation|message) with .*",
    re.IGNORECASE | re.DOTALL,
)
"""Names of spans that are calls in libraries that say it in no attribute."""
_AGENTS_CALL: Final = re.compile(r"call_llm|model invoke", re.IGNORECASE)
"""Such names of agents' libraries, also for calls that failed before they had attributes."""
_NAME_AND_MODEL: Final = re.compile(rf"({'|'.join(sorted(CALLS))}) (\S+)")
"""The names that OpenTelemetry gives to spans of calls."""
_OPENLLMETRY: Final = re.compile(r"(\w+)\.(chat|completion|converse|embeddings|rerank|response)")
"""Names of its spans: the client, as in the scope, and what it did. Some of a failed call tell nothing else."""
_TEXT: Final = "text_completion"
_FLOW: Final = ("task", "workflow")
"""Kinds of OpenLLMetry's spans of a framework: a call too if they say so, of a client that it does not know itself."""


def operation(span: Span) -> str | None:
    """The operation of a span that is a call, "" if it is something else, None if no convention says what it is."""
    attributes = span.attributes
    if _ATTEMPT.search(str(attributes.get("gen_ai.response.id") or "")):  # OpenRouter's attempts within a call
        return ""
    for name, attribute, path in _ROLES:
        role = _role(span, name, attribute, path) if attribute in attributes else None
        if role == "chat" and span.name.endswith(".embeddings"):
            return EMBEDDINGS  # Langfuse's client in JavaScript calls all of its calls generations
        if role is not None:
            return _named(attributes.get("gen_ai.operation.name")) or role if role == "chat" else role
    if (vercel := attributes.get("ai.operationId")) is not None:
        return _VERCEL.get(str(vercel).rpartition(".")[2], "")
    if (component := attributes.get("haystack.component.type")) is not None:
        return "chat" if "Generator" in str(component) else EMBEDDINGS if "Embedder" in str(component) else ""
    if (kind := attributes.get("gen_ai.operation.type")) is not None and str(kind) != "ai_client":
        return ""
    if (named := _operation(span)) is not None:
        return named
    model = next((str(attributes[name]) for name in _MODELS if attributes.get(name)), "")
    first, _, rest = span.name.partition(" ")
    if (model or span.status == ERROR) and _AGENTS_CALL.fullmatch(span.name):
        return "chat"
    if model and _NAMES.fullmatch(span.name):
        return _named(first) or "chat"
    if ((model and rest == model) or failed_model(span)) and (named := _named(first)):
        return named
    engine = "gen_ai.request.id" in attributes and (span.kind == SERVER or "gen_ai.response.model" in attributes)
    if engine or "gen_ai.model.provider" in attributes:
        return "chat"  # vLLM, SGLang; Cloudflare's gateway
    if span.kind == CLIENT and (found := _OPENLLMETRY.fullmatch(span.name)) and found[1] in span.scope:
        return _named(found[2])
    return "chat" if model and span.kind in (CLIENT, SERVER) else None


def failed_model(span: Span) -> str:
    """The model of a client's call that failed before its library wrote any attribute: only its name tells; else ""."""
    named = _NAME_AND_MODEL.fullmatch(span.name) if span.status == ERROR and span.kind == CLIENT else None
    if named is None or any(name.startswith(("gen_ai.", "llm.")) for name in span.attributes):
        return ""
    return named[2] if any("exception.type" in event.attributes for event in span.events) else ""


def _operation(span: Span) -> str | None:
    """The operation by the attribute that names it, "" if it is no call; None if there is no such attribute."""
    told = next((span.attributes[name] for name in _OPERATIONS if span.attributes.get(name)), None)
    # LiteLLM calls a chat a completion too; OpenLLMetry only the older kind, but for some clients.
    system, _, called = span.name.partition(".")
    if told == called == "completion" and system not in ("anthropic", "bedrock", "vertexai"):
        return _TEXT
    return None if told is None else _named(told)


def _role(span: Span, name: str, attribute: str, path: Path) -> str | None:
    """The operation by the role that this attribute gives, "" for any other role, None if it gives none."""
    value = span.attributes[attribute]
    if value is None:
        return None
    role = str(at(inside(value), path) if path else text(value)).lower()
    if role in NO_ROLES:
        # Langfuse called generations spans until 3.3.
        return "chat" if attribute == "langfuse.observation.type" and _LANGFUSE_MODEL in span.attributes else None
    if name == "traceloop.span.kind" and role in _FLOW:
        called = _operation(span) or (EMBEDDINGS if "embedding.model_name" in span.attributes else "")
        return called or (None if role == "task" else "")  # a framework's own step within a call is a task too
    if name == "openinference.span.kind" and role == "llm":
        if span.name == "Completion":
            return _TEXT
        if "haystack" in span.scope and "Generator" not in span.name and "llm.model_name" not in span.attributes:
            return ""  # OpenInference calls Haystack's builders of prompts so too
    if name == "openinference.span.kind" and role == "reranker" and not _SYSTEMS & span.attributes.keys():
        return ""  # code of the application's own, or a framework's that asks a model for it
    return ROLES[name].get(role, None if name == "span.type" else "")


def _named(name: object) -> str:
    """The operation of this name if it is a call, else ""."""
    found = vocabulary.operation(str(name or ""))
    return found if found in CALLS and not vocabulary.manages(str(name)) else ""
