"""Each call once: which of several spans counts, and what it takes from the others."""

from __future__ import annotations

from typing import Any

import pytest

from operators.decode.base import Reading
from tests.operators.decode.otlp.test_calls import CHAT, IN, OUT, read
from tests.otlp import AT, Plain

MS = 1_000_000
ID = "gen_ai.response.id"
AGENT = {"gen_ai.operation.name": "invoke_agent", IN: 900, OUT: 900}


def span(number: int, parent: int = 0, start: int = 0, end: int = 2_000, **changed: Any) -> Plain:
    """A span from and to these milliseconds."""
    attributes = changed.pop("attributes", CHAT)
    above = f"{parent:016x}" if parent else ""
    changed.setdefault("name", f"chat {number}")
    return Plain(attributes, f"{number:016x}", above, start=AT + start * MS, end=AT + end * MS, **changed)


def counted(reading: Reading) -> list[int]:
    return [int(call.fields["span_id"], 16) for call in reading.calls]


def test_the_innermost_of_nested_calls_counts_and_takes_what_it_lacks() -> None:
    outer = {**CHAT, IN: 5, OUT: 7, "gen_ai.response.finish_reasons": ["stop"], "session.id": "s1"}
    found = read(span(1, attributes=outer), span(2, 1, 100, 1_000, attributes={**CHAT, OUT: 8}))
    assert (counted(found), found.repeats) == ([2], 1)
    told = found.calls[0].fields
    assert (told["prompt_tokens"], told["completion_tokens"]) == (5, 8), "its own count comes first"
    assert (told["latency_ms"], told["finish_reason"], told["session_id"]) == (900, "stop", "s1")
    assert found.calls[0].found["prompt_tokens"].endswith("of span chat 1")


def test_of_a_call_over_several_only_what_is_common_is_taken() -> None:
    """A framework's retry: the sums of the outer span are those of no inner one."""
    outer = {**CHAT, IN: 10, OUT: 14, "session.id": "s1"}
    found = read(span(1, attributes=outer), span(2, 1, 0, 500), span(3, 1, 600, 1_000))
    assert (counted(found), found.repeats) == ([2, 3], 1)
    assert all("prompt_tokens" not in call.fields and call.fields["session_id"] == "s1" for call in found.calls)


def test_a_client_takes_the_parts_and_what_its_own_count_lacks() -> None:
    cached, total = "gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.total_tokens"
    outer = {**CHAT, IN: 25, OUT: 7, cached: 1_800, total: 1_832}
    (call,) = read(span(1, attributes=outer), span(2, 1, 100, 1_000, attributes={**CHAT, IN: 25, OUT: 7})).calls
    assert (call.fields["prompt_tokens"], call.fields["cached_tokens"]) == (1_825, 1_800)
    whole = {**CHAT, IN: 1_825, OUT: 7}
    (call,) = read(span(1, attributes=outer), span(2, 1, 100, 1_000, attributes=whole)).calls
    assert (call.fields["prompt_tokens"], call.fields["cached_tokens"]) == (1_825, 1_800)


def test_an_agent_between_two_calls_makes_them_two() -> None:
    tool = {"gen_ai.operation.name": "execute_tool"}
    for between in (AGENT, tool):
        found = read(span(1), span(2, 1, attributes=between), span(3, 2))
        assert (counted(found), found.repeats, found.passed_over) == ([1, 3], 0, {"no_call": 1})
    unknown = read(span(1), span(2, 1, attributes={"http.method": "POST"}, kind=1), span(3, 2))
    assert (counted(unknown), unknown.passed_over) == ([3], {"no_call": 1}), (
        "what no convention knows is looked through"
    )


def test_a_task_that_is_a_call_counts_where_no_client_below_it_tells_of_it() -> None:
    task = {"traceloop.span.kind": "task", "llm.request.type": "chat", "gen_ai.request.model": "m", IN: 5}
    flow = span(1, attributes={"traceloop.span.kind": "workflow"})
    assert counted(read(flow, span(2, 1, attributes=task))) == [2]
    assert counted(read(flow, span(2, 1, attributes=task), span(3, 2, 100, 900))) == [3]
    step = span(3, 2, attributes={"traceloop.span.kind": "task"})
    assert counted(read(flow, span(2, 1, attributes=task), step, span(4, 3, 100, 900))) == [4]


