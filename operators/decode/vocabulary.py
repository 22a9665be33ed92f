"""One vocabulary for what libraries write: kinds of errors, finish reasons, providers, operations, statuses.

A text is read as words in lower case ("APITimeoutError" is "api timeout error"), and the first rule that finds its
words names it. So a name that no list holds is understood by the words it is made of; a text of no known words is not
changed. Only the beginning of a text is read, since some libraries write messages.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

_HEAD: Final = 200  # characters that are read
_KNOWN: Final = 4_096
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_HTTP: Final = re.compile(
    r"\W*(?:(?:http\D{0,2}(?:\d(?:\.\d)?(?= ))?|status|error|code)[\s_:=-]*)*([1-5]\d\d)(?![\d.])", re.I
)

_Rules = tuple[tuple[str, re.Pattern[str]], ...]


def _rules(table: dict[str, str]) -> _Rules:
    return tuple((name, re.compile(rf"\b(?:{words})")) for name, words in table.items())


_ERROR_TYPES: Final = _rules(
    {
        "content_filter": r"content (filter|policy|management|moderat)|contentfilter|safety|guardrails?\b"
        r"|(?<!connection )(?<!actively )refus(al|ed)\b|blocked\b|responsible ai",
        "rate_limit": r"rate ?limit|throttl|quota|budget (has been )?exceed|too ?many ?requests|resource ?exhausted"
        r"|billing",
        "overloaded": r"(server )?overload|(at|over|no|insufficient) capacity",
        "timeout": r"time ?outs?\b|timed ?out|e(socket)?timedout|deadline ?exceeded|connect timeout",
        "authentication": r"auth\b|authenticat|authoriz|un ?auth|permission|forbidden|(access )?denied\b|credential"
        r"|(invalid|incorrect|missing|expired|wrong) (api )?(key|token|signature)\b|key (is )?not valid"
        r"|unrecognized client",
        "connection": r"(dis)?connection\b|connect(or)? ?(error|exception)|to connect\b|actively refused|disconnect"
        r"|protocol|network|socket|econn|enotfound|epipe|broken ?pipe|eof\b|ssl\b|dns\b|unknown host|getaddrinfo"
        r"|name resolution|chunked encoding|incomplete ?read|(read|write) error|io exception|peer closed"
        r"|client payload|(stream|connection) cut",
        "cancelled": r"cancel|abort|keyboard interrupt|interrupted\b|client closed|generator exit",
        "not_found": r"not ?found\b|no such|does not exist",
        "server_error": r"(invalid|empty|no) response|no (object|output|content) generated|response validation"
        r"|bad ?gateway"
        r"|internal ?(server|error|failure|$)|(server|service|model|stream) ?(had an )?(error|exception|failure)"
        r"|(service )?unavailable",
        "invalid_request": r"bad ?request|invalid|validation|unprocessable|unsupported|malformed|failed precondition"
        r"|(context|prompt|request|input|payload|entity) (length|window|size|(is )?too)|too (large|long)\b"
        r"|out of range|(value|type) error",
    }
)
ERROR_TYPES: Final = (*(name for name, _ in _ERROR_TYPES), "unknown")
"""The kinds of errors, in the order in which their words decide."""
_GENERAL: Final = ("cancelled", "server_error", "invalid_request")
"""Kinds that name no cause: any other kind that a failed call tells is the better one."""

_OF_HTTP: Final = {
    401: "authentication", 402: "rate_limit", 403: "authentication", 404: "not_found", 407: "authentication",
    408: "timeout", 410: "not_found", 429: "rate_limit", 499: "cancelled", 504: "timeout", 524: "timeout",
    529: "overloaded",
}  # fmt: skip
_ERROR_NAMES: Final = {"_OTHER": "unknown", "api_error": "server_error"}  # of OpenTelemetry and Anthropic
_CONTENT: Final = _ERROR_TYPES[:1]

_FINISH_REASONS: Final = _rules(
    {
        "content_filter": r"(content|language|image) ?(filter|polic|safety)|prohibited content|refus(al|ed)$|safety$"
        r"|recitation$|block(list|ed)|spii$|guardrail|error toxic|moderat",
        "error": r"error$|failed$|failure$|malformed|unexpected tool|system error|network error|insufficient system",
        "length": r"length$|max (\w+ )*(tokens?|length)$|(\w+ )*context (window|length)|token limit|error limit",
        "tool_calls": r"tool (calls?|use|execution)$|function calls?$|tools?$",
        "stop": r"stop$|stop (sequence|token|word|criteria)|end$|end (turn|of)|endoftext|eos\b|completed?$|finish(ed)?$"
        r"|done$|success$",
    }
)
_ENUM: Final = re.compile(r"^(?:(?:finish|stop) reason )+(?=.)")

_PROVIDERS: Final = _rules(
    {
        "": r"openai (compatible|like)|custom openai"  # somebody's, that speaks as OpenAI does
        r"|gcp vertex agent",  # any that an agent of Google's ADK calls
        "openrouter": r"open ?router",
        "azure": r"az\b|azure|microsoft foundry",
        "aws.sagemaker": r"(aws |amazon )?sagemaker",
        "aws.bedrock": r"(aws|amazon)\b|(aws|amazon)? ?bedrock",
        "gcp.vertex_ai": r"vertex",
        "gcp.gemini": r"gemini|google$|google (generative|gen ?ai|ai|chat|gla)",
        "mistral_ai": r"mistral",
        "anthropic": r"anthropic|claude",
        "cohere": r"cohere",
        "deepseek": r"deep ?seek",
        "moonshot_ai": r"moonshot",
        "groq": r"groq",
        "x_ai": r"x ?ai\b|grok\b",
        "perplexity": r"perplexity",
        "ibm.watsonx.ai": r"watsonx|(ibm )?watson\b",
        "together_ai": r"together",
        "fireworks_ai": r"fireworks",
        "huggingface": r"hugging ?face",
        "ollama": r"ollama",
        "vllm": r"v ?llm",
        "openai": r"open ?ai\b",
    }
)

_SUFFIX: Final = re.compile(r"(?<=.)(?:\s*\.(?:chat|responses|messages|completions?|embeddings?|image|reranking))+$")
"""What the Vercel AI SDK adds to the name of a provider."""

_OPERATIONS: Final = _rules(
    {
        "execute_tool": r"execute tool",
        "create_agent": r"create agent",
        "invoke_agent": r"invoke agent",
        "count_tokens": r"(messages )?count tokens|token count",
        "embeddings": r"a?embed",
        "rerank": r"a?rerank",
        "image_generation": r"a?images?\b|generate image",
        "transcription": r"a?transcri",
        "speech": r"a?speech|tts\b|generate speech",
        "moderation": r"a?moderat",
        "text_completion": r"a?text ?(streaming )?completions?\b|v 1 completions\b",
        "chat": r"a?(chat|completions?|responses?|messages?|converse|generations?|llm)\b"
        r"|a?generate (content|text|object)|pass ?through|stream (text|object)|do (generate|stream)\b",
    }
)

COMPLETE_NOTHING: Final = ("embeddings", "rerank")
"""Operations that answer no words: where a library writes completion tokens of 0, it counted none."""

_MANAGES: Final = re.compile(
    r"\ba?(?:mcp|tools?|files?|batch(?:es)?|vector|containers?|list|get|delete|retrieve|fetch|cancel|count|search|skills?"
    r"|health|management|create message|group)\b"
)
"""Words in the names of operations that look after things and call no model."""

_NO_ERROR: Final = re.compile(
    r"^(?:status code )?(?:ok|okay|success(?:ful|fully)?|succeeded|complete|completed|done|finished|stop|stopped"
    r"|end turn|length|max tokens|tool calls?|tool use|function call|incomplete|healthy|passed|normal)$"
)
_ERROR: Final = re.compile(
    r"\b(?:errors?|errored|fail|failed|failure|failing|exception|fault|fatal|crashed|unsuccessful|rejected)\b"
)
_NEGATED: Final = re.compile(r"\b(?:no|non|not|without|zero|0)\b")


def error_type(text: str) -> str:
    """The kind of an error, one of `ERROR_TYPES`, by its name, its message or its HTTP status; else the text itself."""
    return _error_type(text[:_HEAD]) or text


def vagueness(kind: str) -> int:
    """How little a kind of error says: 0 if it names the cause, most if it is unknown or none of the vocabulary."""
    if kind in _GENERAL:
        return _GENERAL.index(kind) + 1
    return 0 if kind in ERROR_TYPES and kind != "unknown" else len(_GENERAL) + 1


def finish_reason(text: str) -> str:
    """stop, length, tool_calls, content_filter or error, whichever word of a library says it; else the text itself."""
    return _finish_reason(text[:_HEAD]) or text


def provider(text: str) -> str:
    """The provider by the name that OpenTelemetry gives it (all of Azure is `azure`); else the text in lower case."""
    return _provider(text[:_HEAD]) or _plain(text)


def operation(text: str) -> str:
    """The operation, named as by OpenTelemetry; all that answers messages is `chat`; else the text itself."""
    return _operation(text[:_HEAD]) or text


def manages(text: str) -> bool:
    """Whether the name of an operation is that of one that looks after files, batches, answers and the like."""
    return _manages(text[:_HEAD])


def is_error(status: str) -> bool | None:
    """Whether a status tells of a failure: a word, an HTTP status or the kind of an error; None if it tells neither."""
    return _is_error(status[:_HEAD])


def _words(text: str) -> str:
    return " ".join(_WORD.findall(text)).lower()


def _first(rules: _Rules, words: str) -> str:
    return next((name for name, found in rules if found.search(words)), "")


def _http(text: str) -> int | None:
    """The HTTP status that the text begins with."""
    found = _HTTP.match(text)
    return int(found[1]) if found else None


@lru_cache(_KNOWN)
def _error_type(text: str) -> str:
    if text in _ERROR_NAMES:
        return _ERROR_NAMES[text]
    words, status = _words(text), _http(text)
    if status is None or status < 400:
        return _first(_ERROR_TYPES, words)
    # A filter answers 400, as any other refusal of a request.
    named = _OF_HTTP.get(status, "invalid_request" if status < 500 else "server_error")
    return _first(_CONTENT, words) or named


@lru_cache(_KNOWN)
def _finish_reason(text: str) -> str:
    return _first(_FINISH_REASONS, _ENUM.sub("", _words(text)))


@lru_cache(_KNOWN)
def _provider(text: str) -> str:
    words = (" ".join(re.findall(r"[a-z]+|\d+", name)) for name in (text.lower(), _plain(text)))
    return next((found for named in words if (found := _first(_PROVIDERS, named))), "")


def _plain(text: str) -> str:
    return _SUFFIX.sub("", text.strip().lower())


@lru_cache(_KNOWN)
def _operation(text: str) -> str:
    return _first(_OPERATIONS, _words(text))


@lru_cache(_KNOWN)
def _manages(text: str) -> bool:
    return bool(_MANAGES.search(_words(text)))


@lru_cache(_KNOWN)
def _is_error(text: str) -> bool | None:
    status = _http(text)
    if status is not None:
        return status >= 400
    words = _words(text)
    if _NO_ERROR.match(words):
        return False
    if _NEGATED.search(words) and _first(_ERROR_TYPES, words) != "not_found":
        return None
    return True if _ERROR.search(words) or _first(_ERROR_TYPES, words) else None
