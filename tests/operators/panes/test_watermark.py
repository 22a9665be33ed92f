"""Event time: the events that are late, and the panes that a shard may close."""

from __future__ import annotations

import numpy as np
import pytest

from operators.errors import FatalError
from operators.model import SECOND
from operators.panes.watermark import End, Idle, ShardClock, Watermark, judge
from tests.operators.pane_events import ints, none_of

LATENESS = 10 * SECOND
WIDTH = 10 * SECOND


def test_events_of_panes_that_their_partition_had_closed_are_late_and_beyond_the_horizon_too_late() -> None:
    start = ints([0, 100 * SECOND, 85 * SECOND, 79 * SECOND, 31 * SECOND])
    judged = judge(start, start, None, LATENESS, WIDTH, 3, none_of(start))
    # The watermark is 90 s: the panes of 85 s, 79 s and 31 s are 1, 2 and 6 panes before its own.
    assert judged.on_time.tolist() == [True, True, False, False, False]
    assert judged.late.tolist() == [False, False, True, True, False]


def test_an_aged_event_is_late_and_does_not_move_time() -> None:
    start = ints([0, 5 * SECOND, 100 * SECOND])
    judged = judge(start, start, None, LATENESS, WIDTH, 3, np.array([True, False, True]))
    assert judged.on_time.tolist() == [False, True, False]
    assert judged.late.tolist() == [True, False, True]
    assert judged.max_start == 5 * SECOND
    assert judge(start[:1], start[:1], None, LATENESS, WIDTH, 3, np.array([True])).max_start is None


def test_a_shard_stands_still_until_every_partition_has_reported() -> None:
    clock = ShardClock(600)
    clock.observe("a", ("a", "b"), Watermark(500))
    assert clock.closed_to() is None
    clock.observe("b", ("a", "b"), None)
    assert clock.closed_to() is None
    clock.observe("b", ("a", "b"), Watermark(300))
    assert clock.closed_to() == 300


def test_an_idle_partition_leaves_the_minimum_and_its_bound_counts_only_when_all_are_idle() -> None:
    clock = ShardClock(600)
    clock.observe("a", ("a", "b"), Watermark(500))
    clock.observe("b", ("a", "b"), Idle(900))
    assert clock.closed_to() == 500
    clock.observe("a", ("a", "b"), Idle(950))
    assert clock.closed_to() == 900
    clock.observe("b", ("a", "b"), Watermark(600))
    assert clock.closed_to() == 600
    clock.observe("b", ("a", "b"), Watermark(590))
    assert clock.closed_to() == 600, "a watermark never falls"


def test_a_partition_that_trails_at_its_end_is_not_waited_for_until_it_has_records() -> None:
    clock = ShardClock(600)
    clock.observe("a", ("a", "b"), Watermark(5_000))
    clock.observe("b", ("a", "b"), Watermark(10, at_end=True))
    assert clock.closed_to() == 5_000
    clock.observe("b", ("a", "b"), Watermark(20))
    assert clock.closed_to() == 20, "b has unread records, which may be of any time"
    clock.observe("b", ("a", "b"), Watermark(4_400, at_end=True))
    assert clock.closed_to() == 4_400, "b is within the distance that partitions may have"
    clock.observe("a", ("a", "b"), Watermark(5_001, at_end=True))
    assert clock.closed_to() == 5_001, "all partitions are read to the end: the foremost counts"
    clock.observe("a", ("a", "b"), Idle(9_000))
    assert clock.closed_to() == 4_400, "no partition trails an idle one"


def test_a_partition_trails_those_that_have_records_to_read() -> None:
    clock = ShardClock(600)
    everyone = ("a", "b", "c")
    clock.observe("a", everyone, Watermark(9_000))
    clock.observe("b", everyone, Watermark(1_000))
    clock.observe("c", everyone, Watermark(500, at_end=True))
    assert clock.closed_to() == 500, "b still reads old records, and c is not too far behind it"


def test_an_ended_partition_leaves_the_minimum_and_the_end_comes_when_all_have_ended() -> None:
    clock = ShardClock(600)
    clock.observe("a", ("a", "b"), Watermark(500))
    clock.observe("b", ("a", "b"), End(700, 720))
    assert clock.closed_to() == 500
    assert clock.ended() is None
    clock.observe("a", ("a", "b"), End(None, None))
    assert clock.closed_to() is None
    assert clock.ended() == End(700, 720)


def test_idle_and_end_marks_do_not_survive_a_resume_but_watermarks_do() -> None:
    clock = ShardClock(600)
    clock.observe("a", ("a", "b"), Watermark(500))
    clock.observe("a", ("a", "b"), Idle(900))
    clock.observe("b", ("a", "b"), Watermark(400))
    clock.observe("b", ("a", "b"), End(700, 720))
    again = ShardClock.load(clock.save(), 600)
    assert again.closed_to() == 400
    assert again.ended() is None


def test_a_partition_that_was_added_is_waited_for() -> None:
    clock = ShardClock(600)
    clock.observe("a", ("a",), Watermark(500))
    assert clock.closed_to() == 500
    clock.observe("a", ("a", "b"), Watermark(600))
    assert clock.closed_to() is None


def test_the_state_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match="version 9"):
        ShardClock.load((9, (), ()), 600)
