"""Records of translated formats that are odd, broken, or carry content where it must not be shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import Any, Final

from hypothesis import strategies as st

from operators.decode.config import DecodeConfig
from operators.decode.resolve import conventions
from tests import otlp, translated
from tests.told import Told, calls, late_by


def _nested(depth: int) -> Any:
    value: Any = 1
    for i in range(depth):
        value = [value] if i % 2 else {"a": value}
    return value


_WORDS: Final = (
    "", "chat", "None", "NaN", "-1", "1e999", "soon", "LLM", "é", "\ud800", "9" * 25, "x" * 50, "2025-03-03T00:00:00Z",
    '"2025-03-03T00:00:01Z"', "{'input': 5, 1: 2}", "[0x" + "f" * 5_000 + "]", '["stop"]', "[" * 900 + "]" * 900,
    '{"input": 7, "input_cache_read": 9, "total": 16}',
)  # fmt: skip
_odd: Final[st.SearchStrategy[Any]] = st.one_of(
    st.sampled_from(_WORDS),
    st.sampled_from([None, True, False, 0, -1, 1, 5, 0.5, 1e300, 10**19, 10**25, float("nan"), float("inf"), {}, []]),
    st.sampled_from([[1, "a"], {"a": 1}, [[]], [None], {"": None}]),
    st.sampled_from([3, 25]).map(_nested),
    st.integers(1_740_960_000_000, 1_740_960_010_000),
)


def cut_or_changed(values: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Such values cut off, or with a few bytes more or other ones somewhere."""
    patches = st.sampled_from([b"\xff", b"\xed\xa0\x80", b"\\ud800", b'"', b"\x00", b"[" * 600])
    return st.builds(
        _cut_or_changed,
        values,
        st.integers(0, 10_000),
        st.one_of(st.binary(max_size=3), patches),
        st.sampled_from(["cut", "insert", "replace"]),
    )


def _cut_or_changed(value: bytes, place: int, patch: bytes, how: str) -> bytes:
    place %= len(value) + 1
    match how:
        case "cut":
            return value[:place]
        case "insert":
            return value[:place] + patch + value[place:]
        case _:
            return value[:place] + patch + value[place + len(patch) :]


