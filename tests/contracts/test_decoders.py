"""The laws of every decoder in the registry. They cover a new format once its records are in `tests.records`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.config import DecodeConfig
from operators.decode.base import Decoded, Decoder
from operators.decode.registry import DECODERS, decoder
from operators.decode.times import EARLIEST, LATEST
from operators.errors import ConfigError
from operators.metrics import METRICS
from operators.model import LABELS, MISSING, Reason
from tests.records import FAULTY, PLAIN, RECORDS, SECRETS, Told, told

LIMITS = DecodeConfig(max_record_bytes=2_000, max_string=30, max_attributes=5, payload_bytes=200)

formats = pytest.mark.parametrize("name", sorted(DECODERS))


def test_every_format_has_records() -> None:
    assert set(RECORDS) == set(DECODERS) == set(SECRETS) == set(PLAIN) == set(FAULTY)


def test_a_format_is_found_by_name() -> None:
    assert all(decoder(name) is DECODERS[name] for name in DECODERS)
    with pytest.raises(ConfigError, match=f"unknown record format 'nativ': use one of {', '.join(sorted(DECODERS))}"):
        decoder("nativ")


def rows(decoded: Decoded, shift: int = 0) -> list[tuple[int, Any]]:
    """Each event and fault as plain values, with the index of its record."""
    events = decoded.events
    found: list[tuple[int, Any]] = [
        (
            int(events.record[i]) + shift,
            (
                int(events.start[i]),
                int(events.end[i]),
                tuple(events.values[:, i].tolist()),
                bool(events.error[i]),
                events.combos[events.combo[i]],
                events.event_id[i],
                events.trace_id[i],
                events.caller[i] if events.caller else "",
            ),
        )
        for i in range(len(events))
    ]
    found += [(fault.record + shift, (fault.reason, fault.detail, fault.payload)) for fault in decoded.faults]
    return sorted(found, key=lambda row: row[0])


def check_form(decoded: Decoded, records: int) -> None:
    """Check the promises of `Events` and `Fault`, which hold for any records."""
    events, n = decoded.events, len(decoded.events)
    assert events.values.shape == (len(METRICS), n)
    assert events.values.dtype == events.start.dtype == events.end.dtype == events.record.dtype == np.int64
    assert events.combo.dtype == np.int32
    assert events.error.dtype == np.bool_
    assert len(events.event_id) == len(events.trace_id) == len(events.error) == len(events.combo) == n
    assert len(events.caller) in (0, n)
    assert len(set(events.combos)) == len(events.combos)
    assert set(events.combo.tolist()) == set(range(len(events.combos))), "labels of refused records stay behind"
    assert all(len(labels) == len(LABELS) for labels in events.combos)
    assert (np.diff(events.record) >= 0).all()
    assert ((events.end >= events.start) & (events.end >= EARLIEST) & (events.start < LATEST)).all()
    limits = np.array([round(metric.limit * metric.scale) for metric in METRICS])[:, None]
    assert ((events.values >= MISSING) & (events.values <= limits)).all()
    error_types = [events.combos[i][LABELS.index("error_type")] for i in events.combo.tolist()]
    assert [bool(text) for text in error_types] == events.error.tolist()
    assert all(events.combos[i][0] and events.combos[i][1] for i in events.combo.tolist())
    faulty = [fault.record for fault in decoded.faults]
    assert faulty == sorted(set(faulty))
    assert set(faulty).isdisjoint(events.record.tolist())
    assert set(faulty) | set(events.record.tolist()) == set(range(records))
    for fault in decoded.faults:
        assert fault.reason in Reason.ALL
        assert fault.detail
        assert len(fault.payload.encode()) <= LIMITS.payload_bytes


class Law(NamedTuple):
    """A property of every decoder, and the strategy that draws its examples for a format."""

    holds: Callable[..., None]
    drawn: Callable[[str], st.SearchStrategy[tuple[Any, ...]]]
    examples: int


def batches(name: str) -> st.SearchStrategy[list[bytes]]:
    return st.lists(RECORDS[name], max_size=8)


def every_record_is_an_event_or_a_fault(read: Decoder, values: list[bytes], timestamp_is: Any) -> None:
    check_form(read.decode(values, LIMITS, timestamp_is), len(values))


def how_records_are_cut_and_ordered_changes_nothing(read: Decoder, order: list[int], values: list[bytes]) -> None:
    alone = [row for i, value in enumerate(values) for row in rows(read.decode([value], LIMITS), i)]
    assert rows(read.decode(values, LIMITS)) == alone
    shuffled = rows(read.decode([values[i] for i in order], LIMITS))
    assert sorted(((order[i], what) for i, what in shuffled), key=lambda row: row[0]) == alone


def the_end_of_an_event_is_its_timestamp_where_that_is_meant(read: Decoder, values: list[bytes]) -> None:
    start, end = (read.decode(values, LIMITS, meant) for meant in ("start", "end"))
    assert start.faults == end.faults
    assert start.events.start.tolist() == end.events.end.tolist()
    assert (start.events.end - start.events.start).tolist() == (end.events.end - end.events.start).tolist()


def what_a_record_tells_is_in_its_event(read: Decoder, name: str, said: list[Told], timestamp_is: Any) -> None:
    decoded = read.decode([PLAIN[name](one) for one in said], LIMITS, timestamp_is)
    assert decoded.faults == []
    events = decoded.events
    for i, one in enumerate(said):
        took = one.steps.get("latency", 0)
        start = one.at - took if timestamp_is == "end" else one.at
        assert (events.record[i], events.start[i], events.end[i]) == (i, start, start + took)
        assert events.values[:, i].tolist() == [one.steps.get(metric.name, MISSING) for metric in METRICS]
        labels = dict(zip(LABELS, events.combos[events.combo[i]], strict=True))
        assert labels == {**dict.fromkeys(LABELS, ""), **one.labels, "model": one.labels.get("model") or "unknown"}
        assert events.error[i] == (labels["error_type"] != "")
        assert (events.event_id[i], events.trace_id[i]) == (one.event_id, one.trace_id)


def a_bad_record_is_refused_for_its_reason_and_spoils_no_other(
    read: Decoder, name: str, before: list[Told], after: list[Told]
) -> None:
    for reason, records in FAULTY[name].items():
        for record in records:
            decoded = read.decode([*map(PLAIN[name], before), record, *map(PLAIN[name], after)], LIMITS)
            assert [(fault.record, fault.reason) for fault in decoded.faults] == [(len(before), reason)], record
            assert decoded.events.event_id == [one.event_id for one in (*before, *after)]


def no_content_is_in_any_event_or_fault(read: Decoder, name: str) -> None:
    words = ("zebra", "umbrella", "lighthouse")
    values = SECRETS[name](" ".join(words) + ", è vero?")
    for limits in (DecodeConfig(), LIMITS, DecodeConfig(max_record_bytes=256, payload_bytes=100_000)):
        decoded = read.decode(values, limits)
        assert len(decoded.faults) + len(decoded.events) == len(values)
        assert len(decoded.faults) > len(values) * 3 / 4
        assert {fault.reason for fault in decoded.faults} >= {Reason.NOT_JSON, Reason.BAD_NUMBER, Reason.NOT_UTF8}
        for shown in (repr(decoded.faults), repr(decoded.events)):
            assert not [word for word in words if word in shown.lower()]


def content_is_not_shown_wherever_a_record_is_broken(read: Decoder, value: bytes, place: int, patch: bytes) -> None:
    broken = value[:place] + patch + value[place + 1 :]
    shown = repr(read.decode([broken, value[:place]], DecodeConfig()).faults)
    assert "zebra" not in shown
    assert "umbrella" not in shown


LAWS: Final = {
    law.holds.__name__: law
    for law in (
        Law(
            what_a_record_tells_is_in_its_event,
            lambda name: st.tuples(st.just(name), st.lists(told, max_size=4), st.sampled_from(["start", "end"])),
            100,
        ),
        Law(
            a_bad_record_is_refused_for_its_reason_and_spoils_no_other,
            lambda name: st.tuples(st.just(name), st.lists(told, max_size=2), st.lists(told, max_size=2)),
            30,
        ),
        Law(no_content_is_in_any_event_or_fault, lambda name: st.tuples(st.just(name)), 1),
        Law(
            every_record_is_an_event_or_a_fault,
            lambda name: st.tuples(batches(name), st.sampled_from(["start", "end"])),
            300,
        ),
        Law(
            how_records_are_cut_and_ordered_changes_nothing,
            lambda name: batches(name).flatmap(lambda v: st.tuples(st.permutations(range(len(v))), st.just(v))),
            100,
        ),
        Law(the_end_of_an_event_is_its_timestamp_where_that_is_meant, lambda name: st.tuples(batches(name)), 50),
        Law(
            content_is_not_shown_wherever_a_record_is_broken,
            lambda name: st.tuples(
                st.sampled_from(SECRETS[name]("zebra umbrella")),
                st.integers(0, 300),
                st.sampled_from([b"", b'"', b"\\", b"{", b"}", b",", b"\xff", b"\n"]),
            ),
            150,
        ),
    )
}
"""Laws by name; those that are cheap and find most come first."""


@formats
@pytest.mark.parametrize("law", LAWS)
def test_the_law_holds(name: str, law: str) -> None:
    @settings(max_examples=LAWS[law].examples)
    @given(LAWS[law].drawn(name))
    def meet(drawn: tuple[Any, ...]) -> None:
        LAWS[law].holds(DECODERS[name], *drawn)

    meet()


@formats
def test_every_reason_has_a_record(name: str) -> None:
    assert set(FAULTY[name]) == set(Reason.ALL) - {Reason.FUTURE_TIME}, "all but the future time, found on arrival"


@formats
def test_nothing_gives_nothing(name: str) -> None:
    decoded = DECODERS[name].decode([], LIMITS)
    check_form(decoded, 0)
    assert not decoded.faults
