from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from operators.decode.base import Call, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.mapped import MappedFormat
from operators.decode.mapping import UNITS, MappingConfig
from operators.decode.paths import at, steps, whence
from operators.model import Reason
from tests.conftest import examples
from tests.mutations import FIELDS, check, mutated

BASE: dict[str, Any] = {"timestamp": "at", "service": "=my-app"}
AT = 1796018400
keys = st.text(min_size=1, max_size=4)


def mapped(**mapping: Any) -> MappedFormat:
    return MappedFormat(MappingConfig.model_validate({**BASE, **mapping}))


def read(record: object, **mapping: Any) -> Reading:
    return mapped(**mapping).read(orjson.dumps(record), DecodeConfig())


def fields(record: dict[str, Any], **mapping: Any) -> dict[str, Any]:
    (call,) = read({"at": AT, **record}, **mapping).calls
    return call.fields


def refusal(**mapping: Any) -> tuple[tuple[int | str, ...], str]:
    with pytest.raises(ValidationError) as refused:
        MappingConfig.model_validate({**BASE, **mapping})
    (error,) = refused.value.errors(include_url=False)
    return error["loc"], error["msg"]


def test_a_mapping_in_full() -> None:
    mapping = {
        "timestamp": "start",
        "end": "stop",
        "service": ["app.name", "=my-app"],
        "model": 'attributes."llm.model"',
        "prompt_tokens": "usage[0].in",
        "completion_tokens": "usage.1.out",
        "ttft_ms": {"path": "first", "unit": "us"},
        "cost_usd": {"path": "cost", "unit": "cents"},
        "status": {"path": "result", "map": {"OK": "ok", "*": "error"}},
        "streamed": "flags.stream",
        "event_id": "id",
    }
    record = {
        "start": "2026-11-30T06:00:00Z",
        "stop": "2026-11-30T06:00:01.5Z",
        "attributes": {"llm.model": "gpt-4o"},
        "usage": [{"in": "812"}, {"out": 164}],
        "first": 310_500,
        "cost": 0.25,
        "result": "LATE",
        "flags": {"stream": "true"},
        "id": 17,
        "prompt": "not mapped",
    }
    (call,) = read(record, **mapping).calls
    assert call.fields == {
        "timestamp": "2026-11-30T06:00:00Z",
        "latency_ms": 1500.0,
        "service": "my-app",
        "model": "gpt-4o",
        "prompt_tokens": 812,
        "completion_tokens": 164,
        "ttft_ms": 310.5,
        "cost_usd": 0.0025,
        "status": "error",
        "streamed": True,
        "event_id": 17,
    }
    assert call.found["model"] == 'attributes."llm.model"'
    assert call.found["service"] == "a constant"
    assert call.keys == ("call:17",)


def test_every_field_of_an_event_can_be_mapped() -> None:
    assert set(MappingConfig.model_fields) == FIELDS | {"each", "end"}


def test_the_first_way_that_is_there_counts() -> None:
    for record, model in (({"a": "x", "b": "y"}, "x"), ({"a": None, "b": "y"}, "y"), ({"a": "", "b": "y"}, "y")):
        assert fields(record, model=["a", "b"])["model"] == model
    assert "model" not in fields({}, model=["a", "b"])


@pytest.mark.parametrize(
    ("name", "value", "unit", "result"),
    [
        ("latency_ms", 1.5, "s", 1500),
        ("latency_ms", "1.5", "s", 1500),
        ("latency_ms", 1_500, "us", 1.5),
        ("ttft_ms", 310_000_000, "ns", 310),
        ("cost_usd", 2_500_000, "nanousd", 0.0025),
        ("cost_usd", 5, "usd", 5),
        ("prompt_tokens", 1.005, "k", 1005),
        ("prompt_tokens", 7, "tokens", 7),
        ("prompt_tokens", "many", "k", "many"),
        ("prompt_tokens", True, "k", True),
        ("prompt_tokens", [5], "k", [5]),
    ],
)
def test_units(name: str, value: object, unit: str, result: object) -> None:
    found = fields({"x": value}, **{name: {"path": "x", "unit": unit}})[name]
    assert found == result and isinstance(found, bool) is isinstance(result, bool)


