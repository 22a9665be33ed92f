"""One incident is one group with one lead, for any order of the shards' reports and any resumes."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import GroupsConfig
from operators.detect import registry
from operators.detect.engine.telling import Why
from operators.errors import FatalError
from operators.incidents.episodes import alert_id
from operators.incidents.findings import STANDS, Finding, Judged
from operators.incidents.groups import Groups
from operators.model import SECOND, Alert, Status
from operators.series import text
from tests.conftest import examples

LATENESS = 10
SETTLE, JOIN, HORIZON, RESOLVE = 60, 300, 120, 90


def groups(shards: int = 1, *, settle: int = SETTLE, members: bool = False) -> Groups:
    config = GroupsConfig(settle_s=settle, join_s=JOIN, members=members)
    return Groups(shards, LATENESS * SECOND, config, HORIZON * SECOND, RESOLVE * SECOND, registry.finds)


def found(
    at: int,
    status: Status | None = "firing",
    *,
    since: int | None = None,
    metric: str = "latency",
    level: float = 5.0,
    explained: float = 1.0,
    sure: bool = True,
    sequence: int = 0,
    seen: dict[str, tuple[str, ...]] | None = None,
    reach: int | None = None,
    by: str = "zscore",
    holds: bool = True,
    reason: Why = "quiet",
    **series: str,
) -> Finding:
    """The finding of one series at `at`, in seconds; without a `status` there is no transition of its episode."""
    series = series or {"service": "a"}
    name = text(list(series), list(series.values()))
    episode = f"{name}/{metric}/{at if since is None else since}"
    over = status == "resolved"
    alert = None
    if status is not None:
        alert = Alert(
            f"{episode}/{sequence}", episode, "", (), sequence, status, "low", "spike", series, metric, "ms",
            at * SECOND, (at if since is None else since) * SECOND, at * SECOND if over else None, 2.0, 1.0, None,
            None, 0.5, (by,), reason=reason if over else "",
        )  # fmt: skip
    return Finding(
        at * SECOND, name, metric, episode, 0.0 if over else level, explained,
        (at if reach is None else reach) * SECOND, alert, tuple((seen or {}).items()), sure, holds,
    )  # fmt: skip


def alert_of(finding: Finding) -> Alert:
    assert finding.alert is not None
    return finding.alert


def run(machine: Groups, findings: Iterable[Finding], until: int = 10_000) -> list[Alert]:
    return machine.take([Judged(0, until * SECOND, tuple(findings))])


def brief(alerts: Iterable[Alert]) -> list[tuple[int, str, str, str]]:
    """The time in seconds, series, metric and status of each alert."""
    return [(a.at // SECOND, ",".join(a.series.values()), a.metric, a.status) for a in alerts]


def test_one_episode_is_told_after_the_time_to_settle() -> None:
    out = run(groups(), [found(100), found(150, "updated", since=100, sequence=1), found(400, "resolved", since=100)])
    assert brief(out) == [(160, "a", "latency", "firing"), (400, "a", "latency", "resolved")]
    assert {a.group_id for a in out} == {a.episode_id for a in out} == {found(100).episode}
    assert [a.sequence for a in out] == [0, 1]
    assert [a.alert_id for a in out] == [alert_id(found(100).episode, i) for i in (0, 1)]
    assert {a.since for a in out} == {100 * SECOND}
    assert [a.reason for a in out] == ["", "quiet"]


def test_the_first_alert_has_the_values_known_when_it_is_told_and_later_ones_keep_theirs() -> None:
    def still(at: int, text: str) -> Finding:
        later = replace(alert_of(found(100)), text=text, observed=9.0, alert_id="x", sequence=7)
        return found(at, None, since=100)._replace(fresh=later)

    story = [found(100), still(110, "ten"), still(160, "sixty"), still(170, "more"), found(400, "resolved", since=100)]
    machine = groups()
    out = run(machine, story[:2], 115)
    resumed = groups()
    resumed.restore(machine.save())
    out += run(resumed, story[2:])
    assert [(a.status, a.text, a.observed, a.sequence) for a in out] == [
        ("firing", "sixty", 9.0, 0), ("resolved", "", 2.0, 1),
    ]  # fmt: skip
    assert [a.alert_id for a in out] == [alert_id(found(100).episode, i) for i in (0, 1)]


def test_the_lead_is_the_one_that_explains_most_when_it_is_chosen() -> None:
    early = found(100, explained=9.0, service="a", model="m")
    late = found(130, explained=1.0, service="b", model="m")
    whole = found(140, explained=20.0, model="m")
    out = run(groups(), [early, late, whole, found(150, None, since=100, explained=1.5, service="a", model="m")])
    assert brief(out) == [(160, "m", "latency", "firing")]
    assert out[0].related == tuple(sorted((early.episode, late.episode)))
    assert out[0].group_id == early.episode
    assert out[0].at == 160 * SECOND
    # A member that explains most at first, but least at the choice, does not lead.
    fading = [found(at, None, since=100, explained=0.5, model="m") for at in range(105, 160, 5)]
    out = run(groups(), [found(100, explained=9.0, model="m"), late, *fading])
    assert brief(out) == [(160, "b,m", "latency", "firing")]


def test_a_member_that_no_longer_stands_out_does_not_lead_and_a_group_that_ends_early_is_never_told() -> None:
    calm = found(150, None, since=100, level=STANDS - 0.1, explained=50.0, model="m")
    out = run(groups(), [found(100, explained=50.0, model="m"), found(110, service="a", model="m"), calm])
    assert brief(out) == [(160, "a,m", "latency", "firing")]
    assert run(groups(), [found(100), found(140, "resolved", since=100)]) == []


def test_a_group_waits_until_a_member_stands_out() -> None:
    weak = found(100, level=STANDS - 0.1)
    out = run(groups(), [weak, found(170, None, since=100, level=STANDS - 0.1), found(200, None, since=100)])
    assert brief(out) == [(200, "a", "latency", "firing")]


def test_an_episode_is_not_told_before_it_holds() -> None:
    once = found(100, level=30.0, holds=False)
    assert run(groups(), [once, found(300, "resolved", since=100)]) == []
    out = run(groups(), [once, found(170, None, since=100, holds=False), found(200, None, since=100)])
    assert brief(out) == [(200, "a", "latency", "firing")]


@pytest.mark.parametrize(("by", "told"), [("request_outlier", 100 + 4 * SETTLE), ("static_limits", 100 + SETTLE)])
def test_a_single_request_and_a_broken_limit_are_told_even_if_they_are_over(by: str, told: int) -> None:
    calm = [found(at, None, since=100, level=0.0) for at in range(110, 200, 10)]
    assert brief(run(groups(), [found(100, by=by), *calm])) == [(told, "a", "latency", "firing")]
    assert run(groups(), [found(100), *calm]) == []


def test_a_group_of_single_requests_waits_for_wider_members() -> None:
    first = found(100, by="request_outlier", explained=0.1, service="a", model="m")
    out = run(groups(), [first, found(200, service="a")])
    assert brief(out) == [(200, "a", "latency", "firing")]
    assert out[0].related == (first.episode,)


def test_a_flood_of_requests_is_the_cause_of_errors_however_many() -> None:
    errors = found(100, metric="error_ratio", level=60.0, explained=99.0, tenant="t")
    flood = found(120, metric="requests", level=6.0, tenant="t")
    assert brief(run(groups(), [errors, flood])) == [(160, "t", "requests", "firing")]
    # Fewer requests than usual cause no errors.
    assert flood.alert is not None
    drop = flood._replace(alert=replace(flood.alert, observed=0.1))
    assert brief(run(groups(), [errors, drop])) == [(160, "t", "error_ratio", "firing")]


def test_the_cause_leads_before_its_effects() -> None:
    both = [found(100, metric="latency", explained=99.0), found(120, metric="prompt_tokens")]
    assert brief(run(groups(), both)) == [(160, "a", "prompt_tokens", "firing")]
    # A metric that hardly stands out beside the other one is no cause.
    both = [found(100, metric="latency", level=20.0), found(120, metric="completion_tokens", level=3.0)]
    assert brief(run(groups(), both)) == [(160, "a", "latency", "firing")]


def test_a_metric_is_told_by_the_one_that_it_follows_in_the_same_series() -> None:
    cost = found(100, metric="cost", level=20.0)
    longer = found(120, metric="prompt_tokens", level=3.0, sure=False)
    assert brief(run(groups(), [cost, longer])) == [(160, "a", "prompt_tokens", "firing")]
    out = run(groups(), [cost, longer, found(900, "resolved", since=100, metric="cost")])
    assert brief(out)[-1] == (900, "a", "prompt_tokens", "resolved")
    both = [found(100, metric="cost", explained=10.0, tenant="t"), longer._replace(explained=9.0)]
    of_caller = found(120, metric="prompt_tokens", level=3.0, explained=9.0, sure=False, tenant="t")
    assert brief(run(groups(), [*both, cost._replace(explained=10.0), of_caller]))[0][1] == "t"
    elsewhere = found(120, metric="prompt_tokens", level=3.0, sure=False, service="a", model="m")
    assert brief(run(groups(), [cost, elsewhere])) == [(160, "a", "cost", "firing")]


def test_if_a_caller_and_a_service_explain_about_as_much_the_metric_decides() -> None:
    def lead(metric: str, of_caller: float) -> str:
        caller = found(100, metric=metric, explained=of_caller, tenant="t")
        return brief(run(groups(), [found(100, metric=metric, explained=10.0, service="a"), caller]))[0][1]

    assert lead("latency", 11.0) == "a"
    assert lead("latency", 13.0) == "t"
    assert lead("prompt_tokens", 9.0) == "t"
    assert lead("prompt_tokens", 8.0) == "a"


def test_the_explained_part_of_the_pane_before_still_counts_and_fades() -> None:
    service = [found(100, explained=15.0, service="a"), found(150, None, since=100, explained=9.0, service="a")]
    tenant = [found(100, explained=11.0, tenant="t"), found(140, None, since=100, explained=11.0, tenant="t")]
    assert brief(run(groups(), [*service, *tenant])) == [(160, "a", "latency", "firing")]
    over = [found(at, None, since=100, explained=1.0, service="a") for at in (120, 130, 140, 150)]
    assert brief(run(groups(), [service[0], *over, *tenant])) == [(160, "t", "latency", "firing")]


def test_a_surge_and_a_fall_are_two_incidents() -> None:
    surge = found(100, metric="requests", service="a")
    fall = found(110, metric="requests", model="m")
    assert fall.alert is not None
    assert len(run(groups(), [surge, fall])) == 1
    fall = fall._replace(alert=replace(fall.alert, observed=0.1))
    assert brief(run(groups(), [surge, fall])) == [(160, "a", "requests", "firing"), (170, "m", "requests", "firing")]


def test_errors_of_a_caller_that_floods_are_told_as_the_flood() -> None:
    errors = found(100, metric="error_ratio", level=9.0, explained=10.0, model="m")
    of_caller = found(110, metric="error_ratio", level=4.0, explained=9.5, sure=False, tenant="t")
    flood = found(110, metric="requests", level=5.0, sure=False, tenant="t")
    assert brief(run(groups(), [errors, of_caller, flood])) == [(160, "t", "requests", "firing")]
    # The same holds however far the errors are out.
    flagrant = errors._replace(level=90.0)
    assert brief(run(groups(), [flagrant, of_caller, flood]))[0] == (160, "t", "requests", "firing")
    # The flood does not lead if it hardly stands out, or if its errors are few.
    assert brief(run(groups(), [errors, of_caller, flood._replace(level=1.9)])) == [(160, "m", "error_ratio", "firing")]
    few = of_caller._replace(explained=5.0)
    assert brief(run(groups(), [errors, few, flood])) == [(160, "m", "error_ratio", "firing")]


def test_an_adopted_level_is_not_told_again_for_narrower_series() -> None:
    lead = [found(100, service="a"), found(1_100, "resolved", since=100, reason="level_shift", service="a")]
    before = found(900, service="a", model="m")
    after = found(1_500, service="a", tenant="t")
    other = found(1_500, metric="cost", service="a", tenant="t")
    late = found(2_200, service="a", model="n")
    out = run(groups(), [*lead, before, after, other, late])
    assert brief([a for a in out if a.status == "firing"]) == [
        (160, "a", "latency", "firing"),
        (1_560, "a,t", "cost", "firing"),
        (2_260, "a,n", "latency", "firing"),
    ]


def test_members_join_for_a_while_and_later_only_on_the_metric_of_the_lead() -> None:
    lead = found(100, model="m")
    early = found(100 + JOIN, metric="error_ratio", service="a", model="m")
    alike = found(500, service="b", model="m")
    slow = found(510, metric="ttft", service="b", model="m")
    apart = found(520, metric="cost", service="b", model="m")
    out = run(groups(), [lead, early, alike, slow, apart])
    assert brief(out) == [
        (160, "m", "latency", "firing"),
        (400, "m", "latency", "updated"),
        (500, "m", "latency", "updated"),
        (510, "m", "latency", "updated"),
        (580, "b,m", "cost", "firing"),
    ]
    assert out[3].related == tuple(sorted(f.episode for f in (early, alike, slow)))
    assert out[4].group_id == apart.episode
    assert [a.sequence for a in out] == [0, 1, 2, 3, 0]


def test_episodes_of_other_requests_are_another_incident() -> None:
    out = run(groups(), [found(100, service="a"), found(100, service="b")])
    assert brief(out) == [(160, "a", "latency", "firing"), (160, "b", "latency", "firing")]
    # A tenant and a model belong to one incident only if one was seen in the requests of the other.
    tenant = found(100, tenant="t", seen={"model": ("m",)})
    assert len(run(groups(), [tenant, found(110, model="n", seen={"tenant": ("u",)})])) == 2
    assert len(run(groups(), [tenant, found(110, model="m", seen={"tenant": ("t",)})])) == 1


def test_a_member_of_several_groups_without_a_lead_merges_them() -> None:
    parts = [found(100, service="a", model="m", explained=2.0), found(110, service="b", model="m")]
    out = run(groups(), [*parts, found(120, model="m", explained=5.0)])
    assert brief(out) == [(160, "m", "latency", "firing")]
    assert out[0].related == tuple(sorted(f.episode for f in parts))


def test_a_lead_never_changes() -> None:
    later = [
        found(200, explained=99.0, level=50.0, service="a", model="m"),
        found(210, None, since=200, explained=999.0, level=99.0, service="a", model="m"),
        found(220, "updated", since=100, sequence=1, explained=0.1, model="m"),
    ]
    out = run(groups(), [found(100, model="m"), *later])
    assert {a.series["model"] for a in out} == {"m"}
    assert [a.status for a in out] == ["firing", "updated", "updated"]
    assert len({a.episode_id for a in out}) == 1


def test_members_still_open_when_the_lead_resolves_form_a_group_of_their_own() -> None:
    member = found(130, explained=0.5, service="a", model="m")
    begun = [found(100, model="m"), member, found(400, "resolved", since=100, model="m")]
    out = run(groups(), [*begun, found(900, "resolved", since=130, service="a", model="m")])
    # The remaining member waits until the incident can no longer show.
    wait = max(JOIN, HORIZON)
    assert brief(out) == [
        (160, "m", "latency", "firing"),
        (400, "m", "latency", "resolved"),
        (400 + wait, "a,m", "latency", "firing"),
        (900, "a,m", "latency", "resolved"),
    ]
    assert out[2].group_id == out[3].group_id != out[0].group_id
    # It is not told if it ends within that time.
    assert len(run(groups(), [*begun, found(600, "resolved", since=130, service="a", model="m")])) == 2


def test_the_rest_of_an_incident_has_an_id_of_its_own_though_it_founded_the_first() -> None:
    begun = [found(100, explained=0.5, service="a", model="m"), found(110, explained=9.0, model="m")]
    out = run(groups(), [*begun, found(300, "resolved", since=110, model="m")])
    assert brief(out) == [
        (160, "m", "latency", "firing"),
        (300, "m", "latency", "resolved"),
        (300 + max(JOIN, HORIZON), "a,m", "latency", "firing"),
    ]
    assert out[0].group_id == begun[0].episode
    assert out[2].group_id not in (begun[0].episode, begun[1].episode)


def test_an_episode_that_begins_while_the_incident_still_shows_waits_too() -> None:
    begun = [found(100), found(400, "resolved", since=100)]
    wait = max(JOIN, HORIZON)
    for reach, due in ((390, 410 + wait), (405, 410 + SETTLE)):
        assert brief(run(groups(), [*begun, found(410, reach=reach)]))[-1] == (due, "a", "latency", "firing")


def test_a_candidate_that_explains_more_than_any_member_leads() -> None:
    candidate = found(150, explained=30.0, sure=False, model="m")
    tenant = found(100, model="m", tenant="t")
    over = found(200, "resolved", since=100, model="m", tenant="t")
    out = run(groups(), [tenant, candidate, over])
    assert brief(out) == [(160, "m", "latency", "firing"), (160 + RESOLVE, "m", "latency", "resolved")]
    assert out[0].related == (tenant.episode,)
    assert out[0].episode_id == candidate.episode
    assert out[1].reason == "quiet"
    # The candidate leads as long as it stands out, and its own later episode goes on under the same id.
    more = [found(200, sure=False, model="m"), found(240, model="m"), found(250, None, since=240, model="m")]
    out = run(groups(), [tenant, candidate, over, *more, found(500, "resolved", since=240, model="m")])
    assert brief(out) == [
        (160, "m", "latency", "firing"),
        (240, "m", "latency", "updated"),
        (500, "m", "latency", "resolved"),
    ]
    assert {a.episode_id for a in out} == {candidate.episode}
    assert {a.since for a in out} == {150 * SECOND}
    assert [a.sequence for a in out] == [0, 1, 2]


@pytest.mark.parametrize(
    "candidate",
    [
        found(150, explained=0.5, sure=False, model="m"),  # explains less
        found(150, explained=30.0, sure=False, model="n"),  # other requests
        found(150, explained=30.0, sure=False, metric="cost", model="m"),  # another metric
        found(20, explained=30.0, sure=False, model="m"),  # long ago
    ],
)
def test_other_candidates_do_not_lead(candidate: Finding) -> None:
    out = run(groups(), sorted([found(100, model="m", tenant="t"), candidate], key=lambda f: f.at))
    assert brief(out) == [(160, "m,t", "latency", "firing")]
    assert out[0].related == ()


def test_candidates_alone_are_no_incident() -> None:
    assert run(groups(), [found(at, sure=False, level=4.0) for at in range(100, 400, 10)]) == []


def test_members_raise_alerts_of_their_own_if_asked_for() -> None:
    findings = [
        found(100, explained=9.0, model="m"),
        found(120, service="a", model="m"),
        found(200, service="b", model="m"),
        found(250, "updated", since=120, sequence=1, service="a", model="m"),
        found(300, "resolved", since=200, sequence=1, service="b", model="m"),
    ]
    out = run(groups(members=True), findings)
    assert brief(out) == [
        (160, "m", "latency", "firing"),
        (160, "a,m", "latency", "firing"),
        (200, "m", "latency", "updated"),
        (200, "b,m", "latency", "firing"),
        (250, "a,m", "latency", "updated"),
        (300, "b,m", "latency", "resolved"),
    ]
    assert {a.group_id for a in out} == {findings[0].episode}
    assert len({a.alert_id for a in out}) == len(out)
    assert {len(a.series) for a in run(groups(), findings)} == {1}
    # A member that was told and then leads the rest has no id twice.
    rest = [
        found(320, "resolved", since=100, sequence=1, model="m"),
        found(900, None, since=120, service="a", model="m"),
    ]
    out = run(groups(members=True), [*findings, *rest])
    assert brief(out)[-1] == (320 + JOIN, "a,m", "latency", "firing")
    assert len({a.alert_id for a in out}) == len(out)


def test_nothing_is_told_before_all_shards_have_reported_and_none_can_add_an_earlier_finding() -> None:
    machine = groups(2, settle=0)
    assert machine.take([Judged(0, 100 * SECOND, (found(20, service="b"),))]) == []
    assert brief(machine.take([Judged(1, 5 * SECOND, (found(15),))])) == [(15, "a", "latency", "firing")]
    assert machine.take([Judged(0, 200 * SECOND, ())]) == []
    assert brief(machine.take([Judged(1, 10 * SECOND, ())])) == [(20, "b", "latency", "firing")]


def test_the_order_is_by_time_then_series_and_metric() -> None:
    mixed = [found(5, service="b"), found(5, service="a", metric="ttft"), found(4, service="z"), found(5, service="a")]
    out = run(groups(settle=0), mixed)
    assert brief(out) == [(4, "z", "latency", "firing"), (5, "a", "latency", "firing"), (5, "b", "latency", "firing")]


def test_the_end_tells_all_and_a_grown_source_tells_it_again() -> None:
    machine = groups(2)
    machine.take([Judged(0, 10 * SECOND, (found(30, service="b"),)), Judged(1, 10 * SECOND, ())])
    assert machine.take([Judged(0, 40 * SECOND, (found(35, service="c"),), final=True)]) == []
    last = machine.take([Judged(1, 40 * SECOND, (found(33),), final=True)])
    assert brief(last) == [(30 + 60, "b", "latency", "firing"), (33 + 60, "a", "latency", "firing"),
                           (35 + 60, "c", "latency", "firing")]  # fmt: skip
    again = groups(2)
    again.restore(machine.save())
    grown = again.take([Judged(0, 200 * SECOND, (found(35, service="c"),)), Judged(1, 200 * SECOND, ())])
    assert brief(grown) == [(90, "b", "latency", "firing"), (95, "c", "latency", "firing")]


SERIES: tuple[dict[str, Any], ...] = (
    {"service": "a", "model": "m"}, {"service": "b", "model": "m"}, {"service": "b"}, {"model": "m"}, {"tenant": "t"},
)  # fmt: skip
METRICS = ("latency", "ttft", "error_ratio")

plans = st.lists(
    st.tuples(
        st.sampled_from(range(len(SERIES))),
        st.sampled_from(METRICS),
        st.integers(0, 60),  # panes since the last finding of the same cell
        st.integers(0, 5),  # panes in which it merely stands out
        st.integers(0, 40),  # panes of its episode
        st.integers(0, 2**16),  # seed of the numbers
    ),
    max_size=14,
)
Plan = list[tuple[int, str, int, int, int, int]]


def story_of(plan: Plan) -> list[Finding]:
    """The findings of a few series: candidates, and episodes that begin, go on and end."""
    told: list[Finding] = []
    free: dict[tuple[int, str], int] = {}
    for which, metric, after, before, length, seed in plan:
        draw, series = Random(seed), SERIES[which]
        at = free.get((which, metric), 0) + 10 * after

        def numbers(draw: Random = draw, metric: str = metric) -> dict[str, Any]:
            return {"level": draw.uniform(2, 9), "explained": draw.uniform(0, 9), "metric": metric}

        told += [found(at + 10 * i, sure=False, **numbers(), **series) for i in range(before)]
        since, sequence = at + 10 * before, 0
        at = since
        for i in range(length):
            status: Status | None = None if i else "firing"
            if i and draw.random() < 0.1:
                status, sequence = "updated", sequence + 1
            told.append(found(at, status, since=since, sequence=sequence, **numbers(), **series))
            at += 10
        if length:
            told.append(found(at, "resolved", since=since, metric=metric, sequence=sequence + 1, **series))
        free[which, metric] = at + 10
    return sorted(told, key=lambda f: f[:3])


def shard_of(finding: Finding) -> int:
    return len(finding.series) % 3


@examples(60)
@given(plans, st.booleans(), st.integers(0, 2**16))
def test_order_cuts_and_resumes_change_nothing(plan: Plan, members: bool, seed: int) -> None:
    story, random = story_of(plan), Random(seed)
    end = max((f.at for f in story), default=0) // SECOND + 1000
    whole = groups(members=members)
    expected = run(whole, story, end)

    machine, out = groups(3, members=members), []
    upto = [0, 0, 0]
    left = [[f for f in story if shard_of(f) == s] for s in range(3)]
    while min(upto) < end:
        shard = random.choice([s for s in range(3) if upto[s] < end])
        upto[shard] = min(end, upto[shard] + 10 * random.randint(1, 40))
        limit = (upto[shard] + LATENESS) * SECOND
        batch = tuple(f for f in left[shard] if f.at <= limit)
        left[shard] = left[shard][len(batch) :]
        out += machine.take([Judged(shard, upto[shard] * SECOND, batch)])
        if random.random() < 0.3:
            again = groups(3, members=members)
            again.restore(pickle.loads(pickle.dumps(machine.save())))
            assert again.save() == machine.save()
            machine = again
    assert out == expected
    assert len({a.alert_id for a in out}) == len(out)
    assert machine.save()[3:] == whole.save()[3:]


def test_in_a_storm_a_series_is_compared_only_with_related_ones() -> None:
    # Comparing every series with all others would be 18 million comparisons in each step, which takes minutes.
    places = [(f"service-{i}", f"model-{i % 7}") for i in range(6_000)]

    def of_all(at: int, status: Status | None, sequence: int = 0) -> list[Finding]:
        return [found(at, status, since=100, sequence=sequence, service=s, model=m) for s, m in places]

    out = run(groups(), [*of_all(100, "firing"), *of_all(150, None), *of_all(200, "resolved", 1)])
    assert [(a.status, a.at // SECOND) for a in out] == [("firing", 160)] * 6_000 + [("resolved", 200)] * 6_000
    assert len({a.group_id for a in out}) == 6_000


def test_a_candidate_that_leads_one_group_leads_no_other() -> None:
    rises = found(390, metric="prompt_tokens", sure=False, explained=9.0, service="s")
    story = [
        found(100, metric="prompt_tokens", holds=False, tenant="t"),
        rises,
        found(395, None, since=100, metric="prompt_tokens", tenant="t"),
        found(405, metric="cost", service="s"),  # too late to join, on a metric that follows from that of the candidate
    ]
    out = run(groups(settle=0), story)
    assert brief(out) == [(395, "s", "prompt_tokens", "firing"), (405, "s", "cost", "firing")]
    assert len({a.alert_id for a in out}) == len(out)


@examples(60)
@given(plans)
def test_every_group_has_one_lead_that_fires_once_and_resolves_at_most_once(plan: Plan) -> None:
    story = story_of(plan)
    out = run(groups(), story)
    assert [a.at for a in out] == sorted(a.at for a in out)
    assert len({a.alert_id for a in out}) == len(out)
    for group in {a.group_id for a in out}:
        mine = [a for a in out if a.group_id == group]
        assert len({a.episode_id for a in mine}) == 1
        assert [a.sequence for a in mine] == list(range(len(mine)))
        assert [a.status for a in mine if a.status != "updated"] in (["firing"], ["firing", "resolved"])
        assert mine[0].status == "firing"
        assert "resolved" not in {a.status for a in mine[:-1]}
        assert all(mine[0].episode_id not in a.related for a in mine)
    # Alerts name only episodes of the story, and leave out no series and metric with a lasting episode.
    named = {e for a in out for e in (a.episode_id, *a.related)}
    assert named <= {f.episode for f in story}
    lengths = Counter(f.episode for f in story if f.sure and not (f.alert and f.alert.status == "resolved"))
    lasting = {episode for episode, panes in lengths.items() if 10 * (panes - 1) > SETTLE}
    assert {of_cell(e) for e in lasting} <= {of_cell(e) for e in named}


def of_cell(episode: str) -> str:
    """The series and the metric of the episode: a candidate that opens an episode keeps its own id."""
    return episode.rsplit("/", 1)[0]


def test_the_state_of_another_version_or_number_of_shards_is_refused() -> None:
    machine = groups(2)
    machine.take([Judged(0, 50 * SECOND, (found(60),))])
    again = groups(2)
    again.restore(machine.save())
    assert again.save() == machine.save()
    assert again.dropped is False
    for state in (machine.save(), (99, 3, *machine.save()[2:])):
        with pytest.raises(FatalError, match=rf"this flow reads version {Groups.VERSION} with 3"):
            groups(3).restore(state)
