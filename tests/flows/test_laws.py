"""The laws of the design, as properties of the real dataflow: batches, workers, crashes and order change nothing."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pytest
from bytewax.errors import BytewaxRuntimeError
from bytewax.inputs import FixedPartitionedSource, Source, StatefulSourcePartition
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from connectors.base import State
from connectors.source import TelemetryPartition, TelemetrySource
from flows.pipeline import Shape
from operators.config import DetectConfig, EpisodesConfig, GroupsConfig, PanesConfig, TimeConfig
from operators.decode.config import DecodeConfig
from operators.decode.intake import Batch
from operators.model import SECOND
from operators.panes.watermark import Idle, Watermark
from operators.series import OTHER
from tests.harness import BEGAN, Crash, MemoryTopic, World
from tests.operators.pane_events import columns

START = BEGAN // SECOND - 86_400
SHAPE = Shape(
    shards=3,
    time=TimeConfig(correction_s=120),
    panes=PanesConfig(
        dimension_sets=(("service", "model", "operation"), ("tenant",)), series_per_shard=50, breakdown_values=3
    ),
    detect=DetectConfig.model_validate({
        "warm_up_panes": 12, "false_alarms_per_series_day": 14,
        "metrics": {"latency": {"min_count": 3}, "ttft": {"min_count": 3}, "cost": {"min_count": 3}},
    }),
    episodes=EpisodesConfig(resolve_s=60),
    groups=GroupsConfig(),
)  # fmt: skip
NONE = np.zeros(0, np.bool_)
APART = replace(SHAPE, time=TimeConfig(correction_s=120, max_ahead_s=60))
LAW = settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def traffic(seed: int, minutes: int = 12, stragglers: float = 0.02) -> list[bytes]:
    """Requests of three services in order of emission; one service is slow for two minutes, later another one fails."""
    rng = np.random.default_rng(seed)
    records = []
    for number, at in enumerate(np.sort(rng.uniform(0, minutes * 60, minutes * 90)).tolist()):
        service = ("chat", "search", "agent")[int(rng.integers(3))]
        latency = float(rng.lognormal(6, 0.2))
        slow = service == "chat" and minutes * 30 < at < minutes * 30 + 120
        failing = service == "search" and minutes * 42 < at < minutes * 42 + 100 and rng.random() < 0.7
        latency *= 8 if slow else 1
        if rng.random() < stragglers:
            latency = float(rng.uniform(20_000, 60_000))
        event = {
            "event_id": f"e{number:05d}",
            "timestamp": START + round(at, 3),
            "service": service,
            "model": f"m{int(rng.integers(2))}",
            "tenant": f"t{int(rng.integers(6))}",
            "latency_ms": round(latency, 1),
            "ttft_ms": round(latency / 4, 1),
            "prompt_tokens": int(rng.integers(1, 2_000)),
            "completion_tokens": int(rng.integers(1, 500)),
            "cost_usd": round(float(rng.uniform(0.0001, 0.02)), 6),
            "status": "error" if failing else "ok",
            "trace_id": f"{number:032x}",
        }
        records.append((at + latency / 1000, orjson.dumps(event)))
    return [value for _, value in sorted(records)]


def dealt(records: list[bytes], partitions: int, seed: int) -> dict[str, list[bytes]]:
    """The records by partition, which does not depend on their series; each partition keeps the order of emission."""
    to = np.random.default_rng(seed).integers(0, partitions, len(records)).tolist()
    return {f"p{p}": [r for r, t in zip(records, to, strict=True) if t == p] for p in range(partitions)}


def spoil(records: list[bytes], seed: int) -> list[bytes]:
    """The records, with broken and repeated ones and some of a far future among them."""
    rng = np.random.default_rng(seed)
    out: list[bytes] = []
    for i, record in enumerate(records):
        out.append(record)
        match int(rng.integers(40)):
            case 0:
                out.append(b'{"timestamp": 1, "service": "chat"}')
            case 1:
                out.append(b"no json at all")
            case 2:
                out.append(records[int(rng.integers(i + 1))])
            case 3:
                out.append(
                    orjson.dumps({**orjson.loads(record), "event_id": f"far{i}", "timestamp": "2099-01-01T00:00:00Z"})
                )
    return out


def world(partitions: dict[str, list[bytes]], shape: Shape = SHAPE, **fields: object) -> World:
    return World(MemoryTopic(partitions), shape, **fields)  # type: ignore[arg-type]


@cache
def plain(seed: int) -> World:
    """A finished run over undisturbed traffic; do not run it again."""
    w = world({"p0": traffic(seed)})
    w.run(500)
    return w


@LAW
@given(
    seed=st.integers(0, 5),
    partitions=st.integers(1, 3),
    size=st.sampled_from([7, 60, 333, 5_000]),
    workers=st.integers(1, 3),
)
def test_law_1_batches_and_workers_change_nothing(seed: int, partitions: int, size: int, workers: int) -> None:
    records = dealt(spoil(traffic(seed), seed), partitions, seed)
    one, other = world(records), world(records)
    one.run(5_000)
    other.run(size, workers)
    assert one.alerts.lines, "the traffic must raise alerts, else this shows nothing"
    assert one.store.rows["llm_expectations"], "the traffic must give expectations, else this shows nothing"
    assert one.outcome() == other.outcome()


def test_without_expectations_the_rest_is_the_same() -> None:
    records = dealt(traffic(1), 2, 1)
    on, off = world(records), world(records, replace(SHAPE, expectations=False))
    on.run(5_000)
    off.run(5_000)
    assert on.store.rows.pop("llm_expectations")
    assert on.outcome() == off.outcome()


@LAW
@given(
    seed=st.integers(0, 5),
    crashes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
    workers=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    groups=st.sampled_from([GroupsConfig(), GroupsConfig(settle_s=0, members=True)]),
)
def test_law_1_and_3_crashes_and_resumes_change_nothing(
    seed: int, crashes: list[int], workers: list[int], groups: GroupsConfig
) -> None:
    records, shape = dealt(spoil(traffic(seed), seed), 2, seed), replace(SHAPE, groups=groups)
    undisturbed = world(records, shape, decode=DecodeConfig(dedupe_s=300))
    undisturbed.run(100)
    with tempfile.TemporaryDirectory() as folder:
        crashing = world(records, shape, decode=DecodeConfig(dedupe_s=300), recovery=Path(folder))
        crashing.topic.crash_after = list(crashes)
        runs = crashing.run_through(100, workers)
    assert runs > 1
    assert crashing.outcome() == undisturbed.outcome()
    ids = [line.id for line in crashing.alerts.lines]
    assert len(ids) == len(set(ids))


def quiet_for_minutes(seed: int, size: int) -> tuple[dict[str, list[bytes]], int]:
    """Records of two partitions, of which p1 is silent for five minutes, and the number of its batches before that."""
    both = dealt(traffic(seed, stragglers=0), 2, seed)
    at = [orjson.loads(record)["timestamp"] - START for record in both["p1"]]
    before = [r for r, second in zip(both["p1"], at, strict=True) if second < 200]
    before = before[: len(before) // size * size]
    after = [r for r, second in zip(both["p1"], at, strict=True) if second >= 500]
    return {"p0": both["p0"], "p1": [*before, *after]}, len(before) // size


@LAW
@given(
    seed=st.integers(0, 3),
    size=st.sampled_from([5, 20]),
    waits=st.integers(0, 30),
    says=st.sampled_from(["idle", "at its end"]),
)
def test_law_1_idleness_changes_nothing_unless_it_overtakes_events(seed: int, size: int, waits: int, says: str) -> None:
    """A silent partition that marks itself closes panes earlier; only later events of those panes make a difference."""
    records, batches = quiet_for_minutes(seed, size)
    plain = world(records, APART)
    marked = world(records, APART, wrap=lambda source: Quiet(source, batches, waits, says))
    plain.run(5_000)
    marked.run(size)
    assert sum(b.events for b in marked.balances.values()) == sum(map(len, records.values()))
    assert plain.alerts.lines
    assume(not marked.overtaken)
    assert plain.outcome() == marked.outcome()


@pytest.mark.parametrize("says", ["idle", "at its end"])
def test_idleness_can_overtake_events_in_that_law(says: str) -> None:
    records, batches = quiet_for_minutes(0, 20)
    overtaken = []
    for waits in (5, 60):
        w = world(records, APART, wrap=lambda source, waits=waits: Quiet(source, batches, waits, says))
        w.run(20)
        overtaken.append(w.overtaken)
    assert overtaken[0] == 0 < overtaken[1]


class Quiet(FixedPartitionedSource[Batch, State]):
    """A source whose p1 marks itself as idle or ended after `batches` batches, and goes on `waits` polls later."""

    def __init__(self, source: Source[Batch], batches: int, waits: int, says: str) -> None:
        assert isinstance(source, TelemetrySource)
        self._source, self._how = source, (batches, waits, says)

    def list_parts(self) -> list[str]:
        return self._source.list_parts()

    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> QuietPartition:
        return QuietPartition(self._source.build_part(step_id, for_part, resume_state), for_part, *self._how)


class QuietPartition(StatefulSourcePartition[Batch, State]):
    def __init__(self, partition: TelemetryPartition, name: str, batches: int, waits: int, says: str) -> None:
        self._partition, self._says = partition, says
        self._batches, self._waits = (batches, waits) if name == "p1" else (-1, 0)

    def next_batch(self) -> list[Batch]:
        if self._batches == 0 and self._waits:
            self._waits -= 1
            return []
        batches = self._partition.next_batch()
        self._batches -= len(batches)
        match batches:
            case [Batch(progress=Watermark(int(at))) as batch] if self._batches == 0:
                self._partition._pace.tell("p1", at, at_end=True)
                nothing = replace(batch, events=columns([]), on_time=NONE, late=NONE, dead=[])
                if self._says == "idle":
                    return [batch, replace(nothing, progress=Idle(at))]
                return [batch, replace(nothing, progress=Watermark(at, at_end=True))]
        return batches

    def next_awake(self) -> datetime:
        return self._partition.next_awake()

    def snapshot(self) -> State:
        return self._partition.snapshot()

    def close(self) -> None:
        self._partition.close()


@LAW
@given(seed=st.integers(0, 5), partitions=st.integers(1, 3))
def test_law_2_every_event_is_one_of_four_and_rows_hold_the_rest(seed: int, partitions: int) -> None:
    records = dealt(spoil(traffic(seed), seed), partitions, seed)
    w = world(records, decode=DecodeConfig(dedupe_s=300))
    w.run(200)
    total = sum(len(r) for r in records.values())
    assert sum(b.records for b in w.balances.values()) == total
    assert sum(b.events for b in w.balances.values()) == total
    assert len(w.letters.lines) == sum(sum(b.dead.values()) for b in w.balances.values())
    on_time = sum(b.on_time for b in w.balances.values())
    late = sum(b.late for b in w.balances.values())
    stored = requests(w, 10, "service,model,operation")
    assert on_time <= stored <= on_time + late
    for width in (60, 3600):
        assert requests(w, width, "service,model,operation") == stored


def requests(w: World, width: int, dimension_set: str) -> int:
    from connectors.tables import PANES

    column = [c.name for c in PANES.columns].index("requests")
    rows = w.store.rows[PANES.name].items()
    return sum(int(row[column]) for key, row in rows if key[0] == dimension_set and key[2] == width)


@LAW
@given(seed=st.integers(0, 5), shift=st.integers(0, 10_000))
def test_law_1_shuffles_within_the_lateness_change_nothing(seed: int, shift: int) -> None:
    records = traffic(seed)
    rng = np.random.default_rng(shift)
    events = [orjson.loads(r) for r in records]
    arrival = [e["timestamp"] + e["latency_ms"] / 1000 + rng.uniform(0, 9) for e in events]
    shuffled = [records[i] for i in np.argsort(arrival, kind="stable")]
    one, other = plain(seed), world({"p0": shuffled})
    other.run(500)
    assert sum(b.late for b in other.balances.values()) == 0
    assert [a.value for a in one.alerts.lines] == [a.value for a in other.alerts.lines]
    assert one.store.rows == other.store.rows


def test_start_order_and_order_of_emission_have_no_late_events_and_the_same_panes() -> None:
    emitted = traffic(3, stragglers=0.1)
    started = sorted(emitted, key=lambda r: orjson.loads(r)["timestamp"])
    by_end, by_start = world({"p0": emitted}), world({"p0": started})
    by_end.run(300)
    by_start.run(300)
    for w in (by_end, by_start):
        assert sum(b.late for b in w.balances.values()) == 0
    assert by_end.store.rows["llm_panes"] == by_start.store.rows["llm_panes"]


@cache
def crowd(cap: int, size: int, workers: int) -> World:
    """A finished run over sixty services, of which each shard may watch `cap`; do not run it again."""
    rng = np.random.default_rng(cap)
    records = [
        orjson.dumps({"timestamp": START + i // 4, "service": f"s{int(rng.integers(60))}", "latency_ms": 5.0})
        for i in range(1_500)
    ]
    w = world({"p0": records}, replace(SHAPE, panes=PanesConfig(dimension_sets=(("service",),), series_per_shard=cap)))
    w.run(size, workers)
    return w


@LAW
@given(cap=st.integers(1, 6), size=st.sampled_from([20, 500]), workers=st.integers(1, 2))
def test_law_4_series_are_capped_whatever_comes_and_the_rest_is_folded(cap: int, size: int, workers: int) -> None:
    one, other = crowd(cap, 1_500, 1), crowd(cap, size, workers)
    assert one.outcome() == other.outcome()
    series = {key[1] for key in one.store.rows["llm_panes"]}
    folded = {name for name in series if OTHER in name}
    assert len(series - folded) <= cap * SHAPE.shards
    assert folded
    assert requests(one, 10, "service") == 1_500


@LAW
@given(
    seed=st.integers(0, 3),
    bad=st.sampled_from(["1970-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2099-06-01T00:00:00Z", 4e18]),
)
def test_law_5_a_bad_event_cannot_move_time(seed: int, bad: object) -> None:
    good = traffic(seed)
    poison = orjson.dumps({"timestamp": bad, "service": "chat", "latency_ms": 1.0})
    spoiled = [r for record in good for r in (record, poison)]
    clean, mixed = plain(seed), world({"p0": spoiled})
    mixed.run(500)
    assert [a.value for a in clean.alerts.lines] == [a.value for a in mixed.alerts.lines]
    assert clean.store.rows == mixed.store.rows
    assert sum(mixed.balances["p0"].dead.values()) == len(good)


def test_law_5_a_jump_of_years_back_and_forth_neither_hangs_nor_moves_the_rest() -> None:
    good = traffic(1)
    old = orjson.dumps({"timestamp": "2001-01-01T00:00:00Z", "service": "chat", "latency_ms": 1.0})
    w = world({"p0": [old, *good[:200], old, *good[200:]]})
    w.run(500)
    assert w.balances["p0"].late == 1
    assert w.balances["p0"].on_time == len(good) + 1


def test_law_6_an_incident_twice_as_long_is_seen_to_its_end() -> None:
    """A baseline that learned from the incident would call the rest of it usual, and its end an anomaly."""
    short, long = incident(2), incident(12)
    for minutes, w in ((2, short), (12, long)):
        episodes = alerts_of(w, "latency")
        assert len({a["episode_id"] for a in episodes}) == 1
        (resolved,) = [a for a in episodes if a["status"] == "resolved"]
        assert resolved["until"][:16] >= stamp(20 + minutes)[:16]
    assert alerts_of(short, "latency")[0]["expected"] == alerts_of(long, "latency")[0]["expected"]


def test_law_6_nothing_alerts_before_it_is_warm() -> None:
    records = [
        orjson.dumps({"timestamp": START + i / 2, "service": "chat", "latency_ms": 100.0 if i < 100 else 9_000.0})
        for i in range(200)
    ]
    shape = replace(SHAPE, detect=DetectConfig(warm_up_panes=30))
    w = world({"p0": records}, shape)
    w.run(50)
    assert w.alerts.lines == []


def incident(minutes: int) -> World:
    rng = np.random.default_rng(5)
    records = []
    for i in range(40 * 60 * 2):
        at = i / 2
        slow = 20 * 60 <= at < (20 + minutes) * 60
        latency = float(rng.lognormal(6, 0.2)) * (10 if slow else 1)
        records.append(orjson.dumps({"timestamp": START + at, "service": "chat", "latency_ms": latency}))
    w = world({"p0": records}, replace(SHAPE, panes=PanesConfig(dimension_sets=(("service",),))))
    w.run(1_000)
    return w


def alerts_of(w: World, metric: str) -> list[dict[str, str]]:
    return [a for line in w.alerts.lines if (a := orjson.loads(line.value))["metric"] == metric]


def stamp(minute: int) -> str:
    from operators.incidents.alert_json import rfc3339

    return rfc3339((START + minute * 60) * SECOND)


def test_a_stop_is_not_an_end() -> None:
    """A run that is cut off emits no open panes; the run that resumes emits them once."""
    records = {"p0": traffic(2)}
    whole = world(records)
    whole.run(100)
    with tempfile.TemporaryDirectory() as folder:
        cut = world(records, recovery=Path(folder))
        cut.topic.crash_after = [6]
        with pytest.raises(BytewaxRuntimeError) as died:
            cut.run(100)
        assert isinstance(died.value.__cause__, Crash)
        closed_until = max(key[3] for key in cut.store.rows.get("llm_panes", {(0, 0, 0, 0): ()}))
        read_until = max(int(orjson.loads(r)["timestamp"] * SECOND) for r in records["p0"][:500])
        assert closed_until < read_until - 10 * SECOND
        cut.run(100)
    assert cut.outcome() == whole.outcome()


def values(w: World) -> list[bytes]:
    return [line.value for line in w.alerts.lines]


def test_a_source_that_ended_and_then_grew_is_gone_on_with() -> None:
    """Panes that were open at the end are judged and stored again as a whole; detection has not learned from them."""
    records = traffic(2)
    whole = world({"p0": records})
    whole.run(100)
    with tempfile.TemporaryDirectory() as folder:
        grown = world({"p0": records[:400]}, recovery=Path(folder))
        grown.run(100)
        grown.topic.records["p0"] = records
        grown.run(100)
    assert grown.store.rows["llm_panes"] == whole.store.rows["llm_panes"]
    assert grown.balances == whole.balances
    ended = stamp(5)  # the first 400 records are of the first five minutes
    after = [[a for a in map(orjson.loads, values(w)) if a["since"] > ended] for w in (grown, whole)]
    assert after[0] == after[1] != []
