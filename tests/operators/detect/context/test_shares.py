"""Usual shares are fading sums: the same for any cut of panes, without held slots, bounded, forgotten in time."""

from __future__ import annotations

import pickle
from collections.abc import Collection
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.detect.context import shares as module
from operators.detect.context.shares import MOST, Shares
from operators.detect.slots import packed, unpacked
from operators.incidents.composition import COLUMNS, Observed, Usual, entries, rows
from operators.model import LABELS
from operators.panes import fold
from operators.panes.table import PaneTable
from operators.series import OTHER
from tests.conftest import examples
from tests.watching import BEGIN, PANE_S, Request, table

KEEP = 0.99
SLOTS = {"service=a": 0, "service=b": 3}


def requests(pane: int, *tenants: str, service: str = "a", latency: float = 5.0) -> list[Request]:
    """One request of each tenant, in the pane of this number from BEGIN on."""
    return [Request(pane * PANE_S + 1.0, {"latency": latency}, labels={"tenant": t}, service=service) for t in tenants]


def note(shares: Shares, of: PaneTable, held: Collection[int] = ()) -> None:
    """Note all panes of the table, one by one."""
    for pane in np.unique(of.pane).tolist():
        a, b = np.searchsorted(of.pane, (pane, pane + 1)).tolist()
        slots = np.array([SLOTS[of.series[i]] for i in of.row_series[a:b].tolist()], np.int64)
        shares.note(of, a, slots, pane, held)


def plainly(usual: Usual) -> object:
    values = {label: {v: s.tolist() for v, s in sorted(known.items())} for label, known in usual.values.items()}
    return usual.panes, usual.whole.tolist(), values, usual.full


histories = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from("uvwxyz"), st.sampled_from("ab"), st.integers(1, 9_000)),
    min_size=1,
    max_size=60,
)


@examples(25)
@given(histories, st.integers(0, 41), st.sets(st.sampled_from([0, 3])), st.integers(1, 9))
def test_the_sums_fade_and_are_the_same_however_panes_come_and_wherever_it_is_resumed(
    history: list[tuple[int, str, str, int]], cut: int, held: set[int], waiting: int
) -> None:
    made = [Request(p * PANE_S + 1.0, {"latency": v}, labels={"tenant": t}, service=s) for p, t, s, v in history]
    whole = table(made)
    before, after = fold.between(whole, 0, BEGIN + cut), fold.between(whole, BEGIN + cut, BEGIN + 99)
    at_once, pieces = Shares(KEEP, PANE_S), Shares(KEEP, PANE_S)
    note(at_once, whole, held)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", waiting)
        if len(before.pane):
            note(pieces, before, held)
        resumed = Shares(KEEP, PANE_S)
        resumed.load(pickle.loads(pickle.dumps(pieces.save(4))))
        if len(after.pane):
            note(resumed, after, held)
    now = BEGIN + 50
    for series, slot in SLOTS.items():
        found = at_once.usual(slot, now)
        assert plainly(found) == plainly(resumed.usual(slot, now))
        mine = (
            [] if slot in held else [r for r in range(len(whole.pane)) if whole.series[whole.row_series[r]] == series]
        )
        plain = sum((rows(whole, r, r + 1)[0] * KEEP ** (now - whole.pane[r]) for r in mine), np.zeros(COLUMNS))
        assert found.whole == pytest.approx(plain, rel=1e-5)
        tenants = {whole.breakdown_values[v] for r in mine for v in whole.breakdown_value[whole.breakdown_row == r]}
        assert set(found.values.get("tenant", {})) == tenants
        for tenant, sums in found.values.get("tenant", {}).items():
            of = [
                e
                for e in range(len(whole.breakdown_row))
                if whole.breakdown_row[e] in mine and whole.breakdown_values[whole.breakdown_value[e]] == tenant
            ]
            plain = sum(
                (entries(whole, e, e + 1)[0] * KEEP ** (now - whole.pane[whole.breakdown_row[e]]) for e in of),
                np.zeros(COLUMNS),
            )
            assert sums == pytest.approx(plain, rel=1e-5)


