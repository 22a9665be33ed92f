"""The laws of panes: counting, closing, the admission of series, and the rows that are stored.

They run over the parts of production here, and over parts with a bug in `test_other_mutants.py`.
"""

from __future__ import annotations

import itertools
import pickle
from collections.abc import Callable
from random import Random
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import series
from operators.decode.seen import hashed
from operators.model import SECOND
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.fold import EMPTY
from operators.panes.shard import bucket_widths
from operators.panes.table import PaneTable
from operators.panes.watermark import Watermark
from tests.conftest import examples
from tests.operators.pane_events import (
    BASE,
    EVIDENCE,
    FIRST,
    SETS,
    VALUES,
    WIDTH,
    Call,
    calls,
    crowd,
    ints,
    none_of,
    rows,
)
from tests.operators.pane_parts import REAL, Parts
from tests.operators.pane_reference import check, reference
from tests.operators.shard_flow import PANES, WIDTHS, disturb, flow, same, traffic, widths
from tests.operators.shard_flow import reference as rows_at_once

LATENESS = 10 * SECOND


class Law(NamedTuple):
    """A property of the parts, and the strategy that draws its examples; `of` names the parts that it depends on."""

    holds: Callable[..., None]
    of: frozenset[str]
    drawn: st.SearchStrategy[tuple[Any, ...]]
    examples: int


def parts_of(given_calls: list[Call], cuts: list[int]) -> list[list[Call]]:
    ends = sorted({0, len(given_calls), *(c % (len(given_calls) + 1) for c in cuts)})
    return [given_calls[a:b] for a, b in itertools.pairwise(ends)]


def rows_hold_what_a_plain_reference_counts(by: Parts, given_calls: list[Call]) -> None:
    check(by.folded(given_calls), reference(given_calls))


def dimension_sets_are_counted_each_for_itself(by: Parts, given_calls: list[Call]) -> None:
    sets = (("tenant",), ("service",), ("region", "model"), ("provider",))
    check(by.folded(given_calls, sets), reference(given_calls, sets))


def any_split_in_any_order_gives_the_same_table(
    by: Parts, given_calls: list[Call], cuts: list[int], random: Random
) -> None:
    whole = by.folded(given_calls)
    shuffled = list(given_calls)
    random.shuffle(shuffled)
    tables = [by.folded(part) for part in parts_of(shuffled, cuts)]
    assert pane_table.equal(by.merged(tables), whole)
    random.shuffle(tables)
    step = EMPTY
    for t in tables:
        step = by.merged([step, t])
    assert pane_table.equal(step, whole)


def cutting_by_shard_and_merging_gives_the_table_back(by: Parts, given_calls: list[Call], shards: int) -> None:
    whole = by.folded(given_calls)
    parts = fold.cut(whole, shards)
    assert len(parts) == shards
    assert pane_table.equal(by.merged([p for p in parts if p is not None]), whole)
    for shard, part in enumerate(parts):
        if part is not None:
            assert all(series.shard_of(s, shards) == shard for s in part.series)
            assert pane_table.equal(by.merged([part]), part), "a part is canonical too"
    present = {series.shard_of(s, shards) for s in whole.series}
    assert {i for i, p in enumerate(parts) if p is not None} == present


