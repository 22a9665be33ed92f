"""Grouping against plain sorting."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.grouping import group, ranks, sort_ties

keys = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40)


@given(keys)
def test_groups_are_those_of_a_stable_sort(pairs: list[tuple[int, int]]) -> None:
    major = np.array([a for a, _ in pairs], np.int64)
    minor = np.array([b for _, b in pairs], np.int64)
    order, start = group(major, minor, 6, 4)
    expected = sorted(range(len(pairs)), key=lambda i: pairs[i])
    assert order.tolist() == expected
    edges = [j for j, i in enumerate(expected) if j == 0 or pairs[i] != pairs[expected[j - 1]]]
    assert start.tolist() == [*edges, len(pairs)]


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40))
def test_ranks_are_those_of_unique(numbers: list[int]) -> None:
    low = min(numbers)
    distinct, place = ranks(np.array(numbers, np.int64), low, max(numbers) - low + 1)
    expected, where = np.unique(np.array(numbers), return_inverse=True)
    assert distinct.tolist() == expected.tolist()
    assert place.tolist() == where.tolist()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.integers(0, 3)), max_size=40), st.integers(1, 8))
def test_ties_are_sorted_as_by_all_three_unless_there_are_too_many(
    items: list[tuple[int, int, int]], longest: int
) -> None:
    columns = np.array(items, np.int64).reshape(-1, 3).T.copy()
    order = np.argsort(columns[0], kind="stable")
    done = sort_ties(order, columns[0], columns[1], columns[2], longest)
    assert done == (np.bincount(columns[0], minlength=1).max() <= longest)
    if done:
        assert order.tolist() == sorted(range(len(items)), key=lambda i: items[i])
