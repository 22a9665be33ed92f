"""Admission is bounded, and the same for any order of arrival, any cuts, and pruning at any moment."""

from __future__ import annotations

import pytest

from operators import series
from operators.errors import FatalError
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.admission import Admission
from tests.operators.pane_events import EVIDENCE, FIRST, VALUES, rows

SETS = (("service",), ("tenant",))


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
