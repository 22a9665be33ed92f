"""Quantile sketches: counts of values in integer log-linear buckets, exact under merging.

A value below 64 is its own bucket; above, each octave has 32 buckets of equal width (`bucket = (e << 5) + (v >> e)`
with `e = v.bit_length() - 6`). No logarithm is taken, so the buckets are the same on every machine. The middle of a
bucket is within 1/64 (1.6 %) of every value in it. The sketches of many cells are three arrays: the entries of cell c
are `[start[c], start[c + 1])` of `bucket` and `count`, by ascending bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import log

import numpy as np

from operators.errors import DataError
from operators.kernels.sketch import BUCKETS, Buckets, Floats, Sketches, find_ranks
from operators.kernels.varint import read, write
from operators.metrics import METRICS
from operators.model import Ints

VERSION = 1
"""The first byte of the binary form."""

MAX_METRICS = 64
MAX_BYTES = 3 + MAX_METRICS * (2 + BUCKETS * (2 + 10))
"""No binary form is longer: a version, a number of metrics, and every bucket of each with the longest count."""


def buckets(values: Ints) -> Buckets:
    """The bucket of each value >= 0."""
    small = np.minimum(values, 63)
    e = np.zeros(values.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        e += np.where(values >> (e + step + 5) > 0, step, 0)
    return np.where(values < 64, small, (e << 5) + (values >> e)).astype(np.int16)


def _middles() -> Floats:
    b = np.arange(BUCKETS, dtype=np.int64)
    e = np.maximum((b >> 5) - 1, 0)
    low = ((b & 31) + 32) << e
    return np.where(b < 64, b.astype(np.float64), low + ((np.int64(1) << e) - 1) / 2)


MIDDLE = _middles()
"""The representative value of each bucket: the mean of the smallest and the largest integer in it."""

LOG_STEPS = 1 << 20
"""Steps in one unit of a natural logarithm: a sum of whole steps is exact in any order."""

LOGS: Ints = np.array(
    [
        [round(LOG_STEPS * log(max(middle, 0.5) / metric.scale + metric.offset)) for middle in MIDDLE.tolist()]
        for metric in METRICS
    ],
    np.int64,
)
"""[M, buckets]: the natural logarithm of each bucket's representative in units of the metric plus its offset, in steps;
0 counts as half a fixed-point step."""


def quantiles(start: Ints, bucket: Buckets, count: Ints, shares: Sequence[float]) -> Floats:
    """[cells, Q] quantiles, in fixed-point units, nan in empty cells.

    The quantile of share q of n values is the value of rank max(1, ceil(q n)), counted from the smallest; the answer is
    within 1.6 % of it.
    """
    return find_ranks(Sketches(start, bucket, count), np.array(shares, np.float64), MIDDLE)


def encode(start: Ints, bucket: Buckets, count: Ints, metrics: int) -> list[bytes]:
    """The binary form of each row's sketches, one `bytes` for `metrics` cells.

    The version byte, then as zigzag LEB128: the number of metrics, and for each its number of entries and one pair for
    each entry: the step from the bucket before (from 0 for the first), and the count. Equal sketches give equal bytes.
    """
    cells = len(start) - 1
    rows = cells // metrics
    sizes = np.diff(start)
    first = np.zeros(len(bucket), np.bool_)
    first[start[:-1][sizes > 0]] = True
    step = np.diff(bucket.astype(np.int64), prepend=0)
    step[first] = bucket[first]
    head = 2 * start[:-1] + np.arange(cells) + np.arange(cells) // metrics + 1
    numbers = np.empty(2 * len(bucket) + cells + rows, np.int64)
    numbers[head] = sizes
    row_start = np.append(head[::metrics] - 1, len(numbers))
    numbers[row_start[:-1]] = metrics
    at = np.arange(len(bucket)) * 2 + np.repeat(head + 1 - 2 * start[:-1], sizes)
    numbers[at] = step
    numbers[at + 1] = count
    data, byte_start = write(numbers, row_start)
    text = data.tobytes()
    ends = byte_start.tolist()
    version = bytes([VERSION])
    return [version + text[a:b] for a, b in pairwise(ends)]


def decode(data: bytes) -> tuple[Ints, Buckets, Ints]:
    """The sketches of one row from its binary form: (start [metrics + 1], bucket, count).

    Raises `DataError`: `sketch_version` for an unknown version, `sketch_damaged` for anything else that `encode` cannot
    have written. Looks at no more than MAX_BYTES.
    """
    if not data or data[0] != VERSION:
        raise DataError("sketch_version", f"version {data[0] if data else 'missing'}; this release reads {VERSION}")
    if len(data) > MAX_BYTES:
        raise DataError("sketch_damaged", f"{len(data)} bytes; at most {MAX_BYTES} are possible")
    raw = np.frombuffer(data, np.uint8, offset=1).copy()
    numbers, taken = read(raw, len(raw))
    if taken < len(raw):
        raise DataError("sketch_damaged", "its last number does not end")
    if not len(numbers) or not 0 < numbers[0] <= MAX_METRICS:
        raise DataError("sketch_damaged", "the number of metrics is missing or impossible")
    start, found, counts = [0], [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    at = 1
    for _ in range(numbers[0]):
        size = int(numbers[at]) if at < len(numbers) else -1
        if not 0 <= size <= BUCKETS or at + 1 + 2 * size > len(numbers):
            raise DataError("sketch_damaged", "it ends too early")
        steps, count = numbers[at + 1 : at + 1 + 2 * size].reshape(-1, 2).T
        if (steps < 0).any() or (steps[1:] == 0).any() or steps.sum() >= BUCKETS or (count <= 0).any():
            raise DataError("sketch_damaged", "it has an impossible bucket or count")
        at += 1 + 2 * size
        found.append(np.cumsum(steps))
        counts.append(count)
        start.append(start[-1] + size)
    if at != len(numbers):
        raise DataError("sketch_damaged", "it goes on after its end")
    return np.array(start, np.int64), np.concatenate(found).astype(np.int16), np.concatenate(counts)
