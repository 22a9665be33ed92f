"""The mix of a series: a shift between its parts is no deviation, but a shift of a part is one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect.base import Watch
from operators.detect.context import mix as module
from operators.detect.context.mix import Mix
from operators.kernels.detect import Floats
from operators.kernels.mix import KNOWN, RECENT, Entries, KnownParts, learn_the_usual, less_the_usual
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Events
from operators.panes import fold
from operators.panes.sketch import LOG_STEPS
from operators.panes.table import PaneTable
from tests.conftest import examples

PANE_S = 10
SETS = (("service",), ("tenant",))
WATCH = Watch(DetectConfig(), PANE_S)
LATENCY = WATCH.cells.index("latency")
QUALITY = WATCH.cells.index("quality")


def table(requests: list[tuple[str, float]], keep: int = 100, service: str = "s", pane: int = 0) -> PaneTable:
    """The rows of one pane with these requests, each a tenant and a latency in ms; quality is latency / 10,000."""
    tenants = sorted({t for t, _ in requests})
    values = np.full((len(METRICS), len(requests)), MISSING, np.int64)
    for i, (_, latency) in enumerate(requests):
        for name, value in (("latency", latency), ("quality", latency / 10_000)):
            values[METRIC_INDEX[name], i] = round(value * METRICS[METRIC_INDEX[name]].scale)
    ends = np.full(len(requests), (pane * PANE_S + 1) * SECOND, np.int64)
    labels = [{"service": service, "tenant": t} for t in tenants]
    events = Events(
        record=np.arange(len(requests)),
        start=ends,
        end=ends,
        values=values,
        error=np.zeros(len(requests), np.bool_),
        combo=np.array([tenants.index(t) for t, _ in requests], np.int32),
        combos=[tuple(label.get(name, "") for name in LABELS) for label in labels],
        event_id=[""] * len(requests),
        trace_id=[""] * len(requests),
    )
    return fold.fold_events(events, np.ones(len(requests), np.bool_), SETS, PANE_S * SECOND, 0, keep)


class Run:
    """The mix of one service, in slot 0, fed pane by pane."""

    def __init__(self, watch: Watch = WATCH) -> None:
        self.watch = watch
        self.mix = Mix(watch)
        self.mix.admit(0, "service=s")
        self.pane = 0

    def __call__(self, requests: list[tuple[str, float]], keep: int = 100, excluded: bool = False) -> Floats:
        """The statistics of the service's row in the pane, less the usual values of its parts."""
        rows = table(requests, keep)
        own = rows.series.index("service=s")
        (row,) = np.flatnonzero(rows.row_series == own)
        axis = self.watch.axis
        stats = np.zeros((1, self.watch.columns))
        square = np.zeros((1, len(axis)))
        stats[0, 2 : self.watch.own_columns : 2] = rows.count[row, axis]
        stats[0, 3 : self.watch.own_columns : 2] = rows.logs[row, axis] / LOG_STEPS
        stats[0, 3 + 2 * QUALITY] = rows.total[row, axis[QUALITY]] / METRICS[METRIC_INDEX["quality"]].scale
        parts = self.mix.parts(rows)
        assert parts is not None
        entries = self.mix.entries(parts, int(row), np.array([0]))
        assert entries is not None
        self.mix.apply(entries, stats, square)
        self.mix.learn(self.pane, entries, np.full((1, len(self.watch.cells)), excluded))
        self.pane += 1
        judged: Floats = stats[0]
        return judged

    def usual(self, tenant: str, metric: int = LATENCY) -> float:
        return float(self.mix._learned.state["usual"][self.mix._part_of[0, tenant], metric])


def mean(stats: Floats, metric: int = LATENCY) -> float:
    return float(stats[3 + 2 * metric] / stats[2 + 2 * metric])


SMALL, LARGE = ("small", 100.0), ("large", 5000.0)


def warmed() -> Run:
    run = Run()
    for _ in range(60):
        run([SMALL] * 8 + [LARGE] * 2)
    return run


@pytest.mark.parametrize("metric", [LATENCY, QUALITY])
def test_another_mix_is_no_deviation(metric: int) -> None:
    run = warmed()
    for large in range(11):
        if large:
            assert mean(run([SMALL] * (10 - large) + [LARGE] * large), metric) == pytest.approx(0.0, abs=1e-9)


def test_a_part_that_moves_is_a_deviation_of_the_whole() -> None:
    run = warmed()
    judged = mean(run([SMALL] * 5 + [("large", 10_000.0)] * 5))
    assert judged == pytest.approx(0.5 * np.log(2.0), abs=0.02)  # a bucket is 1.6 % wide


