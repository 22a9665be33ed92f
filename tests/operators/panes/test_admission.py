"""Admission: bounded, and the same for any order of arrival, any cuts, and pruning at any moment."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import series
from operators.errors import FatalError
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.admission import Admission
from operators.panes.table import PaneTable
from tests.conftest import examples
from tests.operators.pane_events import BASE, EVIDENCE, VALUES, WIDTH, Call, M, columns, merge

SETS = (("service",), ("tenant",))
FIRST = BASE // WIDTH


def rows(*seen: tuple[int, str], sets: tuple[tuple[str, ...], ...] = (("service",),)) -> PaneTable:
    """A table with one request of each (pane after the first, service)."""
    given_calls = [
        Call(BASE + p * WIDTH, 0, (s, "", "", "", f"t-{s}", "", "", "", ""), (i,) * M, False, f"e{i}", "")
        for i, (p, s) in enumerate(seen)
    ]
    return fold.fold_events(columns(given_calls), np.ones(len(given_calls), np.bool_), sets, WIDTH, EVIDENCE, VALUES)


def an_admission(cap: int = 3, expiry: int = 5, protect: int = 2, shard: int | None = None) -> Admission:
    return Admission(cap, expiry, protect, EVIDENCE, VALUES, shard)


def by_rank(*services: str) -> list[str]:
    return sorted((f"service={s}" for s in services), key=series.rank)


def test_new_series_are_admitted_in_the_order_of_their_hash_while_there_is_room() -> None:
    admission = an_admission(cap=3)
    table = admission.close(rows(*[(0, s) for s in "abcdef"]), FIRST)
    kept = by_rank(*"abcdef")[:3]
    assert table.series == sorted([*kept, "service=__other__"])
    assert table.requests[table.series.index("service=__other__")] == 3
    assert len(admission) == 3
    assert (admission.folded_requests, admission.empty) == (3, False)


def test_the_admitted_pass_and_newcomers_fold() -> None:
    admission = an_admission(cap=2, protect=1)
    first = rows((0, "a"), (0, "b"))
    assert admission.close(first, FIRST) is first
    table = admission.close(rows((1, "a"), (1, "b"), (1, "c"), (1, "d")), FIRST + 1)
    assert table.series == ["service=__other__", "service=a", "service=b"]
    assert admission.folded_requests == 2
    assert admission.folded_series >= 1


def test_each_shard_has_its_own_overflow_series_in_every_dimension_set() -> None:
    admission = an_admission(cap=1, shard=7)
    table = admission.close(rows((0, "a"), (0, "b"), sets=SETS), FIRST)
    assert {"service=__other__.7", "tenant=__other__.7"} & set(table.series)
    assert len(table.series) <= 3
    assert int(table.requests.sum()) == 4


def test_overflow_series_do_not_count() -> None:
    admission = an_admission(cap=1)
    table = admission.close(rows((0, "__other__"), (0, "a")), FIRST)
    assert table.series == ["service=__other__", "service=a"]
    assert len(admission) == 1
    assert (admission.folded_requests, admission.folded_series) == (1, 0)


def test_quiet_series_are_forgotten_and_make_room() -> None:
    admission = an_admission(cap=1, expiry=3)
    admission.close(rows((0, "a")), FIRST)
    assert admission.close(fold.EMPTY, FIRST + 3) is fold.EMPTY
    assert len(admission) == 1
    admission.close(fold.EMPTY, FIRST + 4)
    assert len(admission) == 0
    table = admission.close(rows((5, "b")), FIRST + 5)
    assert table.series == ["service=b"]


def test_a_series_that_comes_back_after_its_expiry_is_new() -> None:
    admission = an_admission(cap=1, expiry=3, protect=1)
    admission.close(rows((0, "a")), FIRST)
    table = admission.close(rows((9, "a")), FIRST + 9)
    assert table.series == ["service=a"]
    assert admission.known(rows((5, "a"))).series == ["service=__other__"]


def test_each_series_is_forgotten_at_its_own_pane() -> None:
    admission = an_admission(cap=5, expiry=4)
    admission.close(rows((0, "a"), (1, "b")), FIRST + 1)
    known = []
    for pane in range(3, 8):
        admission.close(fold.EMPTY, FIRST + pane)
        known.append(len(admission))
    assert known == [2, 2, 1, 0, 0]


def test_late_rows_follow_the_admission_of_their_pane() -> None:
    admission = an_admission(cap=2)
    admission.close(rows((0, "a")), FIRST)
    admission.close(rows((3, "b")), FIRST + 3)
    late = rows((1, "a"), (1, "b"), (3, "b"), (3, "c"))
    table = admission.known(late)
    got = {(table.series[s], p - FIRST) for s, p in zip(table.row_series.tolist(), table.pane.tolist(), strict=True)}
    assert got == {("service=a", 1), ("service=__other__", 1), ("service=b", 3), ("service=__other__", 3)}


def test_pruning_bounds_open_panes_and_leaves_rows_that_it_cannot_judge() -> None:
    admission = an_admission(cap=3, protect=4)
    flood = rows(*[(p, f"s{i}") for p in (0, 3, 9) for i in range(40)])
    pruned = admission.prune(flood, FIRST)
    per_pane = [int((pruned.pane == FIRST + p).sum()) for p in (0, 3, 9)]
    assert per_pane == [4, 4, 40]
    assert int(pruned.requests.sum()) == 120


def test_young_series_can_be_pushed_aside_and_protected_ones_cannot() -> None:
    names = [series.parse(s)["service"] for s in by_rank(*[f"s{i}" for i in range(30)])]
    last, flood = names[-1], names[:5]
    for protect, stays in ((1, True), (50, False)):
        admission = an_admission(cap=3, protect=protect)
        admission.close(rows((0, last)), FIRST)
        table = admission.close(rows((1, last), *[(1, s) for s in flood]), FIRST + 1)
        assert (f"service={last}" in table.series) is stays


@pytest.mark.compiled
def test_floods_are_counted_about_right() -> None:
    admission = an_admission(cap=200)
    admission.close(admission.prune(rows(*[(0, f"s{i}") for i in range(3_000)]), FIRST), FIRST)
    assert admission.folded_series == pytest.approx(2_800, rel=0.2)
    assert admission.folded_requests == 2_800


def test_a_state_gives_the_same_admission_back() -> None:
    admission = an_admission(cap=2, shard=3)
    admission.close(rows(*[(0, s) for s in "abcd"]), FIRST)
    again = Admission.load(admission.save(), *admission.settings)
    assert again.settings == admission.settings == (2, 5, 2, EVIDENCE, VALUES, 3)
    assert str(again.save()) == str(admission.save())
    after = rows((1, "a"), (1, "b"), (1, "z"))
    assert pane_table.equal(again.close(after, FIRST + 1), admission.close(after, FIRST + 1))
    with pytest.raises(FatalError, match="version 9"):
        Admission.load((9, *admission.save()[1:]), *admission.settings)


services = st.sampled_from([f"s{i}" for i in range(9)])
traffic = st.lists(st.tuples(st.integers(0, 14), services), max_size=60)


@examples(60)
@given(traffic, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.randoms(use_true_random=False))
def test_order_cuts_pruning_and_resuming_change_nothing(
    seen: list[tuple[int, str]], cap: int, expiry: int, protect: int, random: Random
) -> None:
    table = rows(*seen, sets=SETS)
    steady = an_admission(cap, expiry, protect)
    expected = [steady.close(fold.between(table, FIRST + p, FIRST + p + 1), FIRST + p) for p in range(15)]

    # The same in parts, in any order within reach, with pruning, resuming and steps of several panes in between.
    admission = an_admission(cap, expiry, protect)
    masks = np.array([random.randrange(3) for _ in table.pane], np.int64)
    parts = [fold.select(table, masks == k) for k in range(3)]
    waiting = fold.EMPTY
    got: list[PaneTable] = []
    closed = FIRST
    while closed < FIRST + 15:
        upto = min(closed + random.choice([1, 1, 2, 5]), FIRST + 15)
        random.shuffle(parts)
        for k, part in enumerate(parts):
            # The rows that must be there before `upto` closes, and some later ones.
            take = (part.pane < upto) | np.array([random.random() < 0.5 for _ in part.pane], np.bool_)
            waiting = merge([waiting, fold.select(part, take)])
            parts[k] = fold.select(part, ~take)
            if random.random() < 0.7:
                waiting = admission.prune(waiting, closed)
        if random.random() < 0.3:
            admission = Admission.load(admission.save(), *admission.settings)
        due = fold.between(waiting, 0, upto)
        waiting = fold.between(waiting, upto, 2**62)
        got.append(admission.close(due, upto - 1))
        closed = upto
    assert pane_table.equal(merge(got), merge(expected))
    assert str(admission.save()) == str(steady.save())


@examples(30)
@given(traffic, st.integers(1, 4))
def test_nothing_is_lost_and_the_bound_holds(seen: list[tuple[int, str]], cap: int) -> None:
    table = rows(*seen)
    admission = an_admission(cap, protect=3)
    for p in range(15):
        pane = fold.between(table, FIRST + p, FIRST + p + 1)
        closed = admission.close(pane, FIRST + p)
        assert int(closed.requests.sum()) == int(pane.requests.sum())
        assert len(closed.series) <= cap + 1
        assert len(admission) <= cap
