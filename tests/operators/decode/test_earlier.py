from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.decode.base import Call, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.earlier import EarlierFormat
from operators.model import Reason
from tests.conftest import examples
from tests.mutations import check, mutated

SECRET = "zqxjv"
NESTED: dict[str, Any] = {
    "event_id": "550e8400-e29b-41d4-a716-446655440000",
    "timestamp": "2025-03-03T00:00:00Z",
    "service_name": "chat",
    "trace_id": "5b8efff798038103d269b633813fc60c",
    "span_id": "eee19b7ec3c1b174",
    "model": "gpt-4",
    "prompt": {"text": SECRET, "tokens": 120, "embedding": [0.5]},
    "response": {"text": SECRET, "tokens": 30, "finish_reason": "end_turn", "embedding": None},
    "latency_ms": 812.5,
    "cost_usd": 0.004,
    "metadata": {"region": "eu", "user_id": "u-1", "tenant": "acme", "note": SECRET},
    "errors": [],
}
FLAT: dict[str, Any] = {
    "timestamp": "2025-03-03T00:00:00Z",
    "service_name": "chat",
    "model_name": "gpt-4",
    "latency_ms": 812,
    "prompt_tokens": 120,
    "completion_tokens": 30,
    "total_tokens": 150,
    "cost_usd": 0.004,
    "user_id": "u-1",
    "session_id": "s-1",
    "request_id": "r-1",
    "prompt_text": SECRET,
    "response_text": SECRET,
    "metadata": None,
}
DOCUMENTED: dict[str, Any] = {
    "timestamp": 1740960000000,
    "service_name": "chat",
    "operation": "completion",
    "duration_ms": 812,
    "attributes": {
        "llm.model": "gpt-4",
        "llm.provider": "OpenAI",
        "llm.usage.prompt_tokens": 120,
        "llm.usage.completion_tokens": 30,
        "http.status_code": 200,
        "user.id": "u-1",
        "api.key_id": "k-1",
        "llm.prompt": SECRET,
    },
    "status": "OK",
}
SHAPES = (NESTED, FLAT, DOCUMENTED)


def read(record: object) -> Reading:
    return EarlierFormat().read(orjson.dumps(record), DecodeConfig())


def call(record: dict[str, Any], **changes: Any) -> Call:
    (one,) = read({**record, **changes}).calls
    return one


def test_nested() -> None:
    assert call(NESTED).fields == {
        "event_id": "550e8400-e29b-41d4-a716-446655440000",
        "timestamp": "2025-03-03T00:00:00Z",
        "service": "chat",
        "trace_id": "5b8efff798038103d269b633813fc60c",
        "span_id": "eee19b7ec3c1b174",
        "model": "gpt-4",
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "finish_reason": "stop",
        "latency_ms": 812.5,
        "cost_usd": 0.004,
        "region": "eu",
        "tenant": "acme",
        "user": "u-1",
    }
    assert call(NESTED).keys == (
        "span:5b8efff798038103d269b633813fc60c/eee19b7ec3c1b174",
        "call:550e8400-e29b-41d4-a716-446655440000",
    )


def test_flat() -> None:
    assert call(FLAT).fields == {
        "event_id": "r-1",
        "timestamp": "2025-03-03T00:00:00Z",
        "service": "chat",
        "model": "gpt-4",
        "latency_ms": 812,
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "cost_usd": 0.004,
        "user": "u-1",
        "session_id": "s-1",
    }


def test_documented_only() -> None:
    assert call(DOCUMENTED).fields == {
        "timestamp": 1740960000000,
        "service": "chat",
        "operation": "chat",
        "model": "gpt-4",
        "provider": "openai",
        "latency_ms": 812,
        "prompt_tokens": 120,
        "completion_tokens": 30,
        "user": "u-1",
        "key": "k-1",
        "status": "ok",
    }
    assert call(DOCUMENTED).found["model"] == 'attributes."llm.model"'
    assert call(DOCUMENTED).originals == {"provider": "OpenAI"}


