"""A source partition before the exchange: every event is exactly one of on time, late, duplicate, dead letter."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import EnrichConfig, TimeConfig
from operators.decode.config import DecodeConfig
from operators.decode.intake import Intake
from operators.decode.registry import DECODERS
from operators.enrich.enricher import Enricher
from operators.errors import FatalError
from operators.model import NO_ARRIVAL, SECOND, Reason
from operators.panes.watermark import End
from tests.otlp import Plain, json_text

T0 = 1_767_225_600
TIME = TimeConfig(lateness_s=10, future_skew_s=60, correction_s=300)


def intake(
    dedupe_s: float = 0, most: int = 1_000_000, began: int = (T0 + 10_000) * SECOND, time: TimeConfig = TIME
) -> Intake:
    decode = DecodeConfig(dedupe_s=dedupe_s, dedupe_max_ids=most)
    return Intake(("file", 3), DECODERS["native"], Enricher(EnrichConfig()), time, decode, began)


def event(second: float, event_id: str = "", **fields: Any) -> bytes:
    return orjson.dumps({"timestamp": T0 + second, "service": "chat", "event_id": event_id, **fields})


def take(part: Intake, values: list[bytes], first: int = 0, arrivals: list[int] | None = None) -> tuple[Any, ...]:
    offsets = np.arange(first, first + len(values), dtype=np.int64)
    return part.take(values, offsets, None if arrivals is None else np.array(arrivals, np.int64))[:4]


def test_every_event_is_one_of_four_and_the_balance_adds_up() -> None:
    part = intake(dedupe_s=600)
    values = [
        event(0, "a"), event(100, "b"), b"{oops", event(100, "b"), event(60, "c"), event(101, "d", latency_ms=-1),
        event(20_000, "f"),
    ]  # fmt: skip
    events, on_time, late, dead = take(part, values, first=40)
    assert [events.event_id[i] for i in np.flatnonzero(on_time)] == ["a", "b"]
    assert [events.event_id[i] for i in np.flatnonzero(late)] == ["c"]
    assert [(d.origin, d.partition, d.offset, d.reason) for d in dead] == [
        ("file", 3, 42, Reason.NOT_JSON),
        ("file", 3, 45, Reason.BAD_NUMBER),
        ("file", 3, 46, Reason.FUTURE_TIME),
    ]
    balance = part.balance
    assert (balance.records, balance.on_time, balance.late, balance.duplicate) == (7, 2, 1, 1)
    assert balance.events == 7


def test_a_future_event_is_judged_by_its_arrival_and_does_not_move_time() -> None:
    part = intake()
    values = [event(0), event(100, latency_ms=10_000), event(100)]
    arrivals = [T0 * SECOND, (T0 + 30) * SECOND, (T0 + 41) * SECOND]
    _, on_time, _, dead = take(part, values, arrivals=arrivals)
    assert on_time.tolist() == [True, False, True]
    assert [d.reason for d in dead] == [Reason.FUTURE_TIME]
    assert "future_skew_s" in dead[0].detail
    assert part.watermark == (T0 + 90) * SECOND


def test_a_record_without_an_arrival_takes_the_highest_before_it() -> None:
    part = intake(began=1)
    values = [event(0), event(50), event(100), event(161)]
    arrivals = [T0 * SECOND, NO_ARRIVAL, (T0 + 100) * SECOND, NO_ARRIVAL]
    _, on_time, _, dead = take(part, values, arrivals=arrivals)
    assert on_time.tolist() == [True, True, True, False]
    assert [(d.offset, d.reason) for d in dead] == [(3, Reason.FUTURE_TIME)]
    again = intake(began=1)
    again.restore(part.save())
    _, on_time, _, dead = take(again, [event(161), event(160)], arrivals=[NO_ARRIVAL, NO_ARRIVAL])
    assert on_time.tolist() == [False, True], "the highest arrival is part of the state"


def test_without_any_arrival_nothing_is_judged_by_it() -> None:
    part = intake(began=1)
    _, on_time, _, dead = take(part, [event(0), event(5_000)], arrivals=[NO_ARRIVAL, NO_ARRIVAL])
    assert on_time.tolist() == [True, True] and not dead


def test_old_events_are_late_only_if_max_age_is_set_and_do_not_move_time() -> None:
    values, arrivals = [event(0), event(5_000), event(5_001)], [(T0 + 5_000) * SECOND] * 3
    _, on_time, late, _ = take(intake(), values, arrivals=arrivals)
    assert on_time.tolist() == [True, True, True]
    part = intake(time=TIME.model_copy(update={"max_age_s": 600.0}))
    _, on_time, late, _ = take(part, values, arrivals=arrivals)
    assert on_time.tolist() == [False, True, True] and late.tolist() == [True, False, False]
    assert (part.balance.on_time, part.balance.late) == (2, 1)
    _, on_time, late, _ = take(part, [event(100)], arrivals=[(T0 + 5_001) * SECOND])
    assert (on_time.tolist(), late.tolist()) == ([False], [False]), "the event is also too late for a correction"
    alone = intake(time=TIME.model_copy(update={"max_age_s": 600.0}))
    take(alone, [event(0)], arrivals=[(T0 + 5_000) * SECOND])
    assert alone.watermark is None


@pytest.mark.parametrize("version", [1, 2])
def test_the_state_of_a_release_before_is_read(version: int) -> None:
    part = intake(dedupe_s=90)
    take(part, [event(0, "a"), event(70, "b")], arrivals=[T0 * SECOND, (T0 + 70) * SECOND])
    now, began, start, end, balance, marks, arrived = part.save()
    assert (now, arrived) == (3, (T0 + 70) * SECOND)
    assert isinstance(marks, tuple) and isinstance(balance, tuple)
    before = tuple(pair for pair in balance if pair[0] != "passed_over")
    assert len(before) == len(balance) - 1, "the releases before passed nothing over"
    state = (began, start, end, before)
    again = intake(dedupe_s=90)
    again.restore((1, *state, tuple(mark[:2] for mark in marks)) if version == 1 else (2, *state, marks, arrived))
    assert again.remember_from == part.remember_from and again.watermark == part.watermark
    assert again.balance == part.balance
    take(again, [event(75, "c")], arrivals=[(T0 + 75) * SECOND])
    assert again.balance.on_time == 3


def test_an_event_too_late_to_correct_anything_is_late_all_the_same() -> None:
    part = intake()
    _, on_time, late, _ = take(part, [event(1_000), event(600), event(900)])
    assert on_time.tolist() == [True, False, False]
    assert late.tolist() == [False, False, True]
    assert part.balance.late == 2


def test_the_end_names_the_latest_start_and_end() -> None:
    part = intake()
    assert part.end == End(None, None)
    take(part, [event(0, latency_ms=5_000), event(1)])
    assert part.end == End((T0 + 1) * SECOND, (T0 + 5) * SECOND)


IDS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["", *"abcdefgh"])), max_size=40)
ARRIVALS = st.one_of(st.just(NO_ARRIVAL), st.integers(T0 * SECOND, (T0 + 400) * SECOND))


def told(
    part: Intake, values: list[bytes], cuts: list[int], first: int = 0, arrivals: list[int] | None = None
) -> list[tuple[bool, bool]]:
    out: list[tuple[bool, bool]] = []
    for low, high in zip([0, *cuts], [*cuts, len(values)], strict=True):
        arrived = None if arrivals is None else arrivals[low:high]
        _, on_time, late, _ = take(part, values[low:high], first + low, arrived)
        out += list(zip(on_time.tolist(), late.tolist(), strict=True))
    return out


@given(IDS, st.data())
def test_judgement_depends_on_content_alone_and_survives_a_resume(
    events: list[tuple[int, str]], data: st.DataObject
) -> None:
    values = [event(s, i) for s, i in events]
    n = len(values)
    arrivals = data.draw(st.one_of(st.none(), st.lists(ARRIVALS, min_size=n, max_size=n)))
    age = data.draw(st.sampled_from([None, 30.0]))
    config: dict[str, Any] = {
        "dedupe_s": 90, "most": data.draw(st.integers(2, 50)), "time": TIME.model_copy(update={"max_age_s": age})
    }  # fmt: skip
    whole = intake(**config)
    expected = told(whole, values, [], 0, arrivals)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    assert told(intake(**config), values, cuts, 0, arrivals) == expected

    def part_of(low: int, high: int) -> list[int] | None:
        return None if arrivals is None else arrivals[low:high]

    stop = data.draw(st.integers(0, len(values)))
    first = intake(**config)
    before = told(first, values[:stop], [], 0, part_of(0, stop))
    again = intake(**config, began=1)
    again.restore(first.save())
    if (start := again.remember_from) is not None:
        arrived = part_of(start, stop)
        again.remember(
            values[start:stop],
            np.arange(start, stop, dtype=np.int64),
            None if arrived is None else np.array(arrived, np.int64),
        )
    assert before + told(again, values[stop:], [], stop, part_of(stop, n)) == expected
    assert again.balance == whole.balance


def test_ids_are_remembered_for_the_horizon_and_no_longer() -> None:
    part = intake(dedupe_s=60)
    take(part, [event(0, "a"), event(50, "b"), event(59, "a"), event(125, "c"), event(125, "a")])
    assert part.balance.duplicate == 1


def test_without_deduplication_nothing_is_remembered() -> None:
    part = intake()
    take(part, [event(0, "a"), event(0, "a")])
    assert part.balance.duplicate == 0
    assert part.remember_from is None
    part.remember([event(0, "a")], np.zeros(1, np.int64), None)


def test_remembering_skips_records_that_cannot_be_used() -> None:
    part = intake(dedupe_s=60)
    part.remember([b"{", event(90_000, "x")], np.arange(2, dtype=np.int64), None)
    take(part, [event(0, "x")], 2)
    assert part.balance.duplicate == 0


def test_records_of_files_arrive_when_the_first_run_began() -> None:
    first = intake(began=(T0 + 10) * SECOND)
    again = intake(began=(T0 + 99_999) * SECOND)
    again.restore(first.save())
    _, _, _, dead = take(again, [event(80)])
    assert [d.reason for d in dead] == [Reason.FUTURE_TIME]


def test_the_state_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match="version 7"):
        intake().restore((7,))


def otlp_intake(dedupe_s: float = 600) -> Intake:
    decode = DecodeConfig(dedupe_s=dedupe_s)
    return Intake(("topic", 0), DECODERS["otlp_json"], Enricher(EnrichConfig()), TIME, decode, (T0 + 10_000) * SECOND)


def span(second: float, number: int, response_id: str = "", **changed: Any) -> Plain:
    start = round((T0 + second) * 1e9)
    answered = {"gen_ai.response.id": response_id} if response_id else {}
    attributes = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m", **answered}
    return Plain(attributes, f"{number:016x}", start=start, end=start + 10**9, **changed)


AGENT = Plain({"gen_ai.operation.name": "invoke_agent"}, "00000000000000ff")


def test_what_is_passed_over_is_counted_beside_the_sum_and_is_part_of_the_state() -> None:
    part = otlp_intake()
    take(part, [json_text([AGENT, span(0, 1), span(0, 1), span(1, 2)]), b'{"resourceMetrics": []}', json_text([AGENT])])
    balance = part.balance
    assert (balance.records, balance.on_time, balance.duplicate) == (3, 2, 1)
    assert balance.passed_over == {"no_call": 2}
    assert balance.events == 3, "what is passed over is no event"
    again = otlp_intake()
    again.restore(part.save())
    take(again, [json_text([AGENT])], 3)
    assert again.balance.passed_over == {"no_call": 3}
    assert (balance + again.balance).passed_over == {"no_call": 5}


def test_the_calls_of_a_record_are_judged_one_by_one() -> None:
    part = otlp_intake()
    backwards = Plain(span(0, 4).attributes, "0000000000000004", start=T0 * 10**9, end=T0 * 10**9 - 1)
    _, on_time, late, dead = take(part, [json_text([span(100, 1), span(0, 2), backwards, span(20_000, 3)])], 7)
    assert (on_time.tolist(), late.tolist()) == ([True, False, False], [False, True, False])
    assert [(d.offset, d.call, d.reason) for d in dead] == [(7, 2, Reason.BAD_NUMBER), (7, 3, Reason.FUTURE_TIME)]
    assert [d.id for d in dead] == ["topic/0/7#2", "topic/0/7#3"]
    assert part.balance.events == 4


@pytest.mark.parametrize(
    "again",
    [
        span(0, 1),
        span(0, 2, "resp-1", trace_id="c" * 32, scope="another library"),
        span(0.5, 3, "resp-1"),
    ],
    ids=["the same span", "the same response in another trace", "the same response a little later"],
)
def test_a_call_that_comes_again_counts_once_also_after_a_resume(again: Plain) -> None:
    first = json_text([span(0, 1, "resp-1")])
    whole = otlp_intake()
    take(whole, [first, json_text([again])])
    assert (whole.balance.on_time, whole.balance.duplicate) == (1, 1)
    part = otlp_intake()
    take(part, [first])
    resumed = otlp_intake()
    resumed.restore(part.save())
    assert resumed.remember_from == 0
    resumed.remember([first], np.zeros(1, np.int64), None)
    take(resumed, [json_text([again])], 1)
    assert (resumed.balance.on_time, resumed.balance.duplicate) == (1, 1)


def test_a_response_id_that_comes_back_much_later_is_another_call() -> None:
    part = otlp_intake()
    take(part, [json_text([span(0, 1, "resp-1")]), json_text([span(60, 2, "resp-1")])])
    assert (part.balance.on_time, part.balance.duplicate) == (2, 0)


def test_without_deduplication_spans_are_told_as_they_come() -> None:
    part = otlp_intake(dedupe_s=0)
    take(part, [json_text([span(0, 1, "resp-1")]), json_text([span(0, 1, "resp-1")])])
    assert part.balance.on_time == 2 and part.remember_from is None