def _slots(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value of a parsed record, as the container and the key or index in it."""
    for key, value in list(tree.items() if isinstance(tree, dict) else enumerate(tree)):
        yield tree, key
        if isinstance(value, (dict, list)):
            yield from _slots(value)


def _exchanged(tree: Any, changes: Sequence[tuple[int, Any]]) -> bytes:
    """The record with other values at some places."""
    tree = deepcopy(tree)
    for place, value in changes:
        slots = list(_slots(tree))
        container, key = slots[place % len(slots)]
        container[key] = deepcopy(value)  # a later change may go into it, and examples share it
    return json.dumps(tree, ensure_ascii=True).encode()


def _odd_trees(of: Callable[[Sequence[Told]], Any]) -> st.SearchStrategy[bytes]:
    changes = st.lists(st.tuples(st.integers(0, 1_000), _odd), min_size=1, max_size=3)
    return st.builds(_exchanged, calls.map(of), changes)


_CALLS: Final = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
_attributes: Final = st.dictionaries(st.sampled_from(sorted(conventions(DecodeConfig()).wanted)), _odd, max_size=6)
_instants: Final = st.sampled_from([0, 5, otlp.AT, otlp.AT + 10**9, otlp.AT - 10**9, otlp.AT * 2, (1 << 64) - 1])
_ids: Final = st.sampled_from([f"{i:016x}" for i in range(1, 5)])
spans: Final = st.lists(
    st.builds(
        otlp.Plain,
        st.one_of(_attributes, _attributes.map(lambda drawn: {**_CALLS, **drawn})),
        span_id=_ids,
        parent_id=st.one_of(st.just(""), _ids),
        name=st.sampled_from(["chat gpt-4o", "call_llm", "invoke_agent", ""]),
        kind=st.integers(0, 5),
        start=_instants,
        end=_instants,
        status=st.integers(0, 2),
        message=st.sampled_from(["", "Error code: 429 - slow down", "no"]),
        events=st.lists(
            st.tuples(st.sampled_from(["exception", "gen_ai.first_token", "x"]), _instants, _attributes), max_size=2
        ),
        scope=st.sampled_from(["openai", "langchain", "logfire", ""]),
    ),
    max_size=5,
)
"""Spans of every kind: calls and others, above each other and in circles, with odd attributes and times."""


def _of(name: str) -> st.SearchStrategy[bytes]:
    sound = st.one_of(calls.map(translated.TOGETHER[name]), calls.map(translated.AMID[name]))
    kinds = [sound, cut_or_changed(sound), st.binary(max_size=40)]
    if name in translated.TREES:
        kinds += [_odd_trees(translated.TREES[name])] * 3
    if name in _ENCODERS:
        kinds += [spans.map(_ENCODERS[name])] * 3
    return st.one_of(*kinds)


_ENCODERS: Final = {"otlp_proto": otlp.as_proto, "otlp_json": otlp.json_text}
RECORDS: Final = {name: _of(name) for name in translated.PLAIN}
"""For each translated format: records of every kind."""

BREAKS: Final[list[Callable[[bytes], bytes]]] = [
    lambda v: v[:-1],
    lambda v: v[: len(v) * 3 // 4],
    lambda v: b"\xef\xbb\xbf" + v,
    lambda v: v + b"\xff",
    lambda v: v.replace(b'"', b"'"),
    lambda v: v.replace(b"-1", b"NaN"),
    lambda v: v.replace(b":", b":" + b"[" * 600, 1),
    lambda v: v + v,
    lambda v: v + b" " * 5_000,
    lambda v: v.decode("utf-8", "replace").encode("utf-16"),
]
"""Ways to break a record."""

_SPOKEN: Final = Told(
    1_740_960_000_000_000,
    {"service": "chat", "model": "gpt-4o", "provider": "openai", "operation": "chat", "tenant": "acme"},
    {"prompt_tokens": 5, "completion_tokens": 7},
    "e1",
    "t1",
)
_CONTENT: Final = ("prompt", "messages", "completion", "input", "output", "request_body", "body", "prompt_text")


def _with_content(tree: Any, secret: str) -> Iterator[Any]:
    """The record with content under names for it, beside any of its values."""
    places = [container for container, _ in _slots(tree) if isinstance(container, dict)]
    for place in range(len({id(container) for container in places})):
        copied = deepcopy(tree)
        containers = list({id(c): c for c, _ in _slots(copied) if isinstance(c, dict)}.values())
        for name in _CONTENT:
            containers[place].setdefault(name, [{"role": "user", "content": secret}] if place % 2 else secret)
        containers[place].setdefault(secret, 1)
        yield copied


def _with_secret(name: str, secret: str) -> list[bytes]:
    """Records in JSON with a text in every place: beside sound calls, and instead of any value of a faulty one."""
    of = translated.TREES[name]
    sound, faulty = of([_SPOKEN]), of([late_by(_SPOKEN, -1_000)])
    shapes = [json.dumps(tree).encode() for tree in _with_content(sound, secret)]
    for place in range(len(list(_slots(faulty)))):
        shapes += [_exchanged(faulty, [(place, value)]) for value in (secret, [secret], {"text": secret})]
    return shapes + [change(shape) for shape in shapes[::7] for change in BREAKS]


_PLACES: Final = (
    "gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.prompt", "input.value", "output.value", "body",
    "llm.input_messages.0.message.content", "ai.prompt", "metadata", "request_data", "gen_ai.usage.raw", "usage",
    "langfuse.observation.usage_details", "gen_ai.completion", "gen_ai.tool.definitions",
)  # fmt: skip


def _spans_with(secret: str, encode: Callable[[Sequence[otlp.Plain]], bytes]) -> list[bytes]:
    """Spans with a text wherever instrumentations put content, and faulty ones with it in any attribute."""
    quoted = json.dumps([{"role": "user", "content": secret}])
    events = [("gen_ai.content.prompt", otlp.AT, {"gen_ai.prompt": secret, "body": secret})]
    about: dict[str, Any] = {"events": events, "name": f"chat {secret}", "scope": "openai"}
    failed: dict[str, Any] = {"status": 2, "message": f"Error code: 429 - {{'prompt': '{secret}'}}"}
    raised = [("exception", otlp.AT, {"exception.type": "RateLimitError", "exception.message": secret})]
    shapes = [
        *(otlp.Plain({**_CALLS, place: value}, **about) for place in _PLACES for value in (secret, quoted, [secret])),
        otlp.Plain({**_CALLS, "error.message": secret, "langfuse.observation.status_message": secret}, **failed),
        otlp.Plain({**_CALLS, "error.type": "RateLimitError"}, **{**failed, "events": raised}),
        otlp.Plain(_CALLS, resource={"service.name": "chat-api", "process.command_args": [secret], secret: secret}),
    ]
    backwards = {**about, "end": otlp.AT - 1_000_000}
    shapes += [
        otlp.Plain({**_CALLS, name: value}, **backwards)
        for name in sorted(conventions(DecodeConfig()).wanted)
        for value in (secret, [secret])
    ]
    return [encode([shape]) for shape in shapes] + [
        change(encode([shape])) for shape in shapes[::9] for change in BREAKS
    ]


SECRETS: Final[dict[str, Callable[[str], list[bytes]]]] = {
    name: lambda secret, name=name: [  # type: ignore[misc]
        *(_with_secret(name, secret) if name in translated.TREES else []),
        *(_spans_with(secret, _ENCODERS[name]) if name in _ENCODERS else []),
    ]
    for name in translated.PLAIN
}
"""For each translated format: sound and broken records that carry a given text in the places of content."""