def selected_rows_are_the_rows(by: Parts, given_calls: list[Call], data: st.DataObject) -> None:
    whole = by.folded(given_calls)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(whole.pane), max_size=len(whole.pane))), np.bool_)
    picked, rest = fold.select(whole, mask), fold.select(whole, ~mask)
    assert pane_table.equal(by.merged([rest, picked]), whole)
    assert pane_table.equal(by.merged([picked]), picked)
    assert picked.requests.tolist() == whole.requests[mask].tolist()
    assert pane_table.equal(fold.matching(whole, picked), picked)
    low = data.draw(st.integers(BASE // WIDTH - 1, BASE // WIDTH + 12))
    among = fold.between(whole, low, low + 3)
    assert pane_table.equal(among, fold.select(whole, (whole.pane >= low) & (whole.pane < low + 3)))


def widening_and_merging_commute(by: Parts, given_calls: list[Call], cuts: list[int], factor: int) -> None:
    parts = [by.folded(p) for p in parts_of(given_calls, cuts)]
    wide = fold.widen([by.merged(parts)], factor, EVIDENCE, VALUES)
    assert pane_table.equal(by.merged([fold.widen([p], factor, EVIDENCE, VALUES) for p in parts]), wide)
    assert pane_table.equal(wide, by.folded(given_calls, width=WIDTH * factor)), (
        "differs from panes that are wide from the start"
    )
    assert pane_table.equal(fold.widen([fold.widen([by.merged(parts)], 2, EVIDENCE, VALUES)], 3, EVIDENCE, VALUES),
                       fold.widen(parts, 6, EVIDENCE, VALUES))  # fmt: skip


def states_and_pickles_give_the_table_back(by: Parts, given_calls: list[Call]) -> None:
    table = by.folded(given_calls)
    assert pane_table.equal(pane_table.from_state(pane_table.to_state(table)), table)
    assert pane_table.equal(pickle.loads(pickle.dumps(table)), table)


def lateness_does_not_depend_on_how_a_partition_is_cut(
    by: Parts, events: list[tuple[int, int]], data: st.DataObject
) -> None:
    start = ints([s * SECOND for s, _ in events])
    end = start + ints([took * SECOND for _, took in events])
    whole = by.judge(start, end, None, LATENESS, WIDTH, 30, none_of(start))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(events)), max_size=4)))
    on_time, late, before = [], [], None
    for low, high in zip([0, *cuts], [*cuts, len(events)], strict=True):
        part = by.judge(start[low:high], end[low:high], before, LATENESS, WIDTH, 30, none_of(start[low:high]))
        on_time += part.on_time.tolist()
        late += part.late.tolist()
        before = part.max_start
    assert (on_time, late, before) == (whole.on_time.tolist(), whole.late.tolist(), whole.max_start)


def nothing_is_late_in_start_order_nor_in_order_of_emission(by: Parts, events: list[tuple[int, int]]) -> None:
    pairs = [(s * SECOND, (s + took) * SECOND) for s, took in events]
    for order in (sorted(pairs), sorted(pairs, key=lambda p: p[1])):
        start, end = ints([s for s, _ in order]), ints([e for _, e in order])
        assert by.judge(start, end, None, LATENESS, WIDTH, 30, none_of(start)).on_time.all()


def what_has_records_to_read_is_always_waited_for(by: Parts, told: list[tuple[str, int, bool]]) -> None:
    clock, at, at_end = by.clock(600), dict[str, int](), dict[str, bool]()
    for partition, mark, stands in told:
        clock.observe(partition, ("a", "b", "c"), Watermark(mark, stands))
        at[partition] = max(mark, at.get(partition, 0))
        at_end[partition] = stands
        closed = clock.closed_to()
        if len(at) < 3:
            assert closed is None
            continue
        reading = [at[p] for p in at if not at_end[p]]
        assert closed is not None and min(at.values()) <= closed <= min(reading, default=max(at.values()))
        assert not reading or closed >= min(reading) - 600


def order_cuts_pruning_and_resuming_change_nothing(
    by: Parts, seen: list[tuple[int, str]], cap: int, expiry: int, protect: int, random: Random
) -> None:
    table = rows(*seen, sets=SETS)
    steady = by.admission(cap, expiry, protect, EVIDENCE, VALUES)
    expected = [steady.close(fold.between(table, FIRST + p, FIRST + p + 1), FIRST + p) for p in range(15)]

    # The same rows in parts, early or in time, in any order, with pruning, resuming and steps of several panes.
    admission = by.admission(cap, expiry, protect, EVIDENCE, VALUES)
    masks = np.array([random.randrange(3) for _ in table.pane], np.int64)
    parts = [fold.select(table, masks == k) for k in range(3)]
    waiting = fold.EMPTY
    got: list[PaneTable] = []
    closed = FIRST
    while closed < FIRST + 15:
        upto = min(closed + random.choice([1, 1, 2, 5]), FIRST + 15)
        random.shuffle(parts)
        for k, part in enumerate(parts):
            # All rows that must be there before `upto` closes, and some later ones.
            take = (part.pane < upto) | np.array([random.random() < 0.5 for _ in part.pane], np.bool_)
            waiting = by.merged([waiting, fold.select(part, take)])
            parts[k] = fold.select(part, ~take)
            if random.random() < 0.7:
                waiting = admission.prune(waiting, closed)
        if random.random() < 0.3:
            admission = by.admission.load(admission.save(), *admission.settings)
        due = fold.between(waiting, 0, upto)
        waiting = fold.between(waiting, upto, 2**62)
        got.append(admission.close(due, upto - 1))
        closed = upto
    assert pane_table.equal(by.merged(got), by.merged(expected))
    assert str(admission.save()) == str(steady.save())


