"""The effect of changed settings on an existing recovery store: each row of the table in docs/changing-settings.md."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from bytewax.errors import BytewaxRuntimeError

from connectors.tables import PANES
from flows import main, wiring
from flows.pipeline import Shape
from flows.recovery import store
from flows.settings.model import Settings
from operators.config import DetectConfig, GroupsConfig
from operators.detect.base import Watch
from operators.errors import ConfigError
from operators.incidents.alert_json import rfc3339
from operators.incidents.findings import SLOWNESS
from operators.model import SECOND
from tests.conftest import ROOT
from tests.flows import test_laws
from tests.flows.test_laws import START, dealt, traffic, world
from tests.harness import MemoryLog, MemoryStore, World

SHAPE = replace(test_laws.SHAPE, groups=GroupsConfig(settle_s=30, members=True))
"""Every episode raises alerts, not only the lead of a group, so that the alerts show which series are warm."""

BEFORE_THE_INCIDENT = 12
"""The poll, of 50 records from two partitions in turn, that fails: one of them has not come to the incident yet."""

Alerts = list[dict[str, Any]]


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> World:
    return stopped(tmp_path_factory.mktemp("before"))


@pytest.fixture
def w(before: World, tmp_path: Path) -> World:
    """A run that died warm, shortly before the first incident."""
    assert before.recovery is not None
    folder = tmp_path / "store"
    shutil.copytree(before.recovery, folder)
    return replace(deepcopy(before), recovery=folder)


def stopped(folder: Path, **fields: Any) -> World:
    """A run that died warm, after more than five minutes, before any pane of the first incident closed."""
    return stopped_at(BEFORE_THE_INCIDENT, folder, **fields)


def stopped_at(polls: int, folder: Path, **fields: Any) -> World:
    folder.mkdir(exist_ok=True)
    w = world(dealt(traffic(1), 2, 1), recovery=folder, **{"shape": SHAPE, **fields})
    w.topic.crash_after = [polls]
    with pytest.raises(BytewaxRuntimeError):
        w.run(50)
    return w


def alerts(w: World) -> Alerts:
    return [orjson.loads(line.value) for line in w.alerts.lines]


def slow(found: Alerts, dimensions: set[str]) -> bool:
    """Whether an alert says that a series of this dimension set is slow; services other than `chat` do not count."""
    return any(
        a["status"] == "firing"
        and a["metric"] in SLOWNESS
        and set(a["series"]) == dimensions
        and a["series"].get("service", "chat") == "chat"
        for a in found
    )


SERVICE = {"service", "model", "operation"}


def test_only_a_warm_flow_sees_the_incident(w: World) -> None:
    """A flow that resumes sees the incident; one that starts cold at about the same record does not."""
    cold = deepcopy(w)
    w.run(50)
    assert slow(alerts(w), SERVICE)
    cold.topic.records = {p: r[(BEFORE_THE_INCIDENT // 2) * 50 :] for p, r in cold.topic.records.items()}
    cold.recovery = None
    cold.run(50)
    assert not slow(alerts(cold), SERVICE)


LIMIT = {"metric": "latency", "statistic": "p95", "above": 1e6, "horizon_s": 60, "min_count": 5, "series": "*"}

KEEPS: dict[str, Callable[[Shape], Shape]] = {
    "a shorter lateness": lambda s: replace(s, time=s.time.model_copy(update={"lateness_s": 4.0})),
    "a longer lateness": lambda s: replace(s, time=s.time.model_copy(update={"lateness_s": 25.0})),
    "another horizon of corrections": lambda s: replace(s, time=s.time.model_copy(update={"correction_s": 600})),
    "fewer series a shard, but enough": lambda s: replace(s, panes=s.panes.model_copy(update={"series_per_shard": 9})),
    "more series a shard": lambda s: replace(s, panes=s.panes.model_copy(update={"series_per_shard": 500})),
    "another expiry": lambda s: replace(s, panes=s.panes.model_copy(update={"expiry_s": 600})),
    "less evidence": lambda s: replace(s, panes=s.panes.model_copy(update={"evidence": 0})),
    "more evidence": lambda s: replace(s, panes=s.panes.model_copy(update={"evidence": 5})),
    "smaller breakdowns": lambda s: replace(s, panes=s.panes.model_copy(update={"breakdown_values": 1})),
    "larger breakdowns": lambda s: replace(s, panes=s.panes.model_copy(update={"breakdown_values": 20})),
    "another time zone": lambda s: replace(
        s,
        detect=s.detect.model_copy(update={"traffic": s.detect.traffic.model_copy(update={"time_zone": "Asia/Tokyo"})}),
    ),
    "another threshold": lambda s: replace(s, detect=s.detect.model_copy(update={"false_alarms_per_series_day": 1.4})),
    "another half-life": lambda s: replace(s, detect=s.detect.model_copy(update={"half_life_s": 3_600.0})),
    "a longer warm-up": lambda s: replace(s, detect=s.detect.model_copy(update={"warm_up_panes": 14})),
    "another least change": lambda s: replace(s, detect=judged(s, ttft={"min_change": 1.6, "min_count": 3})),
    "another time until a change is adopted": lambda s: replace(
        s, detect=s.detect.model_copy(update={"adopt_after_s": 600})
    ),
    "another usual rate": lambda s: replace(
        s,
        detect=s.detect.model_copy(
            update={"traffic": s.detect.traffic.model_copy(update={"rate_half_life_s": 600, "min_surge": 4.0})}
        ),
    ),
    "a preset": lambda s: replace(s, detect=DetectConfig.model_validate({**_set(s.detect), "preset": "sensitive"})),
    "a silence that is over": lambda s: silent_until(s, 300),
    "another vote": lambda s: replace(
        s, detect=DetectConfig.model_validate({**_set(s.detect), "votes": {"latency": {"combine": "agreement"}}})
    ),
    "an override": lambda s: replace(
        s,
        detect=DetectConfig.model_validate(
            {
                **s.detect.model_dump(),
                "overrides": [
                    {"series": "*chat*", "metrics": {"latency": {"min_change": 1.6}}, "errors": {"min_errors": 5}},
                    {"series": "tenant=*", "mute": True},
                ],
            }
        ),
    ),
    "a static limit": lambda s: replace(
        s, detect=DetectConfig.model_validate({**s.detect.model_dump(), "limits": [LIMIT]})
    ),
    "other rules of episodes": lambda s: replace(
        s, episodes=s.episodes.model_copy(update={"open_panes": 1, "open_of": 8, "resolve_s": 30})
    ),
    "other rules of groups": lambda s: replace(s, groups=GroupsConfig(settle_s=10, join_s=0, members=True)),
    "a dimension set more": lambda s: sets(s, ("service",)),
    "a dimension set less": lambda s: replace(
        s, panes=s.panes.model_copy(update={"dimension_sets": s.panes.dimension_sets[:1]})
    ),
}


def judged(shape: Shape, **metrics: dict[str, Any]) -> DetectConfig:
    plain = shape.detect.model_dump()
    return DetectConfig.model_validate({**plain, "metrics": {**plain["metrics"], **metrics}})


def _set(config: DetectConfig) -> dict[str, Any]:
    return config.model_dump(exclude_unset=True)


def sets(shape: Shape, more: tuple[str, ...]) -> Shape:
    return replace(shape, panes=shape.panes.model_copy(update={"dimension_sets": (*shape.panes.dimension_sets, more)}))


@pytest.mark.parametrize("change", KEEPS)
def test_keeps_its_state(w: World, change: str) -> None:
    w.shape = KEEPS[change](w.shape)
    w.run(50)
    assert slow(alerts(w), SERVICE)
    assert Watch(w.shape.detect, w.shape.time.pane_s).form == Watch(SHAPE.detect, SHAPE.time.pane_s).form


def test_overrides_that_come_and_go_hold_from_the_next_pane_on(w: World) -> None:
    """A series that was muted is still warm, and an episode that opened meanwhile raises an alert."""
    muted = [{"series": "*service=chat,*", "mute": True}]
    w.shape = replace(w.shape, detect=DetectConfig.model_validate({**SHAPE.detect.model_dump(), "overrides": muted}))
    w.topic.crash_after = [5]
    with pytest.raises(BytewaxRuntimeError):
        w.run(50)  # into the incident
    assert not slow(alerts(w), SERVICE)
    w.shape = SHAPE
    w.run(50)
    assert slow(alerts(w), SERVICE)


def silent_until(shape: Shape, seconds: int) -> Shape:
    """Settings that are silent until this many seconds after the first record."""
    return replace(
        shape, detect=shape.detect.model_copy(update={"silent_until": datetime.fromtimestamp(START + seconds, UTC)})
    )


def test_an_older_range_is_learned_in_silence_and_later_incidents_are_told(tmp_path: Path) -> None:
    """Incidents begin after 6 and 8.4 minutes; the flow is silent for the first 5.5 minutes."""
    w = world(dealt(traffic(1), 2, 1), recovery=tmp_path, shape=silent_until(SHAPE, 330))
    w.run(50)
    found = alerts(w)
    assert slow(found, SERVICE)
    assert min(a["at"] for a in found) > rfc3339((START + 330) * SECOND)
    assert sum(b.records for b in w.balances.values()) == sum(map(len, w.topic.records.values()))


def test_a_new_dimension_set_starts_cold_beside_the_others(w: World, tmp_path: Path) -> None:
    w.shape = sets(w.shape, ("service",))
    w.run(50)
    assert slow(alerts(w), SERVICE)
    assert not slow(alerts(w), {"service"})
    always = stopped(tmp_path / "always", shape=sets(SHAPE, ("service",)))
    always.run(50)
    assert slow(alerts(always), {"service"})


def test_a_dimension_set_that_goes_is_no_silence(tmp_path: Path) -> None:
    quick = SHAPE.detect.traffic.model_copy(update={"trusted_after_s": 0, "min_horizon_s": 10})
    detect = SHAPE.detect.model_copy(update={"false_alarms_per_series_day": 100.0, "traffic": quick})
    w = stopped(tmp_path, shape=replace(SHAPE, detect=detect))
    told = len(w.alerts.lines)
    w.shape = replace(w.shape, panes=w.shape.panes.model_copy(update={"dimension_sets": (("service", "model"),)}))
    w.run(50)
    gone = [a for a in alerts(w)[told:] if set(a["series"]) in ({"tenant"}, SERVICE)]
    assert [a for a in gone if a["status"] != "resolved" and a["metric"] == "requests"] == []


def test_episodes_on_a_dimension_set_that_goes_are_resolved(tmp_path: Path) -> None:
    w = stopped_at(16, tmp_path)  # during the incident
    told = [a for a in alerts(w) if set(a["series"]) == SERVICE]
    opened = {a["episode_id"] for a in told} - {a["episode_id"] for a in told if a["status"] == "resolved"}
    assert opened
    w.shape = replace(w.shape, panes=w.shape.panes.model_copy(update={"dimension_sets": (("tenant",),)}))
    w.run(50)
    after = [a for a in alerts(w) if set(a["series"]) == SERVICE][len(told) :]
    assert {a["episode_id"] for a in after if "no longer watched" in a["text"]} == opened
    assert {a["episode_id"] for a in after} == opened


def test_other_rules_of_groups_hold_for_an_incident_that_is_on(tmp_path: Path) -> None:
    """A group without a lead gets one after the new time; members of a group with a lead raise alerts from then on."""
    founded = stopped_at(16, tmp_path / "founded", shape=replace(SHAPE, groups=GroupsConfig(settle_s=3_600)))
    assert not slow(alerts(founded), SERVICE)
    founded.shape = SHAPE
    founded.run(50)
    assert slow(alerts(founded), SERVICE)

    led = stopped_at(16, tmp_path / "led", shape=replace(SHAPE, groups=GroupsConfig(settle_s=0)))
    before = alerts(led)
    groups = {a["group_id"] for a in before} - {a["group_id"] for a in before if a["status"] == "resolved"}
    leads = {a["episode_id"] for a in before if a["group_id"] in groups}
    assert len(leads) == len(groups) > 0
    led.shape = replace(SHAPE, groups=GroupsConfig(settle_s=0, members=True))
    led.run(50)
    after = alerts(led)[len(before) :]
    assert [a for a in after if a["group_id"] in groups and a["status"] == "firing" and a["episode_id"] not in leads]
    for group in groups:
        told = [a["sequence"] for a in alerts(led) if a["group_id"] == group and a["episode_id"] in leads]
        assert told == list(range(len(told)))


FORMS: dict[str, Callable[[Shape], DetectConfig]] = {
    "detect.horizons_s": lambda s: s.detect.model_copy(update={"horizons_s": (10, 60)}),
    "detect.metrics": lambda s: judged(s, quality={"watch": False}),
    "detect.metrics, in logs": lambda s: judged(s, latency={"in_logs": False, "min_count": 3}),
    "detect.mix_by": lambda s: s.detect.model_copy(update={"mix_by": ""}),
    "detect.mix_by, of another dimension": lambda s: s.detect.model_copy(update={"mix_by": "model"}),
}


def claim(folder: Path, shape: Shape, source: str = "memory", relearn: bool = False) -> None:
    """Claim and release the recovery store, as the first step of a start does."""
    form = Watch(shape.detect, shape.time.pane_s).form
    held = store.claim(store.Place(folder, 0, 1), shape.shards, shape.time.pane_s, source, "shared", form, relearn)
    assert held is not None
    held.release()


@pytest.mark.parametrize("change", FORMS)
def test_learned_state_of_another_form_is_refused_or_learned_anew(w: World, tmp_path: Path, change: str) -> None:
    folder = tmp_path / "recovery"
    claim(folder, SHAPE)
    w.shape = replace(w.shape, detect=FORMS[change](w.shape))
    with pytest.raises(ConfigError, match=re.escape(change.partition(",")[0])) as refused:
        claim(folder, w.shape)
    assert "recovery.relearn" in str(refused.value)

    claim(folder, w.shape, relearn=True)
    w.shape = replace(w.shape, relearn=True)
    w.run(50)
    assert not slow(alerts(w), SERVICE)
    assert sum(b.records for b in w.balances.values()) == sum(map(len, w.topic.records.values()))

    claim(folder, w.shape)  # from now on only the new form fits
    with pytest.raises(ConfigError):
        claim(folder, SHAPE)


@pytest.mark.parametrize(
    ("shape", "source", "said"),
    [
        (replace(SHAPE, time=SHAPE.time.model_copy(update={"pane_s": 20})), "memory", "time.pane_s = 10, now it is 20"),
        (replace(SHAPE, shards=4), "memory", "recovery.shards = 3, now it is 4"),
        (SHAPE, "kafka x", "the source = 'memory', now it is 'kafka x'"),
    ],
)
def test_refused(tmp_path: Path, shape: Shape, source: str, said: str) -> None:
    claim(tmp_path, SHAPE)
    with pytest.raises(ConfigError, match=re.escape(said)):
        claim(tmp_path, shape, source, relearn=True)
    claim(tmp_path, SHAPE)


def test_a_store_keeps_its_partitions_where_they_are(tmp_path: Path) -> None:
    def start(processes: int, layout: Literal["shared", "own"], partitions: int | None = None) -> None:
        place = store.Place(tmp_path / str(processes), 0, processes)
        held = store.claim(place, 3, 10, "memory", layout, partitions=partitions)
        assert held is not None
        held.release()

    start(1, "shared")
    start(1, "own")
    with pytest.raises(ConfigError, match=re.escape("recovery.partitions = 1, now it is 2")):
        start(1, "shared", 2)
    start(2, "own")
    with pytest.raises(ConfigError, match="must hold all of its 2 partitions"):
        start(2, "shared")
    start(2, "own")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SENTINEL_DETECT__HORIZONS_S", "[10]"),
        ("SENTINEL_DETECT__METRICS__COST__WATCH", "false"),
        ("SENTINEL_DETECT__MIX_BY", "service"),
        ("SENTINEL_RECOVERY__SHARDS", "8"),
        ("SENTINEL_TIME__PANE_S", "20"),
        ("SENTINEL_SOURCE__SIMULATOR__SEED", "8"),
    ],
)
def test_a_refusal_is_one_message_and_exit_code_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str
) -> None:
    settings = Settings()
    form = Watch(settings.detect, settings.time.pane_s).form
    where = store.Place(tmp_path / "recovery", 0, 1)
    held = store.claim(
        where, settings.recovery.shards, settings.time.pane_s, wiring.reader(settings).identity(), "shared", form
    )
    assert held is not None
    held.release()
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["flow", "-r", "recovery"])
    with pytest.raises(SystemExit) as ended:
        main.flow()
    assert ended.value.code == 78
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("llm-sentinel cannot start: ")


def test_an_added_sink_takes_the_alerts_from_then_on(w: World) -> None:
    w.sinks["second"] = MemoryLog("second")
    before = len(w.alerts.lines)
    w.run(50)
    assert slow(alerts(w), SERVICE)
    assert [line.value for line in w.sinks["second"].lines] == [line.value for line in w.alerts.lines[before:]]


def test_a_sink_may_go_and_the_store_may_be_another(tmp_path: Path) -> None:
    w = stopped(tmp_path, sinks={"second": MemoryLog("second")})
    w.sinks.clear()
    first, w.store = w.store, MemoryStore("another")
    w.steps["store"] = "store_another"
    w.run(50)
    assert slow(alerts(w), SERVICE)
    # A bucket that was open is written whole to the new store; earlier buckets stay in the old one.
    assert w.store.rows[PANES.name]
    assert set(first.rows[PANES.name]) - set(w.store.rows[PANES.name])


def test_stores_and_topics_with_other_partitions_are_other_steps() -> None:
    def steps(**changes: Any) -> dict[str, str]:
        return wiring.steps(Settings.model_validate(changes))

    greptime = {"store": {"kind": "greptime"}}
    three = {"store": {"kind": "greptime", "greptime": {"partitions": 3}}}
    assert len({steps().get("store"), steps(**greptime)["store"], steps(**three)["store"]}) == 3
    other = steps(kafka={"alert_topic": "a.b", "dead_letter_topic": "c"})
    assert other == {"alerts_kafka": "alerts_kafka_a-b", "dead_letters_kafka": "dead_letters_kafka_c"}
    assert not set(other.values()) & set(steps().values())


TESTED = {
    "time.pane_s", "recovery.shards", "recovery.partitions", "recovery.layout", "source.kind",
    "detect.horizons_s", "detect.metrics", "detect.mix_by", "detect",
    "detect.half_life_s", "detect.warm_up_panes", "detect.adopt_after_s", "detect.traffic", "detect.traffic.time_zone",
    "detect.limits",
    "detect.preset", "detect.overrides", "detect.votes", "detect.silent_until", "episodes", "groups",
    "panes.dimension_sets", "panes.series_per_shard",
    "panes.expiry_s", "panes.evidence", "panes.breakdown_values", "time.lateness_s", "time.correction_s",
    "kafka.alert_topic", "kafka.dead_letter_topic",
    "store.greptime.partitions",
}  # fmt: skip
"""Settings of the table that the tests above change."""

ELSEWHERE = {
    "enrich.families",
    "enrich.dated_versions",
    "enrich.prices",
    "enrich.shipped_prices",
    "kafka.start",
    "kafka.start_offsets",
    "kafka.heartbeat_topic",
    "kafka.heartbeat_s",
    "recovery.token",
    "metrics",
    "log",
    "traces",
    "cluster",
    "objectives",
    "sinks",
    "source.batch_size",
    "store.expectations",
    "privacy",
}
"""Tested in `test_enrich.py`, `test_privacy.py`, `test_prices.py`, `test_laws.py` and `test_kafka_reader.py`, or they
change no state."""


def test_the_table_names_every_setting_that_is_tested_and_no_other() -> None:
    text = (ROOT / "docs" / "changing-settings.md").read_text()
    sections = "|".join(Settings.model_fields)
    first = "\n".join(re.findall(r"(?m)^\| (.+?) \|", text))
    assert set(re.findall(rf"`((?:{sections})(?:\.[a-z_]+)*)`", first)) == TESTED | ELSEWHERE
