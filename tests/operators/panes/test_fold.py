"""Pane tables against a plain reference, and the laws of merging."""

from __future__ import annotations

from dataclasses import fields, replace
from random import Random

import numpy as np
import pytest
from hypothesis import given

from operators import series
from operators.errors import FatalError
from operators.kernels import varint
from operators.metrics import METRICS
from operators.model import LABELS, MISSING
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.fold import EMPTY
from operators.panes.table import PaneTable
from tests.conftest import examples
from tests.operators.pane_events import BASE, EVIDENCE, SETS, VALUES, WIDTH, Call, M, calls, columns, folded, merge
from tests.operators.pane_reference import check, reference


def a_call(
    start: int = BASE,
    took: int = 0,
    labels: tuple[str, ...] = ("a", "m", "", "", "t", "", "", "", "", ""),
    values: tuple[int, ...] = (1,) * M,
    error: bool = False,
    event: str = "e",
) -> Call:
    return Call(start, took, labels, values, error, event, "")


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
        a_call(
            start=BASE + i, labels=("a", "m", "", "", f"t{i}", "", "", "", "", ""), values=(i,) * M, error=i % 2 == 0
        )
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


def test_unknown_or_damaged_states_are_refused() -> None:
    state = pane_table.to_state(folded([a_call()]))
    other = pane_table.STATE_VERSION + 1
    with pytest.raises(FatalError, match=f"version {other} in the snapshot"):
        pane_table.from_state((other, *state[1:]))
    with pytest.raises(FatalError, match="damaged"):
        pane_table.from_state((state[0], state[1], state[2][:-1], *state[3:]))  # type: ignore[index]
    with pytest.raises(FatalError, match="damaged"):
        pane_table.from_state((state[0], state[1], state[2] + b"\0", *state[3:]))  # type: ignore[operator]


def as_version_3(table: PaneTable) -> tuple[object, ...]:
    """The state that the release with nine metrics and without callers gave for this table."""
    most = 9
    numbers = [np.diff(table.sketch_start).reshape(-1, M)[:, :most].ravel()]
    for name, _, of in pane_table._COLUMNS:
        column = getattr(table, name)
        column = (column[:, :most] if of.endswith("metric") else column).ravel().astype(np.int64)
        numbers.append(np.diff(column, prepend=0) if name in pane_table._STEPS else column)
    texts = [*table.series, *table.breakdown_values, *table.evidence_event, *table.evidence_trace]
    together = np.concatenate([*numbers, np.array([len(text) for text in texts], np.int64)])
    data, _ = varint.write(together, np.array([0, len(together)]))
    sizes = (len(table.pane), len(table.sketch_bucket), len(table.breakdown_row), len(table.evidence_row))
    return 3, (*sizes, len(table.series), len(table.breakdown_values)), data.tobytes(), "".join(texts)


@examples(60)
@given(calls)
def test_a_state_of_the_release_with_fewer_metrics_is_read(drawn: list[Call]) -> None:
    before = [replace(c, values=(*c.values[:9], *[MISSING] * (M - 9)), caller="") for c in drawn]
    table = folded(before)
    assert pane_table.equal(pane_table.from_state(as_version_3(table)), table)


def test_different_tables_are_not_equal() -> None:
    one = folded([a_call()])
    assert not pane_table.equal(one, folded([a_call(event="other")]))
    assert not pane_table.equal(one, folded([a_call(error=True)]))
    assert not pane_table.equal(one, replace(one, requests=one.requests.astype(np.int32)))


def test_requests_of_a_dimension_set() -> None:
    table = folded([a_call(), a_call(labels=("a", "b", *[""] * 8)), a_call(start=BASE + WIDTH)])
    assert fold.requests_of(table, ("service", "model", "operation")) == 3
    assert fold.requests_of(table, ("tenant",)) == 2
    assert fold.requests_of(EMPTY, ("tenant",)) == 0


def test_the_compact_form_is_compact() -> None:
    table = folded([a_call(start=BASE + i * 1000, values=(i,) * M) for i in range(50)])
    held = sum(x.nbytes for f in fields(PaneTable) if isinstance(x := getattr(table, f.name), np.ndarray))
    assert 3 * len(pane_table.to_state(table)[2]) < held  # type: ignore[arg-type]
