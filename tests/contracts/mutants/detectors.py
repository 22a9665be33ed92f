"""Detectors of the registry with one deliberate bug each, and the law that the bug breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple

import numpy as np

from operators.config import DetectConfig
from operators.detect import registry
from operators.detect.base import Block, Detector, State, Traits, Verdicts, Watch
from operators.kernels.detect import EXPECTED, LOWER, SCORE, SPAN, UPPER
from operators.model import Bools

Make = Callable[[Watch], Detector]
Says = Callable[[Verdicts, Block], None]
Learns = Callable[[Detector, State, Block, Bools], None]


class Mutant(NamedTuple):
    """A maker of detectors with a bug, and the name of the law that the bug breaks."""

    make: Make
    breaks: str


MUTANTS: Final[dict[str, Mutant]] = {}


class Wrapped:
    """A wrapper of a detector of the registry; mutants override the methods that they change."""

    of = "zscore"

    def __init__(self, watch: Watch) -> None:
        self.real = registry.DETECTORS[self.of](watch)
        self.name, self.cells = self.real.name, self.real.cells
        self.traits = self.real.traits

    def state(self, slots: int) -> State:
        return self.real.state(slots)

    def score(self, state: State, block: Block) -> Verdicts:
        return self.real.score(state, block)

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        self.real.learn(state, block, excluded)


def breaks(law: str) -> Callable[[type[Wrapped]], type[Wrapped]]:
    """Register the class as a mutant that breaks this law."""

    def enter(made: type[Wrapped]) -> type[Wrapped]:
        MUTANTS[made.__name__] = Mutant(made, law)
        return made

    return enter


def says(detector: str, law: str) -> Callable[[Says], Says]:
    """Register a mutant of the detector whose verdicts are changed by the function."""

    def enter(change: Says) -> Says:
        class Saying(Wrapped):
            of = detector

            def score(self, state: State, block: Block) -> Verdicts:
                verdicts = self.real.score(state, block)
                change(verdicts, block)
                return verdicts

        MUTANTS[change.__name__] = Mutant(Saying, law)
        return change

    return enter


def learns(detector: str, law: str) -> Callable[[Learns], Learns]:
    """Register a mutant of the detector that learns by the function."""

    def enter(learn: Learns) -> Learns:
        class Learning(Wrapped):
            of = detector

            def learn(self, state: State, block: Block, excluded: Bools) -> None:
                learn(self.real, state, block, excluded)

        MUTANTS[learn.__name__] = Mutant(Learning, law)
        return learn

    return enter


def set_otherwise(detector: str, law: str) -> Callable[[Callable[[Watch], Watch]], Callable[[Watch], Watch]]:
    """Register a mutant of the detector whose settings are changed by the function."""

    def enter(change: Callable[[Watch], Watch]) -> Callable[[Watch], Watch]:
        MUTANTS[change.__name__] = Mutant(lambda watch: registry.DETECTORS[detector](change(watch)), law)
        return change

    return enter


def declares(detector: str, law: str, name: str, **traits: object) -> None:
    """Register a mutant of the detector that declares these traits in place of its own."""

    class Declaring(Wrapped):
        of = detector

        def __init__(self, watch: Watch) -> None:
            super().__init__(watch)
            self.traits = Traits(**{**self.traits._asdict(), **traits})

    MUTANTS[name] = Mutant(Declaring, law)


def changed(watch: Watch, key: str, **settings: object) -> Watch:
    """The watch with these settings in the table `key` of `detect`."""
    config = watch.config.model_dump()
    return Watch(DetectConfig.model_validate({**config, key: {**config[key], **settings}}), watch.pane_s)


def of_metrics(watch: Watch, **settings: object) -> Watch:
    """The watch with these settings for every metric."""
    return changed(watch, "metrics", **{n: {**m.model_dump(), **settings} for n, m in watch.config.metrics.items()})


# State that no snapshot holds, and scoring with side effects.


@breaks("going_on_from_a_snapshot_equals_going_on")
class SmoothedByWhatNoSnapshotHas(Wrapped):
    last = 0.0

    def score(self, state: State, block: Block) -> Verdicts:
        verdicts = self.real.score(state, block)
        verdicts.table[:, :, SCORE] /= 1.0 + 0.01 * self.last
        return verdicts

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        self.last = float(block.now[:, 0].sum())
        self.real.learn(state, block, excluded)


@breaks("going_on_from_a_snapshot_equals_going_on")
class CountsPanesOfAllDetectorsAtOnce(Wrapped):
    of = "cusum"
    panes: ClassVar[Counter[str]] = Counter()

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        self.panes["learned"] += 1
        self.real.learn(state, block, excluded)
        state["mean"] *= 1.0 + 0.001 / self.panes["learned"]


@breaks("scoring_changes_nothing")
class LearnsWhileScoring(Wrapped):
    of = "traffic"

    def score(self, state: State, block: Block) -> Verdicts:
        verdicts = self.real.score(state, block)
        state["seen"] += 1
        return verdicts


@breaks("scoring_changes_nothing")
class LearnsMoreWhenItWasAsked(Wrapped):
    asked = False

    def score(self, state: State, block: Block) -> Verdicts:
        self.asked = True
        return self.real.score(state, block)

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        for _ in range(2 if self.asked else 1):
            self.real.learn(state, block, excluded)


@breaks("scoring_changes_nothing")
class AnswersOnce(Wrapped):
    of = "error_ratio"
    pane = -1

    def score(self, state: State, block: Block) -> Verdicts:
        verdicts = self.real.score(state, block)
        verdicts.table[:] *= block.pane != self.pane
        self.pane = block.pane
        return verdicts


@says("request_outlier", "scoring_changes_nothing")
def changes_the_block(verdicts: Verdicts, block: Block) -> None:
    np.log1p(np.abs(block.most), out=block.most)


@learns("iqr", "scoring_changes_nothing")
def changes_the_block_while_learning(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    real.learn(state, block, excluded)
    block.seen.sums[:, :, 0] += 1.0


@learns("mad", "scoring_changes_nothing")
def changes_what_is_excluded(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    real.learn(state, block, excluded)
    excluded[:] = False


# Unsound verdicts.


@says("zscore", "verdicts_are_sound")
def score_beyond_one(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE] = 0.5 * verdicts.score / np.maximum(1.0 - verdicts.score, 1e-9)


@says("cusum", "verdicts_are_sound")
def not_a_number(verdicts: Verdicts, block: Block) -> None:
    with np.errstate(invalid="ignore"):
        verdicts.table[:, :, EXPECTED] *= verdicts.weight / verdicts.weight


@says("iqr", "verdicts_are_sound")
def a_band_upside_down(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, [LOWER, UPPER]] = verdicts.table[:, :, [UPPER, LOWER]]


@says("traffic", "verdicts_are_sound")
def score_where_nothing_is_judged(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE][verdicts.span == 0] = 0.1


@says("static_limits", "verdicts_are_sound")
def values_where_nothing_is_judged(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, [EXPECTED, UPPER]] += 1.0


@says("request_outlier", "verdicts_are_sound")
def judges_slots_without_a_series(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[block.born < 0, :, SPAN] = 1.0


@says("zscore", "verdicts_are_sound")
def judges_nothing(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:] = 0.0


@says("mad", "verdicts_are_sound")
def finds_nothing(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE] *= 0.49


# Excluded cells.


@learns("zscore", "what_is_excluded_is_not_learned")
def learns_what_is_excluded(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    real.learn(state, block, np.zeros_like(excluded))


@learns("cusum", "what_is_excluded_is_not_learned")
def counts_excluded_panes(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    real.learn(state, block, excluded)
    state["learned"] += excluded[:, : block.counts.shape[1]] & (block.counts > 0)


@learns("iqr", "what_is_excluded_is_not_learned")
def one_excluded_cell_excludes_the_series(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    real.learn(state, block, np.repeat(excluded.any(axis=1, keepdims=True), excluded.shape[1], axis=1))


@learns("mad", "what_is_excluded_leaves_no_trace")
def learns_horizons_that_hold_what_was_excluded(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    state["dirty"][:] = 0
    real.learn(state, block, excluded)


# Influence of other series.


@says("zscore", "the_order_of_slots_does_not_matter")
def prefers_the_first_slots(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE] *= 1.0 - 0.01 * np.arange(block.used)[:, np.newaxis]


@says("traffic", "the_order_of_slots_does_not_matter")
def reads_the_slot_beside(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:] = np.roll(verdicts.table, 1, axis=0)


@learns("cusum", "the_order_of_slots_does_not_matter")
def learns_the_slot_beside(real: Detector, state: State, block: Block, excluded: Bools) -> None:
    real.learn(state, block, excluded)
    state["mean"][block.used - 1] = state["mean"][max(block.used - 2, 0)]


@says("iqr", "a_series_is_judged_by_itself")
def compares_with_the_whole_shard(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE] *= 1.0 - 0.5 * np.sort(verdicts.score, axis=0).mean(axis=0)


# Verdicts before the end of the warm-up.


@set_otherwise("mad", "what_learns_is_silent_until_it_is_warm")
def speaks_cold(watch: Watch) -> Watch:
    return Watch(watch.config.model_copy(update={"warm_up_panes": 2}), watch.pane_s)


@breaks("what_learns_is_silent_until_it_is_warm")
class WarmInAllCellsWhenInOne(Wrapped):
    def score(self, state: State, block: Block) -> Verdicts:
        learned = state["learned"]
        return self.real.score({**state, "learned": np.maximum(learned, learned.max(axis=1, keepdims=True))}, block)


# Anomalies below the least change.


@set_otherwise("zscore", "less_than_the_least_change_is_no_anomaly")
def no_least_change(watch: Watch) -> Watch:
    return of_metrics(watch, min_change=1.01)


@set_otherwise("cusum", "less_than_the_least_change_is_no_anomaly")
def no_least_lasting_change(watch: Watch) -> Watch:
    return of_metrics(watch, min_change=1.01)


@set_otherwise("traffic", "less_than_the_least_change_is_no_anomaly")
def no_least_surge(watch: Watch) -> Watch:
    return changed(watch, "traffic", min_surge=1.1)


@set_otherwise("traffic", "less_than_the_least_change_is_no_anomaly")
def no_least_drop(watch: Watch) -> Watch:
    return changed(watch, "traffic", max_drop=0.9)


@set_otherwise("error_ratio", "less_than_the_least_change_is_no_anomaly")
def no_least_share_of_errors(watch: Watch) -> Watch:
    return changed(watch, "errors", min_ratio=0.001)


@set_otherwise("error_ratio", "less_than_the_least_change_is_no_anomaly")
def no_least_number_of_errors(watch: Watch) -> Watch:
    return changed(watch, "errors", min_errors=1)


@set_otherwise("request_outlier", "less_than_the_least_change_is_no_anomaly")
def no_least_factor(watch: Watch) -> Watch:
    return changed(watch, "outlier", min_factor=1.01)


@says("iqr", "less_than_the_least_change_is_no_anomaly")
def score_doubled(verdicts: Verdicts, block: Block) -> None:
    np.minimum(2.0 * verdicts.score, 1.0, out=verdicts.table[:, :, SCORE])


# The watched direction.


@set_otherwise("zscore", "a_change_counts_in_the_watched_direction_alone")
def wrong_direction(watch: Watch) -> Watch:
    turned = {"up": "down", "down": "up", "both": "both"}
    metrics = {n: {**m.model_dump(), "direction": turned[m.direction]} for n, m in watch.config.metrics.items()}
    return changed(watch, "metrics", **metrics)


@set_otherwise("cusum", "a_change_counts_in_the_watched_direction_alone")
def both_directions_always(watch: Watch) -> Watch:
    return of_metrics(watch, direction="both")


@set_otherwise("mad", "a_change_counts_in_the_watched_direction_alone")
def only_up_of_both_directions(watch: Watch) -> Watch:
    return of_metrics(watch, direction="up") if all(s.direction == "both" for s in watch.settings) else watch


@says("traffic", "a_change_counts_in_the_watched_direction_alone")
def does_not_hear_silence(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE][verdicts.observed < verdicts.expected] = 0.0


@says("error_ratio", "a_change_counts_in_the_watched_direction_alone")
def score_halved(verdicts: Verdicts, block: Block) -> None:
    verdicts.table[:, :, SCORE] *= 0.5


# Traits.

declares(
    "zscore", "the_wildest_pane_is_heard_cold_where_no_warm_up_is_needed", "declares_no_warm_up", needs_warm_up=False
)
declares(
    "static_limits", "the_wildest_pane_is_heard_cold_where_no_warm_up_is_needed", "declares_a_warm_up",
    needs_warm_up=True,
)  # fmt: skip
declares("mad", "scores_are_free_of_what_is_declared_and_of_nothing_else", "declares_free_of_scale", scale_free=True)
declares(
    "traffic", "scores_are_free_of_what_is_declared_and_of_nothing_else", "declares_free_of_shift", shift_free=True
)
declares("cusum", "scores_are_free_of_what_is_declared_and_of_nothing_else", "declares_no_shift", shift_free=False)
declares("iqr", "a_change_counts_in_the_watched_direction_alone", "declares_no_answer", answers_step=False)
declares("mad", "a_change_counts_in_the_watched_direction_alone", "declares_upward", upward=True)
declares("request_outlier", "a_change_counts_in_the_watched_direction_alone", "declares_both_ways", upward=False)
declares("error_ratio", "what_a_detector_keeps_is_not_enough_to_judge", "declares_no_prior", prior=0.0)
declares("zscore", "what_a_detector_keeps_is_not_enough_to_judge", "keeps_what_it_has_not", keeps=("hours",))
declares(
    "mad", "what_a_detector_keeps_is_not_enough_to_judge", "keeps_all_that_it_learned",
    keeps=("past", "low", "width", "learned"),
)  # fmt: skip


# The state.


@breaks("state_is_small_arrays_with_a_leading_slot_axis")
class KeepsEveryPane(Wrapped):
    def state(self, slots: int) -> State:
        return {**self.real.state(slots), "values": np.zeros((slots, 8_640))}


@breaks("state_is_small_arrays_with_a_leading_slot_axis")
class NumbersItsSlots(Wrapped):
    of = "cusum"

    def state(self, slots: int) -> State:
        return {**self.real.state(slots), "number": np.arange(slots)}


@breaks("state_is_small_arrays_with_a_leading_slot_axis")
class OneStateForAll(Wrapped):
    of = "request_outlier"

    def state(self, slots: int) -> State:
        return {**self.real.state(slots), "all": np.zeros(3)}


@breaks("state_is_small_arrays_with_a_leading_slot_axis")
class SharesItsState(Wrapped):
    of = "iqr"

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch)
        self._states: dict[int, State] = {}

    def state(self, slots: int) -> State:
        return self._states.setdefault(slots, self.real.state(slots))
