"""The detection of a shard: the same alerts for any cuts of panes and any resumes; learning and forgetting."""

from __future__ import annotations

import math
import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig, EpisodesConfig, TimeConfig
from operators.detect.engine.monitor import ShardMonitor
from operators.errors import ConfigError, FatalError
from operators.incidents.findings import STANDS, Finding
from operators.model import SECOND, Alert
from operators.panes.fold import EMPTY
from operators.panes.table import Closed
from tests.conftest import examples
from tests.watching import BEGIN, PANE_S, Request, closings, monitor, steady, table, watch_all

QUICK = DetectConfig.model_validate(
    {
        "horizons_s": (10, 60, 300),
        "warm_up_panes": 12,
        "traffic": {"trusted_after_s": 0},
        "metrics": {name: {"min_count": 4} for name in DetectConfig().metrics},
    }
)
COUNT = 150


def usual(_: int, draw: random.Random) -> dict[str, float]:
    latency = draw.lognormvariate(6.0, 0.2)
    return {"latency": latency, "cost": 0.001 * draw.lognormvariate(0, 0.2), "quality": draw.uniform(0.7, 0.9)}


def incident(pane: int, draw: random.Random) -> dict[str, float]:
    """Requests with ten times the usual latency and high costs in panes 80 to 99."""
    values = usual(pane, draw)
    if 80 <= pane < 100:
        values["latency"] *= 10
        values["cost"] *= 10
    return values


def scenario() -> list[Request]:
    """Three series: one is slow and costly for a while, one fails and then falls silent, one is healthy."""
    requests = steady(COUNT, 6, incident, 1, "slow") + steady(COUNT, 6, usual, 3, "well")
    for r in steady(COUNT, 6, usual, 2, "silent"):
        pane = r.end // PANE_S
        if pane < 100:
            requests.append(Request(r.end, r.values, 60 <= pane < 70 and r.end % 10 < 7, r.service))
    return requests


ROWS = table(scenario())
PIECES = closings(ROWS, COUNT, range(1, COUNT))


@pytest.fixture(scope="module")
def alerts() -> list[Alert]:
    return watch_all(monitor(QUICK), PIECES)


def at(pane: int) -> int:
    """The start of a pane of the scenario in microseconds."""
    return (BEGIN + pane) * PANE_S * SECOND


def told(alerts: list[Alert], kind: str) -> list[Alert]:
    return [a for a in alerts if a.kind == kind]


def test_each_incident_is_told_once_from_its_first_pane_to_its_last(alerts: list[Alert]) -> None:
    assert {(a.series["service"], a.kind) for a in alerts} == {
        ("slow", "latency_spike"),
        ("slow", "cost_spike"),
        ("silent", "error_burst"),
        ("silent", "silence"),
    }
    slow = told(alerts, "latency_spike")
    assert slow[0].status == "firing"
    assert slow[-1].status == "resolved"
    assert {a.status for a in slow[1:-1]} <= {"updated"}
    assert [a.sequence for a in slow] == list(range(len(slow)))
    assert {a.since for a in slow} == {at(80)}
    assert all(a.until is None for a in slow[:-1])
    assert slow[-1].until == at(100)
    assert slow[0].at <= at(82) + 10 * SECOND
    assert slow[-1].at == at(100) + (300 + 10) * SECOND


def test_a_silence_stays_open_while_it_lasts(alerts: list[Alert]) -> None:
    silence = told(alerts, "silence")
    assert silence[0].status == "firing"
    assert "resolved" not in {a.status for a in silence}
    assert silence[0].observed < 0.35 * silence[0].expected
    assert "Service silent has sent nothing for" in silence[0].text
    assert silence[0].unit == "1/min"
    assert silence[0].expected == pytest.approx(36, rel=0.05)
    assert at(100) <= silence[0].since < at(130)


