"""Loops that aggregate the cells of pane rows and choose their evidence."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from operators.kernels import compiled
from operators.kernels.sketch import bucket_of
from operators.model import MISSING, Bools, Ints


class Sums(NamedTuple):
    """Sums of N rows or groups: requests and errors [N], and by metric [N, M] count, total and sum of logarithms."""

    requests: Ints
    errors: Ints
    counts: Ints
    totals: Ints
    logs: Ints


SumArrays = tuple[Ints, Ints, Ints, Ints, Ints]
"""The arrays of `Sums`."""


@compiled
def fold_cells(
    members: Ints, start: Ints, values: Ints, error: Bools, request: Bools, log_of: Ints
) -> tuple[SumArrays, Ints, Ints]:
    """Aggregates of groups of events: group g is `members[start[g]:start[g + 1]]`, indexes into the three columns.

    The columns are values [n, M], error, and request: an event that is none tells values of a request that was counted
    before. `log_of` [M, buckets] is the logarithm of a value by its bucket. Returns the sums, and by metric [G, M]
    minimum and maximum (MISSING where no event of the group has the metric).
    """
    groups = len(start) - 1
    metrics = values.shape[1]
    requests = np.zeros(groups, np.int64)
    errors = np.zeros(groups, np.int64)
    count = np.zeros((groups, metrics), np.int64)
    total = np.zeros((groups, metrics), np.int64)
    logs = np.zeros((groups, metrics), np.int64)
    least = np.full((groups, metrics), MISSING, np.int64)
    most = np.full((groups, metrics), MISSING, np.int64)
    for g in range(groups):
        for i in members[start[g] : start[g + 1]]:
            if request[i]:
                requests[g] += 1
                errors[g] += error[i]
            for m in range(metrics):
                v = values[i, m]
                if v != MISSING:
                    if count[g, m] == 0 or v < least[g, m]:
                        least[g, m] = v
                    most[g, m] = max(most[g, m], v)
                    count[g, m] += 1
                    total[g, m] += v
                    logs[g, m] += log_of[m, bucket_of(v)]
    return (requests, errors, count, total, logs), least, most


@compiled
def add_rows(sources: Ints, start: Ints, rows: Sums) -> SumArrays:
    """Row g is the sum of the rows `sources[start[g]:start[g + 1]]`."""
    groups = len(start) - 1
    of_requests, of_errors, of_counts, of_totals, of_logs = rows
    metrics = of_counts.shape[1]
    requests = np.zeros(groups, np.int64)
    errors = np.zeros(groups, np.int64)
    counts = np.empty((groups, metrics), np.int64)
    totals = np.empty((groups, metrics), np.int64)
    logs = np.empty((groups, metrics), np.int64)
    for g in range(groups):
        for m in range(metrics):
            counts[g, m] = 0
            totals[g, m] = 0
            logs[g, m] = 0
        for j in range(start[g], start[g + 1]):
            s = sources[j]
            requests[g] += of_requests[s]
            errors[g] += of_errors[s]
            for m in range(metrics):
                counts[g, m] += of_counts[s, m]
                totals[g, m] += of_totals[s, m]
                logs[g, m] += of_logs[s, m]
    return requests, errors, counts, totals, logs


@compiled
def bound_rows(sources: Ints, start: Ints, least: Ints, most: Ints) -> tuple[Ints, Ints]:
    """Minima and maxima over the rows `sources[start[g]:start[g + 1]]`; MISSING is no value."""
    groups = len(start) - 1
    metrics = least.shape[1]
    low = np.full((groups, metrics), MISSING, np.int64)
    high = np.full((groups, metrics), MISSING, np.int64)
    for g in range(groups):
        for j in range(start[g], start[g + 1]):
            s = sources[j]
            for m in range(metrics):
                v = least[s, m]
                if v != MISSING and (low[g, m] == MISSING or v < low[g, m]):
                    low[g, m] = v
                high[g, m] = max(high[g, m], most[s, m])
    return low, high


@compiled
def choose(entries: Ints, start: Ints, alike: Ints, values: Ints, error: Bools, high: Bools, most: int) -> Bools:
    """Which of `entries` are evidence: per group and metric the `most` worst values, and the first `most` errors.

    Group g is `entries[start[g]:start[g + 1]]`, in the order that breaks ties. Entries index `alike`, `values` [n, M]
    and `error`. Entries with equal numbers in `alike` stand side by side and are one request, which counts once.
    `high` [M] says whether large values are the bad ones.
    """
    kept = np.zeros(len(entries), np.bool_)
    if most == 0:
        return kept
    metrics = values.shape[1]
    best = np.empty(most, np.int64)
    place = np.empty(most, np.int64)
    for g in range(len(start) - 1):
        errors = 0
        for j in range(start[g], start[g + 1]):
            e = entries[j]
            if error[e] and errors < most and (j == start[g] or alike[e] != alike[entries[j - 1]]):
                kept[j] = True
                errors += 1
        for m in range(metrics):
            found = 0
            for j in range(start[g], start[g + 1]):
                e = entries[j]
                v = values[e, m]
                if v == MISSING or (j > start[g] and alike[e] == alike[entries[j - 1]]):
                    continue
                if not high[m]:
                    v = -v
                if found == most and v <= best[most - 1]:
                    continue
                k = found if found < most else most - 1
                while k > 0 and best[k - 1] < v:
                    best[k] = best[k - 1]
                    place[k] = place[k - 1]
                    k -= 1
                best[k] = v
                place[k] = j
                if found < most:
                    found += 1
            for k in range(found):
                kept[place[k]] = True
    return kept
