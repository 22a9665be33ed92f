"""The parts of pane rows: cells, breakdowns and evidence, added up by row.

Works on arrays alone; `operators.panes.fold` makes tables of the results.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels.grouping import group, ranks
from operators.kernels.panes import Sums, add_rows, bound_rows
from operators.kernels.sketch import Sketches, merge_sketches
from operators.metrics import METRICS
from operators.model import LABELS, Bools, Ints
from operators.panes.evidence import chosen
from operators.series import OTHER, rank

_M = len(METRICS)
_L = len(LABELS)


class Cells(NamedTuple):
    """Aggregates, N of each."""

    sums: Sums
    least: Ints
    most: Ints
    sketches: Sketches


class Breakdown(NamedTuple):
    """Breakdown entries; `value` indexes `texts`, which are sorted."""

    row: Ints
    label: Ints
    value: Ints
    texts: list[str]
    sums: Sums


class Requests(NamedTuple):
    """Requests kept as evidence."""

    row: Ints
    start: Ints
    values: Ints
    error: Bools
    event: list[str]
    trace: list[str]
    caller: list[str]


def indexed(texts: Sequence[str]) -> tuple[list[str], Ints]:
    """The distinct texts in order, without "", and the place of each among them, -1 for ""."""
    distinct = sorted({*texts, ""})
    place = dict(zip(distinct, range(-1, len(distinct)), strict=False))
    return distinct[1:], np.fromiter(map(place.__getitem__, texts), np.int64, len(texts))


def used(texts: list[str], index: Ints) -> tuple[list[str], NDArray[np.int32]]:
    """The texts that the index names, in order, and the index into them."""
    mask = np.zeros(len(texts), np.bool_)
    mask[index] = True
    if mask.all():
        return texts, index.astype(np.int32)
    return list(compress(texts, mask)), (np.cumsum(mask) - 1)[index].astype(np.int32)


def ranked(keys: Ints) -> tuple[Ints, Ints]:
    """The distinct keys in order, and the place of each among them."""
    low = int(keys.min())
    span = int(keys.max()) - low + 1
    if span <= 8 * len(keys) + 1_024:
        return ranks(keys, low, span)
    distinct, place = np.unique(keys, return_inverse=True)
    return distinct, place


def owners(order: Ints, start: Ints) -> Ints:
    """The group that each item is in."""
    owner = np.empty(len(order), np.int64)
    owner[order] = np.repeat(np.arange(len(start) - 1), np.diff(start))
    return owner


def spans(first: Ints, sizes: Ints) -> Ints:
    """Ranges of numbers, one after another: each begins at its `first` and has as many numbers as its size."""
    ends = np.cumsum(sizes)
    out: Ints = np.arange(int(sizes.sum())) + np.repeat(first - (ends - sizes), sizes)
    return out


def joined(indexes: Sequence[NDArray[np.signedinteger]], sizes: Sequence[int]) -> Ints:
    """Indexes into parts of these sizes, made indexes into the parts one after another."""
    offset = np.concatenate([[0], np.cumsum(sizes)])
    return np.concatenate([i + o for i, o in zip(indexes, offset.tolist(), strict=False)]).astype(np.int64)


def add_up(cells: Cells, sources: Ints, start: Ints) -> Cells:
    """Row r adds up the cells `sources[start[r]:start[r + 1]]`."""
    least, most = bound_rows(sources, start, cells.least, cells.most)
    sketches = merge_sketches(sources, start, cells.sketches, _M)
    return Cells(Sums(*add_rows(sources, start, cells.sums)), least, most, Sketches(*sketches))


def break_down(entries: Breakdown, sources: Ints, rows: int, most: int) -> Breakdown:
    """Merge entries of one (row, label, value); a (row, label) keeps at most `most` values beside `__other__`.

    The sums of entry i are number `sources[i]` of `entries.sums`.
    """
    key = entries.row * _L + entries.label
    order, start = group(key, entries.value, rows * _L, len(entries.texts))
    beyond = _beyond(key[order[start[:-1]]], entries.value[order[start[:-1]]], entries.texts, most)
    texts = entries.texts
    if beyond.any():
        texts = sorted({*entries.texts, OTHER})
        other = texts.index(OTHER)
        value = entries.value + (0 if OTHER in entries.texts else entries.value >= other)
        value[beyond[owners(order, start)]] = other
        entries = entries._replace(value=value)
        order, start = group(key, value, rows * _L, len(texts))
    firsts = order[start[:-1]]
    row, label = np.divmod(key[firsts], _L)
    sums = Sums(*add_rows(sources[order], start, entries.sums))
    return Breakdown(row, label, entries.value[firsts], texts, sums)


def _beyond(key: Ints, value: Ints, texts: list[str], most: int) -> Bools:
    """Whether each distinct (key, value) is beyond the `most` values of its key with the smallest rank.

    `__other__` is never one of them and does not count.
    """
    beyond = np.zeros(len(key), np.bool_)
    real = np.array([text != OTHER for text in texts], np.bool_)[value]
    keys = int(key.max(initial=0)) + 1
    candidates = np.flatnonzero(real & (np.bincount(key[real], minlength=keys) > most)[key])
    if len(candidates):
        known, place = ranked(value[candidates])
        hashes = np.array([rank(texts[v]) for v in known.tolist()], np.uint64)
        by_hash = np.empty(len(known), np.int64)
        by_hash[np.argsort(hashes, kind="stable")] = np.arange(len(known))
        order, _ = group(key[candidates], by_hash[place], keys, len(known))
        ordered = candidates[order]
        first = np.flatnonzero(np.diff(key[ordered], prepend=-1))
        nth = np.arange(len(ordered)) - np.repeat(first, np.diff(np.append(first, len(ordered))))
        beyond[ordered[nth >= most]] = True
    return beyond


def keep_worst(
    row: Ints, rows: int, entry: Ints, alike: Ints, values: Ints, error: Bools, most: int
) -> tuple[Ints, Ints]:
    """The (row, entry) pairs kept as evidence, by row; pairs are given in the order of `evidence.content_order`."""
    order, start = group(row, np.zeros(len(row), np.int64), rows, 1)
    kept = chosen(entry[order], start, alike, values, error, most)
    return row[order][kept], entry[order][kept]
