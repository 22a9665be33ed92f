"""The memory by which a writer writes each item once."""

from __future__ import annotations

import pytest

from connectors.base import Message
from connectors.once import KEEP, MOST_TIMELESS, Once
from operators.errors import FatalError
from tests.connectors.samples import alert


def test_ids_that_were_read_back_or_written_are_skipped() -> None:
    once = Once()
    once.saw("alert-1", 10)
    assert [r.id for r in once.fresh([alert(1), alert(2), alert(2)])] == ["alert-2"]
    once.wrote([alert(1), alert(2)], 20)
    assert once.fresh([alert(1), alert(2)]) == []
    assert once.state() == (2, 20, tuple((a.id, a.at) for a in (alert(1), alert(2))), "")


def test_looking_changes_nothing_so_a_failed_write_can_be_tried_again() -> None:
    once = Once(0, [("alert-1", 0)])
    assert once.fresh([alert(1), alert(2)]) == once.fresh([alert(1), alert(2)])


def test_ids_that_have_not_come_again_stay_in_the_snapshot() -> None:
    once = Once()
    once.saw("alert-2", 10, 7)
    once.saw("alert-1", 20, 5)
    once.passed(30)
    assert once.state() == (2, 30, (("alert-1", 5), ("alert-2", 7)), "")
    again = Once.load(once.state())
    assert (again.end, again.fresh([alert(1), alert(2), alert(3)])) == (30, [alert(3)])


def test_after_an_unclear_write_reading_back_skips_the_items_that_got_there() -> None:
    once = Once()
    once.saw("alert-1", 10)
    assert once.fresh([alert(1), alert(2)]) == [alert(2)]


def test_old_ids_are_forgotten_so_that_memory_is_bounded() -> None:
    newest = alert(1_000_000)
    once = Once()
    once.saw("old", 1, newest.at - KEEP - 1)
    once.saw("young", 2, newest.at - KEEP)
    once.saw("timeless", 3)
    once.wrote([newest], 4)
    assert once.state() == (2, 4, (("timeless", 0), (newest.id, newest.at), ("young", newest.at - KEEP)), "")


def test_the_last_ids_without_a_time_that_were_read_back_are_kept() -> None:
    once = Once()
    for number in range(MOST_TIMELESS + 3):
        once.saw(f"topic/0/{number}", number + 1)
    again = Once.load(once.state())
    again.saw("topic/0/next", MOST_TIMELESS + 4)
    letters = [Message(f"topic/0/{n}", "topic/0") for n in (3, 4, MOST_TIMELESS + 2, "next")]
    assert [m.id for m in again.fresh(letters)] == ["topic/0/3"]
    again.wrote(letters, MOST_TIMELESS + 5)
    state = again.state()
    assert state == Once.load(state).state()
    pending = state[2]
    assert isinstance(pending, tuple) and len(pending) == MOST_TIMELESS - 3


def test_items_of_the_last_epoch_that_wrote_any_are_remembered_and_no_others() -> None:
    """Each restart of a finished run brings the last items of its source again."""
    once = Once()
    once.wrote([alert(1)], 4)
    assert once.state() == (2, 4, ((alert(1).id, alert(1).at),), "")
    once.wrote([alert(2), Message("topic/0/7", "topic/0")], 6)
    assert once.state() == once.state() == (2, 6, ((alert(2).id, alert(2).at),), "")
    for _ in range(3):
        once = Once.load(once.state())
        assert once.fresh([alert(2), alert(3)]) == [alert(3)]
        once.wrote([alert(2)], 6)


def test_the_state_of_the_release_before_is_read() -> None:
    once = Once.load((1, 30, (("alert-1", 5),)))
    assert (once.end, once.fresh([alert(1), alert(2)])) == (30, [alert(2)])


def test_a_position_counts_in_one_log_only() -> None:
    once = Once.load((1, 30, (("alert-1", 5),)))
    assert not once.counts_in("first")  # the previous release stored no id of its log
    assert (once.end, once.state()[3]) == (30, "first")
    assert not Once.load(once.state()).counts_in("")  # a broker that gives no ids
    again = Once.load(once.state())
    assert again.counts_in("second")
    assert again.state() == (2, 0, (("alert-1", 5),), "second")


@pytest.mark.parametrize("state", [(3, 0, (), ""), (2, 0, ()), (1, "x", ()), (1,), ()])
def test_a_state_of_another_version_is_refused(state: tuple[object, ...]) -> None:
    with pytest.raises(FatalError, match="this program reads version 2"):
        Once.load(state)
