"""Records made to hurt: nothing raises, and the work grows with their size and no faster."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from operators.decode.base import Decoded
from operators.decode.config import DecodeConfig
from operators.decode.registry import DECODERS
from operators.model import Reason
from tests.broken import spans
from tests.contracts.test_decoders import check_form, rows
from tests.otlp import AT, Plain, as_proto, json_text

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
USAGE = {**CHAT, "gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 7}


def decoded(name: str, values: list[bytes]) -> Decoded:
    found = DECODERS[name].decode(values, DecodeConfig(payload_bytes=200))
    check_form(found, len(values))
    return found


@settings(max_examples=100)
@given(spans)
def test_both_encodings_of_any_spans_are_calls_alike(drawn: list[Plain]) -> None:
    in_json, in_proto = (decoded(name, [encode(drawn)]) for name, encode in ENCODED.items())
    assume(Reason.NOT_JSON not in {fault.reason for fault in in_json.faults})  # half a character, which has no UTF-8
    assert in_json.passed_over == in_proto.passed_over and in_json.repeats == in_proto.repeats
    assert [row[:2] for row in rows(in_json)] == [row[:2] for row in rows(in_proto)]


ENCODED: dict[str, Callable[[list[Plain]], bytes]] = {"otlp_json": json_text, "otlp_proto": as_proto}

SHAPES: dict[str, Callable[[int], Plain]] = {
    "siblings": lambda i: Plain(USAGE, f"{i:016x}", start=AT + i),
    "a chain of calls": lambda i: Plain(USAGE, f"{i + 1:016x}", f"{i:016x}", start=AT + i),
    "a chain of agents": lambda i: Plain(
        {"gen_ai.operation.name": "invoke_agent"} if i % 2 else CHAT, f"{i + 1:016x}", f"{i:016x}", start=AT + i
    ),
    "two libraries": lambda i: Plain(USAGE, f"{i:016x}", start=AT + i, scope=f"library {i % 2}", trace_id=f"{i:032x}"),
    "one response id": lambda i: Plain(
        {**CHAT, "gen_ai.response.id": "r"}, f"{i:016x}", start=AT + 2 * i, end=AT + 2 * i + 1
    ),
    "one response id at once": lambda i: Plain({**CHAT, "gen_ai.response.id": "r"}, f"{i:016x}", start=AT + i),
    "one span": lambda i: Plain(USAGE),
    "failed calls of many libraries": lambda i: Plain(CHAT, f"{i:016x}", start=AT + i, status=2, scope=f"{i}"),
    "streams of logfire": lambda i: Plain(
        {**CHAT, "logfire.span_type": ("span", "log")[i % 2]}, f"{i:016x}", "00000000000000ff", start=AT + i, end=AT + i
    ),
}


def lines_run(value: bytes) -> int:
    """The lines of Python that decoding this record runs."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        DECODERS["otlp_json"].decode([value], DecodeConfig())
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("shape", SHAPES)
def test_the_work_grows_with_the_spans_and_no_faster(shape: str) -> None:
    some, more = (lines_run(json_text([SHAPES[shape](i) for i in range(n)])) for n in (150, 300))
    assert more < 2.3 * some


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_thousand_spans_are_read(shape: str) -> None:
    record = as_proto([SHAPES[shape](i) for i in range(10_000)])
    found = DECODERS["otlp_proto"].decode([record], DecodeConfig(max_record_bytes=10_000_000))
    assert found.faults == []
    assert len(found.events) + found.repeats + sum(found.passed_over.values()) == 10_000


@pytest.mark.parametrize("encode", ENCODED.values(), ids=ENCODED)
def test_times_out_of_order_or_out_of_range_are_dead_letters(encode: Callable[[list[Plain]], bytes]) -> None:
    odd = [(AT, AT - 1), (AT, 1), (0, AT), ((1 << 64) - 1, (1 << 64) - 1), (AT, (1 << 64) - 1), (-5, AT), (AT * 9, 0)]
    name = next(name for name, of in ENCODED.items() if of is encode)
    found = decoded(name, [encode([Plain(CHAT, f"{i + 1:016x}", start=s, end=e) for i, (s, e) in enumerate(odd)])])
    assert len(found.events) == 0
    assert [fault.reason for fault in found.faults] == [
        "bad_number", "bad_number", "bad_time", "bad_time", "bad_number", "bad_time", "bad_time",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def recorded(shared: Path) -> list[tuple[str, bytes]]:
    """Recorded payloads, each with its format."""
    files = sorted((shared / "data" / "payloads").glob("*/*"))
    kinds = {".bin": "otlp_proto", ".json": "otlp_json", ".jsonl": "auto"}
    return [(kinds[p.suffix], p.read_bytes()) for p in files if p.suffix in kinds and "expect" not in p.name][::3]


ODD: list[Any] = [None, True, -1, 10**30, "x", "[" * 900, [], {}, [[1]], {"a": {"b": 1}}, "9" * 30, 1e300]


def mutated(value: bytes, chance: random.Random) -> bytes:
    """The payload cut, with flipped bits, or with other types in its tree."""
    how, place = chance.randrange(3), chance.randrange(len(value))
    if how == 0:
        return value[:place]
    if how == 2 and value[:1] == b"{":
        return json.dumps(_exchanged(json.loads(value.splitlines()[0]), chance)).encode()
    found = bytearray(value)
    for _ in range(chance.randrange(1, 5)):
        found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def _exchanged(tree: Any, chance: random.Random) -> Any:
    """The tree with about two values in a hundred exchanged."""
    if chance.random() < 0.02:
        return chance.choice(ODD)
    if isinstance(tree, dict):
        return {name: _exchanged(of, chance) for name, of in tree.items()}
    return [_exchanged(of, chance) for of in tree] if isinstance(tree, list) else tree


def test_no_mutation_of_a_recorded_payload_raises(recorded: list[tuple[str, bytes]]) -> None:
    @settings(max_examples=15)
    @given(st.integers(0, 1_000_000))
    def meet(seed: int) -> None:
        chance = random.Random(seed)
        for name, value in recorded:
            for of in (name, "auto"):
                decoded(of, [mutated(value, chance)])

    meet()
