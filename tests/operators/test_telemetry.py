"""Metrics: what a scrape says of the source, the sinks, the shards and the alerts."""

from __future__ import annotations

import numpy as np
from prometheus_client import generate_latest

from operators.intake import Balance, Batch
from operators.model import SECOND
from operators.telemetry import Telemetry
from tests.operators.pane_events import columns
from tests.operators.test_alert_json import ALERT

NONE = np.zeros(0, np.bool_)
BATCH = Batch("t/0", ("t/0",), None, columns([]), NONE, NONE, [])


def samples(telemetry: Telemetry) -> dict[str, float]:
    lines = generate_latest(telemetry.registry).decode().splitlines()
    return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if not x.startswith("#"))}


def test_the_balance_of_each_partition_adds_up() -> None:
    telemetry = Telemetry()
    balance = Balance(records=10, on_time=4, late=2, duplicate=1, skipped=7, dead={"not_json": 2, "bad_time": 1})
    telemetry.polled("t/0", BATCH, balance, 5 * SECOND)
    telemetry.polled("t/1", BATCH, Balance(records=1, on_time=1), None)
    seen = samples(telemetry)
    assert seen['sentinel_records_total{partition="t/0"}'] == 10
    assert seen['sentinel_records_skipped_total{partition="t/0"}'] == 7
    outcomes = {o: seen[f'sentinel_events_total{{outcome="{o}",partition="t/0"}}'] for o in
                ("on_time", "late", "duplicate", "dead_letter")}  # fmt: skip
    assert outcomes == {"on_time": 4, "late": 2, "duplicate": 1, "dead_letter": 3}
    assert sum(outcomes.values()) == balance.events
    assert seen['sentinel_dead_letters_total{partition="t/0",reason="not_json"}'] == 2
    assert seen['sentinel_watermark_seconds{partition="t/0"}'] == 5
    assert 'sentinel_watermark_seconds{partition="t/1"}' not in seen
    assert telemetry.balances.total() == Balance(11, 5, 2, 1, 7, dead={"bad_time": 1, "not_json": 2})


def test_a_balance_is_kept_as_it_was_when_polled() -> None:
    telemetry = Telemetry()
    balance = Balance(records=1, dead={"not_json": 1})
    telemetry.polled("t/0", BATCH, balance, None)
    balance.records, balance.dead["not_json"] = 9, 9
    assert telemetry.balances.total() == Balance(records=1, dead={"not_json": 1})


def test_events_overtaken_and_series_are_told_by_shard() -> None:
    telemetry = Telemetry()
    telemetry.shard(3, 40, 0)
    assert "sentinel_events_overtaken_total{" not in str(samples(telemetry))
    telemetry.shard(3, 41, 2)
    telemetry.shard(3, 42, 5)
    seen = samples(telemetry)
    assert seen['sentinel_series{shard="3"}'] == 42
    assert seen['sentinel_events_overtaken_total{shard="3"}'] == 7


def test_sinks_alerts_and_prices_are_counted() -> None:
    telemetry = Telemetry()
    telemetry.written("sqlite", 20, 0.004)
    telemetry.written("sqlite", 5, 3)
    telemetry.retried("sqlite")
    telemetry.rejected("sqlite", "bad_row")
    telemetry.alerted(ALERT)
    telemetry.prices_loaded(True)
    telemetry.prices_loaded(False)
    seen = samples(telemetry)
    assert seen['sentinel_sink_items_total{sink="sqlite"}'] == 25
    assert seen['sentinel_sink_write_seconds_count{sink="sqlite"}'] == 2
    assert seen['sentinel_sink_write_seconds_bucket{le="0.005",sink="sqlite"}'] == 1
    assert seen['sentinel_sink_retries_total{sink="sqlite"}'] == 1
    assert seen['sentinel_sink_rejected_total{reason="bad_row",sink="sqlite"}'] == 1
    assert seen['sentinel_alerts_total{severity="high",status="updated"}'] == 1
    assert seen['sentinel_price_file_loads_total{good="false"}'] == 1


def test_two_processes_worth_of_metrics_do_not_meet() -> None:
    one, other = Telemetry(), Telemetry()
    one.retried("sqlite")
    assert 'sentinel_sink_retries_total{sink="sqlite"}' not in samples(other)