def test_an_alert_carries_values_in_units_and_the_requests_that_show_it(alerts: list[Alert]) -> None:
    alert = told(alerts, "latency_spike")[0]
    assert alert.unit == "ms"
    assert alert.expected == pytest.approx(math.exp(6.0), rel=0.05)
    assert alert.observed > 5 * alert.expected
    assert alert.lower is not None
    assert alert.upper is not None
    assert alert.lower < alert.expected < alert.upper < alert.observed
    assert alert.detectors == ("zscore",)
    assert 1 <= len(alert.evidence) <= 5
    by_id = {f"e{i}": r for i, r in enumerate(scenario())}
    values = [float(e["value"]) for e in alert.evidence]
    assert values == sorted(values, reverse=True)
    for e in alert.evidence:
        request = by_id[str(e["event_id"])]
        assert request.service == "slow"
        assert e["value"] == pytest.approx(request.values["latency"], rel=1e-3)
        assert str(e["trace_id"])[1:] == str(e["session_id"])[1:] == str(e["event_id"])[1:]


def test_errors_show_the_requests_that_failed(alerts: list[Alert]) -> None:
    by_id = {f"e{i}": r for i, r in enumerate(scenario())}
    evidence = told(alerts, "error_burst")[-1].evidence
    assert evidence
    assert all(by_id[str(e["event_id"])].error for e in evidence)


def test_alerts_come_in_order_and_with_different_ids(alerts: list[Alert]) -> None:
    keys = [(a.at, ",".join(f"{k}={v}" for k, v in a.series.items()), a.metric) for a in alerts]
    assert keys == sorted(keys)
    assert len({a.alert_id for a in alerts}) == len(alerts)


def test_severity_never_falls_within_an_episode(alerts: list[Alert]) -> None:
    order = ["low", "medium", "high", "critical"]
    worst: dict[str, int] = {}
    for a in alerts:
        level = order.index(a.severity)
        assert level >= worst.get(a.episode_id, 0)
        if a.status == "updated":
            assert level > worst[a.episode_id]
        worst[a.episode_id] = level


def numbers(state: object) -> object:
    """A saved state in a form that can be compared."""
    match state:
        case np.ndarray():
            return state.dtype.str, state.shape, state.tobytes()
        case dict():
            return {k: numbers(v) for k, v in state.items()}
        case tuple() | list():
            return [numbers(v) for v in state]
    return state


@examples(8)
@given(
    cuts=st.lists(st.integers(1, COUNT - 1), max_size=20),
    resumes=st.sets(st.integers(0, 20), max_size=4),
)
def test_the_same_alerts_however_panes_come_and_wherever_it_is_resumed(cuts: list[int], resumes: set[int]) -> None:
    watcher = monitor(QUICK)
    found: list[Finding] = []
    for i, closed in enumerate(closings(ROWS, COUNT, cuts)):
        if i in resumes:
            state = pickle.loads(pickle.dumps(watcher.save()))
            watcher = ShardMonitor.load(state, QUICK, EpisodesConfig(), TimeConfig())
        found += watcher.take(closed)
    whole = monitor(QUICK)
    assert found == [f for closed in PIECES for f in whole.take(closed)]
    assert numbers(watcher.save()) == numbers(whole.save())


def test_the_same_alerts_whichever_series_share_the_shard(alerts: list[Alert]) -> None:
    apart: list[Alert] = []
    for service in ("slow", "silent", "well"):
        whole = [(i, r) for i, r in enumerate(scenario())]
        # The requests of other services stay in the list, at a far time, so that events keep their ids.
        mine = [r if r.service == service else Request(10**7 + i, {}, service="other") for i, r in whole]
        apart += watch_all(monitor(QUICK), closings(table(mine), COUNT, range(1, COUNT)))
    key = lambda a: (a.at, a.series["service"], a.metric)  # noqa: E731
    assert sorted(apart, key=key) == alerts


