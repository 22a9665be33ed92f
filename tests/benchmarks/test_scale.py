"""The parts of the scale benchmark that need no broker."""

from __future__ import annotations

from benchmarks.scale import exchanged, moment_ms, on_against_off, percentiles, slow_in_turn
from benchmarks.watched import Speed


def test_sparse_series_exchange_more_an_event_than_dense_ones() -> None:
    dense, sparse = exchanged(100, 20_000), exchanged(10_000, 20_000)
    assert 0 < 5 * dense < sparse < 2_000


def test_each_series_is_slow_in_one_of_fifty_panes() -> None:
    for series in (0, 7, 49, 50):
        assert sum(slow_in_turn(series, 10_000 * pane) for pane in range(50)) == 1


def test_figures() -> None:
    assert moment_ms("1970-01-01T00:00:01.250Z") == 1_250
    assert percentiles("x", [float(i) for i in range(101)]) == {"x_p50_ms": 50, "x_p99_ms": 99}


def test_turns_with_and_without_are_compared_by_their_medians() -> None:
    on = [Speed(90, 11), Speed(10, 99), Speed(95, 10)]
    off = [Speed(100, 10), Speed(100, 9), Speed(50, 20)]
    found = on_against_off(on, off)
    assert (found["ratio"], found["cpu_ratio"], found["ratios"]) == (0.9, 1.1, [0.9, 0.1, 1.9])
    assert found["on"] == {"events_per_s": 90, "cpu_us_an_event": 11}