@given(thousands=st.integers(0, 1_000_000_000))
def test_thousands_of_tokens_stay_whole(thousands: int) -> None:
    found = fields({"x": thousands / 1000}, prompt_tokens={"path": "x", "unit": "k"})["prompt_tokens"]
    assert found == thousands and isinstance(found, int)


def test_the_meaning_of_values() -> None:
    way = {"path": "x", "map": {"true": "ok", "false": "error", "429": "error", "": "never"}}
    for value, status in ((True, "ok"), (False, "error"), (429, "error"), ("odd", "odd"), ([1], [1])):
        assert fields({"x": value}, status=way)["status"] == status
    assert "status" not in fields({"x": None}, status=way)
    assert "status" not in fields({}, status={"path": "x", "map": {"*": "error"}}), "what is absent has no meaning"


def test_a_latency_that_is_told_wins_over_the_end() -> None:
    mapping = {"latency_ms": "ms", "end": "end"}
    assert fields({"ms": 5, "end": AT + 1}, **mapping)["latency_ms"] == 5
    assert fields({"end": AT + 1}, **mapping)["latency_ms"] == 1000
    assert fields({"end": AT - 1}, **mapping)["latency_ms"] == -1000, "it becomes a dead letter"
    assert fields({"end": "soon"}, **mapping)["latency_ms"] == "no time"
    assert "latency_ms" not in fields({}, **mapping)


def test_calls_in_an_array() -> None:
    record = {"app": "shop", "batch": {"events": [{"at": AT, "m": "a"}, {"at": AT + 1, "m": "b"}, "text"]}}
    mapping = {"each": "batch.events", "service": "^.app", "model": "m"}
    assert [call.fields for call in read(record, **mapping).calls] == [
        {"timestamp": AT, "service": "shop", "model": "a"},
        {"timestamp": AT + 1, "service": "shop", "model": "b"},
        {"service": "shop"},
    ]
    assert len(read([record, record], **mapping).calls) == 6
    assert (
        read([{"at": AT}, {"at": AT}]).calls
        == [Call({"timestamp": AT, "service": "my-app"}, {"timestamp": "at", "service": "a constant"})] * 2
    )


@pytest.mark.parametrize("record", [{}, {"events": None}, {"events": {"at": AT}}])
def test_a_record_without_the_array_is_refused(record: dict[str, Any]) -> None:
    with pytest.raises(Unreadable) as refused:
        read(record, each="events")
    assert (refused.value.reason, refused.value.detail) == (
        Reason.MISSING_FIELD,
        "each: the record has no array at events",
    )


@pytest.mark.parametrize(
    ("record", "mapping"),
    [
        ([{}] * 10_001, {}),
        ({"events": [0] * 10_001}, {"each": "events"}),
        ([{"events": [0] * 6_000}] * 2, {"each": "events"}),
    ],
)
def test_too_many_calls(record: object, mapping: dict[str, str]) -> None:
    with pytest.raises(Unreadable) as refused:
        read(record, **mapping)
    assert refused.value.reason == Reason.TOO_MANY_CALLS


def test_known_again() -> None:
    mapping = {"trace_id": "t", "span_id": "s", "event_id": "e"}
    one = {"at": AT, "t": "T", "s": "S", "e": "E"}
    reading = read([one, {**one, "e": "F"}, {**one, "s": "R"}, {"at": AT, "t": "T"}, {"at": AT, "t": "T"}], **mapping)
    assert [call.keys for call in reading.calls] == [("span:T/S", "call:E"), (), ()]
    assert reading.repeats == 2


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a", ("a",)),
        ("a.b-c.d e", ("a", "b-c", "d e")),
        ("a[0].b", ("a", "0", "b")),
        ("a[0][1]", ("a", "0", "1")),
        ("[0].b", ("0", "b")),
        ('"a.b".c', ("a.b", "c")),
        (r'"a\"b"', ('a"b',)),
        ('"^".a', ("^", "a")),
    ],
)
def test_paths(path: str, found: tuple[str, ...]) -> None:
    assert steps(path) == found


