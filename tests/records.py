"""Records of every kind for the laws of the decoders: good, bad, odd and broken."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from hypothesis import strategies as st

from operators.decode.record import METRIC_FIELDS
from operators.decode.registry import DECODERS
from operators.model import TEXT_FIELDS, Reason
from tests import broken, translated
from tests.told import Told

FIELDS: Final = ("timestamp", *TEXT_FIELDS, *METRIC_FIELDS, "streamed", "attributes", "prompt", "messages", "unknown")

times = st.sampled_from(
    [
        '"2025-03-03T00:00:00.002Z"',
        '"2025-03-03T00:00:01Z"',
        '"2025-03-03T01:00:01+01:00"',
        "1740960000",
        "1740960000.5",
        '"1740960000123"',
        '"2025-03-03T00:00:00"',
        '"1999-01-01T00:00:00Z"',
        "5",
        '""',
        "1e400",
        '"soon"',
        "true",
    ]
)
good_times = st.sampled_from(['"2025-03-03T00:00:00.002Z"', '"2025-03-03T00:00:01Z"', "1740960000", "1740960000.5"])
texts = st.one_of(
    st.sampled_from(
        ['""', "null", '"gpt-4o"', '"chat"', '"error"', '"FAILED"', '"ok"', '"timeout"', '"a\\u0000b"', '"é"']
    ),
    st.text(max_size=20).map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.text(max_size=20).map(json.dumps),
    st.integers(0, 50).map(lambda n: json.dumps("x" * n)),
    st.sampled_from(["429", "-0", "true", "false", "503", '"429"', "1" * 25, "1" * 40, "5.0", "1e3"]),
)
numbers = st.one_of(
    st.integers(0, 5_000).map(str),
    st.floats(0, 5_000).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,22})(\.[0-9]{1,22})?([eE][+-]?[0-9]{1,3})?", fullmatch=True),
    st.sampled_from(["-0", "-0.0", "5.0", "5e0", "1e308", "1e999", "NaN", "Infinity", "-1", "01", "1.", "9" * 400]),
    st.just("null"),
)
others = st.one_of(
    st.sampled_from(
        ["true", "{}", "[]", "[1e999]", '{"a":{"a":[]}}', '"\\ud800"', '"\\udc00\\ud800"', "nul", "[1,]", ""]
    ),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=6,
    ).map(json.dumps),
    st.integers(0, 8).map(lambda n: json.dumps({str(i): "a,b" for i in range(n)})),
)


def _value(field: str) -> st.SearchStrategy[str]:
    fitting = times if field == "timestamp" else numbers if field in METRIC_FIELDS else texts
    fitting = st.sampled_from(["true", "false", "null"]) if field == "streamed" else fitting
    fitting = others if field in ("attributes", "unknown", "messages") else fitting
    return st.one_of(fitting, fitting, fitting, fitting, st.one_of(times, texts, numbers, others))


def _pair(field: str) -> st.SearchStrategy[tuple[str, str]]:
    return st.tuples(st.just(field), _value(field))


def _join(space: str, pairs: list[tuple[str, str]]) -> bytes:
    text = ",".join(f'{space}"{name}"{space}:{space}{value}{space}' for name, value in pairs)
    return f"{space}{{{text}}}{space}".encode("utf-8", "surrogatepass")


def _good(timestamp: str, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [("timestamp", timestamp), ("service", '"chat-api"'), *pairs]


pairs = st.lists(st.sampled_from(FIELDS).flatmap(_pair), max_size=8)
near = st.lists(st.sampled_from(FIELDS[2:]).flatmap(_pair), max_size=3)
objects = st.builds(_join, st.sampled_from(["", "", " ", "\n\t"]), st.one_of(pairs, st.builds(_good, good_times, near)))


NATIVE: Final = st.one_of(objects, objects, objects, broken.cut_or_changed(objects), st.binary(max_size=40))

RECORDS: Final[dict[str, st.SearchStrategy[bytes]]] = {"native": NATIVE, **broken.RECORDS}
"""For each registered format: records of every kind."""
RECORDS["auto"] = st.one_of(*RECORDS.values())


def _json_with(secret: str) -> list[bytes]:
    """Native records that carry a secret text in every place where senders put content; most are faulty."""
    inside = json.dumps(secret)
    head = b'{"timestamp":"2025-03-03T00:00:00Z","service":"chat-api","latency_ms":-1'

    def bad(tail: str) -> bytes:
        return head + b"," + tail.encode() + b"}"

    def sound(tail: str) -> bytes:
        return bad(f'"latency_ms":1,{tail}')

    shapes = [
        bad(f'"prompt":{inside}'),
        bad(f'"completion":{inside},"input":{inside},"output":[{inside}]'),
        bad(f'"messages":[{{"role":"user","content":{inside}}}]'),
        bad(f'"messages":{{"content":{{"parts":[{{"text":{inside}}}]}}}}'),
        bad(f'"attributes":{{"gen_ai.prompt":{inside},{inside}:1}}'),
        bad(f'"attributes":{inside}'),
        bad(f"{inside}:1"),
        bad(f'"top_logprobs":{{{",".join(json.dumps(word) + ":-0.1" for word in secret.split())}}}'),
        bad(f'"body":{json.dumps(json.dumps({"prompt": secret}))}'),
        bad('"prompt":"' + "".join(f"\\u{ord(c):04x}" for c in secret) + '"'),
        *(bad(f'"{field}":{inside}') for field in TEXT_FIELDS),
        *(bad(f'"{field}":{{"text":{inside}}}') for field in TEXT_FIELDS),
        *(bad(f'"{field}":[{inside}]') for field in (*TEXT_FIELDS, *METRIC_FIELDS)),
        *(bad(f'"{field}":{inside}') for field in METRIC_FIELDS),
        bad(f'"timestamp":{inside}'),
        bad(f'"model":{json.dumps(secret * 200)}'),
        sound(f'"prompt":{inside},"messages":[{{"role":"user","content":{inside}}}]'),
        sound(f'"attributes":{{"gen_ai.prompt":{inside},{inside}:{{"a":{inside}}}}},"span_id":{inside}'),
        b'{"prompt":' + inside.encode() + b"}",
        inside.encode(),
        b"[" + inside.encode() + b"]",
        secret.encode(),
        b"",
    ]
    return shapes + [change(shape) for shape in shapes for change in broken.BREAKS]


SECRETS: Final[dict[str, Callable[[str], list[bytes]]]] = {"native": _json_with, **broken.SECRETS}
"""For each registered format: sound and broken records that carry a given text in the places of content."""
SECRETS["auto"] = lambda secret: [
    value for name, of in SECRETS.items() if name != "auto" for value in of(secret)[:: 1 if name == "native" else 5]
]


def _native(said: Told) -> bytes:
    fields: dict[str, Any] = {"timestamp": datetime.fromtimestamp(said.at / 1e6, UTC).isoformat(), **said.labels}
    fields |= {"event_id": said.event_id, "trace_id": said.trace_id}
    for field, metric in METRIC_FIELDS.items():
        if metric.name in said.steps:
            fields[field] = said.steps[metric.name] / metric.scale
    return json.dumps(fields).encode()


PLAIN: Final[dict[str, Callable[[Told], bytes]]] = {"native": _native, **translated.PLAIN}
"""For each registered format: the encoder of a plain record."""

CARRIED: Final[dict[str, Callable[[Told], Told]]] = {"native": lambda said: said, **translated.CARRIED}
"""For each registered format: what its records tell of a call."""

SINGLE: Final = tuple(name for name in PLAIN if name in DECODERS)
"""The formats of which `auto` finds out which one a record has."""


def found(said: Told) -> str:
    """The format in which a record of `auto` tells this call."""
    return SINGLE[said.at // 1_000 % len(SINGLE)]


PLAIN["auto"] = lambda said: PLAIN[found(said)](said)
CARRIED["auto"] = lambda said: CARRIED[found(said)](said)

Together = dict[str, Callable[[Sequence[Told]], bytes]]
TOGETHER: Final[Together] = {**translated.TOGETHER, "auto": translated.TOGETHER["litellm"]}
"""For each format whose records hold many calls: one record of these calls, each of which begins at its own time."""

AMID: Final[Together] = {**translated.AMID, "auto": translated.AMID["litellm"]}
"""As `TOGETHER`, with each call told again and what is no call between them, as far as the format has either."""

_HEAD: Final = b'{"timestamp":1740960000,"service":"chat"'
FAULTY: Final[dict[str, dict[str, list[bytes]]]] = {
    "native": {
        Reason.RECORD_TOO_LARGE: [_HEAD + b"}" + b" " * 5_000, b"x" * 5_000],
        Reason.NOT_UTF8: [_HEAD + b',"model":"\xff"}'],
        Reason.NOT_JSON: [b"", b"{oops", _HEAD, _HEAD + b',"latency_ms":NaN}', _HEAD + b',"latency_ms":Infinity}'],
        Reason.NOT_AN_OBJECT: [b"[1]", b"null"],
        Reason.MISSING_FIELD: [b'{"timestamp":1740960000}', b'{"service":"chat"}'],
        Reason.WRONG_TYPE: [_HEAD + b',"model":5.5}', _HEAD + b',"latency_ms":"5"}', _HEAD + b',"streamed":"yes"}'],
        Reason.BAD_NUMBER: [
            _HEAD + b',"latency_ms":-1}', _HEAD + b',"latency_ms":1e999}', _HEAD + b',"latency_ms":1e30}',
            _HEAD + b',"prompt_tokens":1.5}',
        ],
        Reason.BAD_TIME: [b'{"timestamp":"soon","service":"chat"}', b'{"timestamp":5,"service":"chat"}'],
        Reason.STRING_TOO_LONG: [_HEAD + b',"model":"' + b"x" * 41 + b'"}'],
        Reason.TOO_MANY_ATTRIBUTES: [_HEAD + b',"attributes":{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}}'],
    },
    **translated.FAULTY,
}  # fmt: skip
"""For each registered format, by reason: records of one fault under limits of 2,000 bytes, 40 characters and 5
attributes. A record of too many calls may have more bytes."""
FAULTY["auto"] = FAULTY["native"] | {
    reason: translated.FAULTY["otlp_proto"][reason] for reason in (Reason.NOT_OTLP, Reason.TOO_MANY_CALLS)
}