def test_saving_gives_builtins_and_arrays_that_do_not_change_later() -> None:
    watcher = monitor(QUICK)
    watch_all(watcher, PIECES[:90])
    state = watcher.save()
    image = pickle.dumps(state)
    allowed = (tuple, list, dict, str, int, float, type(None), np.ndarray)

    def plain(value: object) -> None:
        assert type(value) in allowed
        inner = value if isinstance(value, (tuple, list)) else value.values() if isinstance(value, dict) else ()
        for v in inner:
            plain(v)

    plain(state)
    watch_all(watcher, PIECES[90:])
    assert pickle.dumps(state) == image


def test_a_state_of_another_version_or_for_other_settings_is_refused() -> None:
    state = monitor(QUICK).save()
    with pytest.raises(FatalError, match="version 99"):
        ShardMonitor.load((99, *state[1:]), QUICK, EpisodesConfig(), TimeConfig())
    with pytest.raises(ConfigError, match=r"time\.pane_s"):
        ShardMonitor.load(state, QUICK, EpisodesConfig(), TimeConfig(pane_s=60))
    other = DetectConfig.model_validate({"metrics": {"cost": {"watch": False}}})
    with pytest.raises(ConfigError, match=r"detect\.metrics"):
        ShardMonitor.load(state, other, EpisodesConfig(), TimeConfig())


def test_panes_are_not_judged_after_the_end_nor_twice() -> None:
    whole = monitor(QUICK)
    before = watch_all(whole, PIECES[:82])
    assert told(before, "latency_spike")
    cut = monitor(QUICK)
    first = Closed(BEGIN, BEGIN + 82, BEGIN + 78, PIECES[0].table)
    rows = closings(ROWS, 82)[0].table
    assert not told(watch_all(cut, [Closed(first.low, first.high, first.judged, rows)]), "latency_spike")
    again = watch_all(whole, [closings(ROWS, 82)[0]])
    assert again == []


def test_nothing_is_learned_from_an_incident() -> None:
    healthy, sick = monitor(QUICK), monitor(QUICK)
    rest = [r for r in scenario() if r.service == "slow"]
    watch_all(sick, closings(table(rest), 100))
    watch_all(healthy, closings(table(rest), 80))
    for key in ("mean", "above", "below"):
        before, after = healthy._panel.owners[0].state[key][0], sick._panel.owners[0].state[key][0]
        latency, quality = 0, healthy.watch.cells.index("quality")
        assert np.array_equal(before[latency], after[latency])
        assert not np.array_equal(before[quality], after[quality])  # other metrics go on learning


def test_a_series_that_is_silent_too_long_is_forgotten_and_its_episodes_end() -> None:
    requests = [r for r in scenario() if r.service == "silent"]
    watcher = monitor(QUICK, expiry_s=1200)
    rows = table(requests)
    found = watch_all(watcher, [*closings(rows, 100), Closed(BEGIN + 100, BEGIN + 300, BEGIN + 300, EMPTY)])
    last = told(found, "silence")[-1]
    assert last.status == "resolved"
    assert last.at == at(99 + 120) + (PANE_S + 10) * SECOND
    assert last.reason == "expired"
    assert "no longer watched" in last.text
    assert len(watcher) == 0
    assert len(told(found, "silence")) <= 4


def test_a_forgotten_series_comes_back_as_a_new_one() -> None:
    watcher = monitor(QUICK, expiry_s=1200)
    watch_all(watcher, closings(table(steady(100, 6, usual)), 100))
    rows = table([Request(r.end + 10_000, r.values) for r in steady(13, 6, lambda p, d: {"latency": 1e5})])
    low, high = BEGIN + 100, BEGIN + 1013
    found = watch_all(watcher, [Closed(low, high, high, rows)])
    assert not told(found, "latency_spike")
    assert len(watcher) == 1
    assert watcher._slots.used == 1


