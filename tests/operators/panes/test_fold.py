"""Pane tables against a plain reference, and the laws of merging."""

from __future__ import annotations

import itertools
import math
import pickle
from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import series
from operators.errors import FatalError
from operators.metrics import METRICS
from operators.model import LABELS, MISSING
from operators.panes import fold, sketch
from operators.panes import table as pane_table
from operators.panes.fold import EMPTY
from operators.panes.table import PaneTable
from tests.conftest import examples
from tests.operators.pane_events import BASE, EVIDENCE, SETS, VALUES, WIDTH, Call, M, calls, columns, folded, merge


@dataclass
class Row:
    """What a row must hold, in dicts."""

    members: list[Call] = field(default_factory=list)
    breakdown: dict[tuple[int, str], list[Call]] = field(default_factory=lambda: defaultdict(list))


def reference(given_calls: list[Call], sets: tuple[tuple[str, ...], ...] = SETS) -> dict[tuple[int, str], Row]:
    rows: dict[tuple[int, str], Row] = defaultdict(Row)
    for c in given_calls:
        of = dict(zip(LABELS, c.labels, strict=True))
        for dims in sets:
            if any(of[d] for d in dims):
                row = rows[(c.start + c.took) // WIDTH, series.text(dims, [of[d] for d in dims])]
                row.members.append(c)
                for i, label in enumerate(LABELS):
                    if label not in dims and of[label]:
                        row.breakdown[i, of[label]].append(c)
    for row in rows.values():
        for i in range(len(LABELS)):
            texts = sorted((v for at, v in row.breakdown if at == i), key=series.rank)
            for beyond in texts[VALUES:]:
                row.breakdown[i, series.OTHER] += row.breakdown.pop((i, beyond))
    return rows


def evidence_of(members: list[Call]) -> list[tuple[object, ...]]:
    order = sorted({(c.start, c.event, c.trace, c.values, c.error) for c in members}, key=content)
    kept = set([c for c in order if c[4]][:EVIDENCE])
    for m, metric in enumerate(METRICS):
        sign = -1 if metric.worst == "high" else 1
        carrying = [c for c in order if c[3][m] != MISSING]
        kept |= set(sorted(carrying, key=lambda c: sign * c[3][m])[:EVIDENCE])
    return sorted(kept, key=content)


def content(call: tuple[Any, ...]) -> tuple[Any, ...]:
    start, event, trace, values, error = call
    return start, values[0], values[1], event, trace, values, error


def check(table: PaneTable, rows: dict[tuple[int, str], Row]) -> None:
    """Compare a table with the reference, row by row, and check its canonical form."""
    keys = [(p, table.series[s]) for p, s in zip(table.pane.tolist(), table.row_series.tolist(), strict=True)]
    assert keys == sorted(rows)
    assert table.series == sorted({s for _, s in rows})
    assert table.breakdown_values == sorted({v for row in rows.values() for _, v in row.breakdown})
    exact = fold.quantiles(table, [0.0, 0.5, 0.95, 1.0])
    for r, key in enumerate(keys):
        row = rows[key]
        assert table.requests[r] == len(row.members)
        assert table.errors[r] == sum(c.error for c in row.members)
        for m in range(M):
            values = sorted(c.values[m] for c in row.members if c.values[m] != MISSING)
            assert table.count[r, m] == len(values)
            assert table.total[r, m] == sum(values)
            assert table.least[r, m] == (values[0] if values else MISSING)
            assert table.most[r, m] == (values[-1] if values else MISSING)
            low, high = table.sketch_start[r * M + m : r * M + m + 2]
            assert table.sketch_count[low:high].sum() == len(values)
            assert (np.diff(table.sketch_bucket[low:high]) > 0).all()
            for q, share in enumerate([0.0, 0.5, 0.95, 1.0]):
                if values:
                    true = values[max(1, int(np.ceil(share * len(values)))) - 1]
                    assert abs(exact[r, m, q] - true) <= 0.02 * true
                else:
                    assert np.isnan(exact[r, m, q])
        b = np.flatnonzero(table.breakdown_row == r)
        got = [
            (table.breakdown_label[i], table.breakdown_values[v])
            for i, v in zip(b.tolist(), table.breakdown_value[b].tolist(), strict=True)
        ]
        assert got == sorted(row.breakdown)
        for i, at in zip(b.tolist(), got, strict=True):
            members = row.breakdown[at]
            assert table.breakdown_requests[i] == len(members)
            assert table.breakdown_errors[i] == sum(c.error for c in members)
            for m in range(M):
                values = [c.values[m] for c in members if c.values[m] != MISSING]
                assert table.breakdown_count[i, m] == len(values)
                assert table.breakdown_total[i, m] == sum(values)
        e = np.flatnonzero(table.evidence_row == r).tolist()
        found = [
            (
                int(table.evidence_start[i]),
                table.evidence_event[i],
                table.evidence_trace[i],
                tuple(table.evidence_values[i].tolist()),
                bool(table.evidence_error[i]),
            )
            for i in e
        ]
        assert found == evidence_of(row.members)
    assert len(table.sketch_start) == len(keys) * M + 1
    assert (np.diff(table.breakdown_row) >= 0).all()
    assert (np.diff(table.evidence_row) >= 0).all()


def a_call(
    start: int = BASE,
    took: int = 0,
    labels: tuple[str, ...] = ("a", "m", "", "", "t", "", "", "", ""),
    values: tuple[int, ...] = (1,) * M,
    error: bool = False,
    event: str = "e",
) -> Call:
    return Call(start, took, labels, values, error, event, "")


def parts_of(given_calls: list[Call], cuts: list[int]) -> list[list[Call]]:
    ends = sorted({0, len(given_calls), *(c % (len(given_calls) + 1) for c in cuts)})
    return [given_calls[a:b] for a, b in itertools.pairwise(ends)]


@examples(60)
@given(calls)
def test_rows_equal_those_of_a_plain_reference(given_calls: list[Call]) -> None:
    check(folded(given_calls), reference(given_calls))


@examples(30)
@given(calls)
def test_dimension_sets_are_counted_each_for_itself(given_calls: list[Call]) -> None:
    sets = (("tenant",), ("service",), ("region", "model"), ("provider",))
    check(folded(given_calls, sets), reference(given_calls, sets))


@examples(60)
@given(calls, st.lists(st.integers(0, 100), max_size=4), st.randoms(use_true_random=False))
def test_any_split_in_any_order_gives_the_same_table(given_calls: list[Call], cuts: list[int], random: Random) -> None:
    whole = folded(given_calls)
    shuffled = list(given_calls)
    random.shuffle(shuffled)
    tables = [folded(part) for part in parts_of(shuffled, cuts)]
    assert pane_table.equal(merge(tables), whole)
    random.shuffle(tables)
    step = EMPTY
    for t in tables:
        step = merge([step, t])
    assert pane_table.equal(step, whole)


def test_only_chosen_events_are_counted() -> None:
    given_calls = [a_call(start=BASE + i) for i in range(4)]
    keep = np.array([True, False, True, False])
    table = fold.fold_events(columns(given_calls), keep, SETS, WIDTH, EVIDENCE, VALUES)
    assert pane_table.equal(table, folded(given_calls[::2]))
    assert fold.fold_events(columns(given_calls), keep & False, SETS, WIDTH, EVIDENCE, VALUES) is EMPTY


def test_dense_groups_are_counted_like_sparse_ones() -> None:
    random = Random(7)
    values = [
        tuple(random.choice([MISSING, random.randrange(10 ** random.randrange(1, 12))]) for _ in METRICS)
        for _ in range(400)
    ]
    given_calls = [a_call(start=BASE + i % 90, values=v, error=i % 7 == 0) for i, v in enumerate(values)]
    check(folded(given_calls), reference(given_calls))
    parts = [folded(given_calls[i::3]) for i in range(3)]
    assert pane_table.equal(merge(parts), folded(given_calls))


def test_panes_far_apart_stay_cheap_and_in_order() -> None:
    years = [a_call(start=BASE + k * 86_400_000_000 * 365) for k in (9, 0, 30)]
    check(folded(years), reference(years))


def test_a_request_belongs_to_the_pane_of_its_end() -> None:
    table = folded([a_call(start=BASE, took=WIDTH)])
    assert set(table.pane.tolist()) == {BASE // WIDTH + 1}


def test_evidence_is_the_worst_in_each_direction_and_the_first_errors() -> None:
    quality, latency = (next(i for i, m in enumerate(METRICS) if m.name == n) for n in ("quality", "latency"))

    def scored(i: int, took: int, score: int, error: bool) -> Call:
        values = [MISSING] * M
        values[latency], values[quality] = took, score
        return a_call(start=BASE + i, values=tuple(values), error=error, event=f"e{i}")

    given_calls = [scored(i, took, score, error) for i, (took, score, error) in enumerate([
        (50, 900, False), (990, 800, False), (10, 100, False), (60, 950, True), (980, 990, False), (20, 200, False),
        (30, 940, True), (31, 940, True), (32, 700, False),
    ])]  # fmt: skip
    table = folded(given_calls, (("service",),))
    assert table.evidence_event == ["e1", "e2", "e3", "e4", "e5", "e6"]


def test_the_same_request_is_evidence_once() -> None:
    table = merge([folded([a_call()] * 5), folded([a_call()] * 2)])
    assert table.requests.tolist() == [7, 7]
    assert table.evidence_event == ["e", "e"]
    assert table.evidence_row.tolist() == [0, 1]


@pytest.mark.parametrize(("evidence", "values"), [(0, 0), (1, 1), (20, 50)])
def test_the_bounds_bound(evidence: int, values: int) -> None:
    given_calls = [
        a_call(start=BASE + i, labels=("a", "m", "", "", f"t{i}", "", "", "", ""), values=(i,) * M, error=i % 2 == 0)
        for i in range(60)
    ]
    table = fold.fold_events(columns(given_calls), np.ones(60, np.bool_), (("service",),), WIDTH, evidence, values)
    assert len(table.evidence_row) <= evidence * (M + 1)
    tenants = table.breakdown_label == LABELS.index("tenant")
    assert tenants.sum() == values + 1
    assert table.breakdown_requests[tenants].sum() == 60
    assert series.OTHER in table.breakdown_values
    fifteen = np.ones(15, np.bool_)
    parts = [
        fold.fold_events(columns(given_calls[i::4]), fifteen, (("service",),), WIDTH, evidence, values)
        for i in range(4)
    ]
    assert pane_table.equal(fold.merge(parts, evidence, values), table)


@examples(40)
@given(calls, st.integers(1, 6))
def test_cutting_by_shard_and_merging_gives_the_table_back(given_calls: list[Call], shards: int) -> None:
    whole = folded(given_calls)
    parts = fold.cut(whole, shards)
    assert len(parts) == shards
    assert pane_table.equal(merge([p for p in parts if p is not None]), whole)
    for shard, part in enumerate(parts):
        if part is not None:
            assert all(series.shard_of(s, shards) == shard for s in part.series)
            assert pane_table.equal(merge([part]), part), "a part is canonical too"
    present = {series.shard_of(s, shards) for s in whole.series}
    assert {i for i, p in enumerate(parts) if p is not None} == present


@examples(40)
@given(calls, st.data())
def test_selected_rows_are_the_rows(given_calls: list[Call], data: st.DataObject) -> None:
    whole = folded(given_calls)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(whole.pane), max_size=len(whole.pane))), np.bool_)
    picked, rest = fold.select(whole, mask), fold.select(whole, ~mask)
    assert pane_table.equal(merge([rest, picked]), whole)
    assert pane_table.equal(merge([picked]), picked)
    assert picked.requests.tolist() == whole.requests[mask].tolist()
    assert pane_table.equal(fold.matching(whole, picked), picked)
    low = data.draw(st.integers(BASE // WIDTH - 1, BASE // WIDTH + 12))
    among = fold.between(whole, low, low + 3)
    assert pane_table.equal(among, fold.select(whole, (whole.pane >= low) & (whole.pane < low + 3)))


@examples(40)
@given(calls, st.lists(st.integers(0, 100), max_size=3), st.integers(1, 6))
def test_widening_and_merging_commute(given_calls: list[Call], cuts: list[int], factor: int) -> None:
    parts = [folded(p) for p in parts_of(given_calls, cuts)]
    wide = fold.widen([merge(parts)], factor, EVIDENCE, VALUES)
    assert pane_table.equal(merge([fold.widen([p], factor, EVIDENCE, VALUES) for p in parts]), wide)
    aligned = fold.fold_events(
        columns(given_calls), np.ones(len(given_calls), np.bool_), SETS, WIDTH * factor, EVIDENCE, VALUES
    )
    assert pane_table.equal(wide, aligned), "as if the panes had been wide from the start"
    assert pane_table.equal(fold.widen([fold.widen([merge(parts)], 2, EVIDENCE, VALUES)], 3, EVIDENCE, VALUES),
                       fold.widen(parts, 6, EVIDENCE, VALUES))  # fmt: skip


@examples(40)
@given(calls)
def test_renamed_series_add_up(given_calls: list[Call]) -> None:
    moved = [replace(c, labels=(c.labels[0], c.labels[1], c.labels[2], c.labels[3], "z", *c.labels[5:]))
             if c.labels[4] else c for c in given_calls]  # fmt: skip
    only_tenants = (("tenant",),)
    table = folded(given_calls, only_tenants)
    renamed = fold.rename_series(table, dict.fromkeys(table.series, "tenant=z"), EVIDENCE, VALUES)
    assert pane_table.equal(renamed, folded(moved, only_tenants))
    none = np.zeros(len(table.pane), np.bool_)
    assert pane_table.equal(fold.rename_series(table, {"tenant=a": "tenant=z"}, EVIDENCE, VALUES, none), table)


@examples(40)
@given(calls)
def test_states_and_pickles_give_the_table_back(given_calls: list[Call]) -> None:
    table = folded(given_calls)
    assert pane_table.equal(pane_table.from_state(pane_table.to_state(table)), table)
    assert pane_table.equal(pickle.loads(pickle.dumps(table)), table)


def test_unknown_or_damaged_states_are_refused() -> None:
    state = pane_table.to_state(folded([a_call()]))
    other = pane_table.STATE_VERSION + 1
    with pytest.raises(FatalError, match=f"version {other} in the snapshot"):
        pane_table.from_state((other, *state[1:]))
    with pytest.raises(FatalError, match="damaged"):
        pane_table.from_state((state[0], state[1], state[2][:-1], *state[3:]))  # type: ignore[index]
    with pytest.raises(FatalError, match="damaged"):
        pane_table.from_state((state[0], state[1], state[2] + b"\0", *state[3:]))  # type: ignore[operator]


def test_different_tables_are_not_equal() -> None:
    one = folded([a_call()])
    assert not pane_table.equal(one, folded([a_call(event="other")]))
    assert not pane_table.equal(one, folded([a_call(error=True)]))
    assert not pane_table.equal(one, replace(one, requests=one.requests.astype(np.int32)))


def test_requests_of_a_dimension_set() -> None:
    table = folded([a_call(), a_call(labels=("a", "b", "", "", "", "", "", "", "")), a_call(start=BASE + WIDTH)])
    assert fold.requests_of(table, ("service", "model", "operation")) == 3
    assert fold.requests_of(table, ("tenant",)) == 2
    assert fold.requests_of(EMPTY, ("tenant",)) == 0


def test_the_compact_form_is_compact() -> None:
    table = folded([a_call(start=BASE + i * 1000, values=(i,) * M) for i in range(50)])
    held = sum(x.nbytes for f in fields(PaneTable) if isinstance(x := getattr(table, f.name), np.ndarray))
    assert 3 * len(pane_table.to_state(table)[2]) < held  # type: ignore[arg-type]


def test_moments_of_a_table_are_close_to_the_exact_ones() -> None:
    took = [0, 1, 100, 1_000, 50_000, 1_000_000]
    table = folded([a_call(start=BASE + i, values=(v,) * M) for i, v in enumerate(took)])
    mean, variance = sketch.log_moments(table.sketch_start, table.sketch_bucket, table.sketch_count)
    logs = [math.log(max(v, 0.5)) for v in took]
    assert mean[0] == pytest.approx(np.mean(logs), abs=0.02)
    assert variance[0] == pytest.approx(np.var(logs), rel=0.02)
