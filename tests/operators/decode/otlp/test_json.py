"""OTLP in JSON as its writers write it, and what is none."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from operators.decode.base import Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.otlp.format import OtlpJsonFormat
from operators.decode.otlp.json import looks_like, parse, plain
from operators.model import Reason
from tests.otlp import AT, Plain, as_json

WANTED = {"a", "b", "service.name", "event.name"}
WHOLE = as_json([Plain({"a": "x", "b": 5, "secret": "zebra"}, parent_id="00000000000000c1", status=2, message="no")])


def snake(tree: Any) -> Any:
    """The record with its names in snake case."""
    if isinstance(tree, dict):
        return {re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name): snake(of) for name, of in tree.items()}
    return [snake(of) for of in tree] if isinstance(tree, list) else tree


def changed(**values: Any) -> dict[str, Any]:
    """The record with other values in its span."""
    tree: dict[str, Any] = json.loads(json.dumps(WHOLE))
    tree["resourceSpans"][0]["scopeSpans"][0]["spans"][0] |= values
    return tree


def encoded(hexadecimal: str) -> str:
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


SPAN = WHOLE["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
OLD = {
    "resourceSpans": [{
        "resource": WHOLE["resourceSpans"][0]["resource"],
        "instrumentationLibrarySpans": [{"instrumentationLibrary": {"name": "openai"}, "spans": [SPAN]}],
    }]
}  # fmt: skip


@pytest.mark.parametrize(
    "tree",
    [
        snake(WHOLE),
        OLD,
        changed(startTimeUnixNano=AT, endTimeUnixNano=AT + 2_000_000_000),
        changed(kind="SPAN_KIND_CLIENT", status={"code": "STATUS_CODE_ERROR", "message": "no"}),
        changed(
            traceId=encoded(SPAN["traceId"]), spanId=encoded(SPAN["spanId"]), parentSpanId=encoded("00" * 7 + "c1")
        ),
        changed(traceId=SPAN["traceId"].upper()),
        changed(attributes=[{"key": "a", "value": {"stringValue": "x"}}, {"key": "b", "value": {"intValue": 5}}]),
        changed(events=None, links=None, droppedAttributesCount=0, flags=1),
    ],
    ids=["snake case", "before 0.15", "numbers", "names of enums", "base64", "upper case", "int as a number", "nulls"],
)
def test_every_way_to_write_a_record_is_read_alike(tree: dict[str, Any]) -> None:
    assert parse(json.dumps(tree).encode(), WANTED) == parse(json.dumps(WHOLE).encode(), WANTED)


def test_attributes_that_nobody_asks_for_are_not_kept() -> None:
    assert "zebra" not in repr(parse(json.dumps(WHOLE).encode(), WANTED))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"stringValue": "x"}, "x"),
        ({"boolValue": False}, False),
        ({"doubleValue": None}, None),
        ({"doubleValue": 0.5}, 0.5),
        ({"intValue": "-5"}, -5),
        ({"intValue": "five"}, "five"),
        ({"arrayValue": {"values": [{"intValue": "1"}, {}]}}, [1, None]),
        ({"arrayValue": {}}, []),
        ({"arrayValue": 5}, []),
        ({"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}, 5]}}, {"k": "v"}),
        ({"stringValue": {"not": "text"}}, None),
        ({"intValue": [1]}, None),
        ({"bytesValue": "eA=="}, None),
        ({}, None),
        (None, None),
        ("x", None),
    ],
)
def test_the_values_of_attributes(value: Any, expected: Any) -> None:
    assert plain(value, 16) == expected


def test_values_that_lie_too_deep_are_unknown() -> None:
    value: Any = {"stringValue": "x"}
    for _ in range(20):
        value = {"arrayValue": {"values": [value]}}
    assert repr(plain(value, 16)).count("[") == 16 and "x" not in repr(plain(value, 16))


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        (changed(startTimeUnixNano="soon"), Reason.WRONG_TYPE),
        (changed(startTimeUnixNano=0.5), Reason.WRONG_TYPE),
        (changed(startTimeUnixNano=True), Reason.WRONG_TYPE),
        (changed(kind="KIND"), Reason.WRONG_TYPE),
        (changed(traceId="?"), Reason.WRONG_TYPE),
        (changed(spanId=5), Reason.WRONG_TYPE),
        (changed(name=5), Reason.WRONG_TYPE),
        (changed(status=[]), Reason.WRONG_TYPE),
        (changed(attributes={"a": 1}), Reason.WRONG_TYPE),
        (changed(attributes=[{"value": {}}]), Reason.WRONG_TYPE),
        (changed(events=[5]), Reason.WRONG_TYPE),
        ({"resourceSpans": {}}, Reason.WRONG_TYPE),
        ({"resourceSpans": [{"scopeSpans": 5}]}, Reason.WRONG_TYPE),
        ({"spans": []}, Reason.MISSING_FIELD),
        ([], Reason.NOT_AN_OBJECT),
        (5, Reason.NOT_AN_OBJECT),
    ],
)
def test_what_is_no_otlp_is_refused(tree: Any, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(json.dumps(tree).encode(), WANTED)
    assert caught.value.reason == reason


def test_metrics_and_logs_are_counted_and_a_log_of_a_call_is_one() -> None:
    details = [{"key": "event.name", "value": {"stringValue": "gen_ai.client.inference.operation.details"}}]
    chat = [{"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}}]
    records = [
        {"observedTimeUnixNano": str(AT), "attributes": [*details, *chat], "body": {"stringValue": "zebra"}},
        {"observedTimeUnixNano": str(AT), "attributes": details},
        {"observedTimeUnixNano": str(AT), "eventName": "gen_ai.choice", "attributes": chat},
    ]  # fmt: skip
    tree = {
        "resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m"}, {"name": "n"}]}]}],
        "resourceLogs": [{"scopeLogs": [{"logRecords": records}]}],
    }
    found = OtlpJsonFormat().read(json.dumps(tree).encode(), DecodeConfig())
    assert found.passed_over == {"no_call": 2, "metric": 2}
    (call,) = found.calls
    assert call.fields["timestamp"] == AT and "latency_ms" not in call.fields
    assert "zebra" not in repr(found)


def test_a_record_is_known_by_its_names() -> None:
    assert looks_like(WHOLE) and looks_like(snake(WHOLE)) and looks_like({}) and looks_like({"resourceLogs": []})
    assert not any(map(looks_like, ([], None, 5, {"spans": []}, {"resourceSpans": None})))
