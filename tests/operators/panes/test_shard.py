"""The open panes of a shard and the rows that follow: none is lost, doubled or dependent on the order of arrival."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators import series
from operators.config import TimeConfig
from operators.errors import FatalError
from operators.model import SECOND
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.shard import Partial, Shard, Slice, bucket_widths, row_keys
from operators.panes.watermark import Watermark
from tests.conftest import examples
from tests.operators.pane_events import Call
from tests.operators.shard_flow import DAY, PANES, WIDTHS, call, flow, key_of, same, traffic

LAW = examples(25)


@LAW
@given(traffic(), traffic(), st.sampled_from(WIDTHS))
def test_buckets_of_the_release_before_keep_their_keys(before: list[Call], after: list[Call], pane_s: int) -> None:
    calls = [*before, *(Call(c.start + 30 * SECOND, c.took, c.labels, c.values, c.error, "", "") for c in after)]
    run = flow(calls, pane_s=pane_s)
    run.keys = (2**40, 2**40)[: len(bucket_widths(pane_s))]  # each bucket's key is then its own number
    while run.partitions["p0"].read < len(before):
        run.poll("p0", 3)
    run.resume_old()
    run.finish(3)
    assert same(run.rows(), flow(calls, pane_s=pane_s).finish(3).rows())


@pytest.mark.compiled
@pytest.mark.parametrize(("pane_s", "correction_s"), [(10, 0), (10, 600), (20, 90), (600, 3600), (3600, 3600)])
def test_live_buckets_seldom_share_a_key_and_keys_come_back(pane_s: int, correction_s: int) -> None:
    run = flow([call(pane_s * i) for i in range(2_000)], pane_s=pane_s, correction_s=correction_s)
    seen: set[str] = set()
    while run.partitions["p0"].read < 2_000:
        run.poll("p0", 1)
        seen |= run.rollup.keys()
        assert all(len(rollup._live) <= 1 for rollup in run.rollup.values())
    assert len(seen) <= sum(row_keys(pane_s, correction_s))


def test_a_pane_closes_when_the_slowest_partition_has_passed_it() -> None:
    run = flow([call(0), call(20)], [call(1), call(9), call(10)])
    run.poll("p0", 2)
    assert run.closed == []  # p1 has not reported yet
    run.poll("p1", 2)
    assert run.row(10, 0) is None
    run.poll("p1", 1)
    assert run.row(10, 0) == 3
    assert run.row(10, 10) is None


def test_a_minute_and_an_hour_are_stored_when_they_are_over_and_corrected_after() -> None:
    calls = [call(1), call(59), call(61), call(3601), call(3590), call(3660), call(30), call(8000)]
    run = flow(calls, correction_s=3600)
    run.poll("p0", 2)
    assert run.row(60, 0) is None
    run.poll("p0", 1)
    assert run.row(60, 0) == 2 and run.row(3600, 0) is None
    run.poll("p0", 1)
    assert run.row(3600, 0) == 3
    run.poll("p0", 1)  # late: corrects rows at once; its minute gets its first row, at the next closing
    assert (run.row(10, 3590), run.row(60, 3540), run.row(3600, 0)) == (1, None, 4)
    run.poll("p0", 2)  # one call that closes panes, and one that is too late for a correction
    assert (run.row(10, 30), run.row(60, 0), run.row(60, 3540), run.row(3600, 0)) == (None, 2, 1, 4)
    key = f"0000/3600/{DAY // SECOND // 3600 % 3}"
    assert key in run.rollup
    run.poll("p0", 1)
    assert key not in run.rollup  # no correction can reach it any more


@pytest.mark.compiled
def test_buckets_are_dropped_so_that_memory_is_bounded() -> None:
    run = flow([call(60.0 * i) for i in range(600)], correction_s=120)
    most = 0
    while run.partitions["p0"].read < 600:
        run.poll("p0", 7)
        most = max(most, len(run.rollup))
    assert most <= 2 + 3 + 7  # at most two hours, and the minutes of the correction horizon


def test_late_rows_of_open_panes_wait_and_never_reach_detection() -> None:
    # p0 is far ahead; its late event belongs to a pane that is still open in the shard, because p1 is behind.
    run = flow([call(0), call(100), call(12)], [call(0), call(5), call(200)])
    run.poll("p0", 3)
    run.poll("p1", 2)
    assert run.partitions["p0"].late == 1
    run.resume(run.snapshot())
    run.poll("p1", 1)
    assert run.row(10, 10) == 1
    assert sum(fold.requests_of(c.table, ("service",)) for c in run.closed) == 3
    run.end()
    assert run.requests(10) == run.requests(60) == run.requests(3600) == 6


def test_many_late_rows_of_open_panes_are_kept_as_one_table() -> None:
    run = flow([call(0), call(100), *[call(12 + i / 100) for i in range(300)]], [call(0), call(200)])
    for _ in range(302):
        run.poll("p0", 1)
    assert len(run.merging["0000"]._pending_late) < 70
    run.poll("p1", 2)
    run.end()
    assert run.requests(10) == 304
    assert run.row(10, 10) == 300


def test_events_of_an_idle_partition_for_closed_panes_are_counted_and_correct_rows() -> None:
    run = flow([call(0), call(100)], [call(1), call(15)], shards=1)
    run.poll("p1", 1)
    run.poll("p0", 2)
    assert run.row(10, 0) is None
    run.idle("p1", 60)  # now p0 alone decides
    assert run.row(10, 0) == 2
    run.poll("p1", 1)  # on time for its partition, overtaken in the shard
    assert run.partitions["p1"].on_time == 2
    assert (run.row(10, 10), run.row(60, 0)) == (1, 3)
    assert sum(fold.requests_of(c.table, ("service",)) for c in run.closed) == 2
    run.partitions["p0"].calls += [call(170)]
    run.poll("p0", 1)
    run.partitions["p1"].calls += [call(180)]
    run.poll("p1", 1)
    run.resume(run.snapshot())
    run.end()
    assert run.overtaken == {0: 1}
    for width in (10, 60, 3600):
        assert run.requests(width) == 6


def test_when_all_partitions_are_idle_the_least_bound_closes() -> None:
    run = flow([call(0)], [call(4)])
    run.poll("p0", 1)
    run.poll("p1", 1)
    run.idle("p0", 100)
    run.idle("p1", 35)
    assert run.row(10, 0) == 2
    assert run.merging["0000"].closed == (DAY // SECOND + 30) // 10


def test_a_file_that_has_grown_never_overwrites_rows_that_are_settled() -> None:
    # p0 ended early and p1 went on for hours: the last buckets of p0 are gone, so its further events are too late.
    run = flow([call(0), call(1)], [call(60.0 * i) for i in range(200)], correction_s=60)
    run.finish()
    settled = run.rows()
    assert run.row(3600, 0) == 62
    run.resume(run.snapshot())
    run.partitions["p0"].calls += [call(2), call(5)]
    run.finish()
    assert same(run.rows(), settled)
    assert run.overtaken == {0: 2}


def test_late_series_without_a_row_in_their_pane_go_to_the_overflow() -> None:
    run = flow([call(0, service="a"), call(100, service="a"), call(50, service="b")]).finish()
    assert run.row(10, 50, "service=b") is None
    assert run.row(10, 50, "service=__other__.0") == 1


def test_the_end_judges_up_to_the_last_start_and_stores_the_rest() -> None:
    run = flow([call(0), call(25, took=40)], lateness_s=10).finish()
    (last,) = [c for c in run.closed if c.final]
    first = DAY // SECOND // 10
    assert (last.high - first, last.judged - first) == (7, 2)
    assert (run.row(10, 60), run.row(60, 60), run.row(3600, 0)) == (1, 1, 2)


def test_the_end_admits_nothing_for_good() -> None:
    config = PANES.model_copy(update={"series_per_shard": 1, "dimension_sets": (("service",),)})
    first, second = sorted("ab", key=lambda s: series.rank(f"service={s}"))
    calls = [call(0, service=second), call(1, service=first), call(20, service=first)]
    run = flow(calls[:1], config=config).finish()
    assert run.row(10, 0, f"service={second}") == 1
    run.resume(run.snapshot())
    run.partitions["p0"].calls = calls
    run.finish()
    whole = flow(calls, config=config).finish()
    assert sorted(run.judged(0)[-1].table.series) == ["service=__other__.0", f"service={first}"]
    assert pane_table.equal(run.judged(0)[-1].table, whole.judged(0)[-1].table)


def test_the_end_of_a_source_without_events_gives_nothing() -> None:
    run = flow([], []).finish()
    assert run.closed == [] and run.stored == {}


@pytest.mark.compiled
def test_a_flood_before_anything_closes_is_kept_merged() -> None:
    run = flow([call(i % 5, service=f"s{i % 3_000}") for i in range(9_000)], [])
    for _ in range(9):
        run.poll("p0", 1_000)
    shard = run.merging["0000"]
    assert sum(len(t.pane) for t in shard._pending) < 2 * 3_000 + 4_096
    run.end()
    assert run.requests(10) == 9_000


@pytest.mark.compiled
def test_a_flood_of_new_series_is_pruned_while_their_pane_is_open() -> None:
    config = PANES.model_copy(update={"series_per_shard": 10, "dimension_sets": (("service",),)})
    calls = [call(0), call(10), *[call(11, service=f"s{i}") for i in range(12_000)]]
    run = flow(calls, config=config)
    for _ in range(13):
        run.poll("p0", 1_000)
    shard = run.merging["0000"]
    assert sum(len(t.pane) for t in shard._pending) < 6_000
    run.end()
    assert run.requests(10) == len(calls)
    assert len([1 for width, _, _ in run.stored if width == 10]) <= 1 + 12


def test_the_series_and_the_newly_overtaken_are_told_at_each_closing() -> None:
    told = []
    shard = Shard(1, TimeConfig(pane_s=10), PANES, lambda *seen: told.append(seen))
    assert shard.dropped is False

    def item(at: int, table: pane_table.PaneTable | None = None) -> Partial:
        return Partial(0, "p0", ("p0",), Watermark(DAY + at * SECOND), table, None)

    list(shard.take([item(0), item(15)]))
    assert told == [(0, 0, 0), (0, 0, 0)]


def test_slices_are_keyed_by_shard_width_and_number() -> None:
    assert Slice(3, 60, 29_452_320, 17, "seal").key == "0003/60/17"


@pytest.mark.parametrize(
    ("pane_s", "expected"), [(1, (60, 3600)), (60, (60, 3600)), (300, (300, 3600)), (3600, (3600,))]
)
def test_the_widths_of_buckets(pane_s: int, expected: tuple[int, ...]) -> None:
    assert bucket_widths(pane_s) == expected


def test_the_state_of_another_version_or_number_of_shards_is_refused() -> None:
    shard = Shard(2, TimeConfig(), PANES, lambda *_: None)
    with pytest.raises(FatalError, match="version 9; this release reads 3"):
        shard.restore((9, 0, 2))
    with pytest.raises(FatalError, match="made with 3 shards, the flow has 2"):
        shard.restore(Shard(3, TimeConfig(), PANES, lambda *_: None).save())


def test_series_are_cut_by_shard() -> None:
    run = flow([call(i, service=s) for i, s in enumerate("abcdefgh")], shards=3).finish()
    assert {key_of(s, 3) for s in "abcdefgh"} == set(run.merging)
    assert run.requests(10) == 8