def nothing_is_lost_and_the_bound_holds(by: Parts, seen: list[tuple[int, str]], cap: int) -> None:
    table = rows(*seen)
    admission = by.admission(cap, 5, 3, EVIDENCE, VALUES)
    for p in range(15):
        pane = fold.between(table, FIRST + p, FIRST + p + 1)
        closed = admission.close(pane, FIRST + p)
        assert int(closed.requests.sum()) == int(pane.requests.sum())
        assert len(closed.series) <= cap + 1
        assert len(admission) <= min(cap, len({name for at, name in seen if p - 5 <= at <= p})), "idle ones expire"


def every_row_width_holds_every_event_that_may_be_in_it(
    by: Parts, partitions: list[list[Call]], pane_s: int, cap: int, shards: int, lateness: float, random: Random
) -> None:
    config = PANES.model_copy(update={"series_per_shard": cap})
    run = flow(*partitions, parts=by, pane_s=pane_s, config=config, shards=shards, lateness_s=lateness)
    disturb(run, random)
    run.end()
    parts = run.partitions.values()
    assert sum(p.on_time + p.late for p in parts) <= sum(map(len, partitions))
    for width in widths(run):
        assert run.requests(width) == sum(p.on_time + p.late for p in parts)
    assert sum(run.overtaken.values()) == 0

    whole = flow(*partitions, parts=by, pane_s=pane_s, config=config, shards=shards, lateness_s=lateness).finish()
    assert same(run.rows(), whole.rows())


def rows_do_not_depend_on_the_number_of_keys(
    by: Parts, partitions: list[list[Call]], pane_s: int, keys: tuple[int, int], random: Random
) -> None:
    run = flow(*partitions, parts=by, pane_s=pane_s)
    run.keys = keys[: len(bucket_widths(pane_s))]
    disturb(run, random)
    run.keys = (60, 60)[: len(bucket_widths(pane_s))]  # live buckets keep their keys if the number changes
    run.resume(run.snapshot())
    run.end()
    assert same(run.rows(), flow(*partitions, parts=by, pane_s=pane_s).finish().rows())


def rows_are_what_folding_all_events_at_once_gives(
    by: Parts, partitions: list[list[Call]], pane_s: int, random: Random
) -> None:
    run = flow(*partitions, parts=by, pane_s=pane_s, shards=2)
    disturb(run, random)
    run.end()
    calls = [c for p in partitions for c in p]
    if not calls:
        assert not run.stored
        return
    expected = {}
    for width in widths(run):
        expected.update(rows_at_once(calls, run.time, PANES, width))
    assert same(run.rows(), expected)


def detection_gets_every_pane_once_in_order_and_on_time_events_alone(
    by: Parts, partitions: list[list[Call]], pane_s: int, random: Random
) -> None:
    run = flow(*partitions, parts=by, pane_s=pane_s, shards=2)
    disturb(run, random, crashes=False)
    run.end()
    requests = 0
    for shard in range(2):
        judged = run.judged(shard)
        last = [c for c in run.closed if c.shard == shard and c.final]
        for one, following in zip([*judged], [*judged[1:], *last], strict=False):
            assert one.high == following.low or (one.low == one.high and not len(one.table.pane))
        for closed in [*judged, *last]:
            assert closed.low <= closed.judged <= closed.high
            assert (
                len(closed.table.pane) == 0 or closed.low <= closed.table.pane[0] <= closed.table.pane[-1] < closed.high
            )
            requests += fold.requests_of(closed.table, ("service",))
    assert requests == sum(p.on_time for p in run.partitions.values())


def a_source_that_ended_and_has_grown_gives_the_rows_of_one_that_had_not_ended(
    by: Parts, before: list[Call], after: list[Call], pane_s: int, random: Random
) -> None:
    calls = [*before, *(Call(c.start + 600 * SECOND, c.took, c.labels, c.values, c.error, "", "") for c in after)]
    run = flow(before, parts=by, pane_s=pane_s)
    disturb(run, random)
    run.end()
    run.resume(run.snapshot())
    run.partitions["p0"].calls = calls
    disturb(run, random)
    run.end()
    assert same(run.rows(), flow(calls, parts=by, pane_s=pane_s).finish().rows())
    part = run.partitions["p0"]
    for width in widths(run):
        assert run.requests(width) == part.on_time + part.late


