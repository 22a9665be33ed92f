"""Grouping against sorting."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.kernels.grouping import group, ranks

keys = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=40)


@settings(deadline=None)
@given(keys)
def test_groups_are_those_of_a_stable_sort(pairs: list[tuple[int, int]]) -> None:
    major = np.array([a for a, _ in pairs], np.int64)
    minor = np.array([b for _, b in pairs], np.int64)
    order, start = group(major, minor, 6, 4)
    expected = sorted(range(len(pairs)), key=lambda i: pairs[i])
    assert order.tolist() == expected
    edges = [j for j, i in enumerate(expected) if j == 0 or pairs[i] != pairs[expected[j - 1]]]
    assert start.tolist() == [*edges, len(pairs)]


@settings(deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=1, max_size=40))
def test_ranks_are_those_of_unique(numbers: list[int]) -> None:
    low = min(numbers)
    distinct, place = ranks(np.array(numbers, np.int64), low, max(numbers) - low + 1)
    expected, where = np.unique(np.array(numbers), return_inverse=True)
    assert distinct.tolist() == expected.tolist()
    assert place.tolist() == where.tolist()
