"""Events as plain objects, and functions that draw and fold them for tests."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from operators.metrics import METRICS
from operators.model import LABELS, MISSING, Bools, Events, Ints
from operators.panes import fold
from operators.panes.table import PaneTable

M = len(METRICS)
SETS = (("service", "model", "operation"), ("tenant",))
WIDTH = 10_000_000
BASE = 1_700_000_000_000_000
FIRST = BASE // WIDTH
EVIDENCE = 2
VALUES = 3


@dataclass
class Call:
    """One event, as a plain object."""

    start: int
    took: int
    labels: tuple[str, ...]
    values: tuple[int, ...]
    error: bool
    event: str
    trace: str
    caller: str = ""


def columns(calls: list[Call]) -> Events:
    combos = list(dict.fromkeys(c.labels for c in calls))
    place = {c: i for i, c in enumerate(combos)}
    return Events(
        record=np.arange(len(calls)),
        start=np.array([c.start for c in calls], np.int64),
        end=np.array([c.start + c.took for c in calls], np.int64),
        values=np.array([c.values for c in calls], np.int64).reshape(-1, M).T.copy(),
        error=np.array([c.error for c in calls], np.bool_),
        combo=np.array([place[c.labels] for c in calls], np.int32),
        combos=combos,
        event_id=[c.event for c in calls],
        trace_id=[c.trace for c in calls],
        caller=[c.caller for c in calls] if any(c.caller for c in calls) else [],
    )


def folded(calls: list[Call], sets: tuple[tuple[str, ...], ...] = SETS) -> PaneTable:
    return fold.fold_events(columns(calls), np.ones(len(calls), np.bool_), sets, WIDTH, EVIDENCE, VALUES)


def merge(tables: list[PaneTable]) -> PaneTable:
    return fold.merge(tables, EVIDENCE, VALUES)


def rows(*seen: tuple[int, str], sets: tuple[tuple[str, ...], ...] = (("service",),)) -> PaneTable:
    """A table with one request for each pair of pane (counted from the first one) and service."""
    given_calls = [
        Call(BASE + p * WIDTH, 0, (s, "", "", "", f"t-{s}", "", "", "", "", ""), (i,) * M, False, f"e{i}", "")
        for i, (p, s) in enumerate(seen)
    ]
    return fold.fold_events(columns(given_calls), np.ones(len(given_calls), np.bool_), sets, WIDTH, EVIDENCE, VALUES)


def ints(values: list[int]) -> Ints:
    return np.array(values, np.int64)


def none_of(times: Ints) -> Bools:
    return np.zeros(len(times), np.bool_)


names = st.sampled_from(["", "a", "b", "c,=%", "d", "e", "é"])
labels = st.tuples(*[names.filter(bool) if x == "service" else names for x in LABELS])
value = st.one_of(st.just(MISSING), st.integers(0, 3), st.integers(0, 10**6), st.sampled_from([63, 64, 65, 10**13]))
call = st.builds(
    Call,
    start=st.integers(0, 6).map(lambda k: BASE + k * 7_000_000),
    took=st.sampled_from([0, 1, 5_000_000, 9_000_000, 70_000_000]),
    labels=st.one_of(
        labels,
        st.sampled_from(
            [
                ("a",) * len(LABELS),
                ("a", "b", "", "", "", "", "timeout", "", "", ""),
                ("a", "b", "evaluation", "", "", "", "", "", "", ""),
            ]
        ),
    ),
    values=st.tuples(*[value] * M),
    error=st.booleans(),
    event=st.sampled_from(["", "e1", "e2", "e3"]),
    trace=st.sampled_from(["", "t1"]),
    caller=st.sampled_from(["", "", "u  ", "  s1"]),
)
calls = st.lists(call, max_size=25)
crowd = st.lists(
    st.builds(
        Call,
        start=st.just(BASE),
        took=st.sampled_from([0, 1]),
        labels=st.tuples(*[st.just("a") if x == "service" else names for x in LABELS]),
        values=st.tuples(*[value] * M),
        error=st.booleans(),
        event=st.sampled_from(["", "e1", "e2", "e3"]),
        trace=st.just(""),
    ),
    min_size=6,
    max_size=20,
)
"""Calls of one service in one pane, often with more values of each other label than a breakdown keeps."""
