"""Series with settings of their own are judged as if all series had these settings."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from operators.config import DetectConfig, EpisodesConfig, TimeConfig
from operators.detect.engine.monitor import ShardMonitor
from operators.incidents.findings import Finding
from operators.model import SECOND, Alert
from operators.panes.table import Closed
from tests.operators.detect.engine.test_monitor import COUNT, QUICK, ROWS, at, told, usual
from tests.watching import closings, monitor, steady, table, watch_all

PIECES = closings(ROWS, COUNT, range(1, COUNT))


def with_overrides(*overrides: dict[str, Any], **detect: Any) -> DetectConfig:
    return DetectConfig.model_validate({**QUICK.model_dump(), **detect, "overrides": overrides})


def findings(config: DetectConfig, pieces: list[Closed] = PIECES) -> list[Finding]:
    watcher = monitor(config)
    return [f for piece in pieces for f in watcher.take(piece)]


def of(service: str, found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.series == f"service={service}"]


OTHERS: dict[str, dict[str, Any]] = {
    "fewer false alarms": {"false_alarms_per_series_day": 1e-9},
    "more false alarms": {"false_alarms_per_series_day": 20.0},
    "a preset": {"preset": "sensitive"},
    "another least change": {"metrics": {"latency": {"min_change": 20.0}, "cost": {"min_change": 1.1}}},
    "another direction": {"metrics": {"latency": {"direction": "down"}, "cost": {"min_count": 40}}},
    "errors": {"errors": {"min_ratio": 0.9}},
    "traffic": {"traffic": {"max_drop": 0.9, "min_surge": 1.2}},
    "ignored metrics": {"ignore": ["latency", "requests"]},
}


@pytest.fixture(scope="module")
def plain() -> list[Finding]:
    return findings(QUICK)


def transitions(config: DetectConfig) -> tuple[list[Alert], bytes]:
    """The alerts of a run, and the state of its detectors at the end."""
    watcher = monitor(config)
    return watch_all(watcher, PIECES), pickle.dumps(watcher._panel.save(3))


@pytest.fixture(scope="module")
def loud() -> tuple[list[Alert], bytes]:
    return transitions(QUICK)


@pytest.mark.parametrize("change", OTHERS)
def test_each_series_is_judged_as_if_its_settings_were_those_of_all(plain: list[Finding], change: str) -> None:
    other = findings(with_overrides({"series": "*", **OTHERS[change]}).of_override(0))
    assert other != plain  # the override must change something, or this test would prove nothing
    for service in ("slow", "silent"):
        mixed = findings(
            with_overrides({"series": "service=nobody"}, {"series": f"service={service}", **OTHERS[change]})
        )
        assert of(service, mixed) == of(service, other)
        for rest in {"slow", "silent", "well"} - {service}:
            assert of(rest, mixed) == of(rest, plain)


def test_the_state_does_not_depend_on_saves_or_on_how_panes_came() -> None:
    config = with_overrides({"series": "service=s*", **OTHERS["a preset"]})
    whole = findings(config, closings(ROWS, COUNT, (40, 41, 97)))
    assert whole == findings(config)
    watcher, found = monitor(config), []
    for n, piece in enumerate(PIECES):
        if n % 40 == 7:
            state = pickle.loads(pickle.dumps(watcher.save()))
            watcher = ShardMonitor.load(state, config, EpisodesConfig(), TimeConfig())
        found += watcher.take(piece)
    assert found == whole


def test_slots_that_are_used_again_and_arrays_that_grow_get_the_settings_of_their_series() -> None:
    config = with_overrides({"series": "service=s1?", "mute": True})
    services = [f"s{n}" for n in range(8, 28)]
    early = [r for s in services[:6] for r in steady(8, 2, usual, 1, s)]
    late = [r for s in services for r in steady(90, 2, usual, 1, s) if r.end // 10 >= 60]
    watcher = monitor(config, expiry_s=300)
    for piece in closings(table(early + late), 90, range(1, 90)):
        watcher.take(piece)
    muted = [watcher._panel.is_muted(slot) for slot in range(len(watcher._slots.texts))]
    assert muted == [text.startswith("service=s1") for text in watcher._slots.texts]
    assert any(muted) and not all(muted)


MUTED = with_overrides({"series": "service=slow", "mute": True})


def test_a_muted_series_has_no_alerts_and_learns_as_ever(plain: list[Finding], loud: tuple[list[Alert], bytes]) -> None:
    muted = findings(MUTED)
    assert of("slow", muted) == []
    assert of("silent", muted) == of("silent", plain)
    assert transitions(MUTED)[1] == loud[1]


def changed_at(pane: int, before: DetectConfig, after: DetectConfig) -> list[Alert]:
    """The latency alerts of service slow in a run whose settings change before the batch of this number."""
    watcher, alerts = monitor(before), []
    for n, piece in enumerate(PIECES):
        if n == pane:
            watcher = ShardMonitor.load(watcher.save(), after, EpisodesConfig(), TimeConfig())
        alerts += watch_all(watcher, [piece])
    return [a for a in alerts if a.series == {"service": "slow"} and a.kind == "latency_spike"]


def test_an_episode_that_opened_muted_is_told_when_the_series_is_not_muted_any_more() -> None:
    alerts = changed_at(90, MUTED, QUICK)
    assert [a.status for a in alerts if a.status != "updated"] == ["firing", "resolved"]
    assert [a.sequence for a in alerts] == list(range(len(alerts)))
    assert at(90) <= alerts[0].at <= at(93)
    assert alerts[0].since == at(80)
    assert alerts[0].episode_id == told(changed_at(90, QUICK, QUICK), "latency_spike")[0].episode_id


def test_an_episode_that_was_told_is_told_to_its_end() -> None:
    assert changed_at(90, QUICK, MUTED) == changed_at(90, QUICK, QUICK)


def test_an_episode_that_was_over_while_muted_is_never_told() -> None:
    assert changed_at(140, MUTED, QUICK) == []


def until(pane: int) -> DetectConfig:
    when = datetime.fromtimestamp(at(pane) / SECOND, UTC)
    return DetectConfig.model_validate({**QUICK.model_dump(), "silent_until": when})


@pytest.mark.compiled
@pytest.mark.parametrize("pane", [0, 60, 81, 82, 83, 95, 100, 129, COUNT, 10 * COUNT])
def test_panes_before_silent_until_are_learned_and_never_told(loud: tuple[list[Alert], bytes], pane: int) -> None:
    """Later episodes are told as usual, open ones at their first anomalous pane after the time, others not at all."""
    (told_anyway, learned), (silent, learned_silent) = loud, transitions(until(pane))
    assert all(a.at > at(pane) for a in silent)
    later = {a.episode_id for a in told_anyway if a.status == "firing" and a.at > at(pane) + 10 * SECOND}
    assert [a for a in silent if a.episode_id in later] == [a for a in told_anyway if a.episode_id in later]
    for episode in {a.episode_id for a in silent} - later:
        mine = [a for a in silent if a.episode_id == episode]
        assert mine[0].status == "firing"
        assert [a.sequence for a in mine] == list(range(len(mine)))
        assert {a.since for a in mine} == {a.since for a in told_anyway if a.episode_id == episode}
    assert learned_silent == learned


def test_a_time_within_a_pane_silences_the_panes_that_end_by_it(loud: tuple[list[Alert], bytes]) -> None:
    opened = told(loud[0], "latency_spike")[0]
    pane = (opened.at - 10 * SECOND - at(0)) // (10 * SECOND)  # the alert comes one lateness after the end of the pane
    for seconds, told_at in ((-1, opened.at), (0, opened.at + 10 * SECOND)):
        when = datetime.fromtimestamp(at(pane) / SECOND + seconds, UTC)
        config = DetectConfig.model_validate({**QUICK.model_dump(), "silent_until": when})
        assert told(transitions(config)[0], "latency_spike")[0].at == told_at
