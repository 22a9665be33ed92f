from __future__ import annotations

import gzip
import itertools
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given

from operators.decode.base import Decoded, Fault
from operators.decode.config import DecodeConfig
from operators.decode.diagnose import MAX_DEPTH, explain
from operators.decode.native import NativeDecoder
from operators.decode.record import METRIC_FIELDS, MeasuredRecord
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, TEXT_FIELDS, Reason, caller_fields
from tests.conftest import examples
from tests.records import NATIVE

MIDNIGHT = 1_740_960_000_000_000
LIMITS = DecodeConfig(max_record_bytes=2_000, max_string=30, max_attributes=5)
FULL: dict[str, Any] = {
    "event_id": "e-1",
    "timestamp": "2025-03-03T00:00:00.002Z",
    "service": "chat-api",
    "model": "gpt-4o",
    "provider": "openai",
    "operation": "chat",
    "tenant": "acme",
    "region": "eu-west-1",
    "agent": "planner",
    "model_requested": "gpt-4o-latest",
    "session_id": "s-1",
    "user": "u-1",
    "key": "k-1",
    "streamed": True,
    "latency_ms": 537.5,
    "ttft_ms": 234.2,
    "prompt_tokens": 425,
    "completion_tokens": 23,
    "cached_tokens": 0,
    "reasoning_tokens": 7,
    "cache_write_tokens": 9,
    "cost_usd": 0.0002068,
    "status": "ok",
    "error_type": None,
    "finish_reason": "stop",
    "quality_score": 0.93,
    "trace_id": "67c4f1",
    "span_id": "9e3a",
    "attributes": {"team": "search", "nested": {"a": [1, 2]}},
    "prompt": "not read",
}


def decode(*values: bytes | dict[str, Any], limits: DecodeConfig = LIMITS, meant: Any = "start") -> Decoded:
    sent = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return NativeDecoder().decode(sent, limits, meant)


def with_fields(**fields: Any) -> dict[str, Any]:
    return {"timestamp": 1_740_960_000, "service": "chat-api", **fields}


def with_text(tail: str) -> bytes:
    return b'{"timestamp":1740960000,"service":"chat-api",' + tail.encode("utf-8", "surrogatepass") + b"}"


def label(decoded: Decoded, name: str) -> str:
    found: str = decoded.events.combos[decoded.events.combo[0]][LABELS.index(name)]
    return found


def metric(decoded: Decoded, name: str) -> int:
    return int(decoded.events.values[METRIC_INDEX[name], 0])


def fault(value: bytes | dict[str, Any], limits: DecodeConfig = LIMITS) -> Fault:
    decoded = decode(value, limits=limits)
    assert len(decoded.events) == 0
    (found,) = decoded.faults
    return found


def test_every_field_finds_its_column() -> None:
    decoded = decode(FULL)
    events = decoded.events
    assert not decoded.faults
    assert events.combos == [("chat-api", "gpt-4o", "chat", "openai", "acme", "eu-west-1", "", "stop", "", "planner")]
    assert (events.event_id, events.trace_id) == (["e-1"], ["67c4f1"])
    assert [caller_fields(text) for text in events.caller] == [{"session_id": "s-1"}]
    assert events.error.tolist() == [False]
    assert events.start.tolist() == [MIDNIGHT + 2_000]
    assert events.end.tolist() == [MIDNIGHT + 2_000 + 537_500]
    assert dict(zip(METRIC_INDEX, events.values[:, 0].tolist(), strict=True)) == dict.fromkeys(
        METRIC_INDEX, MISSING
    ) | {
        "latency": 537_500,
        "ttft": 234_200,
        "prompt_tokens": 425,
        "completion_tokens": 23,
        "cached_tokens": 0,
        "reasoning_tokens": 7,
        "cost": 206_800,
        "quality": 930_000,
        "cache_write_tokens": 9,
    }


def test_an_absent_metric_is_missing_never_zero() -> None:
    nulls = {name: None for name in FULL if name not in ("timestamp", "service", "prompt")}
    for sent in (with_fields(), with_fields(**nulls)):
        decoded = decode(sent)
        assert decoded.events.values[:, 0].tolist() == [MISSING] * len(METRICS)
        assert decoded.events.combos == [("chat-api", "unknown", *[""] * (len(LABELS) - 2))]
        assert (decoded.events.event_id, decoded.events.trace_id) == ([""], [""])
        assert decoded.events.start.tolist() == decoded.events.end.tolist() == [MIDNIGHT]


