"""A source partition before the exchange: every event is exactly one of on time, late, duplicate, dead letter."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DecodeConfig, EnrichConfig, TimeConfig
from operators.decode.registry import DECODERS
from operators.enrich import Enricher
from operators.errors import FatalError
from operators.intake import Intake
from operators.model import SECOND, Reason
from operators.watermark import End, Watermark

T0 = 1_767_225_600
TIME = TimeConfig(lateness_s=10, future_skew_s=60, correction_s=300)


def intake(dedupe_s: float = 0, most: int = 1_000_000, began: int = (T0 + 10_000) * SECOND) -> Intake:
    decode = DecodeConfig(dedupe_s=dedupe_s, dedupe_max_ids=most)
    return Intake(("file", 3), DECODERS["native"], Enricher(EnrichConfig()), TIME, decode, began)


def event(second: float, event_id: str = "", **fields: Any) -> bytes:
    return orjson.dumps({"timestamp": T0 + second, "service": "chat", "event_id": event_id, **fields})


def take(part: Intake, values: list[bytes], first: int = 0, arrivals: list[int] | None = None) -> tuple[Any, ...]:
    offsets = np.arange(first, first + len(values), dtype=np.int64)
    return part.take(values, offsets, None if arrivals is None else np.array(arrivals, np.int64))


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
    assert part.watermark == Watermark((T0 + 90) * SECOND)


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


def told(part: Intake, values: list[bytes], cuts: list[int], first: int = 0) -> list[tuple[bool, bool]]:
    out: list[tuple[bool, bool]] = []
    for low, high in zip([0, *cuts], [*cuts, len(values)], strict=True):
        _, on_time, late, _ = take(part, values[low:high], first + low)
        out += list(zip(on_time.tolist(), late.tolist(), strict=True))
    return out


@given(IDS, st.data())
def test_judgement_depends_on_content_alone_and_survives_a_resume(
    events: list[tuple[int, str]], data: st.DataObject
) -> None:
    values = [event(s, i) for s, i in events]
    config: dict[str, Any] = {"dedupe_s": 90, "most": data.draw(st.integers(2, 50))}
    whole = intake(**config)
    expected = told(whole, values, [])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    assert told(intake(**config), values, cuts) == expected

    stop = data.draw(st.integers(0, len(values)))
    first = intake(**config)
    before = told(first, values[:stop], [])
    again = intake(**config, began=1)
    again.restore(first.save())
    if (start := again.remember_from) is not None:
        again.remember(values[start:stop], np.arange(start, stop, dtype=np.int64), None)
    assert before + told(again, values[stop:], [], stop) == expected
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


def test_remembering_passes_over_what_cannot_be_used() -> None:
    part = intake(dedupe_s=60)
    part.remember([b"{", event(90_000, "x")], np.arange(2, dtype=np.int64), None)
    take(part, [event(0, "x")], 2)
    assert part.balance.duplicate == 0


def test_the_arrival_of_files_is_the_time_the_first_run_began() -> None:
    first = intake(began=(T0 + 10) * SECOND)
    again = intake(began=(T0 + 99_999) * SECOND)
    again.restore(first.save())
    _, _, _, dead = take(again, [event(80)])
    assert [d.reason for d in dead] == [Reason.FUTURE_TIME]


def test_the_state_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match="version 7"):
        intake().restore((7,))
