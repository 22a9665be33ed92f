from __future__ import annotations

import json

import msgspec
import pytest
from msgspec import Raw

from operators.decode.redact import redact, sketch


def shown(value: object) -> object:
    fields = msgspec.json.decode(json.dumps(value).encode(), type=dict[str, Raw])
    return json.loads(redact(fields, 10_000))


def test_numbers_and_identifiers_stay() -> None:
    sent = {"service": "chat-api", "trace_id": "67c4", "latency_ms": -1.5, "other": 7, "stream": True, "model": None}
    assert shown(sent) == sent


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ({"prompt": "hello"}, {"prompt": "[cut 5 chars]"}),
        ({"prompt": ""}, {"prompt": "[cut 0 chars]"}),
        ({"service": "tell me a story"}, {"service": "[cut 15 chars]"}),
        ({"model": "x" * 129}, {"model": "[cut 129 chars]"}),
        ({"model": "gpt\n"}, {"model": "[cut 4 chars]"}),
        ({"tenant": "café"}, {"tenant": "[cut 4 chars]"}),
        ({"timestamp": "2025-03-03 00:00:00"}, {"timestamp": "2025-03-03 00:00:00"}),
        ({"timestamp": "noon"}, {"timestamp": "[cut 4 chars]"}),
        ({"messages": [1, 2, 3]}, {"messages": "[cut array of 3]"}),
        ({"attributes": {"a": {"b": 1}, "c": 2}}, {"attributes": "[cut object of 2]"}),
        ({"what is the meaning": 1}, {"[cut 19 chars]": 1}),
        ({'"': 1}, {"[cut 1 chars]": 1}),
        ({"n": 10**40}, {"n": "[cut 41 digits]"}),
    ],
)
def test_content_is_replaced_by_its_size(sent: object, left: object) -> None:
    assert shown(sent) == left


def test_is_cut_to_size() -> None:
    fields = {f"field_{i}": Raw(b"1") for i in range(1_000)}
    whole = redact(fields, 1_000_000)
    for most in (0, 1, 20, 100, len(whole), len(whole) + 1):
        assert redact(fields, most) == whole[:most]
        assert sketch(b'{"a":1}' * 100, most) == sketch(b'{"a":1}' * 100, 1_000_000)[:most]


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (b"", "[0 bytes] "),
        (b'{"prompt": "Tell me 17 jokes!!", ', '[33 bytes] {"a": "a a 9 a?", '),
        (b"\xff\xfe{\x00", "[4 bytes] x{?"),
        ("naïve".encode(), "[6 bytes] axa"),
        (b"[[[[[[[]]]", "[10 bytes] []]]"),
        (b'{"a":{"b":[[1]]}}', '[17 bytes] {"a":{"a":[[9]]}}'),
    ],
)
def test_a_sketch_shows_form_alone(value: bytes, shape: str) -> None:
    assert sketch(value, 1_000) == shape