def test_labels_that_mean_the_same_are_one() -> None:
    decoded = decode(with_fields(), with_fields(model=None), with_fields(model=""), with_fields(model="unknown"))
    assert len(decoded.events.combos) == 1
    assert decoded.events.combo.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("status", "error_type", "label_of_it"),
    [
        ("error", None, "unknown"),
        ("ERROR", "", "unknown"),
        ("Failed", None, "unknown"),
        ("failure", "timeout", "timeout"),
        ("ok", "timeout", "timeout"),
        (None, "timeout", "timeout"),
        ("ok", None, ""),
        ("cancelled", None, "cancelled"),
        ("timeout", "", "timeout"),
        ("429", None, "rate_limit"),
        (503, None, "server_error"),
        (200, None, ""),
        ("302", None, ""),
        (True, None, ""),
        ("exception", None, "unknown"),
        ("429", "RateLimitError", "RateLimitError"),
        ("completed", None, ""),
        ("purple", None, ""),
        ("", "", ""),
        (None, None, ""),
    ],
)
def test_errors(status: str | int | None, error_type: str | None, label_of_it: str) -> None:
    decoded = decode(with_fields(status=status, error_type=error_type))
    assert label(decoded, "error_type") == label_of_it
    assert decoded.events.error.tolist() == [label_of_it != ""]


@pytest.mark.parametrize("name", TEXT_FIELDS)
@pytest.mark.parametrize(
    ("sent", "meant"), [("5", "5"), ("-7", "-7"), ("1" * 25, "1" * 25), ("true", "true"), (" false ", "false")]
)
def test_text_may_be_an_integer_or_a_boolean(name: str, sent: str, meant: str) -> None:
    value, plain = with_text(f'"{name}":{sent}'), with_text(f'"{name}":"{meant}"')
    assert repr(decode(value)) == repr(decode(plain))
    assert decode(value).faults == []


@pytest.mark.parametrize("sent", ["5.0", "1e3", "-1.5", "{}", "[]", "[1]"])
@pytest.mark.parametrize("name", TEXT_FIELDS)
def test_text_is_no_other_number_object_or_array(name: str, sent: str) -> None:
    found = fault(with_text(f'"{name}":{sent}'))
    assert (found.reason, found.detail[: len(name) + 14]) == (Reason.WRONG_TYPE, f"{name}: must be text")


def test_an_integer_of_too_many_digits_is_too_long() -> None:
    assert fault(with_text(f'"model":{"1" * 31}')).reason == Reason.STRING_TOO_LONG


def test_without_a_model_it_is_the_one_that_was_asked_for() -> None:
    assert label(decode(with_fields(model_requested="gpt-4o")), "model") == "gpt-4o"
    assert label(decode(with_fields(model="gpt-4o-2024", model_requested="gpt-4o")), "model") == "gpt-4o-2024"


@pytest.mark.parametrize(("streamed", "kept"), [(True, 7_000), (None, 7_000), (False, MISSING)])
def test_a_call_that_was_not_streamed_has_no_first_token(streamed: bool | None, kept: int) -> None:
    decoded = decode(with_fields(), with_fields(streamed=streamed, latency_ms=9, ttft_ms=7), with_fields(ttft_ms=7))
    assert decoded.events.values[METRIC_INDEX["ttft"]].tolist() == [MISSING, kept, 7_000]
    assert decoded.events.values[METRIC_INDEX["latency"]].tolist() == [MISSING, 9_000, MISSING]


def test_the_timestamp_can_mean_the_end() -> None:
    events = decode(FULL, with_fields(), meant="end").events
    assert events.end.tolist() == [MIDNIGHT + 2_000, MIDNIGHT]
    assert events.start.tolist() == [MIDNIGHT + 2_000 - 537_500, MIDNIGHT]


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("prompt_tokens", "5.0", 5),
        ("prompt_tokens", "5e0", 5),
        ("prompt_tokens", "-0", 0),
        ("prompt_tokens", "1000000000", 1_000_000_000),
        ("latency_ms", "-0.0", 0),
        ("latency_ms", "0.0004", 0),
        ("latency_ms", "0.0006", 1),
        ("latency_ms", "86400000", 86_400_000_000),
        ("cost_usd", "10000", 10_000_000_000_000),
        ("cost_usd", "1e-9", 1),
        ("cost_usd", "0." + "1" * 400, 111_111_111),
        ("quality_score", "0.5", 500_000),
    ],
)
def test_numbers(name: str, text: str, value: int) -> None:
    assert metric(decode(with_text(f'"{name}":{text}')), METRIC_FIELDS[name].name) == value


