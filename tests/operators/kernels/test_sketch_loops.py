"""The loops of sketches against counters, below and above the size at which the method changes."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.kernels.sketch import DENSE, Buckets, Sketches, bucket_of, merge_sketches, sketch_events
from operators.kernels.varint import read, write
from operators.model import MISSING, Ints
from tests.conftest import examples

value = st.one_of(st.just(MISSING), st.integers(0, 100), st.integers(0, 2**62))


@examples(60)
@given(st.lists(st.lists(st.tuples(value, value), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(1, 20))
def test_sketches_count_buckets_and_merge(parts: list[list[tuple[int, int]]], times: int) -> None:
    groups = [part * times for part in parts]
    table = np.array([row for part in groups for row in part])
    start = np.cumsum([0, *map(len, groups)])
    found = sketch_events(np.arange(len(table)), start, table)
    counted = [Counter(bucket_of(row[m]) for row in part if row[m] != MISSING) for part in groups for m in range(2)]
    assert runs(*found) == [sorted(c.items()) for c in counted]

    merged = merge_sketches(np.arange(len(groups))[::-1].copy(), np.array([0, len(groups)]), Sketches(*found), 2)
    whole = [sum(counted[m::2], Counter()) for m in range(2)]
    assert runs(*merged) == [sorted(c.items()) for c in whole]


def test_long_runs_are_merged_alike() -> None:
    table = np.array([[i * 37 % 5_000] for i in range(4 * DENSE)])
    start = np.array([0, DENSE - 1, 2 * DENSE, 4 * DENSE])
    found = sketch_events(np.arange(len(table)), start, table)
    merged = merge_sketches(np.arange(3), np.array([0, 3]), Sketches(*found), 1)
    assert runs(*merged) == [sorted(Counter(bucket_of(int(v)) for v in table[:, 0]).items())]


def runs(start: Ints, bucket: Buckets, count: Ints) -> list[list[tuple[int, int]]]:
    pairs = list(zip(bucket.tolist(), count.tolist(), strict=True))
    return [pairs[a:b] for a, b in itertools.pairwise(start.tolist())]


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20), st.integers(0, 20))
def test_numbers_survive_as_bytes(numbers: list[int], at: int) -> None:
    cut = min(at, len(numbers))
    data, ends = write(np.array(numbers, np.int64), np.array([0, cut, len(numbers)]))
    found, taken = read(data, len(numbers))
    assert found.tolist() == numbers
    assert taken == len(data) == ends[-1]
    assert read(data[: ends[1]].copy(), len(numbers))[0].tolist() == numbers[:cut]
    if numbers:
        assert len(read(data, len(numbers) - 1)[0]) == len(numbers) - 1


def test_a_number_of_too_many_bits_ends_the_reading() -> None:
    data = np.array([2, *[255] * 9, 2], np.uint8)
    found, taken = read(data, 9)
    assert (found.tolist(), taken) == ([1], 1)