def test_the_squares_are_those_of_the_deviations() -> None:
    usual, weight = np.array([[2.0], [5.0]]), np.full((2, 1), 100.0)
    values = [np.array([2.5, 1.5, 3.0]), np.array([5.0, 7.0])]
    stats = np.array([[5.0, 0.0, 5.0, sum(v.sum() for v in values)]])
    square = np.array([[sum((v * v).sum() for v in values)]])
    ones = np.zeros(2, np.int64)
    counts, totals = (np.array([[f(v)] for v in values], np.float64) for f in (len, np.sum))
    entries = Entries(ones, ones, np.array([0, 1]), counts, totals)
    less_the_usual(entries, KnownParts(usual, weight, ones), stats, square, np.zeros((1, 1)))
    left = np.concatenate([values[0] - 2.0, values[1] - 5.0])
    assert stats[0].tolist() == [5.0, 0.0, 5.0, pytest.approx(left.sum())]
    assert square[0, 0] == pytest.approx((left * left).sum())


def test_a_part_counts_once_enough_of_its_requests_were_seen() -> None:
    run = warmed()
    new = int(KNOWN) - 1
    assert run([SMALL] * 3 + [("new", 9e6)] * new)[2 + 2 * LATENCY] == 3
    assert run([SMALL] * 3 + [("new", 9e6)] * 2)[2 + 2 * LATENCY] == 3  # a part is learned after it is judged
    judged = run([SMALL] * 3 + [("new", 9e6)])
    assert judged[2 + 2 * LATENCY] == 4
    assert mean(judged) == pytest.approx(0.0, abs=1e-6)


def test_excluded_cells_are_not_learned() -> None:
    run = warmed()
    before = run.usual("large")
    for _ in range(30):
        run([("large", 50_000.0)] * 5, excluded=True)
    assert run.usual("large") == before
    run([("large", 50_000.0)] * 5)
    assert run.usual("large") > before


def test_usual_values_fade_with_time() -> None:
    watch = Watch(DetectConfig(half_life_s=60), PANE_S)
    run = Run(watch)
    for _ in range(100):
        run([("t", 100.0)] * 5)
    for _ in range(6):  # a half-life
        run([("t", 1000.0)] * 5)
    assert run.usual("t") == pytest.approx((np.log(101.0) + np.log(1001.0)) / 2, abs=0.05)


def test_requests_that_rows_do_not_tell_apart_are_a_part_too() -> None:
    run = Run()
    for _ in range(20):
        judged = run([("a", 100.0), ("b", 200.0), ("c", 400.0), ("", 1600.0)], keep=2)
    assert judged[2 + 2 * LATENCY] == 4
    assert sum(run.mix._learned.state["weight"][p, LATENCY] for p in run.mix._part_of.values()) == pytest.approx(
        80, abs=1
    )
    assert mean(judged) == pytest.approx(0.0, abs=1e-9)


def test_the_reference_is_the_usual_of_the_recent_mix() -> None:
    run = warmed()
    of_small, of_large = run.usual("small"), run.usual("large")
    assert run.mix.reference(0, LATENCY) == pytest.approx(0.8 * of_small + 0.2 * of_large, abs=0.01)
    for _ in range(3 * int(RECENT) // 10):
        run([LARGE] * 10)
    assert run.mix.reference(0, LATENCY) == pytest.approx(of_large, abs=0.3)
    assert run.mix.reference(0, len(WATCH.metrics)) == 0.0  # traffic has no mix


def test_a_series_that_names_the_dimension_has_no_parts_and_none_has_without_one() -> None:
    rows = table([SMALL, LARGE])
    own = rows.series.index("service=s")
    parts = Mix(WATCH).parts(rows)
    assert parts is not None
    assert set(rows.row_series[parts.row].tolist()) == {own}
    assert parts.value == ["large", "small"]
    none = Mix(Watch(DetectConfig(mix_by=""), PANE_S))
    none.admit(0, "service=s")
    assert none.parts(rows) is None
    only = table([("t", 1.0)], service="")
    assert [s.split("=")[0] for s in only.series] == ["tenant"] or Mix(WATCH).parts(only) is not None


def test_parts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS", 3)
    run = Run()
    run([(f"t{i}", 100.0) for i in range(8)])
    assert sorted(v for _, v in run.mix._part_of) == ["", "t0", "t1", "t2"]
    run([(f"t{i}", 100.0) for i in range(8)])
    assert len(run.mix._part_of) == 4
    assert run.mix._learned.state["weight"][run.mix._part_of[0, ""], LATENCY] == pytest.approx(10, abs=0.1)


def test_parts_and_series_are_forgotten_and_their_places_used_again() -> None:
    run = Run()
    run([("old", 100.0)] * 20)
    for _ in range(5):
        run([("new", 100.0)] * 20)
    run.mix.forget(1)
    assert [v for _, v in run.mix._part_of] == ["new"]
    assert run([("old", 100.0)] * 20)[2 + 2 * LATENCY] == 0  # the part is learned anew
    assert sorted(run.mix._part_of.values()) == [0, 1]
    run.mix.drop(0)
    assert not run.mix._part_of
    assert not run.mix._learned.state["weight"].any()
    assert run.mix.reference(0, LATENCY) == 0.0


pane = st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from([50.0, 100.0, 700.0])), min_size=1,
                max_size=25)  # fmt: skip