def test_a_gap_of_a_year_takes_no_time() -> None:
    watcher = monitor(QUICK, expiry_s=3600)
    watch_all(watcher, closings(table(steady(30, 6, usual)), 30))
    year = 365 * 8640
    found = watch_all(watcher, [Closed(BEGIN + 30, BEGIN + year, BEGIN + year, EMPTY)])
    assert {a.kind for a in found} <= {"silence", "traffic_drop"}
    assert len(watcher) == 0
    later = table([Request(r.end + year * PANE_S, r.values) for r in steady(5, 6, usual)])
    watcher.take(Closed(BEGIN + year, BEGIN + 2 * year, BEGIN + 2 * year, later))
    assert len(watcher) == 0


def test_many_series_grow_the_arrays() -> None:
    requests = [r for i in range(40) for r in steady(3, 1, usual, i, f"s{i:02d}")]
    watcher = monitor(QUICK)
    watch_all(watcher, closings(table(requests), 3))
    assert len(watcher) == 40
    assert watcher._slots.used == 40
    again = ShardMonitor.load(watcher.save(), QUICK, EpisodesConfig(), TimeConfig())
    assert pickle.dumps(again.save()) == pickle.dumps(watcher.save())


def test_the_hot_state_of_a_series_is_small() -> None:
    watcher = monitor()
    bytes_each = sum(a.nbytes for owner in watcher._owners for a in owner.state.values()) / watcher._panes.capacity
    assert bytes_each <= 7_424


def test_two_metrics_of_one_series_are_two_episodes(alerts: list[Alert]) -> None:
    slow = {a.metric: a.episode_id for a in alerts if a.series["service"] == "slow"}
    assert set(slow) == {"latency", "cost"}
    assert len(set(slow.values())) == 2


def lasting(pane: int, draw: random.Random) -> dict[str, float]:
    """Latency is ten times the usual from pane 80 on, and a hundred times the usual from pane 220 on."""
    values = usual(pane, draw)
    values["latency"] *= 100 if pane >= 220 else 10 if pane >= 80 else 1
    return values


def test_a_lasting_change_becomes_the_new_normal_and_the_next_is_told_against_it() -> None:
    config = QUICK.model_copy(update={"adopt_after_s": 600})
    rows = table(steady(COUNT + 100, 6, lasting))
    watcher = monitor(config)
    first = watch_all(watcher, closings(rows, 220))
    assert {a.metric for a in first} == {"latency"}
    assert [a.status for a in first if a.status != "updated"] == ["firing", "resolved"]
    assert first[0].expected == pytest.approx(math.exp(6.0), rel=0.1)
    last = first[-1]
    assert (last.reason, last.since, last.at) == ("level_shift", at(80), at(141) + 10 * SECOND)
    assert "is taken for the new normal" in last.text
    assert last.until is not None
    latency = watcher.watch.cells.index("latency")
    assert watcher._open.state["opened"][0, latency] == -1
    zscore = watcher._panel.owners[0].state
    assert zscore["learned"][0, latency, 0] == 79 + 31  # panes since the adoption, and in half the time before it
    assert zscore["learned"][0, watcher.watch.cells.index("quality"), 0] > 200
    again = watch_all(watcher, [Closed(BEGIN + 220, BEGIN + 250, BEGIN + 250, rows)])
    assert again[0].status == "firing"
    assert again[0].since == at(220)
    # The usual value of the one part of its mix moves to the new level too, faster the less is known of it.
    assert 10 * math.exp(6.0) <= again[0].expected <= 20 * math.exp(6.0)


def soon_again(pane: int, draw: random.Random) -> dict[str, float]:
    """Latency is ten times the usual from pane 80, and a hundred times that from pane 145 on."""
    values = usual(pane, draw)
    values["latency"] *= 1000 if pane >= 145 else 10 if pane >= 80 else 1
    return values