def test_a_first_token_after_the_end_is_kept() -> None:
    decoded = decode(with_fields(latency_ms=5, ttft_ms=9))
    assert (metric(decoded, "latency"), metric(decoded, "ttft")) == (5_000, 9_000)


@pytest.mark.parametrize(
    "tail",
    [
        '"latency_ms":{},"latency_ms":5',
        '"latency_ms":-1,"latency_ms":5',
        '"latency_ms":7,"latency_ms":5',
        '"\\u006catency_ms":5',
        '"latency_ms":5,"service":7,"service":"chat-api"',
        '"latency_ms":5,"x":1e999',
        f'"latency_ms":5,"x":{"9" * 400}',
        '"latency_ms":5,"x":"}\\u0000]"',
        '"latency_ms":5,"":{"":[]}',
        '"latency_ms":5,"attributes":null',
        '"latency_ms":5,"attributes":{}',
        '"latency_ms":5,"attributes": {"a":"1,2,3,4,5,6,7,8"}',
        '"latency_ms":5,"attributes":{"a":1,"b":2,"c":3,"d":4,"e":5}',
        '"latency_ms":5,"attributes":{"a":1,"a":2,"a":3,"a":4,"a":5,"a":6}',
        '"latency_ms":5,"prompt":"' + "x" * 900 + '"',
        '"latency_ms":5,"prompt":"' + "[{" * 400 + '"',
        '"latency_ms":5,"prompt":"' + '\\"[' * 400 + '"',
        '"latency_ms":5,"model":"' + "\\u00e9" * 30 + '"',
        '"latency_ms":5,"model":"' + "é" * 30 + '"',
        '"latency_ms":5,"x":' + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1),
        '"latency_ms":5,"x":[' + ",".join(["[]"] * 600) + "]",
    ],
)
def test_odd_but_good(tail: str) -> None:
    decoded = decode(with_text(tail))
    assert not decoded.faults
    assert metric(decoded, "latency") == 5_000


def test_space_around_a_record_is_fine() -> None:
    assert len(decode(b' \n{ "timestamp" : 1740960000 ,\n "service" : "a" }\r\n').events) == 1


def test_text_may_hold_any_character() -> None:
    sent = "naïve \x00 \u2028 😀"
    assert label(decode(with_fields(tenant=sent)), "tenant") == sent


