"""The rows of buckets: new and changed rows at once, the rows of a whole bucket at its end, then corrections."""

from __future__ import annotations

from typing import Any

import pytest

from operators.config import PanesConfig
from operators.errors import FatalError
from operators.model import SECOND
from operators.panes import fold
from operators.panes import table as pane_table
from operators.panes.rollup import Rollup, StoredRows
from operators.panes.shard import Slice
from operators.panes.table import PaneTable
from tests.operators.pane_events import columns
from tests.operators.shard_flow import DAY, call

CONFIG = PanesConfig(dimension_sets=(("service",),))
MINUTE = DAY // SECOND // 60
HOUR = MINUTE // 60


def table(*seconds: float, service: str = "a", pane_s: int = 10) -> PaneTable:
    events = columns([call(s, service=service) for s in seconds])
    return fold.fold_events(
        events, events.start > 0, CONFIG.dimension_sets, pane_s * SECOND, CONFIG.evidence, CONFIG.breakdown_values
    )


def of(bucket: int, what: str, added: PaneTable | None = None) -> Slice:
    return Slice(0, 60, MINUTE + bucket, 0, what, added)  # type: ignore[arg-type]


def rows(*seconds: float, width: int = 60, service: str = "a", pane_s: int = 10) -> Slice:
    return Slice(0, width, MINUTE if width == 60 else HOUR, 0, "rows", table(*seconds, service=service, pane_s=pane_s))


def mark(what: str, width: int = 60, added: PaneTable | None = None) -> Slice:
    return Slice(0, width, MINUTE if width == 60 else HOUR, 0, what, added)  # type: ignore[arg-type]


def told(out: list[StoredRows]) -> list[tuple[int, int, int]]:
    """The (width, start, requests) of each row; the width in seconds, the start in seconds after `DAY`."""
    return [
        (stored.width_s, int(pane) * stored.width_s - DAY // SECOND, int(requests))
        for stored in out
        for pane, requests in zip(stored.table.pane, stored.table.requests, strict=True)
    ]


def test_a_minute_gives_panes_at_once_and_itself_when_it_is_over() -> None:
    bucket = Rollup(10, CONFIG)
    assert told(bucket.take([rows(1, 12)])) == [(10, 0, 1), (10, 10, 1)]
    assert told(bucket.take([rows(13)])) == [(10, 10, 2)]
    assert told(bucket.take([mark("seal")])) == [(60, 0, 3)]
    assert not bucket.dropped
    assert told(bucket.take([rows(14)])) == [(10, 10, 3), (60, 0, 4)]
    assert bucket.take([mark("drop")]) == []
    assert bucket.dropped


def test_an_hour_gives_itself_alone() -> None:
    bucket = Rollup(10, CONFIG)
    assert bucket.take([rows(1, 700, width=3600)]) == []
    assert told(bucket.take([rows(900, width=3600), mark("seal", 3600)])) == [(3600, 0, 3)]
    assert told(bucket.take([rows(5, width=3600)])) == [(3600, 0, 4)]


def test_only_the_series_that_changed_are_given_again() -> None:
    bucket = Rollup(10, CONFIG)
    bucket.take([rows(1), rows(1, service="b"), mark("seal")])
    out = bucket.take([rows(1, service="b")])
    assert [stored.table.series for stored in out] == [["service=b"], ["service=b"]]


def test_rows_that_change_twice_in_a_batch_are_given_once() -> None:
    bucket = Rollup(10, CONFIG)
    assert told(bucket.take([rows(1), rows(2), mark("seal"), rows(3), mark("drop")])) == [(10, 0, 3), (60, 0, 3)]
    assert bucket.dropped


def test_the_end_gives_rows_without_keeping_them() -> None:
    bucket = Rollup(10, CONFIG)
    bucket.take([rows(1, 11)])
    assert told(bucket.take([mark("end", added=table(12, 21))])) == [(10, 10, 2), (10, 20, 1), (60, 0, 4)]
    assert told(bucket.take([mark("end", added=fold.EMPTY)])) == [(60, 0, 2)]
    assert told(bucket.take([mark("seal")])) == [(60, 0, 2)]


@pytest.mark.parametrize("pane_s", [60, 3600])
def test_a_bucket_as_wide_as_a_pane_gives_one_row(pane_s: int) -> None:
    bucket = Rollup(pane_s, CONFIG)
    assert told(bucket.take([rows(1, 2, width=pane_s, pane_s=pane_s)])) == [(pane_s, 0, 2)]
    assert bucket.take([mark("seal", pane_s)]) == []
    assert told(bucket.take([rows(3, width=pane_s, pane_s=pane_s)])) == [(pane_s, 0, 3)]


@pytest.mark.parametrize("width", [60, 3600])
@pytest.mark.parametrize("sealed", [False, True])
def test_a_successor_goes_on_as_if_nothing_had_happened(width: int, sealed: bool) -> None:
    bucket, again = Rollup(10, CONFIG), Rollup(10, CONFIG)
    bucket.take([rows(1, 2, width=width), *([mark("seal", width)] if sealed else [])])
    again.restore(bucket.save())
    one, other = bucket.take([rows(3, width=width)]), again.take([rows(3, width=width)])
    assert told(one) == told(other)
    assert all(pane_table.equal(a.table, b.table) for a, b in zip(one, other, strict=True))
    assert str(again.save()) == str(bucket.save())


def test_buckets_that_share_a_key_do_not_mix() -> None:
    rollup = Rollup(10, CONFIG)
    assert told(rollup.take([of(1, "rows", table(61)), of(0, "rows", table(1)), of(1, "rows", table(62))])) == [
        (10, 60, 2),
        (10, 0, 1),
    ]
    again = Rollup(10, CONFIG)
    again.restore(rollup.save())
    for one in (rollup, again):
        assert told(one.take([of(0, "seal")])) == [(60, 0, 1)]
        assert one.take([of(0, "drop")]) == []
        assert not one.dropped
        assert told(one.take([of(1, "seal")])) == [(60, 60, 2)]
        one.take([of(1, "drop")])
        assert one.dropped


def test_the_end_of_a_source_makes_no_new_bucket() -> None:
    rollup = Rollup(10, CONFIG)
    assert told(rollup.take([of(0, "end", table(1))])) == [(10, 0, 1), (60, 0, 1)]
    assert rollup.dropped


def test_a_bucket_that_had_a_key_of_its_own_goes_on() -> None:
    before = Rollup(10, CONFIG)
    before.take([rows(1, 12), mark("seal")])
    state: Any = before.save()
    _, ((_, bucket),) = state
    again = Rollup(10, CONFIG)
    again.restore((2, *bucket))
    assert not again.dropped
    assert str(again.save()[1]).startswith("((-1, ")
    assert told(again.take([rows(13)])) == [(10, 10, 2), (60, 0, 3)]
    again.take([mark("drop")])
    assert again.dropped


def test_the_state_of_another_version_is_refused() -> None:
    with pytest.raises(FatalError, match="version 5; this release reads 3"):
        Rollup(10, CONFIG).restore((5, False, ()))
