"""Alerts of all shards come in one order, whatever the order the shards speak in."""

from __future__ import annotations

import pickle
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.errors import FatalError
from operators.groups import Groups, Judged
from operators.model import Alert

LATENESS = 10


def alert(at: int, service: str = "a", metric: str = "latency", sequence: int = 1) -> Alert:
    return Alert(
        f"{service}-{metric}-{at}-{sequence}", f"{service}-{metric}", "", (), sequence, "firing", "low", "spike",
        {"service": service}, metric, "ms", at, at - 5, None, 2.0, 1.0, None, None, 0.5, ("zscore",),
    )  # fmt: skip


def order(alerts: list[Alert]) -> list[tuple[int, str, str, int]]:
    return [(a.at, a.series["service"], a.metric, a.sequence) for a in alerts]


def test_nothing_is_released_before_all_shards_have_spoken() -> None:
    groups = Groups(2, LATENESS)
    assert groups.take([Judged(0, 100, (alert(20),))]) == []
    assert order(groups.take([Judged(1, 10, (alert(15),))])) == [(15, "a", "latency", 1), (20, "a", "latency", 1)]


def test_an_alert_waits_until_no_shard_can_add_an_earlier_one() -> None:
    groups = Groups(2, LATENESS)
    groups.take([Judged(0, 50, (alert(60), alert(61)))])
    assert [a.at for a in groups.take([Judged(1, 50, ())])] == [60]
    assert groups.take([Judged(0, 80, ())]) == []
    assert [a.at for a in groups.take([Judged(1, 51, ())])] == [61]


def test_the_order_is_by_time_then_series_metric_and_sequence() -> None:
    groups = Groups(1, LATENESS)
    mixed = (alert(5, "b"), alert(5, "a", "ttft"), alert(5, "a", "latency", 2), alert(5, "a"), alert(4, "z"))
    assert order(groups.take([Judged(0, 100, mixed)])) == [
        (4, "z", "latency", 1), (5, "a", "latency", 1), (5, "a", "latency", 2), (5, "a", "ttft", 1),
        (5, "b", "latency", 1),
    ]  # fmt: skip


def test_the_end_releases_all_and_keeps_what_a_grown_source_says_again() -> None:
    groups = Groups(2, LATENESS)
    groups.take([Judged(0, 10, (alert(30),)), Judged(1, 10, ())])
    assert groups.take([Judged(0, 40, (alert(35),), final=True)]) == []
    assert [a.at for a in groups.take([Judged(1, 40, (alert(33),), final=True)])] == [30, 33, 35]
    again = Groups(2, LATENESS)
    again.restore(groups.save())
    assert [a.at for a in again.take([Judged(0, 100, (alert(35),)), Judged(1, 100, ())])] == [30, 35]


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9), st.lists(st.integers(1, 9), max_size=3)), max_size=20),
    st.randoms(use_true_random=False),
)
def test_order_cuts_and_resumes_change_nothing(steps: list[tuple[int, int, list[int]]], random: Random) -> None:
    upto = [0, 0, 0]
    told: list[list[Judged]] = [[], [], []]
    for shard, ahead, offsets in steps:
        before, upto[shard] = upto[shard], upto[shard] + ahead
        # What closing up to `upto` may raise: alerts of the panes since `before`, at their end plus the lateness.
        ats = sorted(before + min(o, ahead) + LATENESS for o in offsets)
        alerts = tuple(alert(at, f"s{shard}", sequence=i) for i, at in enumerate(ats))
        told[shard].append(Judged(shard, upto[shard], alerts))
    for shard in range(3):
        told[shard].append(Judged(shard, upto[shard] + 1, (), final=True))
    expected = sorted(order([a for items in told for item in items for a in item.alerts]))

    groups, out = Groups(3, LATENESS), []
    left = [list(items) for items in told]
    while any(items for items in left):
        finals = all(len(items) <= 1 for items in left)
        shard = random.choice([s for s in range(3) if len(left[s]) > (0 if finals else 1)])
        count = 1 if finals else random.randint(1, len(left[shard]) - 1)
        batch, left[shard] = left[shard][:count], left[shard][count:]
        out += groups.take(batch)
        if not finals and random.random() < 0.3:
            again = Groups(3, LATENESS)
            again.restore(pickle.loads(pickle.dumps(groups.save())))
            groups = again
    assert order(out) == expected


def test_the_state_survives_and_that_of_another_version_or_number_of_shards_is_refused() -> None:
    groups = Groups(2, LATENESS)
    groups.take([Judged(0, 50, (alert(60),))])
    again = Groups(2, LATENESS)
    again.restore(groups.save())
    assert again.save() == groups.save()
    assert again.dropped is False
    for state in (groups.save(), (9, 3, (), (), ())):
        with pytest.raises(FatalError, match="this flow reads version 1 with 3"):
            Groups(3, LATENESS).restore(state)