@pytest.mark.parametrize(
    "path", ["", ".", ".a", "a.", "a..b", "a[", "a[x]", "a[0]b", 'a"b"', '"a', "a^b", "a\\b", "a]", "^", "^a", "^.a"]
)
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ValueError, match="is no path"):
        steps(path)


def test_a_path_may_begin_at_the_record() -> None:
    assert [whence(path) for path in ("^.a", "^[0].a", "a", '"^".a')] == [
        (True, ("a",)),
        (True, ("0", "a")),
        (False, ("a",)),
        (False, ("^", "a")),
    ]
    for path in ("^", "^a", "^..a", "^.", "^.^.a"):
        with pytest.raises(ValueError, match="is no path"):
            whence(path)


@given(found=st.lists(keys, min_size=1, max_size=4))
def test_any_keys_can_be_quoted(found: list[str]) -> None:
    quoted = ".".join('"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"' for key in found)
    assert steps(quoted) == tuple(found)
    record: object = "here"
    for key in reversed(found):
        record = {key: record}
    assert at(record, steps(quoted)) == "here"


@pytest.mark.parametrize("name", ["latency_ms", "cost_usd", "cached_tokens", "model"])
def test_a_unit_must_fit_the_field(name: str) -> None:
    wrong = "usd" if name != "cost_usd" else "s"
    where, why = refusal(**{name: {"path": "x", "unit": wrong}})
    assert where == (name,)
    assert (", ".join(UNITS[name]) if name in UNITS else "no unit") in why and f"not {wrong}" in why


@pytest.mark.parametrize(
    ("value", "where", "why"),
    [
        (5, ("model",), "a path such as usage.input"),
        ([], ("model",), "a path such as usage.input"),
        ("", ("model",), "a path such as usage.input"),
        (["a", 5], ("model",), "a path such as usage.input"),
        ("a..b", ("model", 0), "is no path"),
        (["a", {"path": "b."}], ("model", 1), "is no path"),
        ({"unit": "s"}, ("model", 0), "either a path or a constant"),
        ({"path": "a", "constant": "b"}, ("model", 0), "either a path or a constant"),
        ({"path": "a", "unti": "s"}, ("model", 0, "unti"), "not permitted"),
        ({"path": "a", "unit": "h"}, ("model", 0, "unit"), "'s', 'ms'"),
    ],
)
def test_wrong_ways_are_refused_with_what_is_allowed(value: object, where: tuple[object, ...], why: str) -> None:
    loc, msg = refusal(model=value)
    assert loc == where and why in msg


def test_wrong_mappings_are_refused() -> None:
    assert refusal(modle="x")[0] == ("modle",)
    assert refusal(each="a..b") == (("each",), refusal(model="a..b")[1])
    with pytest.raises(ValidationError) as refused:
        MappingConfig.model_validate({"model": "x"})
    assert [error["loc"] for error in refused.value.errors()] == [("timestamp",), ("service",)]


MAPPING = {
    "each": "events",
    "timestamp": "at",
    "end": "end",
    "service": ["^.app", "=x"],
    "model": ["m[0]", 'n."o.p"'],
    "status": {"path": "ok", "map": {"true": "ok", "*": "error"}},
    "latency_ms": {"path": "s", "unit": "s"},
    "prompt_tokens": {"path": "k", "unit": "k"},
    "cost_usd": {"path": "c", "unit": "nanousd"},
    "streamed": "stream",
    "event_id": "id",
}
EVENT = {"at": AT, "end": AT + 1, "m": ["a"], "n": {"o.p": "b"}, "ok": True, "s": 0.5, "k": "1.5", "c": 5, "id": "x"}


@examples(300)
@given(value=mutated([{"app": "y", "events": [EVENT, {**EVENT, "stream": "yes"}]}, [{"events": [EVENT]}]]))
def test_any_record_is_read_or_refused(value: bytes) -> None:
    check(MappedFormat(MappingConfig.model_validate(MAPPING)), value)


def test_unmapped_content_never_leaves() -> None:
    record = {"app": "y", "events": [{**EVENT, "prompt": "zqxjv"}], "messages": ["zqxjv"]}
    assert "zqxjv" not in repr(read(record, **MAPPING))
