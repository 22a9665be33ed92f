"""The expected bands of a series once a minute: known values, the bands of alerts, and no effect on detection."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.config import DetectConfig, EpisodesConfig, TimeConfig
from operators.detect.base import Watch
from operators.detect.engine.expectations import Expected
from operators.detect.engine.monitor import ShardMonitor
from operators.incidents import explain
from operators.kernels.bands import bands_in_units, six_digits
from operators.kernels.detect import EXPECTED, FIELDS, LOWER, SPAN, UPPER
from operators.model import SECOND
from operators.panes.table import Closed
from tests.operators.detect.engine.test_monitor import COUNT, PIECES, QUICK, ROWS, at
from tests.watching import PANE_S, Request, closings, steady, table, watch_all

MINUTE = 60 // PANE_S
SERVICE = (("service",),)


def watching(
    config: DetectConfig = QUICK, sets: Collection[tuple[str, ...]] = SERVICE, *, on: bool = True
) -> ShardMonitor:
    return ShardMonitor(config, EpisodesConfig(), TimeConfig(), 86_400, sets, on)


def expected(watcher: ShardMonitor, pieces: Sequence[Closed]) -> list[Expected]:
    watch_all(watcher, pieces)
    return watcher.expected.taken()


def bands(found: Sequence[Expected], series: str, cell: str) -> dict[int, list[float]]:
    """The expected value, lower and upper end of a cell, by minute from the beginning on, for minutes with a band."""
    out = {}
    for e in found:
        if series in e.series:
            band = e.bands[e.series.index(series), e.cells.index(cell)].tolist()
            if not math.isnan(band[0]):
                out[(e.start - at(0)) // (60 * SECOND)] = band
    return out


def told(found: Sequence[Expected]) -> list[tuple[object, ...]]:
    """The bands in a form that can be compared."""
    return [(e.start, e.cells, e.series, e.bands.tobytes()) for e in found]


@pytest.fixture(scope="module")
def whole() -> list[Expected]:
    return expected(watching(), PIECES)


def test_the_band_of_a_constant_is_its_value_and_the_least_change_around_it() -> None:
    requests = steady(600, 4, lambda *_: {"latency": 400.0, "cost": 0.25, "quality": 0.75})
    found = expected(watching(), closings(table(requests), 600))
    by_cell = {cell: bands(found, "service=chat", cell) for cell in found[-1].cells}
    last = {cell: of[99] for cell, of in by_cell.items() if of}
    latency = by_cell["latency"]
    assert set(last) == {"latency", "cost", "quality", "requests", "error_ratio"}
    middle, lower, upper = latency[99]
    assert middle == pytest.approx(400, rel=0.016)
    assert (upper / middle, middle / lower) == pytest.approx((1.5, 1.5), rel=0.04)
    assert last["cost"][0] == pytest.approx(0.25, rel=0.016)
    assert last["quality"] == pytest.approx([0.75, 0.67, 0.83], rel=0.02)
    assert last["requests"][0] == pytest.approx(24, rel=1e-3), "requests a minute"
    assert last["requests"][1] < 24 * 0.35 and last["requests"][2] > 24 * 2.5
    assert last["error_ratio"][0] < 0.01 and last["error_ratio"][1] == 0.0 and 0.1 <= last["error_ratio"][2] < 1.0


def test_there_is_no_band_before_the_warm_up_or_in_a_minute_without_requests(whole: list[Expected]) -> None:
    latency = bands(whole, "service=well", "latency")
    assert list(latency) == list(range(min(latency), COUNT // MINUTE)) and min(latency) >= 2
    minutes = {(e.start - at(0)) // (60 * SECOND) for e in whole if "service=silent" in e.series}
    assert max(minutes) == 100 // MINUTE, "the last minute with requests"
    assert all(not np.isnan(e.bands[:, :, 0]).all(axis=1).any() for e in whole), "no row without a band"


def test_the_band_is_that_of_an_alert_at_the_same_pane() -> None:
    begin = 14 * MINUTE - 1  # the last pane of a minute

    def slow(pane: int, draw: random.Random) -> dict[str, float]:
        return {"latency": draw.lognormvariate(6.0, 0.2) * (5 if pane >= begin else 1), "quality": 0.8}

    watcher = watching()
    (alert,) = watch_all(watcher, closings(table(steady(begin + 1, 6, slow)), begin + 1))
    assert (alert.metric, alert.detectors, alert.since) == ("latency", ("zscore",), at(begin))
    band = bands(watcher.expected.taken(), "service=chat", "latency")[13]
    assert band == [alert.expected, alert.lower, alert.upper] and alert.observed > band[2]


def test_an_incident_does_not_move_the_band(whole: list[Expected]) -> None:
    latency = bands(whole, "service=slow", "latency")
    before, within = latency[12], latency[16]
    assert within == pytest.approx(before, rel=0.25)


def test_a_request_a_minute_has_its_band_in_every_minute() -> None:
    requests = [Request(m * 60 + 5, {"latency": 300.0}) for m in range(180)]
    found = expected(watching(), closings(table(requests), 180 * MINUTE))
    latency = bands(found, "service=chat", "latency")
    assert list(latency) == list(range(min(latency), 180)) and min(latency) < 120
    assert latency[179][0] == pytest.approx(300, rel=0.016)


def test_without_expectations_there_are_no_bands_and_the_same_findings() -> None:
    on, off = watching(), watching(on=False)
    assert [on.take(c) for c in PIECES] == [off.take(c) for c in PIECES]
    assert off.expected.taken() == []
    assert on.expected.taken() != [] == on.expected.taken()
    assert pickle.dumps(on.save()) == pickle.dumps(off.save())


@settings(max_examples=6, deadline=None)
@given(
    cuts=st.lists(st.integers(1, COUNT - 1), max_size=20),
    resumes=st.sets(st.integers(0, 20), max_size=4),
)
def test_the_same_however_panes_come_and_wherever_it_is_resumed(cuts: list[int], resumes: set[int]) -> None:
    watcher = watching()
    found: list[Expected] = []
    for i, closed in enumerate(closings(ROWS, COUNT, cuts)):
        if i in resumes:
            state = pickle.loads(pickle.dumps(watcher.save()))
            watcher = ShardMonitor.load(state, QUICK, EpisodesConfig(), TimeConfig(), 86_400, SERVICE, True)
        found += expected(watcher, [closed])
    assert told(found) == told(expected(watching(), PIECES))


def test_an_override_decides_the_band_of_its_series() -> None:
    def of(overrides: list[dict[str, Any]]) -> list[Expected]:
        config = DetectConfig.model_validate({**QUICK.model_dump(), "overrides": overrides})
        return expected(watching(config), PIECES)

    wide = {"metrics": {"latency": {"min_change": 4.0}}}
    plain, mixed, all_wide = (
        of([]),
        of([{"series": "service=slow", **wide}, {"series": "service=silent", "ignore": ["latency"]}]),
        of([{"series": "*", **wide}]),
    )
    for service, same in (("slow", all_wide), ("well", plain)):
        assert bands(mixed, f"service={service}", "latency") == bands(same, f"service={service}", "latency")
    assert bands(plain, "service=slow", "latency") != bands(all_wide, "service=slow", "latency")
    assert bands(mixed, "service=silent", "latency") == {} != bands(mixed, "service=silent", "cost")


def test_narrower_series_have_a_band_of_traffic_too() -> None:
    sets = (("service",), ("service", "model"))
    requests = [Request(r.end, r.values, labels={"model": "m"}) for r in steady(60, 4, lambda *_: {"latency": 1.0})]
    found = expected(watching(sets=sets), closings(table(requests, sets), 60))
    wide, narrow = (bands(found, s, "requests") for s in ("service=chat", "service=chat,model=m"))
    assert wide == narrow != {}


def test_each_pane_of_a_minute_or_more_has_a_band() -> None:
    for pane_s in (60, 300):
        config = DetectConfig.model_validate({"horizons_s": (pane_s, 5 * pane_s), "warm_up_panes": 12})
        watcher = ShardMonitor(config, EpisodesConfig(), TimeConfig(pane_s=pane_s), 86_400, SERVICE, True)
        rows = table(steady(60, 30, lambda *_: {"latency": 400.0}))
        pieces = [Closed(c.low, c.high, c.high, c.table) for c in closings(rows, 60, range(1, 60))]
        starts = [e.start for e in expected(watcher, pieces)]
        assert starts[-1] == (pieces[-1].high - 1) * pane_s * SECOND
        assert set(np.diff(starts).tolist()) == {pane_s * SECOND}


@given(st.floats(-1e200, 1e200))
def test_six_digits_are_those_of_texts(value: float) -> None:
    assert six_digits(value) == pytest.approx(float(f"{value:.6g}"), rel=1.1e-5, abs=1e-290)
    assert float(f"{six_digits(value):.6g}") == pytest.approx(six_digits(value), rel=1e-15, abs=1e-290)


@settings(deadline=None)
@given(st.integers(0, 99), st.sampled_from([10, 60]))
def test_units_are_those_of_alerts(seed: int, pane_s: int) -> None:
    watch, draw = Watch(DetectConfig(), pane_s), np.random.default_rng(seed)
    cells, metrics = len(watch.cells), len(watch.metrics)
    verdicts, reference = draw.uniform(0, 12, (4, cells, FIELDS)), draw.uniform(0, 5, (6, metrics))
    verdicts[:, :, SPAN] = draw.integers(0, 2, (4, cells))
    watcher = ShardMonitor(DetectConfig(), EpisodesConfig(), TimeConfig(pane_s=pane_s), expectations=True)
    made = bands_in_units(verdicts, np.array([3, 1]), reference, watcher.expected._units)
    for row, slot in enumerate((3, 1)):
        for cell in range(cells):
            for i, field in enumerate((EXPECTED, LOWER, UPPER)):
                base = reference[slot, cell] if cell < metrics else 0.0
                unit = explain.in_unit(watch, cell, verdicts[slot, cell, field] + base)
                wanted = min(unit, 1.0) if watch.cells[cell] == "error_ratio" else unit
                if verdicts[slot, cell, SPAN]:
                    assert made[row, cell, i] == pytest.approx(wanted, rel=1.1e-5)
                else:
                    assert math.isnan(made[row, cell, i])
