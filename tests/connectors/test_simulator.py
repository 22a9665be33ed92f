"""The simulated source: the same bytes for all sizes of polls, plausible figures, and true labels."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.simulation.config import IncidentsConfig, KindName
from connectors.simulation.incidents import KINDS, Incident
from connectors.simulation.traffic import FAILED, LONGEST, Requests, Traffic, concatenate
from connectors.simulation.world import ERRORS, MODELS, SERVICES, TENANTS
from connectors.simulator import Simulator, SimulatorConfig
from operators.decode.times import parse_time, parse_times
from operators.errors import ConfigError
from operators.model import Bools

SMALL = SimulatorConfig(hours=2, rate=2)
DAY = SimulatorConfig()
HOUR = 3_600_000_000


def read(config: SimulatorConfig, partition: int, polls: list[int], position: int | None = None) -> list[bytes]:
    """All records of a partition from a position on, read with polls of these sizes in turn."""
    source = Simulator(config)
    reader = source.open(source.partitions()[partition], position)
    out: list[bytes] = []
    turn = 0
    while True:
        before = reader.position()
        chunk = reader.poll(polls[turn % len(polls)])
        turn += 1
        assert len(chunk.values) == len(chunk.offsets) <= max(polls)
        assert chunk.arrivals is not None and len(chunk.arrivals) == len(chunk.values)
        assert chunk.offsets.tolist() == list(range(before, reader.position()))
        out += chunk.values
        if chunk.finished:
            return out


@cache
def whole(config: SimulatorConfig, partition: int) -> list[bytes]:
    return read(config, partition, [5_000])


@cache
def events(config: SimulatorConfig) -> list[dict[str, Any]]:
    found = [orjson.loads(v) for p in range(config.partitions) for v in whole(config, p)]
    starts, good = parse_times([event["timestamp"] for event in found])
    assert good.all()
    for event, start in zip(found, starts.tolist(), strict=True):
        event["start"] = start
    return found


def end(event: dict[str, Any]) -> int:
    return int(event["start"] + round(event["latency_ms"] * 1000))


@settings(max_examples=10, deadline=None)
@given(
    st.lists(st.integers(1, 3_000), min_size=1, max_size=4).filter(lambda polls: sum(polls) > 200), st.integers(0, 1)
)
def test_any_poll_sizes_give_the_same_bytes(polls: list[int], partition: int) -> None:
    assert read(SMALL, partition, polls) == whole(SMALL, partition)


@settings(max_examples=10, deadline=None)
@given(st.floats(0, 1), st.integers(0, 1), st.integers(500, 5_000))
def test_a_reader_resumes_anywhere(share: float, partition: int, most: int) -> None:
    records = whole(SMALL, partition)
    position = round(share * len(records))
    assert read(SMALL, partition, [most], position) == records[position:]


def test_the_end_can_be_resumed_and_beyond_it_is_refused() -> None:
    source = Simulator(SMALL)
    total = len(whole(SMALL, 0))
    chunk = source.open("simulator/000", total).poll(10)
    assert chunk.finished and not chunk.values
    with pytest.raises(ConfigError, match=f"no record {total + 1} in partition 0: it has {total}"):
        source.open("simulator/000", total + 1)


def test_a_closed_reader_gives_nothing_more() -> None:
    reader = Simulator(SMALL).open("simulator/000", None)
    reader.durable(0)
    reader.close()
    assert not reader.poll(10).values


def test_partitions_share_the_events_without_loss() -> None:
    one = SMALL.model_copy(update={"partitions": 1})
    three = SMALL.model_copy(update={"partitions": 3})
    parts = [whole(three, p) for p in range(3)]
    assert sorted(record for part in parts for record in part) == sorted(whole(one, 0))
    assert max(map(len, parts)) - min(map(len, parts)) < 0.05 * len(parts[0])
    for part in parts:  # every partition has all services
        assert {orjson.loads(v)["service"] for v in part} == set(SERVICES)


def test_the_settings_decide() -> None:
    assert whole(SMALL.model_copy(update={"seed": 8}), 0) != whole(SMALL, 0)
    assert Simulator(SMALL).identity() == Simulator(SMALL.model_copy()).identity()
    assert Simulator(SMALL).identity() != Simulator(SMALL.model_copy(update={"rate": 3})).identity()
    assert Simulator(SMALL).partitions() == ["simulator/000", "simulator/001"]
    assert Simulator(SMALL).origin("simulator/001") == ("simulator", 1)


def test_a_longer_simulation_begins_with_the_same_requests() -> None:
    short = Traffic(SMALL.model_copy(update={"incidents": IncidentsConfig(per_day=0)}))
    long = Traffic(SMALL.model_copy(update={"hours": 6, "incidents": IncidentsConfig(per_day=0)}))
    assert long.block(3).latency.tolist() == short.block(3).latency.tolist()


def test_records_come_in_the_order_of_their_ends_which_are_their_arrivals() -> None:
    source = Simulator(SMALL)
    for partition in source.partitions():
        chunk = source.open(partition, None).poll(1 << 20)
        ends = [end({**e, "start": parse_time(e["timestamp"])}) for e in map(orjson.loads, chunk.values)]
        assert chunk.arrivals is not None
        assert ends == chunk.arrivals.tolist() == sorted(ends)


def test_every_event_is_whole() -> None:
    found = events(SMALL)
    assert len({e["event_id"] for e in found}) == len(found)
    assert len({e["span_id"] for e in found}) == len(found)
    last = SMALL.start_us + 120 * 60_000_000
    for e in found:
        model = MODELS[e["model"]]
        assert SMALL.start_us <= e["start"] < last
        assert 0 < e["latency_ms"] * 1000 <= LONGEST
        assert (e["provider"], e["operation"]) == (model.provider, model.operation)
        assert e["tenant"] in SERVICES[e["service"]].tenants
        assert e["prompt_tokens"] >= 1 and e["cost_usd"] >= 0
        assert (e["status"] == "error") == ("error_type" in e)
        assert e["status"] == "ok" or (e["error_type"] in ERRORS and not e.get("completion_tokens"))
        assert ("ttft_ms" in e) == (e["status"] == "ok" and e["operation"] == "chat") == ("finish_reason" in e)
        assert e.get("ttft_ms", 0) <= e["latency_ms"]
        assert e.get("cached_tokens", 0) <= e["prompt_tokens"]
        assert e.get("reasoning_tokens", 0) <= e.get("completion_tokens", 0)
        assert 0 <= e.get("quality_score", 0) <= 1
        assert len(e["trace_id"]) == 32 and len(e["span_id"]) == 16


def test_cost_follows_the_price_list() -> None:
    for e in events(SMALL.model_copy(update={"incidents": IncidentsConfig(per_day=0)})):
        if e["status"] == "ok":
            model = MODELS[e["model"]]
            paid = e["prompt_tokens"] - e.get("cached_tokens", 0) / 2
            usd = (model.price_in * paid + model.price_out * e.get("completion_tokens", 0)) / 1e6
            assert e["cost_usd"] == pytest.approx(usd, abs=1e-9)


# ---- the default day and a half


def test_volume_and_shares() -> None:
    found = events(DAY)
    assert len(found) == pytest.approx(DAY.rate * 36 * 3600, rel=0.12)
    calls = Counter(e["service"] for e in found)
    for service, about in SERVICES.items():
        share = calls[service] / len(found)
        assert share == pytest.approx(about.share, rel=0.3)
    assert {e["tenant"] for e in found} == set(TENANTS)


def test_the_day_has_a_shape_and_arrivals_are_bursty() -> None:
    quiet = [e["start"] for e in events(DAY) if e["start"] < DAY.start_us + 24 * 3_600_000_000]
    hours = np.bincount((np.array(quiet) - DAY.start_us) // 3_600_000_000, minlength=24)
    assert hours.max() > 2 * hours.min()
    assert int(np.argmin(hours)) in range(12, 18)  # the night, since the start is at noon
    panes = np.bincount((np.array(quiet) - DAY.start_us) // 10_000_000)[:360]
    assert panes.var() > 1.5 * panes.mean()  # 1 would be Poisson


def test_the_weekend_is_quieter() -> None:
    def volume(day: int) -> int:
        config = SimulatorConfig(
            hours=24, rate=0.5, start=datetime(2026, 1, day, tzinfo=UTC), incidents=IncidentsConfig(per_day=0)
        )
        return sum(len(part) for part in Traffic(config).emitted())

    assert volume(10) == pytest.approx(0.6 * volume(9), rel=0.1)  # Saturday, Friday


def test_errors_latency_tokens_and_quality_are_as_the_tables_say() -> None:
    calm = [e for e in events(DAY) if e["start"] < DAY.start_us + 24 * 3_600_000_000]
    errors = [e for e in calm if e["status"] == "error"]
    assert len(errors) / len(calm) == pytest.approx(0.0046, rel=0.2)
    for kind, about in ERRORS.items():
        assert sum(e["error_type"] == kind for e in errors) / len(errors) == pytest.approx(about, abs=0.08)
    for name, model in MODELS.items():
        mine = [e for e in calm if e["model"] == name and e["status"] == "ok"]
        median = np.median([e["latency_ms"] - 0.7 * model.prefill_ms * e["prompt_tokens"] for e in mine])
        assert model.ttft_ms * 0.6 < median < 100 * model.ttft_ms
        if model.operation == "chat":
            ratio = [e["ttft_ms"] / (model.ttft_ms + model.prefill_ms * e["prompt_tokens"]) for e in mine]
            assert np.median(ratio) == pytest.approx(1.05, abs=0.2)  # region and load
            scores = [e["quality_score"] for e in mine if "quality_score" in e]
            assert len(scores) / len(mine) == pytest.approx(0.3, abs=0.03)
            assert np.mean(scores) == pytest.approx(model.quality, abs=0.01)
    prompts = np.array([e["prompt_tokens"] for e in calm])
    assert np.percentile(prompts, 99) > 8 * np.median(prompts)  # heavy tail


# ---- incidents


def columns(config: SimulatorConfig) -> Requests:
    return concatenate(list(Traffic(config).emitted()))


@cache
def busy(kind: KindName | None) -> tuple[Traffic, Requests]:
    """Three hours of dense traffic, with incidents of this kind, if any, in the last two."""
    incidents = IncidentsConfig(per_day=24, calm_h=1, kinds=(kind,)) if kind else IncidentsConfig(per_day=0)
    traffic = Traffic(SimulatorConfig(hours=3, rate=12, seed=11, incidents=incidents))
    return traffic, concatenate(list(traffic.emitted()))


def measured(metric: str, r: Requests, minutes: float) -> float:
    """The metric of a label over these requests, as the format of labels defines it."""
    good = r.outcome < FAILED
    match metric:
        case "request_count":
            return len(r) / minutes
        case "error_rate":
            return float((~good).mean())
        case "latency_ms":
            return float(r.latency[good].mean()) / 10
        case "ttft_ms":
            return float(r.ttft[r.ttft >= 0].mean()) / 10
        case "prompt_tokens":
            return float(r.prompt.mean())
        case "completion_tokens":
            return float(r.completion[r.completion >= 0].mean())
        case "cost_usd":
            return float(r.cost.mean()) / 1e9
        case "quality_score":
            return float(r.quality[r.quality >= 0].mean()) / 10_000
        case "tokens_per_second":
            long = (r.completion > 0) & (r.latency > r.ttft)
            return float(np.median(r.completion[long] / (r.latency[long] - r.ttft[long]))) * 10_000
        case _:
            raise AssertionError(metric)


def window(traffic: Traffic, requests: Requests, incident: Incident) -> Requests:
    mine = traffic.fleet.mask(incident.entity)[requests.combo]
    return requests.take(mine & (incident.begin <= requests.start) & (requests.start < incident.end))


@pytest.mark.parametrize("kind", KINDS)
def test_an_incident_does_what_its_label_says_and_no_more(kind: KindName) -> None:
    calm, usual = busy(None)
    traffic, found = busy(kind)
    incidents = traffic.schedule.between(traffic.start, traffic.start + 3 * HOUR)
    assert len(incidents) == 2 and {i.kind for i in incidents} == {kind}
    about = KINDS[kind]
    for incident in incidents:
        minutes = (incident.end - incident.begin) / 60e6
        inside, without = window(traffic, found, incident), window(calm, usual, incident)
        now, then = (measured(about.metric, r, minutes) for r in (inside, without))
        assert (now > then) == (about.direction == "up")
        size = incident.size
        match kind:
            case "latency_spike":
                assert now / then == pytest.approx(size, rel=0.25)
            case "latency_drift":
                assert now / then == pytest.approx(0.4 * (1 + size) + 0.2 * size, rel=0.15)
                first, last = (measured("latency_ms", inside.take(half), 1) for half in halves(inside, incident))
                assert last > 1.15 * first
            case "token_explosion":
                assert now / then == pytest.approx(1 + incident.share * (size - 1), rel=0.2)
            case "completion_collapse":
                assert now / then == pytest.approx(size, rel=0.3)
            case "traffic_surge" | "traffic_drop":
                assert now / then == pytest.approx(size, rel=0.2, abs=0.02)
            case "tenant_abuse":
                assert now / then == pytest.approx(1 + size, rel=0.35)  # refused calls are tried again
                assert measured("prompt_tokens", inside, 1) > 1.5 * measured("prompt_tokens", without, 1)
                assert measured("error_rate", inside, 1) == pytest.approx(incident.errors, rel=0.2)
            case "error_burst":
                assert now == pytest.approx(incident.errors, abs=0.05)
                types = np.bincount(inside.outcome[inside.outcome >= FAILED] - FAILED, minlength=len(ERRORS))
                assert list(ERRORS)[int(types.argmax())] == incident.error
            case "quality_degradation" | "tenant_quality_drop":
                assert now - then == pytest.approx(size, abs=0.03)
            case "cost_surge":
                assert now > 2 * then
            case "retry_storm":
                assert now == pytest.approx(incident.errors, abs=0.06)
                calls = sum(incident.errors**k for k in range(5))
                assert len(inside) / len(without) == pytest.approx(calls, rel=0.2)
            case "model_update":
                assert 0.95 * size < now / then < 1.6 * size
                assert measured("latency_ms", inside, 1) > 1.4 * measured("latency_ms", without, 1)
            case "stuck_stream":
                assert then / now == pytest.approx(size, rel=0.1)
                assert measured("ttft_ms", inside, 1) == pytest.approx(measured("ttft_ms", without, 1), rel=0.1)
                assert measured("latency_ms", inside, 1) > 2 * measured("latency_ms", without, 1)
        for secondary in about.secondary:
            if about.metric == "error_rate" and secondary == "latency_ms":  # only the latency of failed calls differs
                assert inside.latency.mean() != pytest.approx(without.latency.mean(), rel=0.03)
            else:
                assert measured(secondary, inside, minutes) != pytest.approx(
                    measured(secondary, without, minutes), rel=0.03
                )
    first = incidents[0].begin - 15 * 60_000_000  # earlier records are unchanged
    before = [r.take(r.start < first) for r in (found, usual)]
    assert before[0].latency.tolist() == before[1].latency.tolist()


def halves(requests: Requests, incident: Incident) -> tuple[Bools, Bools]:
    late = requests.start >= (incident.begin + incident.end) // 2
    return ~late, late


def test_failed_calls_are_tried_again() -> None:
    traffic, usual = busy(None)
    failed = usual.take(np.isin(usual.outcome, [FAILED, FAILED + 1, FAILED + 2]))
    same = {trace: np.sort(usual.start[usual.trace == trace]) for trace in np.unique(failed.trace).tolist()}
    again = 0
    for end, trace in zip(failed.end.tolist(), failed.trace.tolist(), strict=True):
        starts = same[trace]
        again += bool(((end < starts) & (starts <= end + 4_000_000)).any())
    assert 0.5 < again / len(failed) < 0.8
    assert usual.start.max() < traffic.start + 3 * HOUR


def test_every_kind_comes_once_in_the_default_time_and_the_labels_have_the_recorded_form(shared: Path) -> None:
    labels = Simulator(DAY).labels()
    recorded = shared / "data" / "scenarios" / "servegen_dev" / "labels.jsonl"
    pattern = orjson.loads(recorded.read_bytes().splitlines()[0])
    metrics = {orjson.loads(line)["metric"] for line in recorded.read_bytes().splitlines()}
    known = {orjson.loads(line)["type"] for line in recorded.read_bytes().splitlines()}
    assert [label["anomaly_id"] for label in labels] == [f"S{n:03d}" for n in range(1, 15)]
    assert {label["type"] for label in labels} == set(KINDS) > known
    previous = DAY.start_us + 24 * HOUR
    by_label: Any = labels
    for label in by_label:
        assert {k: type(v) for k, v in label.items()} == {k: type(pattern[k]) for k in label}
        assert label["metric"] in metrics | {"tokens_per_second"}
        start, stop = parse_time(label["start"]), parse_time(label["end"])
        assert previous <= start < stop <= DAY.start_us + 36 * HOUR
        previous = stop


def test_the_scorer_reads_the_labels(shared: Path, tmp_path: Path) -> None:
    """Alerts made from the labels find all of them."""
    labels = Simulator(DAY).labels()
    (tmp_path / "labels.jsonl").write_bytes(b"".join(orjson.dumps(label) + b"\n" for label in labels))
    by_label: Any = labels
    alerts = [
        {"episode_id": label["anomaly_id"], "status": "firing", "severity": "high", "series": label["entity"],
         "metric": label["metric"], "kind": "x", "at": label["start"], "since": label["start"]}
        for label in by_label
    ]  # fmt: skip
    (tmp_path / "alerts.jsonl").write_bytes(b"".join(orjson.dumps(alert) + b"\n" for alert in alerts))
    command = [sys.executable, str(shared / "tools" / "score_alerts.py"), "alerts.jsonl", "labels.jsonl", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True, timeout=30)
    score = orjson.loads(done.stdout)
    assert (score["recall_exact"], score["false"]) == (1, 0)


def test_without_incidents_there_are_no_labels_and_the_first_day_is_the_same() -> None:
    calm = DAY.model_copy(update={"incidents": IncidentsConfig(per_day=0)})
    assert Simulator(calm).labels() == []
    assert Traffic(calm).block(0).number.tolist() == Traffic(DAY).block(0).number.tolist()
    assert Traffic(calm).block(0).latency.tolist() == Traffic(DAY).block(0).latency.tolist()


@pytest.mark.parametrize("hours", [0.1, 1, 5, 36, 200])
def test_incidents_lie_in_the_simulated_time_without_overlap(hours: float) -> None:
    traffic = Traffic(SimulatorConfig(hours=hours))
    end = traffic.start + round(hours * 60) * 60_000_000
    previous = traffic.start + min(24 * HOUR, (end - traffic.start) * 2 // 3 - 60_000_000)
    incidents = traffic.schedule.between(traffic.start, end)
    assert incidents
    for incident in incidents:
        assert previous <= incident.begin < incident.end <= end
        previous = incident.end
    week = traffic.schedule.between(traffic.start + 48 * HOUR, traffic.start + 60 * HOUR)
    assert week == [i for i in incidents if traffic.start + 48 * HOUR < i.end and i.begin < traffic.start + 60 * HOUR]


def test_the_schedule_can_be_set() -> None:
    wanted = IncidentsConfig(per_day=6, calm_h=10, kinds=("traffic_drop", "latency_spike"))
    traffic = Traffic(SimulatorConfig(hours=58, incidents=wanted))
    found = traffic.schedule.between(traffic.start, traffic.start + 58 * HOUR)
    assert len(found) == 12
    assert sorted(i.kind for i in found) == ["latency_spike"] * 6 + ["traffic_drop"] * 6
    assert found[0].begin >= traffic.start + 10 * HOUR


def test_blocks_are_small_at_any_rate() -> None:
    fast = Traffic(SimulatorConfig(hours=0.1, rate=2_000))
    assert fast.block_minutes == 1
    assert sum(len(part) for part in fast.emitted()) == pytest.approx(1.35 * 2_000 * 360, rel=0.15)  # noon


@pytest.mark.parametrize(
    "wrong",
    [
        {"rate": 0},
        {"hours": 0},
        {"partitions": 0},
        {"seed": -1},
        {"start": "2026-01-01T00:00:00"},
        {"speed": 0.5},
        {"incidents": {"kinds": []}},
        {"incidents": {"kinds": ["error_burst"] * 2}},
        {"incidents": {"kinds": ["flood"]}},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SimulatorConfig(**wrong)
