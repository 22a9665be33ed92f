"""Partitions wait for slower ones."""

from __future__ import annotations

from connectors.pace import Pace


def told(**at: int) -> Pace:
    pace = Pace(10)
    for partition, mark in at.items():
        pace.tell(partition, mark, at_end=False)
    return pace


def waiting(pace: Pace) -> str:
    return "".join(p for p in "abcd" if pace.ahead(p))


def test_a_partition_waits_for_the_slowest_that_has_records() -> None:
    pace = told(a=0, b=11, c=10)
    assert waiting(pace) == "b"
    pace.tell("a", 0, at_end=True)
    assert waiting(pace) == ""
    pace.tell("c", 0, at_end=False)
    assert waiting(pace) == "b"
    pace.leave("c")
    assert waiting(pace) == ""


def test_a_partition_at_its_end_waits_too_if_another_has_records() -> None:
    pace = told(a=0, b=100)
    pace.tell("b", 100, at_end=True)
    assert waiting(pace) == "b"


def test_a_partition_without_events_counts_as_standing_where_the_first_one_began() -> None:
    pace = told(a=0)
    pace.tell("d", None, at_end=False)
    pace.tell("a", 10, at_end=False)
    assert waiting(pace) == ""
    pace.tell("a", 11, at_end=False)
    assert waiting(pace) == "a"
    pace.tell("d", None, at_end=True)
    assert waiting(pace) == ""


def test_partitions_of_other_processes_are_waited_for() -> None:
    pace = told(a=100)
    pace.heard(7, lambda: {"a": 0, "x": 80})
    assert waiting(pace) == "a"
    pace.heard(3, lambda: {"a": 0, "x": 95})
    assert waiting(pace) == "", "the position of a that a shard tells is older than the known one"
    pace.heard(7, lambda: {"x": 0})
    assert waiting(pace) == ""
    pace.heard(3, lambda: {"x": 0})
    assert waiting(pace) == "a"
    pace.heard(3, dict)
    assert waiting(pace) == ""
    pace.tell("a", 111, at_end=False)
    pace.heard(3, lambda: {"x": None})
    assert waiting(pace) == "a", "x has no known event yet, so it counts as standing where a began"
