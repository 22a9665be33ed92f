"""The data of the alert step: findings, members (episodes), groups, and the rules of which members belong together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from operators.metrics import ERROR_RATIO, MEASURES, REQUESTS
from operators.model import Alert
from operators.series import OTHER

Labels = dict[str, tuple[str, ...]]
"""The values that a series' requests had, by dimension; the values of a dimension that is missing are not known."""

CAUSES: Final = tuple(sorted(MEASURES, key=lambda name: MEASURES[name].rank))
"""Metrics, causes before effects: more and longer requests cost and take more, not the reverse."""

SLOWNESS: Final = frozenset(m.name for m in MEASURES.values() if m.slowness)
"""Metrics that a group treats as one: they show the same slowness."""

CALLER: Final = "tenant"
OF_CALLERS: Final = frozenset(m.name for m in MEASURES.values() if m.of_callers)
"""Metrics that depend on the caller rather than on the service or the model."""

ALIKE: Final = 0.85
"""Least share of the largest `explained` that counts as about as much."""

STANDS: Final = 2.87
"""The level (-log10 of the tail) from which a member still stands out: three standard deviations."""


class Finding(NamedTuple):
    """A cell with an open episode at a pane with data. Findings come in the order of (at, series, metric).

    `level` is -log10 of the tail. `explained` is comparable among series of one metric: the squared deviations of the
    last minute's requests that vanish without this series' own shift, n * d ** 2 (for counts the squared excess over
    the expected). `reach` is the time from which the verdict looks. `alert` is the transition, if there is one; `seen`
    comes with it.
    """

    at: int
    series: str
    metric: str
    episode: str
    level: float
    explained: float
    reach: int = 0
    alert: Alert | None = None
    seen: tuple[tuple[str, tuple[str, ...]], ...] = ()
    sure: bool = True  # whether there is an episode; without one the series merely stands out, and might lead
    holds: bool = True  # whether an alert may rest on it: the series is still (nearly) anomalous after the first pane
    fresh: Alert | None = None  # for a young episode: its last transition, told by what is known now


class Judged(NamedTuple):
    """The report of a shard's detection: all panes before `upto` (microseconds) are judged, with these findings.

    `final`: the source is over, and no report follows.
    """

    shard: int
    upto: int
    findings: tuple[Finding, ...]
    final: bool = False


@dataclass(slots=True)
class Member:
    """An episode of a group; `alert` is its last transition."""

    alert: Alert
    level: float
    explained: float
    seen: Labels
    holds: bool = True  # of the last finding
    told: bool = False  # whether it had an alert of its own, if `groups.members` is set
    held_until: int = 0  # for a lead without an episode: when it resolves at the earliest, unless it stands out again

    @property
    def open(self) -> bool:
        return self.alert.status != "resolved"

    @property
    def up(self) -> bool:
        return self.alert.observed > self.alert.expected

    def save(self) -> tuple[object, ...]:
        seen = tuple(self.seen.items())
        return fields_of(self.alert), self.level, self.explained, seen, self.holds, self.told, self.held_until

    @staticmethod
    def load(state: Any) -> Member:
        fields, level, explained, seen, holds, told, held_until = state
        return Member(Alert(*fields), level, explained, dict(seen), holds, told, held_until)


@dataclass(slots=True)
class Group:
    """The episodes of one incident.

    `id` is the episode that founded the group, `founded` the time, `number` its place among all groups in the order of
    founding. `told` are the related episodes that the last alert named.
    """

    id: str
    founded: int
    members: dict[str, Member] = field(default_factory=dict)
    lead: str = ""
    sequence: int = 0
    told: tuple[str, ...] = ()
    left_over: bool = False  # whether its episodes are left over from a group that is over
    number: int = 0

    @property
    def related(self) -> tuple[str, ...]:
        return tuple(sorted(e for e in self.members if e != self.lead))

    @property
    def others_open(self) -> bool:
        return any(m.open for e, m in self.members.items() if e != self.lead)


def of_the_cause(standing: Sequence[Member]) -> list[Member]:
    """The members on the metric that causes the others, among the metrics that stand out clearly.

    A flood of requests is the cause of errors, whichever stands out more: floods run into limits.
    """
    clear = 0.5 * max(m.level for m in standing)
    metric = min((m.alert.metric for m in standing if m.level >= clear), key=CAUSES.index)
    if metric == ERROR_RATIO:
        floods = [m for m in standing if m.alert.metric == REQUESTS and m.up]
        if floods:
            return floods
    return [m for m in standing if m.alert.metric == metric]


def explaining(members: Sequence[Member]) -> list[Member]:
    """The members, all on one metric, that explain most or about as much; the first is the one to tell.

    They hold about the same requests: one caller may have all requests of a service. But services and models are slow,
    fail and cost more, while callers have long prompts: so the metric decides which comes first.
    """
    most = max(m.explained for m in members)
    alike = [m for m in members if m.explained >= ALIKE * most]
    of_callers = members[0].alert.metric in OF_CALLERS
    return sorted(
        alike,
        key=lambda m: ((CALLER in m.alert.series) == of_callers, m.explained, m.level, m.alert.episode_id),
        reverse=True,
    )


def same_kind(one: Member, other: Member) -> bool:
    """Whether a group treats the metrics of both as one."""
    a, b = one.alert.metric, other.alert.metric
    return a == b or {a, b} <= SLOWNESS


def share_requests(one: Member, other: Member) -> bool:
    """Whether both may be of the same requests and, if they are on one metric, deviate in the same direction."""
    if one.alert.metric == other.alert.metric and one.up != other.up:
        return False
    return same_requests(one.alert.series, one.seen, other.alert.series, other.seen)


def same_requests(one: dict[str, str], seen_of_one: Labels, other: dict[str, str], seen_of_other: Labels) -> bool:
    """Whether two series may hold the same requests.

    They do not if both name a dimension with different values, nor if neither's requests were seen with the values that
    the other names. One direction is enough: the values of a series with few requests are rare in the other's.
    """
    if any(other.get(dimension, value) != value for dimension, value in one.items()):
        return False
    return _may_be_of(one, other, seen_of_other) or _may_be_of(other, one, seen_of_one)


def _may_be_of(series: dict[str, str], other: dict[str, str], seen_of_other: Labels) -> bool:
    wanted = {d: value for d, value in series.items() if d not in other}
    return all(d not in seen_of_other or {value, OTHER} & {*seen_of_other[d]} for d, value in wanted.items())


_FIELDS = tuple(f.name for f in dataclasses.fields(Alert))


def fields_of(alert: Alert) -> tuple[object, ...]:
    """The alert as a snapshot holds it."""
    return tuple(getattr(alert, name) for name in _FIELDS)


def plain_finding(finding: Finding) -> tuple[object, ...]:
    """The finding as a snapshot holds it."""
    alerts = (None if a is None else fields_of(a) for a in (finding.alert, finding.fresh))
    return (*finding._replace(alert=None, fresh=None), *alerts)


def finding_of(plain: Any) -> Finding:
    """The finding that `plain_finding` was given."""
    *rest, alert, fresh = plain
    alert, fresh = (None if a is None else Alert(*a) for a in (alert, fresh))
    return Finding(*rest)._replace(alert=alert, fresh=fresh)
