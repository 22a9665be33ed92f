"""Loops over sketches: runs of (bucket, count), ascending by bucket, one run a cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled, inner
from operators.model import MISSING, Ints

Buckets = NDArray[np.int16]
Floats = NDArray[np.float64]

BUCKETS = 1888
"""Buckets of all values below 2**63."""

DENSE = 48
"""Cells of more entries are counted in a dense array, smaller ones by insertion: about where their costs meet."""


class Sketches(NamedTuple):
    """The sketches of cells: that of cell i is the entries `[start[i], start[i + 1])`, by ascending bucket."""

    start: Ints  # [cells + 1]
    bucket: Buckets
    counts: Ints


@inner
def bucket_of(v: int) -> int:
    """The bucket of a value >= 0: itself below 64, then 32 linear steps an octave."""
    if v < 64:
        return v
    e = 0
    w = v >> 6
    if w >= 1 << 32:
        w >>= 32
        e += 32
    if w >= 1 << 16:
        w >>= 16
        e += 16
    if w >= 1 << 8:
        w >>= 8
        e += 8
    if w >= 1 << 4:
        w >>= 4
        e += 4
    if w >= 1 << 2:
        w >>= 2
        e += 2
    if w >= 2:
        w >>= 1
        e += 1
    e += w
    return (e << 5) + (v >> e)


@inner
def insert(bucket: Buckets, count: Ints, low: int, high: int, b: int, c: int) -> int:
    """Add c to bucket b of the run [low, high), which has room behind it; the new end of the run."""
    j = high
    while j > low and bucket[j - 1] > b:
        j -= 1
    if j > low and bucket[j - 1] == b:
        count[j - 1] += c
        return high
    for i in range(high, j, -1):
        bucket[i] = bucket[i - 1]
        count[i] = count[i - 1]
    bucket[j] = b
    count[j] = c
    return high + 1


@compiled
def sketch_events(members: Ints, start: Ints, values: Ints) -> Sketches:
    """The sketches of groups of events, of G * M cells.

    Group g is `members[start[g]:start[g + 1]]`, indexes into values [n, M].
    """
    groups = len(start) - 1
    metrics = values.shape[1]
    out_start = np.zeros(groups * metrics + 1, np.int64)
    bucket = np.empty(values.size, np.int16)
    count = np.empty(values.size, np.int64)
    dense = np.zeros(BUCKETS, np.int64)
    end = 0
    for g in range(groups):
        for m in range(metrics):
            low = end
            if start[g + 1] - start[g] > DENSE:
                first = BUCKETS
                last = -1
                for i in members[start[g] : start[g + 1]]:
                    v = values[i, m]
                    if v != MISSING:
                        b = bucket_of(v)
                        dense[b] += 1
                        first = min(first, b)
                        last = max(last, b)
                for b in range(first, last + 1):
                    if dense[b]:
                        bucket[end] = b
                        count[end] = dense[b]
                        dense[b] = 0
                        end += 1
            else:
                for i in members[start[g] : start[g + 1]]:
                    v = values[i, m]
                    if v != MISSING:
                        end = insert(bucket, count, low, end, bucket_of(v), 1)
            out_start[g * metrics + m + 1] = end
    return Sketches(out_start, bucket[:end].copy(), count[:end].copy())


@compiled
def merge_sketches(sources: Ints, start: Ints, sketches: Sketches, metrics: int) -> Sketches:
    """The sketches of groups of rows: group g sums the rows `sources[start[g]:start[g + 1]]` of the given sketches."""
    cell_start, bucket, count = sketches.start, sketches.bucket, sketches.counts
    groups = len(start) - 1
    room = 0
    for s in sources:
        room += cell_start[(s + 1) * metrics] - cell_start[s * metrics]
    out_start = np.zeros(groups * metrics + 1, np.int64)
    out_bucket = np.empty(room, np.int16)
    out_count = np.empty(room, np.int64)
    dense = np.zeros(BUCKETS, np.int64)
    end = 0
    for g in range(groups):
        for m in range(metrics):
            low = end
            entries = 0
            for j in range(start[g], start[g + 1]):
                cell = sources[j] * metrics + m
                entries += cell_start[cell + 1] - cell_start[cell]
            if entries > DENSE and start[g + 1] - start[g] > 1:
                first = BUCKETS
                last = -1
                for j in range(start[g], start[g + 1]):
                    cell = sources[j] * metrics + m
                    for i in range(cell_start[cell], cell_start[cell + 1]):
                        b = bucket[i]
                        dense[b] += count[i]
                        first = min(first, b)
                        last = max(last, b)
                for b in range(first, last + 1):
                    if dense[b]:
                        out_bucket[end] = b
                        out_count[end] = dense[b]
                        dense[b] = 0
                        end += 1
            else:
                for j in range(start[g], start[g + 1]):
                    cell = sources[j] * metrics + m
                    for i in range(cell_start[cell], cell_start[cell + 1]):
                        end = insert(out_bucket, out_count, low, end, bucket[i], count[i])
            out_start[g * metrics + m + 1] = end
    return Sketches(out_start, out_bucket[:end].copy(), out_count[:end].copy())


@compiled
def find_ranks(sketches: Sketches, shares: Floats, middle: Floats) -> Floats:
    """[cells, Q]: the middle of the bucket that holds rank ceil(share * n), at least 1; nan in empty cells."""
    start, bucket, count = sketches.start, sketches.bucket, sketches.counts
    cells = len(start) - 1
    out = np.full((cells, len(shares)), np.nan)
    for cell in range(cells):
        n = 0
        for i in range(start[cell], start[cell + 1]):
            n += count[i]
        if n == 0:
            continue
        for q in range(len(shares)):
            wanted = max(1.0, min(float(n), np.ceil(shares[q] * n - 1e-9)))
            seen = 0
            for i in range(start[cell], start[cell + 1]):
                seen += count[i]
                if seen >= wanted:
                    out[cell, q] = middle[bucket[i]]
                    break
    return out