def what_was_told_twice_counts_once(by: Parts, gaps: list[tuple[str, int]], cuts: list[int]) -> None:
    """An id repeats if it last came no longer ago than the horizon, however the events are cut into polls."""
    horizon, last = 100, dict[str, int]()
    times = ints(np.cumsum([gap for _, gap in gaps]).tolist())
    expected = []
    for (event, _), now in zip(gaps, times.tolist(), strict=True):
        expected.append(bool(event) and event in last and now - last[event] <= horizon)
        last[event] = now
    memory, got = by.seen(horizon, 1_000), []
    ends = sorted({0, len(gaps), *(cut % (len(gaps) + 1) for cut in cuts)})
    for low, high in itertools.pairwise(ends):
        keys = hashed(event for event, _ in gaps[low:high])[:, None]
        got += memory.repeats(keys, times[low:high]).tolist()
    assert got == expected


_random = st.randoms(use_true_random=False)
_cuts = st.lists(st.integers(0, 100), max_size=4)
_events = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 90)), max_size=60)
_seen = st.lists(st.tuples(st.integers(0, 14), st.sampled_from([f"s{i}" for i in range(9)])), max_size=60)
_width = st.sampled_from(WIDTHS)

_TABLES = frozenset({"fold_events", "merge"})
_JUDGE, _CLOCK, _SEEN, _ADMISSION = (frozenset({part}) for part in ("judge", "clock", "seen", "admission"))
_FLOW = frozenset({"shard", "rollup", "judge"})

LAWS: Final = {
    law.holds.__name__: law
    for law in (
        Law(rows_hold_what_a_plain_reference_counts, _TABLES, st.tuples(calls | crowd), 60),
        Law(dimension_sets_are_counted_each_for_itself, _TABLES, st.tuples(calls), 30),
        Law(any_split_in_any_order_gives_the_same_table, _TABLES, st.tuples(calls | crowd, _cuts, _random), 60),
        Law(cutting_by_shard_and_merging_gives_the_table_back, _TABLES, st.tuples(calls, st.integers(1, 6)), 40),
        Law(selected_rows_are_the_rows, _TABLES, st.tuples(calls, st.data()), 40),
        Law(widening_and_merging_commute, _TABLES, st.tuples(calls, _cuts, st.integers(1, 6)), 40),
        Law(states_and_pickles_give_the_table_back, _TABLES, st.tuples(calls), 40),
        Law(lateness_does_not_depend_on_how_a_partition_is_cut, _JUDGE, st.tuples(_events, st.data()), 100),
        Law(nothing_is_late_in_start_order_nor_in_order_of_emission, _JUDGE, st.tuples(_events), 100),
        Law(
            what_has_records_to_read_is_always_waited_for, _CLOCK,
            st.tuples(
                st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5_000), st.booleans()), min_size=3)
            ),
            100,
        ),
        Law(
            what_was_told_twice_counts_once, _SEEN,
            st.tuples(
                st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from([0, 1, 40, 60, 101]))), _cuts
            ),
            100,
        ),
        Law(
            order_cuts_pruning_and_resuming_change_nothing, _ADMISSION,
            st.tuples(_seen, st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), _random),
            60,
        ),
        Law(nothing_is_lost_and_the_bound_holds, _ADMISSION, st.tuples(_seen, st.integers(1, 4)), 30),
        Law(
            detection_gets_every_pane_once_in_order_and_on_time_events_alone, _FLOW,
            st.tuples(st.lists(traffic(), min_size=1, max_size=3), _width, _random),
            25,
        ),
        Law(
            every_row_width_holds_every_event_that_may_be_in_it, _FLOW,
            st.tuples(
                st.lists(traffic(), min_size=1, max_size=3), _width, st.sampled_from([1, 3, 50]), st.integers(1, 3),
                st.sampled_from([0, 10]), _random,
            ),
            25,
        ),
        Law(
            rows_are_what_folding_all_events_at_once_gives, _FLOW,
            st.tuples(st.lists(traffic(late=False), min_size=1, max_size=3), _width, _random),
            25,
        ),
        Law(
            rows_do_not_depend_on_the_number_of_keys, _FLOW,
            st.tuples(
                st.lists(traffic(), min_size=1, max_size=2), _width,
                st.tuples(st.sampled_from([1, 2, 5]), st.integers(1, 3)), _random,
            ),
            25,
        ),
        Law(
            a_source_that_ended_and_has_grown_gives_the_rows_of_one_that_had_not_ended, _FLOW,
            st.tuples(traffic(), traffic(), _width, _random),
            25,
        ),
    )
}  # fmt: skip
"""Laws by name; those of single parts first, then those of whole runs."""


@pytest.mark.parametrize("law", LAWS)
def test_the_law_holds(law: str) -> None:
    @examples(LAWS[law].examples)
    @given(LAWS[law].drawn)
    def meet(drawn: tuple[Any, ...]) -> None:
        LAWS[law].holds(REAL, *drawn)

    meet()
