"""Sketches: the buckets, quantiles within 2 %, moments, and the binary form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.errors import DataError
from operators.kernels.sketch import BUCKETS, Buckets, bucket_of
from operators.model import Ints
from operators.panes import sketch

values_of_cells = st.lists(st.lists(st.one_of(st.integers(0, 200), st.integers(0, 2**62)), max_size=30), max_size=6)


def a_sketch(cells: list[list[int]]) -> tuple[Ints, Buckets, Ints]:
    """The expected sketches of the cells."""
    start, bucket, count = [0], [], []
    for values in cells:
        found, times = np.unique(sketch.buckets(np.array(values, np.int64)), return_counts=True)
        bucket += found.tolist()
        count += times.tolist()
        start.append(len(bucket))
    return np.array(start, np.int64), np.array(bucket, np.int16), np.array(count, np.int64)


@given(st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1)))
def test_the_bucket_is_the_one_of_the_definition(v: int) -> None:
    e = v.bit_length() - 6
    expected = v if v < 64 else (e << 5) + (v >> e)
    assert bucket_of(v) == expected
    assert sketch.buckets(np.array([v], np.int64)).tolist() == [expected]
    assert expected < BUCKETS


def test_buckets_follow_one_another_without_gaps() -> None:
    found = sketch.buckets(np.arange(1 << 14, dtype=np.int64))
    assert set(np.diff(found).tolist()) == {0, 1}
    assert bucket_of(2**63 - 1) == BUCKETS - 1


@given(st.integers(0, 2**62))
def test_the_middle_is_close_to_every_value_of_its_bucket(v: int) -> None:
    assert abs(sketch.MIDDLE[bucket_of(v)] - v) <= v / 64


@given(values_of_cells, st.lists(st.floats(0, 1), min_size=1, max_size=4))
def test_quantiles_are_within_two_percent_of_the_exact_rank(cells: list[list[int]], shares: list[float]) -> None:
    found = sketch.quantiles(*a_sketch(cells), shares)
    assert found.shape == (len(cells), len(shares))
    for values, row in zip(cells, found, strict=True):
        for share, got in zip(shares, row, strict=True):
            if values:
                rank = max(1, int(np.ceil(share * len(values) - 1e-9)))
                exact = sorted(values)[rank - 1]
                assert abs(got - exact) <= 0.02 * exact
            else:
                assert np.isnan(got)


@given(st.lists(st.lists(st.lists(st.integers(0, 2**62), max_size=5), min_size=3, max_size=3), max_size=4))
def test_the_binary_form_gives_the_sketches_back(rows: list[list[list[int]]]) -> None:
    start, bucket, count = a_sketch([cell for row in rows for cell in row])
    encoded = sketch.encode(start, bucket, count, 3)
    assert len(encoded) == len(rows)
    for r, data in enumerate(encoded):
        assert data[0] == sketch.VERSION
        got = sketch.decode(data)
        low, high = start[3 * r], start[3 * r + 3]
        assert got[0].tolist() == (start[3 * r : 3 * r + 4] - low).tolist()
        assert got[1].tolist() == bucket[low:high].tolist()
        assert got[2].tolist() == count[low:high].tolist()
        assert got[1].dtype == np.int16
        assert got[2].dtype == np.int64


def test_the_binary_form_is_small_and_fixed() -> None:
    start, bucket, count = a_sketch([[1, 1, 70], [], [5]])
    assert sketch.encode(start, bucket, count, 3) == [bytes([1, 6, 4, 2, 4, 132, 1, 2, 0, 2, 10, 2])]


@pytest.mark.compiled
def test_the_largest_sketches_are_within_the_bound() -> None:
    metrics = sketch.MAX_METRICS
    start = np.arange(metrics + 1, dtype=np.int64) * BUCKETS
    bucket = np.tile(np.arange(BUCKETS, dtype=np.int16), metrics)
    (data,) = sketch.encode(start, bucket, np.full(len(bucket), 2**62), metrics)
    assert len(data) <= sketch.MAX_BYTES
    assert len(sketch.decode(data)[1]) == len(bucket)


@pytest.mark.parametrize("data", [b"", b"\x00\x02\x00", b"\x02\x02\x00", b"\xff"])
def test_unknown_versions_are_refused(data: bytes) -> None:
    with pytest.raises(DataError) as e:
        sketch.decode(data)
    assert e.value.reason == "sketch_version"


@pytest.mark.parametrize(
    "data",
    [
        b"\x01",
        b"\x01\x00",
        b"\x01\x03",  # -2 metrics
        b"\x01\x82\x01",  # 65 metrics
        b"\x01\x02",  # a metric that is not there
        b"\x01\x02\x02\x02",  # half an entry
        b"\x01\x02\x01",  # -1 entries
        b"\x01\x02\x02\x02\x00",  # a count of 0
        b"\x01\x02\x02\x02\x01",  # a count of -1
        b"\x01\x02\x02\x01\x02",  # a bucket of -1
        b"\x01\x02\x04\x02\x02\x00\x02",  # a bucket twice
        b"\x01\x02\x02\xc0\x1d\x02",  # a bucket beyond the last
        b"\x01\x02\x00\x00",  # data behind the end
        b"\x01\x02\x82",  # a number that does not end
        b"\x01" + b"\xff" * 9 + b"\x02",  # a number of more than 64 bits
        bytes([1]) + bytes(sketch.MAX_BYTES),
    ],
)
def test_damaged_forms_are_refused(data: bytes) -> None:
    with pytest.raises(DataError) as e:
        sketch.decode(data)
    assert e.value.reason == "sketch_damaged"


@given(st.binary(max_size=40))
def test_any_bytes_are_either_a_sketch_or_a_data_error(tail: bytes) -> None:
    try:
        start, bucket, count = sketch.decode(b"\x01" + tail)
    except DataError:
        return
    (again,) = sketch.encode(start, bucket, count, len(start) - 1)
    assert [x.tolist() for x in sketch.decode(again)] == [x.tolist() for x in (start, bucket, count)]