@examples(25)
@given(histories, st.integers(0, 41), st.integers(1, 9))
def test_too_many_values_give_the_same_sums_however_panes_come(
    history: list[tuple[int, str, str, int]], cut: int, waiting: int
) -> None:
    made = [Request(p * 20 * PANE_S + 1.0, {"latency": v}, labels={"tenant": t}, service=s) for p, t, s, v in history]
    whole = table(made)
    at_once, resumed = Shares(KEEP, PANE_S), Shares(KEEP, PANE_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", 1)
        note(at_once, whole)
        patch.setattr(module, "ROWS", waiting)
        for low, high in ((0, BEGIN + 20 * cut), (BEGIN + 20 * cut, BEGIN + 900)):
            part = fold.between(whole, low, high)
            note(resumed, part)
            saved, resumed = resumed.save(4), Shares(KEEP, PANE_S)
            resumed.load(saved)
        for slot in SLOTS.values():
            found = at_once.usual(slot, BEGIN + 900)
            assert plainly(found) == plainly(resumed.usual(slot, BEGIN + 900))
            assert all(len(known) <= 3 for known in found.values.values())


def test_a_rate_is_requests_over_panes_with_the_silent_ones() -> None:
    shares = Shares(KEEP, PANE_S)
    note(shares, table([r for p in range(0, 4_000, 5) for r in requests(p, "t", "t", "t")]))
    usual = shares.usual(0, BEGIN + 4_000)
    assert usual.whole[0] / usual.panes == pytest.approx(3 / 5, rel=0.05)


def test_values_are_bounded_and_the_largest_stay() -> None:
    shares = Shares(KEEP, PANE_S)
    many = [f"t{i:02}" for i in range(10)]
    rest = [f"x{i:02}" for i in range(10)]
    made = [r for p in range(30) for r in requests(p, *many[:4] * 3, *many, *rest[p % 10 : p % 10 + 1])]
    note(shares, table(made))
    before = shares.usual(0, BEGIN + 30)
    assert MOST < len(before.values["tenant"]) <= 2 * MOST + 1
    note(shares, table(requests(400, "t00")))
    usual = shares.usual(0, BEGIN + 400)
    assert "tenant" in usual.full
    assert len(usual.values["tenant"]) == MOST + 1
    assert {*many[:4], OTHER} <= set(usual.values["tenant"])
    total = sum(s[0] for s in usual.values["tenant"].values())
    assert total == pytest.approx(usual.whole[0], rel=0.05)


def test_faded_values_and_dropped_series_are_forgotten() -> None:
    shares = Shares(KEEP, PANE_S)
    note(shares, table([*requests(0, "old", "new"), *requests(0, "b", service="b")]))
    for hour in range(1, 4):
        note(shares, table(requests(400 * hour, "new")))
    assert set(shares.usual(0, BEGIN + 1_200).values["tenant"]) == {"new"}
    shares.drop(np.array([0, 99]))
    assert shares.usual(0, BEGIN + 1_200).whole.sum() == 0
    assert shares.usual(0, BEGIN + 1_200).values == {}
    assert shares.usual(3, BEGIN + 1_200).whole[0] > 0


def test_texts_of_values_without_room_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TEXTS", 20)
    shares = Shares(KEEP, PANE_S)
    for p in range(60):
        note(shares, table(requests(p, *(f"t{p}-{i}" for i in range(9)))))
        shares.usual(0, BEGIN + p)
        assert len(shares._texts) <= 2 * (2 * MOST + 1) + 20
    assert set(shares.usual(0, BEGIN + 60).values["tenant"]) > {OTHER, "t0-0", "t1-6"}


def test_labels_are_kept_apart() -> None:
    shares = Shares(KEEP, PANE_S)
    made = [Request(1.0, {}, labels={"tenant": "x", "region": "x", "finish_reason": "stop"}, service="a")]
    note(shares, table(made))
    assert set(shares.usual(0, BEGIN).values) == {"tenant", "region", "finish_reason"} <= set(LABELS)


def test_a_value_takes_about_a_hundred_bytes() -> None:
    shares = Shares(KEEP, PANE_S)
    empty = shares.nbytes
    note(shares, table(requests(0, *(f"t{i}" for i in range(8)))))
    shares.usual(0, BEGIN)
    assert (shares.nbytes - empty) / 8 <= 110


def test_shares_of_the_release_with_fewer_metrics_are_read() -> None:
    shares, again = Shares(KEEP, PANE_S), Shares(KEEP, PANE_S)
    note(shares, table([*requests(0, "u", "v"), *requests(2, "v", service="b")]))
    pruned, whole, texts, keys, values = cast(Any, shares.save(4))

    def narrow(saved: dict[str, Any]) -> dict[str, object]:
        state = unpacked(saved)
        state["sums"] = state["sums"][:, :20]  # requests, errors, and nine metrics
        return packed(
            state, {name: np.full((1, *a.shape[1:]), -1 if name == "last" else 0, a.dtype) for name, a in state.items()}
        )

    again.load((pruned, narrow(whole), texts, keys, narrow(values)))
    assert [plainly(again.usual(slot, BEGIN + 3)) for slot in (0, 3)] == [
        plainly(shares.usual(slot, BEGIN + 3)) for slot in (0, 3)
    ]
    note(again, table(requests(3, "u")))


def test_sums_of_an_episode_of_the_release_with_fewer_metrics_are_read() -> None:
    observed = Observed()
    observed.add(table(requests(0, "u", "v")), 0, 0, 2)
    panes, whole, values = cast(Any, observed.save())
    assert (
        Observed.load(panes, whole[:20], [(label, text, sums[:20]) for label, text, sums in values]).save()
        == observed.save()
    )