@pytest.mark.parametrize(
    ("value", "reason", "detail"),
    [
        (b"x" * 2_001, Reason.RECORD_TOO_LARGE, "the record has 2001 bytes; at most 2000 are accepted"),
        (b"\xff" * 2_001, Reason.RECORD_TOO_LARGE, "2001"),
        (b"\xff", Reason.NOT_UTF8, "byte 0 is not UTF-8"),
        (with_text('"prompt":"\ud800"'), Reason.NOT_UTF8, "byte 55"),
        (with_text('"prompt":"é"').replace(b"\xc3", b""), Reason.NOT_UTF8, "byte 55"),
        (b"", Reason.NOT_JSON, "the record is empty"),
        (b" \n", Reason.NOT_JSON, "the record is empty"),
        (b"\x00", Reason.NOT_JSON, "byte 0"),
        (b"{", Reason.NOT_JSON, "byte 1"),
        (b"[1", Reason.NOT_JSON, "byte 2"),
        (b'{"a":1}{"b":2}', Reason.NOT_JSON, "byte 7"),
        (b'{"a":1}\n{"b":2}', Reason.NOT_JSON, "byte 8"),
        (b'\xef\xbb\xbf{"a":1}', Reason.NOT_JSON, "BOM"),
        (b'{"a":NaN}', Reason.NOT_JSON, "byte 5"),
        (b'{"a":-Infinity}', Reason.NOT_JSON, "byte"),
        (b"{'a':1}", Reason.NOT_JSON, "byte 1"),
        (with_text('"prompt":"\\ud800"'), Reason.NOT_JSON, "surrogate"),
        (with_text('"prompt":"a\nb"'), Reason.NOT_JSON, "control character"),
        (with_text('"x":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH), Reason.NOT_JSON, "nested deeper than 500 levels"),
        (b"[" * 1_999, Reason.NOT_JSON, "nested deeper than 500 levels"),
        (b'{"":' * 499 + b"{", Reason.NOT_JSON, "byte"),
        (b"[]", Reason.NOT_AN_OBJECT, "must be a JSON object, is an array"),
        (b'"a"', Reason.NOT_AN_OBJECT, "is text"),
        (b"null", Reason.NOT_AN_OBJECT, "is null"),
        (b"true", Reason.NOT_AN_OBJECT, "is a boolean"),
        (b"1", Reason.NOT_AN_OBJECT, "is a number"),
        ({}, Reason.MISSING_FIELD, "timestamp: is required"),
        ({"timestamp": 1_740_960_000}, Reason.MISSING_FIELD, "service: is required"),
        (with_fields(service=None), Reason.MISSING_FIELD, "service: is required, and absent, null or empty"),
        (with_fields(service=""), Reason.MISSING_FIELD, "service: "),
        (with_fields(timestamp=None), Reason.MISSING_FIELD, "timestamp: "),
        (with_fields(timestamp=""), Reason.MISSING_FIELD, "timestamp: "),
        (with_fields(timestamp=True), Reason.WRONG_TYPE, "timestamp: must be RFC 3339 text or an epoch number"),
        (with_fields(service=5.5), Reason.WRONG_TYPE, "service: must be text, is a number"),
        (with_fields(model=["a"]), Reason.WRONG_TYPE, "model: must be text, is an array"),
        (with_fields(span_id={}), Reason.WRONG_TYPE, "span_id: must be text, is an object"),
        (with_fields(latency_ms="5"), Reason.WRONG_TYPE, "latency_ms: must be a number, is text"),
        (with_fields(latency_ms=True), Reason.WRONG_TYPE, "latency_ms: must be a number, is a boolean"),
        (with_fields(prompt_tokens=False), Reason.WRONG_TYPE, "prompt_tokens: must be a number, is a boolean"),
        (with_fields(attributes=[]), Reason.WRONG_TYPE, "attributes: must be an object, is an array"),
        (with_fields(streamed="true"), Reason.WRONG_TYPE, "streamed: must be a boolean, is text"),
        (with_fields(streamed=1), Reason.WRONG_TYPE, "streamed: must be a boolean, is a number"),
        (with_fields(attributes=5), Reason.WRONG_TYPE, "attributes: must be an object, is a number"),
        (with_text('"service":1e999'), Reason.WRONG_TYPE, "service: must be text, is a number"),
        (with_fields(latency_ms=-1), Reason.BAD_NUMBER, "latency_ms: must be a number from 0 to 86400000, is -1"),
        (with_fields(latency_ms=86_400_000.5), Reason.BAD_NUMBER, "is 8.64e+07"),
        (with_text('"latency_ms":1e308'), Reason.BAD_NUMBER, "is 1e+308"),
        (with_text('"latency_ms":1e999'), Reason.BAD_NUMBER, "is inf"),
        (with_text('"latency_ms":-1e999'), Reason.BAD_NUMBER, "is -inf"),
        (with_text(f'"prompt_tokens":{"9" * 400}'), Reason.BAD_NUMBER, "is inf"),
        (with_fields(prompt_tokens=10**19), Reason.BAD_NUMBER, "from 0 to 1000000000, is 1e+19"),
        (with_fields(prompt_tokens=5.5), Reason.BAD_NUMBER, "prompt_tokens: must be a whole number"),
        (with_fields(cost_usd=10_001), Reason.BAD_NUMBER, "cost_usd: must be a number from 0 to 10000, is 10001"),
        (with_fields(quality_score=-0.5), Reason.BAD_NUMBER, "quality_score: "),
        (with_fields(timestamp="2025-03-03T00:00:00"), Reason.BAD_TIME, "timestamp: no UTC offset: end it with Z"),
        (with_fields(timestamp="1999-12-31T23:59:59Z"), Reason.BAD_TIME, "timestamp: outside the years 2000 to 2099"),
        (with_fields(timestamp=5), Reason.BAD_TIME, "timestamp: no epoch time"),
        (with_text('"timestamp":1e999'), Reason.BAD_TIME, "timestamp: no epoch time"),
        (with_fields(timestamp=10**22), Reason.BAD_TIME, "timestamp: no epoch time"),
        (
            with_fields(timestamp="x" * 31),
            Reason.STRING_TOO_LONG,
            "timestamp: has 31 characters; at most 30",
        ),
        (
            with_fields(attributes=dict.fromkeys("abcdef")),
            Reason.TOO_MANY_ATTRIBUTES,
            "has 6 entries; at most 5",
        ),
        *((with_fields(**{name: "x" * 31}), Reason.STRING_TOO_LONG, f"{name}: has 31") for name in TEXT_FIELDS),
    ],
)
def test_faults(value: bytes | dict[str, Any], reason: str, detail: str) -> None:
    found = fault(value)
    assert (found.record, found.reason) == (0, reason)
    assert detail in found.detail


def test_every_reason_of_a_decoder_is_given() -> None:
    (table,) = (mark.args[1] for mark in test_faults.pytestmark)
    of_others = {Reason.FUTURE_TIME, Reason.NOT_OTLP, Reason.TOO_MANY_CALLS}
    assert {reason for _, reason, _ in table} == set(Reason.ALL) - of_others


def test_the_first_cause_is_reported() -> None:
    worst: dict[str, Any] = {
        "attributes": dict.fromkeys("abcdef"),
        "quality_score": -1,
        "model": "x" * 31,
        "service": 5.5,
        "timestamp": "soon",
    }
    found = []
    for name, good in (("timestamp", 1_740_960_000), ("service", "a"), ("model", "b"), ("quality_score", 1)):
        found.append(fault(worst).reason)
        worst[name] = good
    assert [*found, fault(worst).reason] == [
        Reason.BAD_TIME,
        Reason.WRONG_TYPE,
        Reason.STRING_TOO_LONG,
        Reason.BAD_NUMBER,
        Reason.TOO_MANY_ATTRIBUTES,
    ]


def test_events_and_faults_keep_the_order_of_their_records() -> None:
    sent: list[bytes | dict[str, Any]] = [
        FULL,
        b"{",
        with_fields(timestamp="soon"),
        with_fields(prompt_tokens=5.0),
        b"\xff",
        with_text('"x":1'),
    ]
    decoded = decode(*sent * 700)
    assert decoded.events.record.tolist() == [i for i in range(4_200) if i % 6 in (0, 3, 5)]
    assert [found.record for found in decoded.faults] == [i for i in range(4_200) if i % 6 in (1, 2, 4)]
    assert decoded.events.values[METRIC_INDEX["prompt_tokens"]].tolist() == [425, 5, MISSING] * 700


def test_attributes_can_be_forbidden() -> None:
    none = DecodeConfig(max_attributes=0)
    assert len(decode(with_fields(attributes={}), limits=none).events) == 1
    assert fault(with_fields(attributes={"a": 1}), none).reason == Reason.TOO_MANY_ATTRIBUTES


def test_a_nearly_used_up_stack_is_a_fault_not_an_exception() -> None:
    value = with_text('"x":' + "[" * 400 + "]" * 400)

    def deep(left: int) -> Decoded:
        return deep(left - 1) if left else decode(value)

    assert len(decode(value).events) == 1
    (found,) = deep(700).faults
    assert (found.reason, found.detail) == (Reason.NOT_JSON, "nested too deeply for the stack that is left")


@examples(600)
@given(NATIVE)
def test_the_fast_path_and_the_slow_path_agree(value: bytes) -> None:
    decoded = NativeDecoder().decode([value], LIMITS)
    slow = explain(0, value, LIMITS)
    if not isinstance(slow, Fault):
        fields = {name: getattr(slow, name) for name in MeasuredRecord.__struct_fields__ if name != "attributes"}
        again = NativeDecoder().decode([msgspec.json.encode(fields)], LIMITS)
        assert not decoded.faults
        assert repr(again) == repr(decoded)
    else:
        assert decoded.faults == [slow]
        assert len(decoded.events) == 0


def test_recorded_traffic(shared: Path) -> None:
    with gzip.open(shared / "data/scenarios/servegen_dev/events.jsonl.gz", "rb") as file:
        values = list(itertools.islice(file, 3_000))
    decoded = NativeDecoder().decode(values, DecodeConfig())
    assert not decoded.faults
    sent = [json.loads(value) for value in values]
    events = decoded.events
    assert events.event_id == [event["event_id"] for event in sent]
    assert events.error.tolist() == [event["status"] == "error" for event in sent]
    assert events.start.tolist() == [
        round(datetime.fromisoformat(event["timestamp"]).timestamp() * 1_000) * 1_000 for event in sent
    ]
    for name, scale in (("latency_ms", 1_000), ("prompt_tokens", 1), ("cost_usd", 1_000_000_000)):
        wanted = [MISSING if event.get(name) is None else round(event[name] * scale) for event in sent]
        assert events.values[METRIC_INDEX[METRIC_FIELDS[name].name]].tolist() == wanted
    for name in ("service", "model", "tenant"):
        at = LABELS.index(name)
        assert [events.combos[i][at] for i in events.combo.tolist()] == [event[name] for event in sent]
