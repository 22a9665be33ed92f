"""No two alerts share an id, even if an episode leads a second group: to sinks a known id is a repetition."""

from __future__ import annotations

from dataclasses import replace

from operators.incidents.episodes import alert_id
from operators.incidents.findings import Finding
from tests.operators.incidents.test_groups import brief, found, groups, run


def numbered(finding: Finding) -> Finding:
    """The finding with the id that detection gives its alert."""
    alert = finding.alert
    assert alert is not None
    return finding._replace(alert=replace(alert, alert_id=alert_id(alert.episode_id, alert.sequence)))


def test_a_told_member_that_becomes_the_lead_goes_on_counting() -> None:
    out = run(
        groups(members=True),
        [
            numbered(found(100, explained=2.0)),
            numbered(found(110, service="a", model="m")),
            numbered(found(200, "resolved", since=100, sequence=1)),
            numbered(found(210, "updated", since=110, sequence=1, service="a", model="m")),
            numbered(found(900, "updated", since=110, sequence=2, level=6.0, service="a", model="m")),
            numbered(found(2_000, "resolved", since=110, sequence=3, service="a", model="m")),
        ],
    )
    of_member = [a for a in out if "model" in a.series]
    assert brief(of_member)[0] == (160, "a,m", "latency", "firing")
    assert len({a.group_id for a in of_member}) == 2, "it is first a member of one group, then the lead of another"
    assert [a.sequence for a in of_member] == list(range(len(of_member)))
    assert [a.alert_id for a in of_member] == [alert_id(a.episode_id, a.sequence) for a in of_member]
