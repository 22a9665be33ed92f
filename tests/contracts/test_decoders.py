"""The laws of every decoder in the registry. They cover a new format once its records are in `tests.records`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.decode.base import Decoded, Decoder
from operators.decode.config import DecodeConfig
from operators.decode.registry import DECODERS, FORMATS, MAPPED, decoder
from operators.decode.times import EARLIEST, LATEST
from operators.errors import ConfigError
from operators.metrics import METRICS
from operators.model import LABELS, MISSING, Reason
from tests.records import AMID, CARRIED, FAULTY, PLAIN, RECORDS, SECRETS, TOGETHER, found
from tests.told import Told, calls, late_by, told
from tests.translated import MAPPING

LIMITS = DecodeConfig(max_record_bytes=2_000, max_string=40, max_attributes=5, payload_bytes=200)
LARGE = DecodeConfig()

READERS: Final = {**DECODERS, MAPPED: decoder(MAPPED, MAPPING)}
TRANSLATED: Final = {*FORMATS, MAPPED}
formats = pytest.mark.parametrize("name", sorted(READERS))


def test_every_format_has_records() -> None:
    assert set(RECORDS) == set(READERS) == set(SECRETS) == set(PLAIN) == set(FAULTY) == set(CARRIED)
    assert set(TOGETHER) == set(AMID) >= {*TRANSLATED, "auto"}


def test_a_format_is_found_by_name() -> None:
    assert all(decoder(name) is DECODERS[name] for name in DECODERS)
    with pytest.raises(ConfigError, match=f"unknown record format 'nativ': use one of {', '.join(sorted(DECODERS))}"):
        decoder("nativ")


def rows(decoded: Decoded, shift: int = 0) -> list[tuple[int, int, Any]]:
    """Each event and fault as plain values, with the index of its record and its place in that."""
    events = decoded.events
    found: list[tuple[int, int, Any]] = [
        (
            int(events.record[i]) + shift,
            int(events.call[i]),
            (
                int(events.start[i]),
                int(events.end[i]),
                tuple(events.values[:, i].tolist()),
                bool(events.error[i]),
                events.combos[events.combo[i]],
                events.event_id[i],
                events.trace_id[i],
                [key for key in events.keys[i].tolist() if key != [0, 0]],
            ),
        )
        for i in range(len(events))
    ]
    found += [(f.record + shift, f.call, (f.reason, f.detail, f.payload)) for f in decoded.faults]
    return sorted(found, key=lambda row: row[:2])


def counts(decoded: Decoded) -> Counter[str]:
    """What was counted beside events and faults."""
    passed_over = {f"passed over: {name}": count for name, count in decoded.passed_over.items()}
    unknown = {f"unknown: {name}": count for name, count in decoded.unknown.items()}
    return Counter({"repeats": decoded.repeats, **passed_over, **unknown, **decoded.formats}) + Counter()


def check_form(decoded: Decoded, records: int) -> None:
    """Check the promises of `Events` and `Fault`, which hold for any records."""
    events, n = decoded.events, len(decoded.events)
    assert events.values.shape == (len(METRICS), n)
    assert events.values.dtype == events.start.dtype == events.end.dtype == events.record.dtype == np.int64
    assert events.combo.dtype == np.int32
    assert events.error.dtype == np.bool_
    assert len(events.event_id) == len(events.trace_id) == len(events.error) == len(events.combo) == n
    assert len(set(events.combos)) == len(events.combos)
    assert set(events.combo.tolist()) == set(range(len(events.combos))), "labels of refused records stay behind"
    assert all(len(labels) == len(LABELS) for labels in events.combos)
    assert events.keys.shape == (n, events.keys.shape[1], 2)
    assert events.keys.dtype == np.uint64
    assert events.call.dtype == np.int64
    assert ((events.end >= events.start) & (events.end >= EARLIEST) & (events.start < LATEST)).all()
    limits = np.array([round(metric.limit * metric.scale) for metric in METRICS])[:, None]
    assert ((events.values >= MISSING) & (events.values <= limits)).all()
    error_types = [events.combos[i][LABELS.index("error_type")] for i in events.combo.tolist()]
    assert [bool(text) for text in error_types] == events.error.tolist()
    assert all(events.combos[i][0] and events.combos[i][1] for i in events.combo.tolist())
    places = list(zip(events.record.tolist(), events.call.tolist(), strict=True))
    faulty = [(fault.record, fault.call) for fault in decoded.faults]
    assert places == sorted(set(places))
    assert faulty == sorted(set(faulty))
    assert set(faulty).isdisjoint(places)
    met = {record for record, _ in (*places, *faulty)}
    assert met <= set(range(records))
    assert decoded.repeats >= 0
    assert all(count > 0 for count in decoded.passed_over.values())
    by_record: dict[int, list[int]] = {}
    for record, call in (*places, *faulty):
        by_record.setdefault(record, []).append(call)
    assert all(sorted(of) == list(range(len(of))) for of in by_record.values()), "calls of a record are numbered"
    for fault in decoded.faults:
        assert fault.reason in Reason.ALL
        assert fault.detail
        assert len(fault.payload.encode()) <= LIMITS.payload_bytes


class Law(NamedTuple):
    """A property of every decoder, and the strategy that draws its examples for a format."""

    holds: Callable[..., None]
    drawn: Callable[[str], st.SearchStrategy[tuple[Any, ...]]]
    examples: int
    of: Container[str] = READERS


def batches(name: str) -> st.SearchStrategy[list[bytes]]:
    return st.lists(RECORDS[name], max_size=8 if name == "native" else 3)


def every_record_is_its_events_and_faults(read: Decoder, name: str, values: list[bytes], timestamp_is: Any) -> None:
    decoded = read.decode(values, LIMITS, timestamp_is)
    check_form(decoded, len(values))
    assert {fault.reason for fault in decoded.faults} <= set(FAULTY[name]), "every reason of a format has a record"
    if name not in TOGETHER:
        assert len(decoded.events) + len(decoded.faults) == len(values)
    for i, value in enumerate(values):
        alone = read.decode([value], LIMITS, timestamp_is)
        told_of = len(alone.events) + len(alone.faults) + alone.repeats + sum(alone.passed_over.values())
        assert told_of or holds_nothing(value), f"record {i} is gone: {value!r}"


def holds_nothing(value: bytes) -> bool:
    """Whether a record is an empty batch, or may be one in protobuf."""
    bare = b"".join(value.split())
    return bare[:1] not in (b"{", b"[") or bare in (b"{}", b"[]") or (b"resource" in bare and b'"traceId"' not in bare)


def how_records_are_cut_and_ordered_changes_nothing(read: Decoder, order: list[int], values: list[bytes]) -> None:
    each = [read.decode([value], LIMITS) for value in values]
    alone = [row for i, decoded in enumerate(each) for row in rows(decoded, i)]
    together, shuffled = read.decode(values, LIMITS), read.decode([values[i] for i in order], LIMITS)
    assert rows(together) == alone
    assert sorted(((order[i], *rest) for i, *rest in rows(shuffled)), key=lambda row: row[:2]) == alone
    assert counts(together) == counts(shuffled) == sum(map(counts, each), Counter())


def the_timestamp_of_a_native_record_alone_may_be_the_end(read: Decoder, name: str, values: list[bytes]) -> None:
    start, end = (read.decode(values, LIMITS, meant) for meant in ("start", "end"))
    assert start.faults == end.faults
    assert (start.events.end - start.events.start).tolist() == (end.events.end - end.events.start).tolist()
    native = [name not in TRANSLATED and (name != "auto" or is_native(values[i])) for i in start.events.record.tolist()]
    assert (
        np.where(np.array(native, np.bool_), start.events.start, start.events.end).tolist() == end.events.end.tolist()
    )


def is_native(value: bytes) -> bool:
    return len(DECODERS["native"].decode([value], LIMITS).events) == 1


def what_a_record_tells_is_in_its_event(read: Decoder, name: str, said: list[Told], timestamp_is: Any) -> None:
    decoded = read.decode([PLAIN[name](one) for one in said], LIMITS, timestamp_is)
    assert decoded.faults == []
    events = decoded.events
    assert len(events) == len(said)
    for i, one in enumerate(said):
        native = (found(one) if name == "auto" else name) not in TRANSLATED
        one = CARRIED[name](one)
        took = one.steps.get("latency", 0)
        start = one.at - took if timestamp_is == "end" and native else one.at
        assert (events.record[i], events.start[i], events.end[i]) == (i, start, start + took)
        assert events.values[:, i].tolist() == [one.steps.get(metric.name, MISSING) for metric in METRICS]
        labels = dict(zip(LABELS, events.combos[events.combo[i]], strict=True))
        assert labels == {**dict.fromkeys(LABELS, ""), **one.labels, "model": one.labels.get("model") or "unknown"}
        assert events.error[i] == (labels["error_type"] != "")
        assert (events.event_id[i], events.trace_id[i]) == (one.event_id, one.trace_id)


def each_call_of_a_record_is_told_as_it_is_alone(read: Decoder, name: str, said: list[Told]) -> None:
    alone = [rows(read.decode([TOGETHER[name]([one])], LARGE))[0][2] for one in said]
    assert rows(read.decode([TOGETHER[name](said)], LARGE)) == [(0, i, what) for i, what in enumerate(alone)]


def what_is_no_call_and_what_is_told_again_add_no_event(read: Decoder, name: str, said: list[Told]) -> None:
    amid, plain = (read.decode([record(said)], LARGE) for record in (AMID[name], TOGETHER[name]))
    assert [what for _, _, what in rows(amid)] == [what for _, _, what in rows(plain)]
    assert amid.repeats >= len(said)
    assert (sum(amid.passed_over.values()) >= len(said)) == (name not in ("earlier", MAPPED)), "these hold calls alone"


def a_bad_call_spoils_no_other_of_its_record(read: Decoder, name: str, said: list[Told], at: int, by: int) -> None:
    at %= len(said)
    spoilt = [late_by(one, -by) if i == at else one for i, one in enumerate(said)]
    sound, decoded = (read.decode([TOGETHER[name](of)], LARGE) for of in (said, spoilt))
    assert [(f.record, f.call, f.reason) for f in decoded.faults] == [(0, at, Reason.BAD_NUMBER)]
    assert [row for row in rows(decoded) if row[1] != at] == [row for row in rows(sound) if row[1] != at]


def a_bad_record_is_refused_for_its_reason_and_spoils_no_other(
    read: Decoder, name: str, before: list[Told], after: list[Told]
) -> None:
    around = [PLAIN[name](one) for one in (*before, *after)]
    sound = [what for _, _, what in rows(read.decode(around, LIMITS))]
    for reason, records in FAULTY[name].items():
        for record in records if reason != Reason.TOO_MANY_CALLS else ():
            decoded = read.decode([*around[: len(before)], record, *around[len(before) :]], LIMITS)
            assert [(f.record, f.call, f.reason) for f in decoded.faults] == [(len(before), 0, reason)], record[:200]
            assert [what for i, _, what in rows(decoded) if i != len(before)] == sound


def auto_gives_what_the_format_of_each_record_gives(read: Decoder, records: list[tuple[str, bytes]]) -> None:
    decoded = read.decode([value for _, value in records], LARGE)
    each = [DECODERS[name].decode([value], LARGE) for name, value in records]
    assert rows(decoded) == [row for i, one in enumerate(each) for row in rows(one, i)]
    names = Counter(name for name, _ in records)
    assert counts(decoded) == sum(map(counts, each), Counter()) + names


def no_content_is_in_any_event_or_fault(read: Decoder, name: str) -> None:
    words = ("zebra", "umbrella", "lighthouse")
    values = SECRETS[name](" ".join(words) + ", è vero?")
    for limits in (DecodeConfig(), LIMITS, DecodeConfig(max_record_bytes=256, payload_bytes=100_000)):
        decoded = read.decode(values, limits)
        assert len(decoded.faults) > len(values) / 2
        assert {fault.reason for fault in decoded.faults} & {Reason.BAD_NUMBER, Reason.RECORD_TOO_LARGE}
        for shown in (repr(decoded.faults), repr(decoded.events)):
            assert not [word for word in words if word in shown.lower()]


def content_is_not_shown_wherever_a_record_is_broken(read: Decoder, value: bytes, place: int, patch: bytes) -> None:
    broken = value[:place] + patch + value[place + 1 :]
    shown = repr(read.decode([broken, value[:place]], DecodeConfig()).faults)
    assert "zebra" not in shown
    assert "umbrella" not in shown


def _mixed() -> st.SearchStrategy[list[tuple[str, bytes]]]:
    """Plain records of all formats."""
    one = st.builds(lambda name, said: (name, PLAIN[name](said)), st.sampled_from(sorted({"native", *FORMATS})), told)
    many = st.builds(lambda name, said: (name, TOGETHER[name](said)), st.sampled_from(sorted(FORMATS)), calls)
    return st.lists(st.one_of(one, many), max_size=6)


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
        Law(each_call_of_a_record_is_told_as_it_is_alone, lambda name: st.tuples(st.just(name), calls), 50, TOGETHER),
        Law(
            what_is_no_call_and_what_is_told_again_add_no_event, lambda name: st.tuples(st.just(name), calls), 50, AMID
        ),
        Law(
            a_bad_call_spoils_no_other_of_its_record,
            lambda name: st.tuples(st.just(name), calls, st.integers(0, 3), st.integers(1, 10**7)),
            50,
            TOGETHER,
        ),
        Law(auto_gives_what_the_format_of_each_record_gives, lambda name: st.tuples(_mixed()), 100, ("auto",)),
        Law(
            every_record_is_its_events_and_faults,
            lambda name: st.tuples(st.just(name), batches(name), st.sampled_from(["start", "end"])),
            300,
        ),
        Law(
            how_records_are_cut_and_ordered_changes_nothing,
            lambda name: batches(name).flatmap(lambda v: st.tuples(st.permutations(range(len(v))), st.just(v))),
            100,
        ),
        Law(
            the_timestamp_of_a_native_record_alone_may_be_the_end,
            lambda name: st.tuples(st.just(name), batches(name)),
            50,
        ),
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


@pytest.mark.parametrize(
    ("name", "law"), [(name, law) for name in sorted(READERS) for law in LAWS if name in LAWS[law].of]
)
def test_the_law_holds(name: str, law: str) -> None:
    examples = LAWS[law].examples if name == "native" else max(LAWS[law].examples // 3, 1)

    @settings(max_examples=examples)
    @given(LAWS[law].drawn(name))
    def meet(drawn: tuple[Any, ...]) -> None:
        LAWS[law].holds(READERS[name], *drawn)

    meet()


@formats
def test_a_record_of_too_many_calls_is_one_dead_letter(name: str) -> None:
    for record in FAULTY[name].get(Reason.TOO_MANY_CALLS, ()):
        decoded = READERS[name].decode([record], DecodeConfig(max_record_bytes=10_000_000))
        assert [(f.record, f.call, f.reason) for f in decoded.faults] == [(0, 0, Reason.TOO_MANY_CALLS)]
        assert not len(decoded.events)


def test_every_reason_is_that_of_some_format() -> None:
    met = {reason for of in FAULTY.values() for reason in of}
    assert met == set(Reason.ALL) - {Reason.FUTURE_TIME}, "all but the future time, found on arrival"


@formats
def test_nothing_gives_nothing(name: str) -> None:
    decoded = READERS[name].decode([], LIMITS)
    check_form(decoded, 0)
    assert not decoded.faults