def test_after_a_lasting_change_nothing_warms_up_anew() -> None:
    config = QUICK.model_copy(update={"adopt_after_s": 600})
    pieces = closings(table(steady(160, 6, soon_again)), 160, range(1, 160))
    watcher = monitor(config)
    found = watch_all(watcher, pieces)
    (second,) = [a for a in found if a.status == "firing" and a.since >= at(141)]
    assert second.since == at(145)
    assert second.expected == pytest.approx(10 * math.exp(6.0), rel=0.1)

    for cut in (111, 130, 141, 142):
        watcher = monitor(config)
        before = watch_all(watcher, pieces[:cut])
        again = ShardMonitor.load(watcher.save(), config, EpisodesConfig(), TimeConfig())
        assert before + watch_all(again, pieces[cut:]) == found


@pytest.mark.compiled
def test_the_last_of_many_series_is_taken_over_after_a_resume_too() -> None:
    """There are more series than the arrays have room for at first."""
    config = QUICK.model_copy(update={"adopt_after_s": 600})
    others = [r for i in range(9) for r in steady(160, 2, usual, i, f"a{i}")]
    pieces = closings(table([*others, *steady(160, 6, soon_again)]), 160, range(1, 160))
    watcher = monitor(config)
    found = watch_all(watcher, pieces)
    assert "level_shift" in {a.reason for a in found}
    watcher = monitor(config)
    before = watch_all(watcher, pieces[:130])
    assert watcher._shadows.save()
    again = ShardMonitor.load(watcher.save(), config, EpisodesConfig(), TimeConfig())
    assert before + watch_all(again, pieces[130:]) == found


def test_a_detector_that_is_switched_on_later_has_room_for_all_series() -> None:
    pieces = closings(table([r for i in range(12) for r in steady(80, 4, usual, i, f"s{i:02d}")]), 80, range(1, 80))
    watcher = monitor(QUICK)
    watch_all(watcher, pieces[:40])
    more = DetectConfig.model_validate({**QUICK.model_dump(), "detectors": {"latency": ("zscore", "cusum")}})
    again = ShardMonitor.load(watcher.save(), more, EpisodesConfig(), TimeConfig())
    watch_all(again, pieces[40:])
    assert {len(next(iter(owner.state.values()))) >= 12 for owner in again._owners} == {True}
    (cusum,) = [a for d, a in zip(again._panel.detectors, again._panel.owners, strict=False) if d.name == "cusum"]
    assert (cusum.state["learned"][:12] > 0).any(axis=tuple(range(1, cusum.state["learned"].ndim))).all()


def test_a_limit_on_traffic_holds_where_a_wider_series_has_the_requests_too() -> None:
    limit = {"metric": "requests", "above": 1.0, "horizon_s": 10}
    config = DetectConfig.model_validate({**QUICK.model_dump(), "limits": [limit]})
    sets = (("service",), ("service", "model"))
    requests = [replace(r, labels={"model": "m"}) for r in steady(30, 4, usual)]
    watcher = ShardMonitor(config, EpisodesConfig(), TimeConfig(), 86_400, sets)
    found = watch_all(watcher, closings(table(requests, sets), 30))
    assert {tuple(a.series) for a in found if a.metric == "requests"} == {("service",), ("service", "model")}


def test_a_change_that_is_over_in_time_leaves_nothing_behind() -> None:
    config = QUICK.model_copy(update={"adopt_after_s": 900})
    watcher = monitor(config)
    requests = steady(180, 6, lambda p, d: lasting(p if p < 130 else 0, d))
    pieces = closings(table(requests), 180, range(1, 180))
    watch_all(watcher, pieces[:128])
    assert [key[:2] for key in watcher._shadows.save()] == [(0, watcher.watch.cells.index("latency"))]
    watch_all(watcher, pieces[128:])
    assert watcher._shadows.save() == []
    assert watcher._panel.owners[0].state["learned"][0, watcher.watch.cells.index("latency"), 0] < 130


def test_a_limit_that_stays_broken_is_no_new_normal() -> None:
    limit = {"metric": "latency", "statistic": "mean", "above": 100.0, "horizon_s": 10}
    config = DetectConfig.model_validate({**QUICK.model_dump(), "adopt_after_s": 600, "limits": [limit]})
    found = watch_all(monitor(config), closings(table(steady(200, 6, usual)), 200))
    assert [a.kind for a in found if a.status == "firing"] == ["latency_limit"]
    assert "resolved" not in {a.status for a in found}