def test_an_embedding_below_a_chat_is_another_call() -> None:
    embeddings = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e"}
    assert counted(read(span(1), span(2, 1, attributes=embeddings))) == [1, 2]


def test_a_reranking_by_a_chat_is_one_call_the_chat() -> None:
    (call,) = read(
        span(1, 0, 0, 1_000, attributes={"openinference.span.kind": "RERANKER", "reranker.model_name": "m"}),
        span(2, 1, 100, 900, attributes=CHAT),
    ).calls
    assert call.fields["operation"] == "chat"


def test_agent_spans_give_their_names_to_the_calls_below() -> None:
    above = {**AGENT, "gen_ai.agent.name": "planner", "session.id": "s1", "tenant.id": "acme"}
    found = read(span(1, attributes=above), span(2, 1, attributes={**CHAT, "tenant.id": "own"}))
    told = found.calls[0].fields
    assert (told["agent"], told["session_id"], told["tenant"]) == ("planner", "s1", "own")
    assert "prompt_tokens" not in told, "the sums of an agent are nobody's"


def test_circles_and_missing_parents_end() -> None:
    assert counted(read(span(1, 1), span(2, 3, attributes=AGENT), span(3, 2, attributes=AGENT), span(4, 99))) == [1, 4]
    assert counted(read(span(1, 2), span(2, 1))) == [], "each is within the other"


def same(number: int, start: int, end: int, response: str = "r1", **changed: Any) -> Plain:
    return span(number, start=start, end=end, attributes={**CHAT, ID: response}, **changed)


def test_spans_with_one_response_id_that_overlap_are_one_call_in_whatever_trace() -> None:
    found = read(same(1, 0, 1_000), same(2, 100, 900, trace_id="c" * 32))
    assert (counted(found), found.repeats) == ([2], 1)
    assert counted(read(same(1, 0, 1_000), same(2, 1_001, 2_000))) == [1, 2], "a server may give an id again"
    assert counted(read(same(1, 0, 1_000), same(2, 100, 900, "r2"))) == [1, 2]
    assert counted(read(same(1, 0, 9_000), same(2, 1, 2), same(3, 5_000, 6_000))) == [2]


def test_one_span_written_twice_counts_once() -> None:
    assert counted(read(span(1), span(1))) == [1]
    under_another_id = read(span(1, name="chat"), span(2, name="chat"))
    assert (len(under_another_id.calls), under_another_id.repeats) == (1, 1)
    assert counted(read(span(1), span(2))) == [1, 2]


def test_a_span_of_another_library_inside_in_time_tells_of_the_same_call_if_it_tells_the_same() -> None:
    usage = {**CHAT, IN: 5, OUT: 7}
    outer = span(1, attributes=usage, scope="langchain")
    inner: dict[str, Any] = {"start": 10, "end": 1_900, "trace_id": "c" * 32, "scope": "openai"}
    assert counted(read(outer, span(2, attributes=usage, **inner))) == [2]
    routed = {**usage, "gen_ai.request.model": "openai/m"}
    assert counted(read(outer, span(2, attributes=routed, **inner))) == [2]
    for other in ({**usage, OUT: 8}, CHAT, {**usage, "gen_ai.request.model": "n"}):
        assert counted(read(outer, span(2, attributes=other, **inner))) == [1, 2]
    for change in ({"end": 2_001}, {"scope": "langchain"}, {"resource": {"service.name": "other"}}):
        assert counted(read(outer, span(2, attributes=usage, **{**inner, **change}))) == [1, 2]
    two_inner = read(outer, span(2, attributes=usage, **inner), span(3, attributes=usage, **{**inner, "start": 20}))
    assert len(two_inner.calls) == 2, "one outer span tells of one of them"


