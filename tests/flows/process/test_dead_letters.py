"""The words about input of which most becomes dead letters: when they come, how often, and what is in them."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.process.dead_letters import LEAST, DeadLetterWatch, nothing_usable
from operators.decode.intake import Balance, Batch
from operators.metrics import METRICS
from operators.model import MISSING, DeadLetter, Reason
from tests.operators.pane_events import Call, columns

CALL = Call(0, 0, ("chat", *[""] * 8), (MISSING,) * len(METRICS), False, "", "")
FEW = [Reason.NOT_JSON, Reason.MISSING_FIELD, Reason.FUTURE_TIME]


def letter(reason: str, offset: int = 7, detail: str = "is required", payload: str = '{"latency_ms":5}') -> DeadLetter:
    return DeadLetter("llm.telemetry", 3, offset, reason, detail, payload)


def batch(good: int, *letters: DeadLetter) -> Batch:
    """A poll with these dead letters and this many other events."""
    ahead = sum(dead.reason == Reason.FUTURE_TIME for dead in letters)
    events = columns([CALL] * (good + ahead))
    masks = np.arange(len(events)) < good
    return Batch("p", ("p",), None, events, masks, np.zeros_like(masks), list(letters))


def test_the_sentence_has_share_reasons_an_example_and_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    watch = DeadLetterWatch()
    watch.polled(batch(10, letter(Reason.NOT_JSON, 1), *(letter(Reason.MISSING_FIELD, 2 + i) for i in range(29))))
    (message,) = caplog.messages
    assert message == (
        "of the last 40 events 30 became dead letters (75 %): missing_field 29, not_json 1. For example offset 2 in "
        'partition 3 of llm.telemetry: missing_field (is required), payload {"latency_ms":5}. What to do: '
        "`llm-sentinel decode FILE` shows what becomes of a record; JSON of another shape is read by [source.mapping] "
        "(docs/formats.md)"
    )
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize(("good", "dead", "told"), [(0, 20, 1), (0, 19, 0), (19, 20, 1), (20, 20, 0), (1000, 19, 0)])
def test_it_takes_twenty_events_and_more_than_half(
    good: int, dead: int, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    assert LEAST == 20
    watch = DeadLetterWatch()
    watch.polled(batch(good, *[letter(Reason.NOT_JSON)] * dead))
    assert len(caplog.messages) == told


def test_polls_with_few_events_add_up(caplog: pytest.LogCaptureFixture) -> None:
    watch = DeadLetterWatch()
    for poll in range(LEAST):
        assert caplog.messages == []
        watch.polled(batch(0, letter(Reason.NOT_JSON, poll)))
        watch.polled(batch(0))
    assert "of the last 20 events 20 became" in caplog.messages[0]
    assert "offset 0 in" in caplog.messages[0]


def test_a_format_that_changes_after_a_month_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = DeadLetterWatch()
    for _ in range(30):
        watch.polled(batch(5_000))
    watch.polled(batch(0, *[letter(Reason.WRONG_TYPE)] * 100))
    watch.finish()
    assert [message.split(":")[0] for message in caplog.messages] == [
        "of the last 100 events 100 became dead letters (100 %)"
    ]


def test_it_is_said_again_at_the_end_however_few_events_came(caplog: pytest.LogCaptureFixture) -> None:
    watch = DeadLetterWatch()
    watch.polled(batch(1, *[letter(Reason.NOT_JSON)] * 2))
    assert caplog.messages == []
    watch.finish()
    assert caplog.messages[0].startswith("in the end, of 3 events 2 became dead letters (67 %): not_json 2.")


def test_clocks_that_are_ahead_are_no_matter_of_the_format(caplog: pytest.LogCaptureFixture) -> None:
    watch = DeadLetterWatch()
    watch.polled(batch(5, *[letter(Reason.FUTURE_TIME, payload="")] * 15))
    assert caplog.messages[0].startswith("of the last 20 events 15 became dead letters (75 %): future_time 15.")
    assert "payload" not in caplog.messages[0]
    assert caplog.messages[0].endswith("their clocks are ahead of the flow's (docs/bad-input.md, Clocks)")


def test_what_it_shows_is_short_and_cannot_steer_a_terminal(caplog: pytest.LogCaptureFixture) -> None:
    watch = DeadLetterWatch()
    watch.polled(batch(0, *[letter(Reason.NOT_JSON, detail="\x1b[2J\n", payload="\x1b" + "x" * 5_000)] * 20))
    (message,) = caplog.messages
    assert message.isprintable() and len(message) < 1_000
    assert "not_json (?[2J?), payload ?xxx" in message and "xxx.... What" in message


@given(st.lists(st.tuples(st.integers(0, 60), st.lists(st.sampled_from(FEW), max_size=60)), max_size=30))
def test_no_reason_is_told_twice_and_the_end_tells_the_sum(polls: list[tuple[int, list[str]]]) -> None:
    watch, lines = DeadLetterWatch(), []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("flows.process.dead_letters")
    log.addHandler(handler)
    try:
        for good, reasons in polls:
            watch.polled(batch(good, *map(letter, reasons)))
        early = len(lines)
        watch.finish()
    finally:
        log.removeHandler(handler)
    examples = [line.split("llm.telemetry: ")[1].split(" ")[0] for line in lines[:early]]
    assert len(set(examples)) == len(examples)
    events = sum(good + len(reasons) for good, reasons in polls)
    dead = sum(len(reasons) for _, reasons in polls)
    assert lines[early:] == [
        line for line in lines[early:] if line.startswith(f"in the end, of {events:,} events {dead:,} ")
    ]
    assert len(lines) - early == (2 * dead > events)


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        (Balance(), None),
        (Balance(records=2, skipped=2), None),
        (Balance(records=2, dead={Reason.NOT_JSON: 2}), "all 2 events became dead letters"),
        (
            Balance(records=2, passed_over={"tool": 3, "agent": 2}),
            "what tells of no call was passed over (agent 2, tool 3)",
        ),
        (
            Balance(records=2, dead={Reason.NOT_JSON: 1}, passed_over={"tool": 3}),
            "all 1 events became dead letters; what tells of no call was passed over (tool 3)",
        ),
        (Balance(records=3, on_time=1, dead={Reason.NOT_JSON: 2}), None),
        (Balance(records=3, late=1, dead={Reason.NOT_JSON: 2}), None),
        (Balance(records=3, duplicate=1, dead={Reason.NOT_JSON: 2}), None),
        (Balance(records=3, on_time=1, passed_over={"tool": 3}), None),
    ],
)
def test_nothing_is_usable_if_something_came_and_no_event_of_it_counts(balance: Balance, expected: str | None) -> None:
    assert nothing_usable(balance) == (expected and f"nothing was usable: {expected}")
