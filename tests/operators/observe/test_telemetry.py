"""Metrics: the values that a scrape shows for the source, the sinks, the shards and the alerts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from prometheus_client import generate_latest

from operators.decode.intake import Balance, Batch
from operators.metrics import METRIC_INDEX
from operators.model import MISSING, SECOND, DeadLetter, Reason
from operators.observe.instruments import INSTRUMENTS, LABELS, Instrument
from operators.observe.telemetry import Telemetry
from operators.panes.watermark import End, Idle, Watermark
from tests.operators.incidents.test_alert_json import ALERT
from tests.operators.pane_events import BASE, Call, columns

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
    assert seen['sentinel_watermark_timestamp_seconds{partition="t/0"}'] == 5
    assert 'sentinel_watermark_timestamp_seconds{partition="t/1"}' not in seen
    assert telemetry.balances.total() == Balance(11, 5, 2, 1, 7, dead={"bad_time": 1, "not_json": 2})


def test_what_is_passed_over_is_that_of_the_balance_and_formats_are_counted_by_batch() -> None:
    telemetry = Telemetry()
    balance = Balance(records=3, passed_over={"no_call": 40, "metric": 2})
    for formats in ({"otlp_json": 2, "native": 1}, {"otlp_json": 3}):
        telemetry.polled("t/0", replace(BATCH, formats=formats), balance, None)
    balance.passed_over["no_call"] = 99
    seen = samples(telemetry)
    assert seen['sentinel_passed_over_total{kind="no_call",partition="t/0"}'] == 40
    assert seen['sentinel_passed_over_total{kind="metric",partition="t/0"}'] == 2
    assert seen['sentinel_records_by_format_total{format="otlp_json",partition="t/0"}'] == 5
    assert seen['sentinel_records_by_format_total{format="native",partition="t/0"}'] == 1
    assert telemetry.balances.total().passed_over == {"metric": 2, "no_call": 40}
    assert telemetry.balances.total().events == 0


def test_calls_that_a_record_told_twice_make_no_difference_to_the_balance() -> None:
    telemetry = Telemetry()
    telemetry.polled("t/0", replace(BATCH, repeats=2), Balance(records=1, duplicate=2), None)
    telemetry.polled("t/0", replace(BATCH, repeats=3), Balance(records=2, duplicate=5), None)
    assert samples(telemetry)['sentinel_balance_difference{partition="t/0"}'] == 0


def test_partitions_that_panes_wait_for_and_their_number_are_shown() -> None:
    telemetry = Telemetry()
    name = 'sentinel_partition_waited_for{partition="t/0"}'
    telemetry.polled("t/0", replace(BATCH, partitions=("t/0", "t/1")), Balance(), None)
    assert name not in samples(telemetry)
    assert samples(telemetry)["sentinel_source_partitions"] == 2
    for progress, waited_for in (
        (Watermark(5), 1),
        (Watermark(5, at_end=True), 0),
        (Idle(9), 0),
        (None, 0),
        (Watermark(6), 1),
        (End(6, 7), 0),
    ):
        telemetry.polled("t/0", replace(BATCH, progress=progress), Balance(), None)
        assert samples(telemetry)[name] == waited_for


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
    telemetry.polls_again()
    telemetry.rejected("sqlite", "bad_row")
    telemetry.dropped("webhook", "full", 1)
    telemetry.alerted(ALERT)
    telemetry.prices_loaded(True)
    telemetry.prices_loaded(False)
    seen = samples(telemetry)
    assert seen['sentinel_sink_items_total{sink="sqlite"}'] == 25
    assert seen['sentinel_sink_write_seconds_count{sink="sqlite"}'] == 2
    assert seen['sentinel_sink_write_seconds_bucket{le="0.005",sink="sqlite"}'] == 1
    assert seen['sentinel_sink_retries_total{sink="sqlite"}'] == 1
    assert seen["sentinel_source_retries_total"] == 1
    assert seen['sentinel_sink_rejected_total{reason="bad_row",sink="sqlite"}'] == 1
    assert seen['sentinel_sink_dropped_total{reason="full",sink="webhook"}'] == 1
    assert seen['sentinel_alerts_total{severity="high",status="updated"}'] == 1
    assert seen['sentinel_price_file_loads_total{good="false"}'] == 1


def test_metrics_of_two_processes_are_separate() -> None:
    one, other = Telemetry(), Telemetry()
    one.retried("sqlite")
    assert 'sentinel_sink_retries_total{sink="sqlite"}' not in samples(other)


def letter(reason: str) -> DeadLetter:
    return DeadLetter("t", 0, 1, reason, "", "")


def called(service: str, error: bool = False, **values: int) -> Call:
    units = tuple(values.get(name, MISSING) for name in METRIC_INDEX)
    return Call(BASE, 0, (service, "m", *[""] * 8), units, error, "", "")


def batch(*calls: Call, late: int = 0, dead: tuple[str, ...] = ()) -> Batch:
    masks = np.arange(len(calls)) >= late
    return Batch("t/0", ("t/0",), None, columns(list(calls)), masks, ~masks, [letter(r) for r in dead])


def test_calls_are_counted_by_service_up_to_a_bound() -> None:
    telemetry = Telemetry(services=2)
    first = batch(
        called("chat", cost=2_000_000_000, prompt_tokens=10),
        called("chat", True, completion_tokens=7),
        called("code", cost=500_000_000),
        late=1,
    )
    telemetry.polled("t/0", first, Balance(on_time=2, late=1), None)
    telemetry.polled("t/0", batch(called("one"), called("two", True), called("code")), Balance(on_time=5, late=1), None)
    seen = samples(telemetry)
    asked = {k: v for k, v in seen.items() if k.startswith("sentinel_requests_total")}
    assert asked == {
        'sentinel_requests_total{outcome="ok",service="chat"}': 1,
        'sentinel_requests_total{outcome="error",service="chat"}': 1,
        'sentinel_requests_total{outcome="ok",service="code"}': 2,
        'sentinel_requests_total{outcome="error",service="code"}': 0,
        'sentinel_requests_total{outcome="ok",service="__other__"}': 1,
        'sentinel_requests_total{outcome="error",service="__other__"}': 1,
    }
    assert seen['sentinel_cost_usd_total{service="chat"}'] == 2
    assert seen['sentinel_cost_usd_total{service="code"}'] == 0.5
    assert seen['sentinel_tokens_total{kind="prompt",service="chat"}'] == 10
    assert seen['sentinel_tokens_total{kind="completion",service="chat"}'] == 7


def test_an_event_in_neither_mask_is_no_traffic() -> None:
    telemetry = Telemetry()
    polled = batch(called("chat"), called("chat"))
    polled.on_time[0] = False
    telemetry.polled("t/0", polled, Balance(on_time=1, duplicate=1), None)
    assert samples(telemetry)['sentinel_requests_total{outcome="ok",service="chat"}'] == 1


def test_the_difference_shows_events_that_no_count_has() -> None:
    telemetry = Telemetry()
    future = batch(called("chat"), called("chat"), dead=(Reason.FUTURE_TIME, Reason.NOT_JSON))
    telemetry.polled("t/0", future, Balance(on_time=101, dead={"future_time": 1, "not_json": 1}), None)
    name = 'sentinel_balance_difference{partition="t/0"}'
    assert samples(telemetry)[name] == 0, "the counts of a snapshot are no difference"
    telemetry.polled("t/0", batch(called("chat")), Balance(on_time=102, dead={"future_time": 1, "not_json": 1}), None)
    assert samples(telemetry)[name] == 0
    telemetry.polled("t/0", batch(called("chat"), called("chat")), Balance(on_time=103, dead={"not_json": 2}), None)
    assert samples(telemetry)[name] == 1


def test_delays_are_measured_by_the_given_clock() -> None:
    telemetry = Telemetry(now=lambda: ALERT.at + 20 * SECOND)
    telemetry.alerted(ALERT)
    telemetry.judged(3, ALERT.at + 5 * SECOND, 2)
    seen = samples(telemetry)
    assert seen["sentinel_alert_delay_seconds_sum"] == 20
    assert seen["sentinel_judged_delay_seconds_sum"] == 15
    assert seen['sentinel_episodes_open{shard="3"}'] == 2


def everything() -> Telemetry:
    """Telemetry after one report of every kind."""
    telemetry = Telemetry(now=lambda: ALERT.at)
    balance = Balance(records=1, on_time=1, dead={"not_json": 1}, passed_over={"no_call": 2})
    found = replace(batch(called("chat")), formats={"otlp_json": 1}, unknown={"gen_ai.usage.new_tokens": 1})
    telemetry.polled("t/0", replace(found, progress=Watermark(SECOND)), balance, SECOND)
    telemetry.lagging("t/0", 3)
    telemetry.written("sqlite", 1, 0.1)
    telemetry.retried("sqlite")
    telemetry.rejected("sqlite", "bad_row")
    telemetry.dropped("webhook", "full", 1)
    telemetry.alerted(ALERT)
    telemetry.prices_loaded(True)
    telemetry.shard(0, 1, 1)
    telemetry.worked("merge", 0.1)
    telemetry.failed("merge")
    telemetry.saved("merge", 0.1, 1_000)
    telemetry.folded(0, 5)
    telemetry.judged(0, ALERT.at, 0)
    telemetry.detected({"zscore": 0.5})
    telemetry.configured(10, 0.01, 100.0)
    telemetry.built("1", "3")
    telemetry.heartbeats(SECOND)
    telemetry.closed("slow")
    telemetry.replaced("t/0")
    telemetry.unread("t", 1)
    telemetry.unused("alerts", 2)
    return telemetry


def test_every_instrument_is_emitted_with_its_labels_and_nothing_else() -> None:
    found: dict[str, set[frozenset[str]]] = {}
    for family in everything().registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                found.setdefault(sample.name, set()).add(frozenset(sample.labels) - {"le"})
    assert found == {name: {frozenset(i.labels)} for i in INSTRUMENTS for name in i.samples}


def test_names_follow_the_conventions_of_prometheus() -> None:
    def sound(i: Instrument) -> bool:
        return i.name.startswith("sentinel_") and not i.name.endswith("_total") and i.help.endswith(".")

    assert [i.name for i in INSTRUMENTS if not sound(i)] == []
    assert len({i.name for i in INSTRUMENTS}) == len(INSTRUMENTS)
    assert {label for i in INSTRUMENTS for label in i.labels} == set(LABELS), "every label has a text on its bound"
    assert [i.name for i in INSTRUMENTS if (i.kind == "histogram") != bool(i.buckets)] == []


def test_without_heartbeats_their_metric_is_absent() -> None:
    telemetry = Telemetry()
    telemetry.heartbeat(SECOND)
    assert not [name for name in samples(telemetry) if "heartbeat" in name]
    telemetry.heartbeats(3 * SECOND)
    assert samples(telemetry)["sentinel_heartbeat_timestamp_seconds"] == 3
    telemetry.heartbeat(5 * SECOND)
    assert samples(telemetry)["sentinel_heartbeat_timestamp_seconds"] == 5