def test_traffic_is_judged_where_no_wider_series_holds_the_requests() -> None:
    requests = [r for r in scenario() if r.service == "silent"]
    sets = (("service",), ("service", "model"))
    watcher = ShardMonitor(QUICK, EpisodesConfig(), TimeConfig(), 86_400, sets)
    found = told(watch_all(watcher, closings(table(requests, sets), COUNT)), "silence")
    assert {tuple(a.series) for a in found} == {("service",)}


def test_series_of_a_removed_dimension_set_are_forgotten_at_the_next_pane() -> None:
    sets = (("service",), ("service", "model"))
    requests = [r for r in scenario() if r.service == "slow"]
    watcher = ShardMonitor(QUICK, EpisodesConfig(), TimeConfig(), 86_400, sets)
    rows = table(requests, sets)
    watch_all(watcher, closings(rows, 90))
    assert len(watcher) == 2
    watcher.retire([("service",)])
    found = watch_all(watcher, [Closed(BEGIN + 90, BEGIN + 91, BEGIN + 91, table([], sets))])
    assert len(watcher) == 1
    assert {(tuple(a.series), a.status, a.reason) for a in found} == {(("service", "model"), "resolved", "expired")}


def test_a_cell_that_stands_out_without_an_episode_is_a_candidate_and_tells_its_explained_part() -> None:

    def mild(pane: int, draw: random.Random) -> dict[str, float]:
        return {"latency": 400 * draw.lognormvariate(0, 0.1) * (1.4 if pane >= 80 else 1.0)}

    watcher = monitor(QUICK)
    found = [f for c in closings(table(steady(100, 6, mild)), 100, range(1, 100)) for f in watcher.take(c)]
    candidates = [f for f in found if not f.sure]
    assert {(f.metric, f.at >= at(80)) for f in candidates} == {("latency", True)}
    assert all(f.alert is not None and STANDS <= f.level < watcher.watch.threshold for f in candidates)
    assert all(f.explained > 0 for f in candidates)
    assert not [f for f in found if f.sure]


def test_the_explained_part_is_that_of_the_last_minute_with_or_without_an_episode() -> None:
    watcher = monitor(QUICK)
    found = [f for c in PIECES for f in watcher.take(c)]
    latency = {f.at: f.explained for f in found if (f.series, f.metric) == ("service=slow", "latency")}
    a_pane = 6 * math.log(10) ** 2
    lateness = 10 * SECOND
    first, minute, later = (latency[at(pane + 1) + lateness] for pane in (80, 85, 95))
    assert first == pytest.approx(a_pane / 6, rel=0.3)  # five ordinary panes are in the same minute
    assert minute == pytest.approx(6 * a_pane, rel=0.2)
    assert later == pytest.approx(minute, rel=0.2)


def test_an_episode_that_opens_at_once_does_not_hold_before_its_second_pane() -> None:
    watcher = monitor(QUICK)
    found = [f for c in PIECES for f in watcher.take(c)]
    latency = [f for f in found if f.sure and (f.series, f.metric) == ("service=slow", "latency")]
    assert [f.holds for f in latency[:3]] == [False, True, True]
    assert not latency[-1].holds