@pytest.mark.parametrize(
    ("record", "changes", "kind"),
    [
        (NESTED, {"errors": ["RateLimitError: slow down"]}, "rate_limit"),
        (NESTED, {"errors": [{"type": "timeout", "message": SECRET}]}, "timeout"),
        (NESTED, {"errors": [{"code": 503}]}, "server_error"),
        (NESTED, {"errors": [SECRET]}, "unknown"),
        (NESTED, {"errors": [{"details": SECRET}]}, "unknown"),
        (NESTED, {"errors": [[SECRET]]}, "unknown"),
        (DOCUMENTED, {"status": "ERROR"}, "unknown"),
        (DOCUMENTED, {"status": "ERROR", "attributes": {"http.status_code": 429}}, "rate_limit"),
        (DOCUMENTED, {"status": None, "attributes": {"http.status_code": 500}}, "server_error"),
        (FLAT, {"status": "timeout"}, "timeout"),
    ],
)
def test_errors(record: dict[str, Any], changes: dict[str, Any], kind: str) -> None:
    one = call(record, **changes)
    assert (one.fields["status"], one.fields["error_type"]) == ("error", kind)
    assert SECRET not in repr(one)


def test_the_name_of_an_error_is_kept_beside_its_kind_and_its_message_is_not() -> None:
    named = call(NESTED, errors=[{"type": "RateLimitError", "message": SECRET}])
    assert (named.found["error_type"], named.originals["error_type"]) == ("errors.type", "RateLimitError")
    told = call(NESTED, errors=[{"message": f"rate limit reached: {SECRET}"}])
    assert (told.fields["error_type"], told.found["error_type"]) == ("rate_limit", "errors")
    assert "error_type" not in told.originals
    by_status = call(DOCUMENTED, status=None, attributes={"http.status_code": 503})
    assert (by_status.found["error_type"], by_status.originals["error_type"]) == ("http.status_code", "503")


def test_counts_of_a_failure_that_are_all_0_are_unknown() -> None:
    empty = {"prompt_tokens": 0, "completion_tokens": 0}
    assert "prompt_tokens" not in call(FLAT, status="error", **empty).fields
    assert call(FLAT, **empty).fields["prompt_tokens"] == 0
    assert call(FLAT, status="error").fields["prompt_tokens"] == 120


def test_a_request_id_may_be_that_of_several_calls() -> None:
    later = {**FLAT, "timestamp": "2025-03-03T00:00:01Z"}
    reading = read([FLAT, later, FLAT, NESTED, NESTED])
    assert (len(reading.calls), reading.repeats) == (3, 2)


def test_each_shape_is_known() -> None:
    for record in SHAPES:
        assert EarlierFormat.looks_like(record) and EarlierFormat.looks_like([record])
    native = {"timestamp": 1, "service": "chat", "model": "m", "latency_ms": 5, "attributes": {"llm.model": "x"}}
    others: list[object] = [native, {}, [], None, "x", [1], {"timestamp": 1, "prompt": {}, "response": {}}]
    assert not any(map(EarlierFormat.looks_like, others))


def test_unreadable_records() -> None:
    for value, reason in ((b"x", Reason.NOT_JSON), (b"1", Reason.NOT_AN_OBJECT)):
        with pytest.raises(Unreadable) as refused:
            EarlierFormat().read(value, DecodeConfig())
        assert refused.value.reason == reason
    assert read(["text"]).calls == [Call({})]


@examples(300)
@given(value=mutated([*SHAPES, list(SHAPES)]))
def test_any_record_is_read_or_refused(value: bytes) -> None:
    check(EarlierFormat(), value)


@examples(100)
@given(
    where=st.sampled_from(["prompt_text", "response_text", "prompt", "response", "embedding", "input", "messages"]),
    value=st.recursive(
        st.just(SECRET) | st.just({"text": SECRET}) | st.just({"embedding": [SECRET]}),
        lambda inner: st.lists(inner, max_size=2),
    ),
)
def test_texts_never_leave(where: str, value: object) -> None:
    for record in SHAPES:
        assert SECRET not in repr(read({**record, where: value}))
