"""Changes of an ordinary series, one in each slot: smaller than the least change of the settings, or far larger."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from random import Random
from typing import Literal, NamedTuple

import numpy as np

from operators.detect.base import Block, Detector, Verdicts, Watch
from operators.detect.context.rules import mean_rules
from operators.metrics import ERROR_RATIO, REQUESTS
from operators.model import Bools
from tests.contracts.laws.histories import STRETCH, WATCH, Way, quiet, watched, wild
from tests.watching import BEGIN, Feed, Row

AFTER = 14
"""Duration of a change, in panes."""

FAR_MORE = 10.0
"""Factor of the least change that makes a change undoubtedly large."""

BUSY = 2_000
"""Requests of a busy series in a pane."""

_WAYS: tuple[tuple[Way, float], ...] = (("up", 1.0), ("down", -1.0))


class Change(NamedTuple):
    """A change of one series: the functions that alter its ordinary rows before and after the quiet stretch ends."""

    cell: str  # the cell that changes
    way: Way
    after: Callable[[Row, int], Row]  # of the row and the panes since the end of the stretch
    before: Callable[[Row], Row] = lambda row: row


class History(NamedTuple):
    """The change of each slot, and the blocks of all panes, pickled."""

    watch: Watch
    changes: tuple[Change, ...]
    pickled: bytes

    def judged(self, detector: Detector) -> Iterator[tuple[int, Verdicts]]:
        """Each pane and its verdicts; the changes begin at pane `STRETCH`.

        The detector learns the cells that it calls no anomaly.
        """
        state = detector.state(len(self.changes))
        first = self.watch.cells.index(detector.cells[0])
        blocks: list[Block] = pickle.loads(self.pickled)
        for pane, block in enumerate(blocks):
            verdicts = detector.score(state, block)
            yield pane, verdicts
            excluded: Bools = np.zeros((len(self.changes), len(self.watch.cells)), np.bool_)
            excluded[:, first : first + len(detector.cells)] = verdicts.score >= 0.5
            detector.learn(state, block, excluded)


def _history(watch: Watch, changes: Sequence[Change], ordinary: Callable[[Random], Row], seed: int) -> History:
    """The history of these changes, one in each slot, all made from the same ordinary rows."""
    feed, draw, blocks = Feed(watch, len(changes)), Random(f"{seed} changes"), []
    for pane in range(STRETCH + AFTER):
        row = ordinary(draw)
        rows = (c.after(row, pane - STRETCH) if pane >= STRETCH else c.before(row) for c in changes)
        blocks.append(feed.pane(BEGIN + pane, {slot: r for slot, r in enumerate(rows) if r.requests}))
    return History(watch, tuple(changes), pickle.dumps(blocks))


def _values(row: Row, metric: str, change: Callable[[float], float], most: int | None = None) -> Row:
    """The row with this change of the metric's values, or of the first `most` of them."""
    values = row.values[metric]
    return Row(
        row.requests, row.errors, {**row.values, metric: [*map(change, values[:most]), *values[len(values[:most]) :]]}
    )


def _moved(metric: str, way: Way, by: float, most: int | None = None) -> Change:
    return Change(metric, way, lambda row, _: _values(row, metric, lambda v: v + by, most))


@lru_cache
def small_changes(noise: float, share: float, seed: int) -> History:
    """Changes by this share of the least one, in each cell and both ways; for metrics in logs also of one request."""
    watch, changes = watched("both"), []
    single = math.log(watch.config.outlier.min_factor)
    for metric, settings, least in zip(watch.metrics, watch.settings, mean_rules(watch).least.tolist(), strict=True):
        for way, sign in _WAYS:
            changes.append(_moved(metric.name, way, sign * share * least))
            if settings.in_logs:
                changes.append(_moved(metric.name, way, sign * share * single, most=1))
    surge, drop = watch.config.traffic.min_surge, watch.config.traffic.max_drop
    more, fewer = 1.0 + share * (surge - 1.0), 1.0 - share * (1.0 - drop)
    errors = watch.config.errors
    changes += [
        Change(REQUESTS, "up", lambda row, _: Row(math.floor(more * row.requests), row.errors, row.values)),
        Change(REQUESTS, "down", lambda row, _: Row(math.ceil(fewer * row.requests), row.errors, row.values)),
        Change(
            ERROR_RATIO,
            "up",
            lambda row, _: Row(row.requests, math.floor(share * errors.min_ratio * row.requests), row.values),
        ),
        Change(  # in a busy series, whose share of errors is known precisely
            ERROR_RATIO,
            "up",
            lambda row, _: Row(BUSY, math.floor(share * errors.min_ratio * BUSY), row.values),
            lambda row: Row(BUSY, row.errors, row.values),
        ),
        Change(  # too few errors, although every request of one pane fails
            ERROR_RATIO,
            "up",
            lambda row, since: Row(errors.min_errors - 1, errors.min_errors - 1 if since == 0 else 0, row.values),
            lambda row: Row(errors.min_errors - 1, 0, row.values),
        ),
    ]
    return _history(watch, changes, lambda draw: quiet(draw, 40, noise), seed)


@lru_cache
def large_changes(direction: Literal["up", "down", "both"], seed: int) -> History:
    """Changes far larger than the least change, in each cell and both ways."""
    watch, changes = watched(direction), []
    for metric, least in zip(watch.metrics, mean_rules(watch).least.tolist(), strict=True):
        changes += [_moved(metric.name, way, sign * FAR_MORE * least) for way, sign in _WAYS]
    changes += [
        Change(REQUESTS, "up", lambda row, _: Row(round(2 * FAR_MORE) * row.requests, row.errors, row.values)),
        Change(REQUESTS, "down", lambda row, _: Row(0)),
        Change(ERROR_RATIO, "up", lambda row, _: Row(row.requests, row.requests, row.values)),
        Change(ERROR_RATIO, "down", lambda row, _: Row(row.requests, 0, row.values)),
    ]
    return _history(watch, changes, quiet, seed)


def _of_each(cell: str, change: Callable[[float], float]) -> Callable[[Row], Row]:
    """A function that changes each value of the cell in a row; errors never exceed requests."""
    if cell == REQUESTS:
        return lambda row: Row(round(change(row.requests)), row.errors, row.values)
    if cell == ERROR_RATIO:
        return lambda row: Row(row.requests, min(round(change(row.errors)), row.requests), row.values)
    return lambda row: _values(row, cell, change)


@lru_cache
def transformed(seed: int) -> History:
    """For each cell three series that turn wild: with plain values, with values times three, and with two added."""
    changes = [
        _from_the_start(cell, _of_each(cell, change))
        for cell in WATCH.cells
        for change in (lambda v: v, lambda v: 3 * v, lambda v: 2 + v)
    ]
    return _history(WATCH, changes, quiet, seed)


def _from_the_start(cell: str, change: Callable[[Row], Row]) -> Change:
    return Change(cell, "up", lambda row, _: change(wild(row)), change)