def test_failed_calls_of_two_libraries_are_one_if_the_error_is() -> None:
    failed: dict[str, Any] = {"status": 2, "attributes": {**CHAT, "error.type": "429"}}
    inner: dict[str, Any] = {"start": 10, "end": 1_900, "scope": "other", "trace_id": "c" * 32}
    assert counted(read(span(1, **failed), span(2, **failed, **inner))) == [2]
    other = {**failed, "attributes": {**CHAT, "error.type": "503"}}
    assert counted(read(span(1, **failed), span(2, **other, **inner))) == [1, 2]


def test_an_answer_from_the_cache_of_litellm_reached_no_provider() -> None:
    cached = {**CHAT, IN: 5, "hidden_params": "{'cache_key': 'k', 'additional_headers': None}"}
    found = read(span(1, attributes=cached))
    assert (found.calls, found.passed_over) == ([], {"cache_hit": 1})
    asked = {**cached, "hidden_params": "{'cache_key': 'k', 'additional_headers': {'x': 1}}"}
    assert counted(read(span(1, attributes=asked))) == [1]


LOG = {**CHAT, "logfire.span_type": "log", IN: 5, OUT: 7, "duration": 1.5}
OPENING = {**CHAT, "logfire.span_type": "span"}


def test_a_stream_of_logfire_begins_at_its_opening_and_ends_with_its_log() -> None:
    found = read(
        span(1, 9, 0, 18, attributes=OPENING, scope="logfire"),
        span(2, 9, 1_500, 1_500, attributes=LOG, scope="logfire"),
    )
    (call,) = found.calls
    assert (call.fields["timestamp"], call.fields["latency_ms"], call.fields["prompt_tokens"]) == (AT, 1_500, 5)
    assert call.fields["streamed"] is True
    alone = read(span(1, 9, 0, 18, attributes=OPENING, scope="logfire"))
    assert (alone.calls, alone.passed_over) == ([], {"stream_opening": 1})


def test_each_stream_of_logfire_has_an_opening_of_its_own_that_ended_before_it() -> None:
    found = read(
        span(1, 9, 0, 20, attributes=OPENING, scope="logfire"),
        span(2, 9, 5, 25, attributes=OPENING, scope="logfire"),
        span(3, 9, 500, 500, attributes={**LOG, "duration": 0.48}, scope="logfire"),
        span(4, 9, 900, 900, attributes={**LOG, "duration": 0.875}, scope="logfire"),
    )
    assert [call.fields["latency_ms"] for call in found.calls] == [500, 895]


@pytest.mark.parametrize("told", [{IN: 5}, {"request_data": '{"stream": false}'}, {"gen_ai.response.model": "m-1"}])
def test_a_span_of_logfire_that_tells_of_its_answer_opens_no_stream(told: dict[str, Any]) -> None:
    assert len(read(span(1, 9, 0, 18, attributes={**OPENING, **told}, scope="logfire")).calls) == 1


@pytest.mark.parametrize(("duration", "lasted"), [(1.5, 1_500), ("soon", 0), (float("inf"), 0), (-1.0, 0), (1e300, 0)])
def test_a_log_without_its_opening_lasted_as_long_as_it_says(duration: Any, lasted: float) -> None:
    found = read(span(2, 9, 1_500, 1_500, attributes={**LOG, "duration": duration}, scope="logfire"))
    assert found.calls[0].fields["latency_ms"] == lasted


def test_the_keys_of_a_call_are_its_span_its_response_in_two_grids_and_its_call_id() -> None:
    (call,) = read(same(1, 0, 1_000)).calls
    assert call.keys[0] == f"span:{'0' * 30}b1/{1:016x}"
    assert [key.partition("@")[0] for key in call.keys[1:]] == ["response:r1"] * 2
    shifted = read(same(2, 5_000, 9_000, trace_id="c" * 32)).calls[0]
    assert set(shifted.keys) & set(call.keys)
    later = read(same(2, 25_000, 29_000, trace_id="c" * 32)).calls[0]
    assert not set(later.keys) & set(call.keys)
