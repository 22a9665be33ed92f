"""Dead letters show nothing of a record's content, wherever it stands and whatever its type."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from operators.decode.config import DecodeConfig
from operators.decode.native import NativeDecoder
from operators.decode.record import METRIC_FIELDS, MeasuredRecord
from operators.decode.redact import SHOWN_TEXTS, redact, sketch
from operators.model import TEXT_FIELDS

WORD = "zqxjv"
NUMBER = 918273645546
NAMES = [name for name, shape in SHOWN_TEXTS.items() if shape.fullmatch(WORD)]

content = st.one_of(
    st.sampled_from([WORD, NUMBER, -NUMBER, NUMBER + 0.5, f"{WORD} {NUMBER}", f"{NUMBER}", f"{WORD}@{WORD}.org"]),
    st.text(max_size=5).map(lambda text: f"{text}{WORD}{text}"),
)
planted = st.recursive(
    content,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from(["a", WORD, str(NUMBER), f"{WORD}.{WORD}"]), inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)
other_names = st.sampled_from(
    [WORD, str(NUMBER), f"x_{WORD}", f"{WORD}.{WORD}", "prompt", "content", "input", "Service"]
)


def fits(name: str, value: object) -> bool:
    """Whether the value has the form of the field's values, and is therefore shown."""
    return isinstance(value, str) and name in SHOWN_TEXTS and bool(SHOWN_TEXTS[name].fullmatch(value))


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record, possibly damaged, with content in unknown fields, in names, and in known fields not meant for it."""
    sound: dict[str, Any] = {
        "timestamp": "2025-03-03T00:00:00Z",
        "service": "chat",
        "latency_ms": draw(st.sampled_from([-1, 5])),
    }
    others = draw(st.dictionaries(other_names, planted, max_size=4))
    texts = st.sampled_from([name for name in (*TEXT_FIELDS, "timestamp", *METRIC_FIELDS) if name not in NAMES])
    wrong = draw(st.dictionaries(texts, planted, max_size=2))
    wrong = {name: value for name, value in wrong.items() if not fits(name, value)}
    kept = draw(st.dictionaries(st.sampled_from(NAMES), planted.filter(lambda v: not isinstance(v, str)), max_size=2))
    items = draw(st.permutations(list({**sound, **others, **wrong, **kept}.items())))
    value = json.dumps(dict(items), ensure_ascii=draw(st.booleans())).encode()
    at, patch = (
        draw(st.integers(0, len(value))),
        draw(st.sampled_from([b"", b"", b'"', b"}", b"[", b"\\", b"\xff", b"\x00"])),
    )
    return value[: draw(st.sampled_from([at, len(value)]))] if not patch else value[:at] + patch + value[at:]


@settings(max_examples=600, deadline=None)
@given(st.lists(records(), min_size=1, max_size=4))
def test_no_content_is_shown_wherever_it_is_planted(values: list[bytes]) -> None:
    limits = DecodeConfig(max_string=200, payload_bytes=100_000)
    for fault in NativeDecoder().decode(values, limits).faults:
        assert WORD not in fault.payload.lower()
        assert WORD not in fault.detail.lower()
        assert str(NUMBER) not in fault.payload + fault.detail


def shown(value: object) -> object:
    fields = msgspec.json.decode(json.dumps(value).encode(), type=dict[str, Raw])
    return json.loads(redact(fields, 10_000))


def test_names_times_and_metrics_stay() -> None:
    sent = {
        "event_id": "67c4-0b", "timestamp": "2025-03-03T00:00:00.25Z", "service": "chat-api",
        "model": "claude@20250303", "provider": None, "region": True, "latency_ms": -1.5, "prompt_tokens": 12,
        "trace_id": "67C4",
    }  # fmt: skip
    assert shown(sent) == sent
    assert shown({"timestamp": 1741000000123}) == {"timestamp": 1741000000123}


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ({"prompt": "hello"}, {"[other fields]": 1}),
        ({"prompt": 918273645}, {"[other fields]": 1}),
        ({"messages": [1, 2, 3], "hello": None, "what is the meaning": True, '"': 1}, {"[other fields]": 4}),
        ({"service": "tell me a story"}, {"service": "[cut 15 chars]"}),
        ({"service": 918273645}, {"service": "[cut number of 9 chars]"}),
        ({"status": "hello"}, {"status": "[cut 5 chars]"}),
        ({"tenant": "ada"}, {"tenant": "[cut 3 chars]"}),
        ({"region": "ada@example.org"}, {"region": "[cut 15 chars]"}),
        ({"trace_id": "hello"}, {"trace_id": "[cut 5 chars]"}),
        ({"model": "x" * 65}, {"model": "[cut 65 chars]"}),
        ({"model": "gpt\n"}, {"model": "[cut 4 chars]"}),
        ({"model": ["hello"]}, {"model": "[cut array of 1]"}),
        ({"timestamp": "2025-03-03 00:00:00"}, {"timestamp": "2025-03-03 00:00:00"}),
        ({"timestamp": "555 1234 5678"}, {"timestamp": "[cut 13 chars]"}),
        ({"timestamp": 15551234567123456789}, {"timestamp": 1.55512e19}),
        ({"attributes": {"a": {"b": 1}, "c": 2}}, {"attributes": "[cut object of 2]"}),
        ({"attributes": 918273645}, {"attributes": "[cut number of 9 chars]"}),
        ({"latency_ms": 4111111111111111}, {"latency_ms": 4.11111e15}),
        ({"latency_ms": 10**400}, {"latency_ms": "[cut number of 401 chars]"}),
        ({"cost_usd": "hello"}, {"cost_usd": "[cut 5 chars]"}),
    ],
)
def test_content_is_replaced_by_its_size(sent: object, left: object) -> None:
    assert shown(sent) == left


def test_is_cut_to_size() -> None:
    fields = {name: Raw(b"1") for name in MeasuredRecord.__struct_fields__}
    whole = redact(fields, 1_000_000)
    assert whole.startswith("{") and whole.endswith("}")
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
