"""Laws that every detector of the registry keeps, and that it has exactly the properties it declares."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.config import DetectConfig
from operators.detect import registry
from operators.detect.base import Block, Detector, State, Watch
from operators.metrics import ERROR_RATIO, REQUESTS
from tests.watching import BEGIN, Feed, Row

WARM = 12
CONFIG = DetectConfig.model_validate(
    {
        "horizons_s": (10, 30, 60),
        "warm_up_panes": WARM,
        "metrics": {"latency": {"min_count": 4}},
        "traffic": {"trusted_after_s": 0},
        "limits": [
            {"metric": "latency", "statistic": "p90", "above": 4000.0, "horizon_s": 10},
            {"metric": "requests", "above": 60.0, "horizon_s": 10},
        ],
    }
)
SLOTS = 3
CELLS = len(Watch(CONFIG, 10).cells)

detectors = pytest.mark.parametrize("name", sorted(registry.DETECTORS))


def build(name: str) -> tuple[Watch, Detector]:
    watch = Watch(CONFIG, 10)
    return watch, registry.DETECTORS[name](watch)


values = st.lists(st.floats(-40, 40), max_size=6)
rows = st.builds(
    lambda v, q, more, errors: Row(len(v) + more, min(errors, len(v) + more), {"latency": v, "quality": q}),
    values,
    values,
    st.integers(1, 50),
    st.integers(0, 60),
)
histories = st.lists(
    st.tuples(
        st.sampled_from([1, 1, 1, 1, 2, 9]),  # panes since the one before
        st.dictionaries(st.integers(0, SLOTS - 1), rows),
        st.lists(st.booleans(), min_size=SLOTS * CELLS, max_size=SLOTS * CELLS),
    ),
    min_size=WARM,
    max_size=40,
)
History = list[tuple[int, dict[int, Row], list[bool]]]


def no_cells(watch: Watch) -> np.ndarray:
    return np.zeros((SLOTS, len(watch.cells)), np.bool_)


def replay(
    watch: Watch, detector: Detector, history: History, then: Callable[[State, Block, np.ndarray], None]
) -> State:
    """Run the history; `then` sees the state and the block before each pane is learned."""
    feed, state, pane = Feed(watch, SLOTS), detector.state(SLOTS), BEGIN
    for step, now, marks in history:
        pane += step
        block = feed.pane(pane, now)
        excluded = np.array(marks, np.bool_).reshape(SLOTS, -1)
        then(state, block, excluded)
        detector.learn(state, block, excluded)
    return state


def images(block: Block) -> list[bytes]:
    return [getattr(block, n).tobytes() for n in ("born", "now", "square", "sums", "spans")]


@detectors
@settings(max_examples=15, deadline=None)
@given(history=histories)
def test_scoring_changes_nothing_and_gives_sound_verdicts(name: str, history: History) -> None:
    watch, detector = build(name)

    def check(state: State, block: Block, _: np.ndarray) -> None:
        before = ({k: v.tobytes() for k, v in state.items()}, images(block))
        verdicts = detector.score(state, block)
        again = detector.score(state, block)
        assert ({k: v.tobytes() for k, v in state.items()}, images(block)) == before
        assert verdicts.table.tobytes() == again.table.tobytes()
        assert verdicts.table.shape[:2] == (SLOTS, len(detector.cells))
        assert np.isfinite(verdicts.table).all()
        assert ((verdicts.score >= 0) & (verdicts.score <= 1)).all()
        judged = verdicts.span > 0
        assert (verdicts.score[~judged] == 0).all()
        assert (verdicts.lower <= verdicts.expected + 1e-9)[judged].all()
        assert (verdicts.expected <= verdicts.upper + 1e-9)[judged].all()

    replay(watch, detector, history, check)


@detectors
@settings(max_examples=10, deadline=None)
@given(history=histories, at=st.integers(0, 39))
def test_going_on_from_a_copy_equals_going_on(name: str, history: History, at: int) -> None:
    watch, detector = build(name)
    copies: list[State] = []

    def keep(state: State, block: Block, excluded: np.ndarray) -> None:
        for other in copies:
            assert detector.score(other, block).table.tobytes() == detector.score(state, block).table.tobytes()
            registry.DETECTORS[name](Watch(CONFIG, 10)).learn(other, block, excluded)
        if len(copies) < 1 + at % 2:
            copies.append(copy.deepcopy(state))
            detector.learn(copies[-1], block, excluded)

    end = replay(watch, detector, history, keep)
    for other in copies:
        assert {k: v.tobytes() for k, v in other.items()} == {k: v.tobytes() for k, v in end.items()}


@detectors
@settings(max_examples=15, deadline=None)
@given(history=histories)
def test_what_is_excluded_is_not_learned(name: str, history: History) -> None:
    watch, detector = build(name)

    def check(state: State, block: Block, _: np.ndarray) -> None:
        before = copy.deepcopy(state)
        detector.learn(state, block, ~no_cells(watch))
        for key, array in state.items():
            if key != "dirty":  # how long what was excluded stays in the horizons: not a moment
                assert array.tobytes() == before[key].tobytes(), key
        assert detector.score(state, block).table.tobytes() == detector.score(before, block).table.tobytes()

    replay(watch, detector, history, check)


@detectors
@settings(max_examples=10, deadline=None)
@given(history=histories, order=st.permutations(range(SLOTS)))
def test_the_order_of_slots_does_not_matter(name: str, history: History, order: list[int]) -> None:
    watch, detector = build(name)
    tables: list[np.ndarray] = []
    replay(watch, detector, history, lambda s, b, _: tables.append(detector.score(s, b).table))
    moved: list[np.ndarray] = []
    shuffled = [
        (
            step,
            {order[slot]: row for slot, row in now.items()},
            np.array(marks).reshape(SLOTS, -1)[np.argsort(order)].ravel().tolist(),
        )
        for step, now, marks in history
    ]
    replay(watch, detector, shuffled, lambda s, b, _: moved.append(detector.score(s, b).table))
    for here, there in zip(tables, moved, strict=True):
        assert np.array_equal(here, there[order])


def quiet(pane: int, draw: random.Random) -> Row:
    """Ordinary traffic: few requests, fewer errors, values that vary."""
    noise = [draw.gauss(0.0, 0.1) for _ in range(10)]
    errors = 1 if pane % 40 == 7 else 0
    return Row(2, errors, {"latency": [6.0 + x for x in noise], "quality": [0.8 + x / 5 for x in noise]})


def wild(row: Row) -> Row:
    """Everything wrong at once."""
    worse = {"latency": [v + 3.0 for v in row.values["latency"]], "quality": [0.1] * 10}
    return Row(10 * row.requests, 10 * row.requests // 2, {k: v * 10 for k, v in worse.items()})


@detectors
@settings(max_examples=15, deadline=None)
@given(history=histories)
def test_what_learns_is_silent_until_it_is_warm(name: str, history: History) -> None:
    watch, detector = build(name)
    seen = np.zeros(SLOTS)

    def check(state: State, block: Block, _: np.ndarray) -> None:
        verdicts = detector.score(state, block)
        assert (verdicts.score[seen < WARM] == 0).all()
        # Traffic learns from every pane since the first, the others from panes with requests.
        seen[(block.now[:, 0] > 0) | ((block.born >= 0) & (detector.cells == (REQUESTS,)))] += 1

    if not detector.traits.needs_warm_up:
        return  # a limit speaks from the first pane on
    replay(watch, detector, history, check)


@detectors
def test_a_cold_detector_ignores_even_the_wildest_pane_unless_it_needs_no_warm_up(name: str) -> None:
    watch, detector = build(name)
    feed, state, draw = Feed(watch, SLOTS), detector.state(SLOTS), random.Random(2)
    for pane in range(WARM - 1):
        detector.learn(state, feed.pane(BEGIN + pane, {0: quiet(pane, draw)}), no_cells(watch))
    block = feed.pane(BEGIN + WARM - 1, {0: wild(quiet(0, draw))})
    assert (detector.score(state, block).score.max() == 0.0) == detector.traits.needs_warm_up


def scores(name: str, change: Callable[[Row], Row] = lambda row: row, step_at: int = 10**9) -> np.ndarray:
    """Scores [panes, cells] of one series of ordinary traffic, every row changed, and wild from `step_at` on."""
    watch, detector = build(name)
    feed, state, draw = Feed(watch, SLOTS), detector.state(SLOTS), random.Random(3)
    out = []
    for pane in range(300):
        row = quiet(pane, draw)
        block = feed.pane(BEGIN + pane, {0: change(wild(row) if pane >= step_at else row)})
        verdicts = detector.score(state, block)
        out.append(verdicts.score[0].copy())
        excluded = no_cells(watch)
        first = watch.cells.index(detector.cells[0])
        excluded[:, first : first + len(detector.cells)] = verdicts.score >= 0.5
        detector.learn(state, block, excluded)
    return np.array(out)


def multiplied(name: str) -> Callable[[Row], Row]:
    """Each value of what the detector judges, times three."""
    cells = registry.DETECTORS[name](Watch(CONFIG, 10)).cells
    if cells == (REQUESTS,):
        return lambda row: Row(row.requests * 3, row.errors, row.values)
    if cells == (ERROR_RATIO,):
        return lambda row: Row(row.requests, min(row.errors * 3, row.requests), row.values)
    return lambda row: Row(row.requests, row.errors, {k: [3 * x for x in v] for k, v in row.values.items()})


def shifted(name: str) -> Callable[[Row], Row]:
    """To each value of what the detector judges, two."""
    cells = registry.DETECTORS[name](Watch(CONFIG, 10)).cells
    if cells == (REQUESTS,):
        return lambda row: Row(row.requests + 2, row.errors, row.values)
    if cells == (ERROR_RATIO,):
        return lambda row: Row(row.requests, min(row.errors + 2, row.requests), row.values)
    return lambda row: Row(row.requests, row.errors, {k: [2 + x for x in v] for k, v in row.values.items()})


@detectors
def test_it_has_the_properties_that_it_declares_and_no_others(name: str) -> None:
    _, detector = build(name)
    plain = scores(name, step_at=290)
    scaled, moved = (scores(name, change(name), step_at=290) for change in (multiplied, shifted))
    assert np.allclose(plain, scaled, atol=1e-4) == detector.traits.scale_free
    assert np.allclose(plain, moved, atol=1e-4) == detector.traits.shift_free
    assert (plain[290:].max() >= 0.5) == detector.traits.answers_step
    assert plain[:290].max() < 0.5


def test_the_registry_names_its_detectors_and_every_cell_has_a_vote() -> None:
    watch = Watch(CONFIG, 10)
    assert [make(watch).name for make in registry.DETECTORS.values()] == list(registry.DETECTORS)
    built = registry.build(watch)
    voted = {c for d in built for c, vote in zip(d.cells, registry.votes(watch, d), strict=True) if vote}
    assert voted == set(watch.cells)
    for make in registry.DETECTORS.values():
        detector = make(watch)
        first = watch.cells.index(detector.cells[0])
        assert watch.cells[first : first + len(detector.cells)] == detector.cells


@detectors
def test_its_state_is_small_arrays_with_a_leading_slot_axis(name: str) -> None:
    watch = Watch(DetectConfig(), 10)
    state = registry.DETECTORS[name](watch).state(100)
    assert all(len(array) == 100 for array in state.values())
    size = sum(array.nbytes for array in state.values()) / 100
    assert size < (1280 if name in {d.name for d in registry.build(watch)} else 4608)
    assert math.isfinite(sum(float(array.sum()) for array in state.values()))