@examples(25)
@given(st.lists(pane, min_size=1, max_size=8), st.integers(0, 7), st.integers(1, 4))
def test_a_loaded_mix_goes_on_the_same(history: list[list[tuple[str, float]]], cut: int, keep: int) -> None:
    run, other = Run(), Run()
    for i, requests in enumerate(history):
        if i == cut:
            again = Mix(WATCH)
            again.load(pickle.loads(pickle.dumps(other.mix.save(1))), ["service=s"])
            other.mix = again
        assert run(requests, keep).tobytes() == other(requests, keep).tobytes()
    assert pickle.dumps(run.mix.save(1)) == pickle.dumps(other.mix.save(1))


counts = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.floats(-5, 5)), min_size=1, max_size=12)


@examples(60)
@given(counts, st.lists(st.floats(0, 20), min_size=5, max_size=5), st.lists(st.floats(-5, 5), min_size=5, max_size=5))
def test_the_loops_equal_plain_arrays(
    given_: list[tuple[int, int, float]], weights: list[float], usuals: list[float]
) -> None:
    given_ = sorted(given_)
    row = np.array([r for r, _, _ in given_], np.int64)
    part = np.array([p for _, p, _ in given_], np.int64)
    count = np.array([[(i * 7) % 4] for i in range(len(given_))], np.float64)
    total = count * np.array([[v] for _, _, v in given_])
    usual, weight = np.array(usuals)[:, None], np.array(weights)[:, None]
    slot = 3 - row
    stats, square = np.zeros((4, 4)), np.zeros((4, 1))
    np.add.at(stats[:, 2], row, count[:, 0])
    np.add.at(stats[:, 3], row, total[:, 0])
    np.add.at(square[:, 0], row, np.divide(total**2, count, out=np.zeros_like(total), where=count > 0)[:, 0] + 1.0)
    known = (weight[part, 0] >= 10.0) & (count[:, 0] > 0)
    n, above, expected, squares = (np.zeros(4) for _ in range(4))
    np.add.at(n, row[known], count[known, 0])
    np.add.at(above, row[known], (total - count * usual[part])[known, 0])
    np.add.at(expected, row[known], (count * usual[part])[known, 0])
    np.add.at(squares, row[known], ((total - count * usual[part]) ** 2 / np.maximum(count, 1))[known, 0])
    np.add.at(squares, row, 1.0 * (stats[row, 2] > 0))
    had = stats[:, 2] > 0
    reference = np.zeros((4, 1))
    last = np.array([4, 3, -1, 5, 0])
    entries, parts = Entries(row, slot, part, count, total), KnownParts(usual, weight, last)
    less_the_usual(entries, parts, stats, square, reference)
    assert np.allclose(stats[had, 2], n[had])
    assert np.allclose(stats[had, 3], above[had])
    assert np.allclose(square[had, 0], squares[had])
    assert np.allclose(reference[3 - np.flatnonzero(n > 0), 0], (expected / np.maximum(n, 1))[n > 0])

    excluded = np.array([[True], [False], [False], [False]])
    keep, then = 0.9, 6
    plain_weight, plain_usual, plain_last = weight.copy(), usual.copy(), last.copy()
    for e, p in enumerate(part.tolist()):
        plain_weight[p] *= keep ** (then - plain_last[p]) if plain_last[p] >= 0 else 0.0
        plain_last[p] = then
        if count[e, 0] and not excluded[slot[e], 0]:
            whole = plain_weight[p, 0] + count[e, 0]
            plain_usual[p, 0] = (plain_usual[p, 0] * plain_weight[p, 0] + total[e, 0]) / whole
            plain_weight[p, 0] = whole
    learn_the_usual(then, entries, parts, excluded, keep)
    assert np.allclose(weight, plain_weight)
    assert np.allclose(usual, plain_usual)
    assert last.tolist() == plain_last.tolist()
