"""The loops of pane rows against plain references."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.panes import Sums, add_rows, bound_rows, choose, fold_cells
from operators.kernels.sketch import BUCKETS, bucket_of
from operators.model import MISSING, Ints

M = 3
LOG_OF = np.arange(M * BUCKETS).reshape(M, BUCKETS) ** 2 % 9973 - 4000
"""Arbitrary numbers by metric and bucket, in place of logarithms."""

value = st.one_of(st.just(MISSING), st.integers(0, 5), st.integers(0, 10**12))
rows = st.lists(st.tuples(value, value, value), min_size=1, max_size=30)


def groups(data: st.DataObject, n: int) -> tuple[Ints, Ints, list[list[int]]]:
    """A permutation of range(n) cut into non-empty groups: as arrays, and as lists."""
    members = data.draw(st.permutations(range(n)))
    inner = data.draw(st.lists(st.integers(1, n), max_size=4))
    start = sorted({0, n, *inner})
    parts = [members[a:b] for a, b in itertools.pairwise(start)]
    return np.array(members, np.int64), np.array(start, np.int64), parts


@given(rows, st.data())
def test_cells_are_counted(table: list[tuple[int, int, int]], data: st.DataObject) -> None:
    members, start, parts = groups(data, len(table))
    error = data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table)))
    request = data.draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table)))
    sums, least, most = fold_cells(members, start, np.array(table), np.array(error), np.array(request), LOG_OF)
    requests, errors, count, total, logs = sums
    for g, part in enumerate(parts):
        assert requests[g] == sum(request[i] for i in part)
        assert errors[g] == sum(error[i] for i in part if request[i])
        for m in range(M):
            values = [table[i][m] for i in part if table[i][m] != MISSING]
            assert (count[g, m], total[g, m]) == (len(values), sum(values))
            assert logs[g, m] == sum(LOG_OF[m, bucket_of(v)] for v in values)
            assert (least[g, m], most[g, m]) == ((min(values), max(values)) if values else (MISSING, MISSING))


@given(rows, st.data())
def test_rows_are_added_and_bounded(table: list[tuple[int, int, int]], data: st.DataObject) -> None:
    sources, start, parts = groups(data, len(table))
    values = np.array(table)
    one = values[:, 0].copy()
    requests, errors, count, total, logs = add_rows(sources, start, Sums(one, one + 1, values, values * 2, values * 3))
    least, most = bound_rows(sources, start, values, values)
    for g, part in enumerate(parts):
        assert requests[g] == one[part].sum()
        assert errors[g] == (one[part] + 1).sum()
        assert count[g].tolist() == values[part].sum(axis=0).tolist()
        assert total[g].tolist() == (2 * values[part]).sum(axis=0).tolist()
        assert logs[g].tolist() == (3 * values[part]).sum(axis=0).tolist()
        for m in range(M):
            present = [table[i][m] for i in part if table[i][m] != MISSING]
            assert (least[g, m], most[g, m]) == ((min(present), max(present)) if present else (MISSING, MISSING))


@given(rows, st.integers(0, 3), st.lists(st.booleans(), min_size=M, max_size=M), st.data())
def test_the_worst_are_chosen(
    table: list[tuple[int, int, int]], most: int, high: list[bool], data: st.DataObject
) -> None:
    n = len(table)
    error = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    inner = data.draw(st.lists(st.integers(1, n), max_size=3))
    start = sorted({0, n, *inner})
    same = [False, *(a == b for a, b in itertools.pairwise(zip(table, error, strict=True)))]
    alike = np.cumsum([not s for s in same])
    kept = choose(
        np.arange(n), np.array(start), alike, np.array(table), np.array(error), np.array(high, np.bool_), most
    )
    for a, b in itertools.pairwise(start):
        distinct = [i for i in range(a, b) if i == a or not same[i]]
        expected = set([i for i in distinct if error[i]][:most])
        for m in range(M):
            carrying = [i for i in distinct if table[i][m] != MISSING]
            expected |= set(sorted(carrying, key=lambda i: (-table[i][m] if high[m] else table[i][m], i))[:most])
        assert {i for i in range(a, b) if kept[i]} == expected
