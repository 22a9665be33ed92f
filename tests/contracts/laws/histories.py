"""Histories for the laws of detectors: a quiet stretch that warms every detector up, then panes drawn at random."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Literal, NamedTuple

import numpy as np
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect.base import Block, Watch
from operators.model import Bools
from tests.watching import BEGIN, PANE_S, Feed, Row

WARM = 12
STRETCH = 64
"""Panes of the quiet stretch: enough for each detector of the registry to judge and to have learned a tail."""

DRAWN = 24
SLOTS = 4
"""The last slot is empty in the quiet stretch, so that drawn panes can have a cold series beside warm ones."""

LARGE = 30
"""Factor of the usual number of requests in a wild pane."""

USUAL = {"latency": 6.0, "tokens_per_second": 4.0, "completion_tokens": 5.0, "quality": 0.8}
"""Usual value of each watched metric, on the scale in which it is judged."""

Way = Literal["up", "down"]


def watched(direction: Literal["up", "down", "both"] | None = None) -> Watch:
    """Settings under which every detector judges after the stretch; `direction`, if given, is that of all metrics."""
    metrics: dict[str, dict[str, object]] = {
        name: {"watch": name in USUAL, **({"direction": direction} if direction else {})}
        for name in DetectConfig().metrics
    }
    metrics["latency"]["min_count"] = 4
    return Watch(
        DetectConfig.model_validate(
            {
                "horizons_s": (10, 30, 60),
                "warm_up_panes": WARM,
                "metrics": metrics,
                "traffic": {"trusted_after_s": 0},
                "limits": [
                    limit
                    for (way, name), limit in _LIMITS.items()
                    if direction in (None, "both", way) or name not in USUAL
                ],
            }
        ),
        PANE_S,
    )


_LIMITS: dict[tuple[Way, str], dict[str, object]] = {
    ("up", "latency"): {"metric": "latency", "statistic": "p90", "above": 4_000.0, "horizon_s": 10},
    ("up", "tokens_per_second"): {"metric": "tokens_per_second", "above": 500.0, "horizon_s": 30},
    ("up", "completion_tokens"): {
        "metric": "completion_tokens", "statistic": "sum", "above": 300_000.0, "horizon_s": 60,
    },
    ("up", "quality"): {"metric": "quality", "above": 1.2, "horizon_s": 10},
    ("down", "latency"): {"metric": "latency", "statistic": "p50", "below": 40.0, "horizon_s": 10},
    ("down", "tokens_per_second"): {"metric": "tokens_per_second", "below": 10.0, "horizon_s": 10},
    ("down", "completion_tokens"): {"metric": "completion_tokens", "below": 10.0, "horizon_s": 30},
    ("down", "quality"): {"metric": "quality", "below": 0.4, "horizon_s": 30, "min_count": 4},
    ("up", "requests"): {"metric": "requests", "above": 1_000.0, "horizon_s": 10},
    ("down", "requests"): {"metric": "requests", "below": 10.0, "horizon_s": 60},
    ("up", "error_ratio"): {"metric": "error_ratio", "above": 0.4, "horizon_s": 60},
}  # fmt: skip

WATCH = watched()
CELLS = len(WATCH.cells)


def quiet(draw: Random, requests: int = 10, noise: float = 0.1) -> Row:
    """A row of ordinary traffic: rare errors, values that vary."""
    errors = int(draw.random() < 0.25)
    values = {
        name: [usual + draw.gauss(0.0, noise * (0.1 if name == "quality" else 1.0)) for _ in range(requests)]
        for name, usual in USUAL.items()
    }
    return Row(requests, errors, values)


def wild(row: Row) -> Row:
    """The row with every cell far from usual."""
    worse = {"latency": 4.0, "tokens_per_second": -4.0, "completion_tokens": 12.0, "quality": -0.8}
    values = {name: [v + worse[name] for v in mine] for name, mine in row.values.items()}
    return Row(LARGE * row.requests, LARGE * row.requests // 2, values)


class Pane(NamedTuple):
    """A drawn pane: by slot a row or its kind, and one bit for each cell of each slot, set if the cell is excluded."""

    step: int  # panes since the previous one
    rows: Mapping[int, Row | Literal["quiet", "wild"]]
    excluded: int


@dataclass(frozen=True)
class Case:
    """One history, an order of the slots, and the index of one drawn pane."""

    seed: int
    panes: Sequence[Pane]
    order: Sequence[int]
    at: int


class Step(NamedTuple):
    """One pane as a detector gets it; `drawn` is true after the quiet stretch."""

    block: Block
    excluded: Bools  # [slots, cells]
    drawn: bool


_values = st.lists(st.floats(-40, 40), max_size=6)
_rows = st.builds(
    lambda v, w, more, errors: Row(
        len(v) + more,
        min(errors, len(v) + more),
        {"latency": v, "quality": w, "tokens_per_second": w, "completion_tokens": v},
    ),
    _values,
    _values,
    st.integers(1, 50),
    st.integers(0, 60),
)
_kinds = st.one_of(st.sampled_from(["quiet", "wild"]), st.sampled_from(["quiet", "wild"]), _rows)
_panes = st.builds(
    Pane,
    st.sampled_from([1, 1, 1, 1, 1, 2, 9]),
    st.one_of(
        *[st.fixed_dictionaries(dict.fromkeys(range(born), _kinds)) for born in (SLOTS - 1, SLOTS)],
        st.dictionaries(st.integers(0, SLOTS - 1), _kinds),
    ),
    st.one_of(st.just(0), st.integers(0, 2 ** (SLOTS * CELLS) - 1)),
)
cases = st.builds(
    Case,
    st.integers(0, 2),
    st.lists(_panes, min_size=DRAWN // 2, max_size=DRAWN),
    st.permutations(range(SLOTS)),
    st.integers(0, DRAWN // 2 - 1),
)


def bits(excluded: int) -> Bools:
    """The cells [slots, cells] that the bits stand for."""
    return np.array([excluded >> i & 1 for i in range(SLOTS * CELLS)], np.bool_).reshape(SLOTS, CELLS)


@lru_cache(maxsize=128)
def _stretch(seed: int, order: tuple[int, ...]) -> tuple[Feed, bytes]:
    """The feed after the quiet stretch, and its steps, pickled so that each caller gets its own arrays."""
    feed, found, marks = Feed(WATCH, SLOTS), [], Random(f"{seed}")
    draws = [Random(f"{seed} {slot}") for slot in range(SLOTS - 1)]
    for pane in range(STRETCH):
        block = feed.pane(BEGIN + pane, {order[slot]: quiet(draw) for slot, draw in enumerate(draws)})
        excluded = np.zeros((SLOTS, CELLS), np.bool_)
        if pane < 2 * WARM and marks.random() < 0.2:  # cells may be excluded while a series is cold
            excluded[list(order)] = bits(marks.getrandbits(SLOTS * CELLS))
        found.append(Step(block, excluded, drawn=False))
    return feed, pickle.dumps(found)


def steps(
    case: Case,
    order: Sequence[int] = range(SLOTS),
    without: Callable[[Bools], Bools] | None = None,
) -> Iterator[Step]:
    """The panes of a case, with slot i at `order[i]`.

    `without` maps the excluded cells of a drawn pane to the slots [slots] whose rows are left out.
    """
    feed, pickled = _stretch(case.seed, tuple(order))
    yield from pickle.loads(pickled)
    feed, at = feed.fork(), BEGIN + STRETCH - 1
    for number, pane in enumerate(case.panes):
        at += pane.step
        marks = bits(pane.excluded)
        lacks = without(marks) if without else np.zeros(SLOTS, np.bool_)
        rows = {order[slot]: _row(case.seed, number, slot, row) for slot, row in pane.rows.items() if not lacks[slot]}
        excluded = np.empty_like(marks)
        excluded[list(order)] = marks
        yield Step(feed.pane(at, rows), excluded, drawn=True)


@lru_cache(maxsize=1024)
def _ordinary(seed: int, number: int, slot: int) -> Row:
    return quiet(Random(f"{seed} {number} {slot} drawn"))


def _row(seed: int, number: int, slot: int, row: Row | Literal["quiet", "wild"]) -> Row:
    if isinstance(row, Row):
        return row
    ordinary = _ordinary(seed, number, slot)
    return wild(ordinary) if row == "wild" else ordinary
