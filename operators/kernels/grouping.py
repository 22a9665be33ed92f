"""Stable grouping and sorting by integers, for few key values: linear in the number of items and of key values."""

from __future__ import annotations

import numpy as np

from operators.kernels import compiled
from operators.model import Ints


@compiled
def group(major: Ints, minor: Ints, majors: int, minors: int) -> tuple[Ints, Ints]:
    """The items in the order of (major, minor, position), and where each group of equal keys starts.

    Keys lie in range(majors) and range(minors). Group g is `order[start[g]:start[g + 1]]`; `start` has one entry more
    than there are groups.
    """
    n = len(major)
    at = np.zeros(minors + 1, np.int64)
    for i in range(n):
        at[minor[i] + 1] += 1
    for k in range(minors):
        at[k + 1] += at[k]
    by_minor = np.empty(n, np.int64)
    for i in range(n):
        k = minor[i]
        by_minor[at[k]] = i
        at[k] += 1
    at = np.zeros(majors + 1, np.int64)
    for i in range(n):
        at[major[i] + 1] += 1
    for k in range(majors):
        at[k + 1] += at[k]
    order = np.empty(n, np.int64)
    for j in range(n):
        i = by_minor[j]
        order[at[major[i]]] = i
        at[major[i]] += 1
    start = np.empty(n + 1, np.int64)
    groups = 0
    for j in range(n):
        i = order[j]
        if j == 0 or major[i] != major[order[j - 1]] or minor[i] != minor[order[j - 1]]:
            start[groups] = j
            groups += 1
    start[groups] = n
    return order, start[: groups + 1].copy()


@compiled
def ranks(keys: Ints, low: int, span: int) -> tuple[Ints, Ints]:
    """The distinct keys in ascending order, and for each key its place among them; keys lie in [low, low + span)."""
    place = np.zeros(span, np.int64)
    for k in keys:
        place[k - low] = 1
    distinct = np.empty(min(span, len(keys)), np.int64)
    found = 0
    for k in range(span):
        if place[k]:
            distinct[found] = low + k
            place[k] = found
            found += 1
    where = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        where[i] = place[keys[i] - low]
    return distinct[:found].copy(), where


@compiled
def sort_ties(order: Ints, first: Ints, second: Ints, third: Ints, longest: int) -> bool:
    """Sort, in place and stably, each run of items of equal `first` by (second, third); items are in order of `first`.

    Returns False, with the order half done, if a run is longer than `longest`: the cost is the square of its length.
    """
    start = 0
    for i in range(1, len(order)):
        item = order[i]
        if first[item] != first[order[start]]:
            start = i
            continue
        if i - start >= longest:
            return False
        k = i
        while k > start:
            before = order[k - 1]
            if second[before] < second[item] or (second[before] == second[item] and third[before] <= third[item]):
                break
            order[k] = before
            k -= 1
        order[k] = item
    return True
