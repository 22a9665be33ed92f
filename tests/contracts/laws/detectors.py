"""The laws of detectors, by name. Each takes a maker of detectors and a case, and raises `AssertionError` if broken."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from operators.config import DetectConfig
from operators.detect import registry
from operators.detect.base import Block, Detector, State, Verdicts, Watch
from operators.detect.context.rules import DIRECTION
from operators.detect.slots import Arrays, unpacked
from operators.kernels.detect import Floats
from operators.metrics import ERROR_RATIO, REQUESTS
from operators.model import Bools
from tests.contracts.laws.changes import large_changes, small_changes, transformed
from tests.contracts.laws.histories import CELLS, SLOTS, STRETCH, WARM, WATCH, Case, cases, quiet, steps, wild
from tests.watching import BEGIN, PANE_S, Feed

Make = Callable[[Watch], Detector]

JUDGED = 0.2
"""The least share of the cells of live series that must be judged over the examples of a law."""


@dataclass
class Tally:
    """Counts of the cells that a law saw after the quiet stretch: with none judged it would hold for any detector."""

    cells: int = 0
    judged: int = 0
    anomalous: int = 0

    def add(self, verdicts: Verdicts, block: Block) -> None:
        """Count the cells of live series."""
        live = block.born[: block.used] >= 0
        self.count(verdicts.span[live] > 0, verdicts.score[live])

    def count(self, judged: Bools, score: Floats) -> None:
        self.cells += np.size(judged)
        self.judged += int(np.sum(judged))
        self.anomalous += int(np.sum(score >= 0.5))

    @property
    def share(self) -> float:
        return self.judged / self.cells if self.cells else 0.0


Check = Callable[[Make, Case, Tally], None]


@dataclass(frozen=True)
class Law:
    """A law, its number of examples, and whether they must contain judged cells and anomalous ones."""

    check: Check
    examples: int
    judges: bool
    sees_anomalies: bool


LAWS: Final[dict[str, Law]] = {}


def law(examples: int, *, judges: bool = True, sees_anomalies: bool = True) -> Callable[[Check], Check]:
    """Register the function as a law under its name."""

    def enter(check: Check) -> Check:
        LAWS[check.__name__] = Law(check, examples, judges, judges and sees_anomalies)
        return check

    return enter


def hold(made: Law, make: Make, most: int | None = None) -> Tally:
    """Run the law over its examples; with `most`, over at most this number, the same in every run and not shrunk.

    Fails too if the examples contain fewer judged or anomalous cells than the law needs.
    """
    tally = Tally()

    def check(case: Case) -> None:
        made.check(make, case, tally)

    if most is None:
        options = settings(max_examples=made.examples, deadline=None)
    else:
        options = settings(
            max_examples=min(most, made.examples),
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
    options(given(case=cases)(check))()
    if made.judges:
        assert tally.share >= JUDGED, f"{tally.judged} of {tally.cells} cells were judged"
        assert tally.anomalous or not made.sees_anomalies, "nothing was an anomaly"
    return tally


def image(arrays: State) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()}


def block_image(block: Block) -> list[bytes]:
    parts = [getattr(block, f.name) for f in dataclasses.fields(block) if f.name not in {"seen", "requests"}]
    return [np.asarray(part).tobytes() for part in (*parts, *block.seen, *block.requests)]


@law(examples=15)
def scoring_changes_nothing(make: Make, case: Case, tally: Tally) -> None:
    """Scoring changes neither state nor block, and a detector that never scores learns the same."""
    detector, unasked = make(WATCH), make(WATCH)
    state, other = detector.state(SLOTS), unasked.state(SLOTS)
    for block, excluded, drawn in steps(case):
        before, marks = (image(state), block_image(block)), excluded.tobytes()
        verdicts = detector.score(state, block)
        again = detector.score(state, block)
        assert image(state) == before[0], "scoring changes the state"
        assert verdicts.table.tobytes() == again.table.tobytes(), "scoring twice gives different verdicts"
        detector.learn(state, block, excluded)
        unasked.learn(other, block, excluded)
        assert block_image(block) == before[1], "the block is changed"
        assert excluded.tobytes() == marks, "the excluded cells are changed"
        if drawn:
            tally.add(verdicts, block)
    assert image(state) == image(other), "a detector that scores learns something else"


@law(examples=15)
def verdicts_are_sound(make: Make, case: Case, tally: Tally) -> None:
    """The verdicts as the detector gives them, before they are clamped or calibrated."""
    detector = make(WATCH)
    state = detector.state(SLOTS)
    for block, excluded, drawn in steps(case):
        verdicts = detector.score(state, block)
        table = verdicts.table
        assert table.shape[:2] == (SLOTS, len(detector.cells))
        assert np.isfinite(table).all(), "NaN or infinite"
        assert ((verdicts.score >= 0) & (verdicts.score <= 1)).all(), "a score outside 0..1"
        judged = verdicts.span > 0
        assert (table[~judged] == 0).all(), "a verdict on a cell that was not judged"
        assert not judged[block.born < 0].any(), "a slot without a series is judged"
        assert (verdicts.span == np.round(verdicts.span)).all(), "a span of a fraction of a pane"
        assert (verdicts.weight >= 0).all(), "a negative weight"
        assert (verdicts.lower <= verdicts.expected + 1e-9)[judged].all(), "lower above expected"
        assert (verdicts.expected <= verdicts.upper + 1e-9)[judged].all(), "upper below expected"
        detector.learn(state, block, excluded)
        if drawn:
            tally.add(verdicts, block)


@law(examples=10)
def going_on_from_a_snapshot_equals_going_on(make: Make, case: Case, tally: Tally) -> None:
    """A fresh detector on arrays that were saved and loaded judges and learns the same."""
    detector = make(WATCH)
    owner = Arrays(detector.state, capacity=SLOTS)
    other: tuple[Detector, Arrays] | None = None
    for number, (block, excluded, drawn) in enumerate(steps(case)):
        if number == STRETCH + case.at:
            fresh = make(Watch(WATCH.config, PANE_S))
            other = fresh, Arrays(fresh.state, capacity=SLOTS)
            other[1].load(unpacked(owner.save(SLOTS)))
        verdicts = detector.score(owner.state, block)
        if other:
            resumed = other[0].score(other[1].state, block)
            assert resumed.table.tobytes() == verdicts.table.tobytes(), "the copy judges differently"
            other[0].learn(other[1].state, block, excluded)
        detector.learn(owner.state, block, excluded)
        if drawn:
            tally.add(verdicts, block)
    assert other
    assert image(other[1].state) == image(owner.state), "the copy learns differently"


@law(examples=10)
def what_is_excluded_is_not_learned(make: Make, case: Case, tally: Tally) -> None:
    """An excluded cell changes no state but `dirty`; the other cells learn as if nothing were excluded."""
    detector = make(WATCH)
    state = detector.state(SLOTS)
    first = WATCH.cells.index(detector.cells[0])
    for block, excluded, drawn in steps(case):
        before, plain = copy.deepcopy(state), copy.deepcopy(state)
        if drawn:
            verdicts = detector.score(state, block)
            detector.learn(state, block, np.ones_like(excluded))
            assert image(clean(state)) == image(clean(before)), "an excluded pane is learned"
            later = detector.score(state, block)
            assert later.table.tobytes() == verdicts.table.tobytes(), "an excluded pane changes a score"
            tally.add(verdicts, block)
            state = copy.deepcopy(before)
        detector.learn(state, block, excluded)
        detector.learn(plain, block, np.zeros_like(excluded))
        marks = excluded[:, first : first + len(detector.cells)]
        marks = marks if len(detector.cells) > 1 else marks[:, 0]  # arrays of one cell have no axis for it
        for name, array in clean(state).items():
            assert np.array_equal(array[marks], before[name][marks]), f"{name}: an excluded cell is learned"
        for name, array in state.items():
            assert np.array_equal(array[~marks], plain[name][~marks]), f"{name}: another cell is not learned"


def clean(state: State) -> State:
    """The state without `dirty`, which counts how long horizons hold an excluded pane."""
    return {name: array for name, array in state.items() if name != "dirty"}


@law(examples=10)
def what_is_excluded_leaves_no_trace(make: Make, case: Case, tally: Tally) -> None:
    """The state is as if the excluded rows had never come, and so are the verdicts once no horizon holds such a row."""

    def whole(marks: Bools) -> Bools:
        """The slots [slots] to exclude; never the last one, whose series could be born in an excluded pane."""
        return marks[:, 0] & (np.arange(SLOTS) < SLOTS - 1)

    seen, spared = make(WATCH), make(WATCH)
    state, other = seen.state(SLOTS), spared.state(SLOTS)
    until = np.zeros(SLOTS)
    panes = zip(steps(case), steps(case, without=whole), strict=True)
    for (block, excluded, drawn), (lacking, _, _) in panes:
        if drawn:
            out = whole(excluded)
            excluded[out] = True
            until[out] = block.pane + WATCH.horizons.widths[-1]
        verdicts, others = seen.score(state, block), spared.score(other, lacking)
        same = block.pane >= until
        assert np.array_equal(verdicts.table[same], others.table[same]), "an excluded pane changes later scores"
        seen.learn(state, block, excluded)
        spared.learn(other, lacking, excluded)
        for name, array in state.items():
            assert np.array_equal(array, other[name]), f"{name} knows an excluded pane"
        if drawn:
            tally.add(verdicts, block)


@law(examples=10)
def the_order_of_slots_does_not_matter(make: Make, case: Case, tally: Tally) -> None:
    here, there = make(WATCH), make(WATCH)
    state, other = here.state(SLOTS), there.state(SLOTS)
    order = list(case.order)
    for (block, excluded, drawn), (moved, marks, _) in zip(steps(case), steps(case, order), strict=True):
        verdicts = here.score(state, block)
        assert np.array_equal(verdicts.table, there.score(other, moved).table[order])
        here.learn(state, block, excluded)
        there.learn(other, moved, marks)
        if drawn:
            tally.add(verdicts, block)


@law(examples=10)
def a_series_is_judged_by_itself(make: Make, case: Case, tally: Tally) -> None:
    """A series alone in a block gets the same verdicts and leaves the same state."""
    among, alone = make(WATCH), make(WATCH)
    slot = case.at % SLOTS
    state, other = among.state(SLOTS), alone.state(1)
    for block, excluded, drawn in steps(case):
        verdicts, own = among.score(state, block), block.alone(slot)
        assert np.array_equal(verdicts.table[slot : slot + 1], alone.score(other, own).table)
        among.learn(state, block, excluded)
        alone.learn(other, own, excluded[slot : slot + 1])
        if drawn:
            tally.add(verdicts, block)
    for name, array in other.items():
        assert np.array_equal(state[name][slot], array[0]), name


@law(examples=15)
def what_learns_is_silent_until_it_is_warm(make: Make, case: Case, tally: Tally) -> None:
    """If a detector needs a warm-up, a cell scores 0 until it has learned from `WARM` panes, even in a wild pane."""
    detector = make(WATCH)
    state = detector.state(SLOTS)
    first = WATCH.cells.index(detector.cells[0])
    learned = np.zeros((SLOTS, len(detector.cells)))
    for block, excluded, drawn in steps(case):
        verdicts = detector.score(state, block)
        if detector.traits.needs_warm_up:
            assert (verdicts.score[learned < WARM] == 0).all(), "a cold cell has a score"
        told = np.concatenate([block.counts > 0, np.stack([block.born >= 0, block.now[:, 0] > 0], axis=1)], axis=1)
        learned += (told & ~excluded)[:, first : first + len(detector.cells)]
        detector.learn(state, block, excluded)
        if drawn:
            tally.add(verdicts, block)


@law(examples=1, judges=False)
def the_wildest_pane_is_heard_cold_where_no_warm_up_is_needed(make: Make, case: Case, tally: Tally) -> None:
    detector, feed, draw = make(WATCH), Feed(WATCH, 1), Random(case.seed)
    state = detector.state(1)
    for pane in range(WARM - 1):
        detector.learn(state, feed.pane(BEGIN + pane, {0: quiet(draw)}), np.zeros((1, CELLS), np.bool_))
    score = detector.score(state, feed.pane(BEGIN + WARM - 1, {0: wild(quiet(draw))})).score
    assert (score.max() == 0.0) == detector.traits.needs_warm_up


@law(examples=3, sees_anomalies=False)
def what_a_detector_keeps_is_not_enough_to_judge(make: Make, case: Case, tally: Tally) -> None:
    """With only the arrays that it keeps after a lasting change, a detector judges like a new one."""
    detector = make(WATCH)
    state, kept = detector.state(SLOTS), detector.traits.keeps
    assert set(kept) <= state.keys(), "it keeps an array that its state lacks"
    assert detector.traits.prior > 0
    for block, excluded, drawn in steps(case):
        if drawn:
            tally.add(detector.score(state, block), block)
            again = {**detector.state(SLOTS), **{name: state[name].copy() for name in kept}}
            blank = detector.score(detector.state(SLOTS), block)
            assert detector.score(again, block).table.tobytes() == blank.table.tobytes()
        detector.learn(state, block, excluded)


@law(examples=3, sees_anomalies=False)
def less_than_the_least_change_is_no_anomaly(make: Make, case: Case, tally: Tally) -> None:
    """This holds after any quiet history: of values that never varied, and of values that vary a little."""
    for noise, share in ((0.0, 0.99), (0.01, 0.95), (0.03, 0.9)):
        history = small_changes(noise, share, case.seed)
        detector = make(history.watch)
        for pane, verdicts in history.judged(detector):
            for slot, change in enumerate(history.changes):
                if change.cell in detector.cells:
                    score = float(verdicts.score[slot, detector.cells.index(change.cell)])
                    told = f"{change.cell} {change.way} by {share:.0%} of its least change"
                    assert score < 0.5, f"{told}: {score:.3f} after {pane - STRETCH} panes"
            if pane >= STRETCH:
                tally.count(verdicts.span > 0, verdicts.score)


@law(examples=3)
def a_change_counts_in_the_watched_direction_alone(make: Make, case: Case, tally: Tally) -> None:
    """A large, lasting change in a watched direction is an anomaly if the detector answers a step.

    A change in another direction never is.
    """
    answered = False
    for direction in DIRECTION:
        history = large_changes(direction, case.seed)
        detector = make(history.watch)
        shape = len(history.changes), len(detector.cells)
        highest, judged = np.zeros(shape), np.zeros(shape, np.bool_)
        for pane, verdicts in history.judged(detector):
            if pane < STRETCH:
                assert (verdicts.score < 0.5).all(), "an ordinary pane is an anomaly"
            else:
                highest, judged = np.maximum(highest, verdicts.score), judged | (verdicts.span > 0)
        for slot, change in enumerate(history.changes):
            if change.cell not in detector.cells:
                continue
            cell, traits = detector.cells.index(change.cell), detector.traits
            score, told = highest[slot, cell], f"{change.cell} {change.way}, {direction} watched: {highest[slot, cell]}"
            tally.count(judged[slot, cell], score)
            if change.way not in watched_ways(change.cell, direction) or (traits.upward and change.way == "down"):
                assert score < 0.5, told
            elif judged[slot, cell] and traits.answers_step:
                assert score >= 0.5, told
            answered = answered or score >= 0.5
    assert answered == detector.traits.answers_step


def watched_ways(cell: str, direction: str) -> tuple[str, ...]:
    """The ways in which a change of the cell can be an anomaly if metrics are watched in this direction."""
    if cell == ERROR_RATIO:
        return ("up",)
    return ("up", "down") if cell == REQUESTS or direction == "both" else (direction,)


@law(examples=3)
def scores_are_free_of_what_is_declared_and_of_nothing_else(make: Make, case: Case, tally: Tally) -> None:
    """Values times three get the same scores if `scale_free` is declared, values plus two if `shift_free` is.

    Otherwise the scores differ.
    """
    history = transformed(case.seed)
    detector = make(history.watch)
    scaled = moved = True
    for pane, verdicts in history.judged(detector):
        for c, cell in enumerate(detector.cells):
            first = next(slot for slot, change in enumerate(history.changes) if change.cell == cell)
            plain, times, plus = verdicts.score[first : first + 3, c].tolist()
            scaled = scaled and math.isclose(plain, times, abs_tol=1e-4)
            moved = moved and math.isclose(plain, plus, abs_tol=1e-4)
        if pane >= STRETCH:
            tally.count(verdicts.span > 0, verdicts.score)
    assert scaled == detector.traits.scale_free, "scale_free"
    assert moved == detector.traits.shift_free, "shift_free"


@law(examples=1, judges=False)
def state_is_small_arrays_with_a_leading_slot_axis(make: Make, case: Case, tally: Tally) -> None:
    """All slots begin equal, so that one can be cleared alone; two states share no memory."""
    watch = Watch(DetectConfig(), PANE_S)
    detector = make(watch)
    state, one = detector.state(100), detector.state(1)
    assert state.keys() == one.keys()
    for name, array in state.items():
        assert len(array) == 100, f"{name} has no leading slot axis"
        assert np.array_equal(array, np.repeat(one[name], 100, axis=0)), f"{name}: slots begin differently"
        assert np.isfinite(array).all()
        assert not np.shares_memory(array, detector.state(100)[name]), f"{name} is shared"
    size = sum(array.nbytes for array in state.values()) / 100
    usual = detector.name in {d.name for d in registry.build(watch)}
    assert size < (1280 if usual else 4608), f"{size} bytes a series"
