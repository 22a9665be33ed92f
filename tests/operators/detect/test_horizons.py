"""Sliding horizons against plain sums over the panes that they span."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.detect.horizons import MAX_BUCKETS, Horizons
from operators.kernels.detect import Seen
from tests.conftest import examples

COLUMNS = 3


@examples(60)
@given(
    seconds=st.lists(st.integers(1, 600), min_size=1, max_size=4),
    pane_s=st.sampled_from([1, 5, 10, 60, 300]),
    first=st.integers(0, 400),
    steps=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 2, 7, 400]), st.dictionaries(st.integers(0, 2), st.integers(1, 9))),
        min_size=1,
        max_size=40,
    ),
)
def test_a_horizon_holds_exactly_the_panes_that_it_spans(
    seconds: list[int], pane_s: int, first: int, steps: list[tuple[int, dict[int, int]]]
) -> None:
    horizons = Horizons(seconds, pane_s)
    ring, born = horizons.blank(3, COLUMNS), np.zeros(3, np.int64)
    now, square, sums = np.ones((3, COLUMNS)), np.ones((3, 1)), np.ones((3, len(horizons), COLUMNS))
    seen: dict[int, dict[int, int]] = {}
    pane, last = first, -1
    for step, rows in steps:
        pane += step
        slots = np.array(sorted(rows), np.int64)
        stats = np.array([[rows[s] * (v + 1) for v in range(COLUMNS)] for s in sorted(rows)], float).reshape(
            -1, COLUMNS
        )
        squares = np.array([[rows[s] ** 2] for s in sorted(rows)], float).reshape(-1, 1)
        of = Seen(pane, 3, born, now, square, sums, horizons.spans, horizons.widths)
        horizons.advance(of, last, slots, stats, squares, ring)
        seen[pane] = rows
        last = pane
        for s in range(3):
            assert now[s].tolist() == [rows.get(s, 0) * (v + 1) for v in range(COLUMNS)]
            assert square[s, 0] == rows.get(s, 0) ** 2
            for h in range(len(horizons)):
                span = int(horizons.spans[h])
                total = sum(r.get(s, 0) for p, r in seen.items() if pane - span < p <= pane)
                assert sums[s, h].tolist() == [total * (v + 1) for v in range(COLUMNS)]


@given(
    seconds=st.lists(st.integers(1, 86_400), min_size=1, max_size=6),
    pane_s=st.sampled_from([1, 2, 10, 30, 60, 300, 3600]),
)
def test_the_plan_covers_the_configured_horizons_in_few_buckets(seconds: list[int], pane_s: int) -> None:
    horizons = Horizons(seconds, pane_s)
    widths = horizons.widths.tolist()
    assert widths == sorted(widths)
    assert (horizons.rings.buckets <= MAX_BUCKETS).all()
    for s in seconds:
        panes = -(-s // pane_s)
        assert any(panes <= w <= max(panes + panes / 5 + 1, panes + MAX_BUCKETS) for w in widths)


def test_the_default_horizons_on_panes_of_ten_seconds() -> None:
    horizons = Horizons((10, 60, 300, 1800), 10)
    assert horizons.widths.tolist() == [1, 6, 30, 180]
    assert horizons.rings.step.tolist() == [1, 1, 5, 30]
    assert horizons.rings.buckets.tolist() == [1, 6, 6, 6]


def test_horizons_within_one_pane_are_one() -> None:
    assert Horizons((10, 60, 300, 1800), 300).widths.tolist() == [1, 6]