def test_a_large_request_does_not_hide_that_the_mean_stands_out() -> None:
    """The candidate is told by the detector of the mean, although the score of the single request is higher."""

    def mild(pane: int, draw: random.Random) -> dict[str, float]:
        return {"latency": 400 * draw.lognormvariate(0, 0.1) * (1.3 if pane >= 190 else 1.0)}

    requests = steady(200, 30, mild)
    requests += [Request(195 * PANE_S + 5, {"latency": 2_400.0}, False, requests[0].service)]
    watcher = monitor(QUICK)
    found: dict[int, list[tuple[str, bool, tuple[str, ...]]]] = {}
    strongest: dict[int, str] = {}
    for closed in closings(table(requests), 200, range(1, 200)):
        for f in watcher.take(closed):
            found.setdefault(f.at, []).append((f.metric, f.sure, f.alert.detectors if f.alert else ()))
            strongest[f.at] = watcher._panel.detectors[watcher._winner[0, 0]].name
    before, large = (at(pane + 1) + 10 * SECOND for pane in (193, 195))
    assert found[before] == found[large] == [("latency", False, ("zscore",))]
    assert (strongest[before], strongest[large]) == ("zscore", "request_outlier")


def test_an_open_episode_has_a_finding_for_each_pane_with_data() -> None:
    watcher = monitor(QUICK)
    found = [f for closed in PIECES for f in watcher.take(closed)]
    episode = next(f for f in found if f.sure and f.alert is not None and f.alert.kind == "latency_spike").episode
    ats = [f.at for f in found if f.sure and f.episode == episode]
    begin = next(a for a in range(len(PIECES)) if at(a + 1) + 10 * SECOND == ats[0])
    assert ats == [at(p + 1) + 10 * SECOND for p in range(begin, begin + len(ats))]
    assert len(ats) >= 20 + 29


def test_open_episodes_and_the_seconds_of_detectors_are_counted(alerts: list[Alert]) -> None:
    """Reading these values changes nothing."""
    watched = monitor(QUICK)
    looks = iter(range(10**9))
    seconds = watched.time_by(lambda: float(next(looks)))
    found, most = [], 0
    for piece in PIECES:
        found += [f.alert for f in watched.take(piece) if f.sure and f.alert is not None]
        most = max(most, watched.open_episodes)
    assert found == alerts
    began = {a.episode_id for a in alerts}
    assert 0 < most <= len(began)
    assert watched.open_episodes == len(began) - sum(a.status == "resolved" for a in alerts)
    judged = len(PIECES)
    assert set(seconds.values()) == {2.0 * judged}, "judging and learning of a pane take one tick each"


def by_tenant(pane: int, i: int, draw: random.Random) -> Request:
    """A request of one of five tenants, of which the first is slow in panes 80 to 99."""
    tenant = f"t{i % 5}"
    values = usual(pane, draw)
    if tenant == "t0" and 80 <= pane < 100:
        values["latency"] *= 30
    return Request(pane * PANE_S + (i + 0.5), values, service="shared", labels={"tenant": tenant, "region": "eu"})


def test_an_alert_names_the_contributors_to_the_excess_and_the_basis_of_the_usual() -> None:
    draw = random.Random(5)
    requests = [by_tenant(pane, i, draw) for pane in range(150) for i in range(10)]
    detect = QUICK.model_copy(update={"mix_by": ""})
    pieces = closings(table(requests), 150, range(1, 150))
    watcher = monitor(detect)
    found = [f for closed in pieces for f in watcher.take(closed)]
    alerts = [f.alert for f in found if f.alert is not None and f.sure and f.metric == "latency"]
    fresh = [f.fresh for f in found if f.fresh is not None and f.metric == "latency"]
    assert fresh
    for alert in (fresh[-1], alerts[-1]):
        (told,) = alert.contributors
        assert (told["dimension"], told["value"]) == ("tenant", "t0")
        assert float(told["share"]) > 0.9
        assert told["usual_share"] == pytest.approx(0.2, abs=0.01)
        assert [f["factor"] for f in alert.factors] == ["volume"]
        assert 70 <= alert.learned_panes <= 90
        assert alert.learned_since == at(0)
    assert "of the difference comes from tenant t0 (usually 20 % of the requests)" in fresh[-1].text
    assert fresh[-1].alert_id == alerts[0].alert_id
    assert fresh[-1].status == "firing"
    assert [a.sequence for a in alerts] == list(range(len(alerts)))
