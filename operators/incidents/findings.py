"""What the alert step knows of incidents: findings, episodes as members, groups, and what belongs together."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from operators.metrics import ERROR_RATIO, MEASURES, REQUESTS
from operators.model import Alert
from operators.series import OTHER

Labels = dict[str, tuple[str, ...]]
"""By dimension, the values that a series' requests had; nothing is said of a dimension that is not there."""

CAUSES: Final = tuple(sorted(MEASURES, key=lambda name: MEASURES[name].rank))
"""Metrics, causes before what they bring about: more and longer requests cost and take more, not the reverse."""

SLOWNESS: Final = frozenset(m.name for m in MEASURES.values() if m.slowness)
"""Metrics that are one thing to a group: the same slowness, seen three ways."""

CALLER: Final = "tenant"
OF_CALLERS: Final = frozenset(m.name for m in MEASURES.values() if m.of_callers)
"""Metrics that are rather the matter of a caller than of what serves."""

ALIKE: Final = 0.85
"""The share of what another series explains that is about as much."""

STANDS: Final = 2.87
"""The level (-log10 of the tail) from which a member still stands out: three standard deviations."""


class Finding(NamedTuple):
    """What the series of an open episode shows at a pane that has data; in the order of (at, series, metric).

    `level` is -log10 of the tail. `explained` is comparable among series of one metric: how much of the squared
    deviations of the last minute's requests goes if this series' own shift is taken out, n * d ** 2 (for counts the
    squared excess over the expected). `reach` is how far back the verdict looks. `alert` is the transition,
    if there is one; `seen` comes with it.
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
    sure: bool = True  # whether there is an episode; else the series merely stands out, and might lead
    holds: bool = True  # whether an alert may stand on it: the series is still all but anomalous, in another pane
    fresh: Alert | None = None  # of a young episode: its last transition as it would be told by what is known now


class Judged(NamedTuple):
    """What a shard's detection says: all panes before `upto` (microseconds) are judged, these are its findings.

    `final`: the source is over, nothing will follow.
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
    holds: bool = True  # at the last finding
    told: bool = False  # an alert of its own, where members are asked for
    held_until: int = (
        0  # of a lead that has no episode yet: when it resolves at the earliest, unless it stands out again
    )

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
    """`id` is the episode that founded it, at `founded`; `told` are the related that the last alert named.

    `number` orders groups by when they were founded.
    """

    id: str
    founded: int
    members: dict[str, Member] = field(default_factory=dict)
    lead: str = ""
    sequence: int = 0
    told: tuple[str, ...] = ()
    left_over: bool = False  # of a group that is over
    number: int = 0

    @property
    def related(self) -> tuple[str, ...]:
        return tuple(sorted(e for e in self.members if e != self.lead))

    @property
    def others_open(self) -> bool:
        return any(m.open for e, m in self.members.items() if e != self.lead)


def of_the_cause(standing: Sequence[Member]) -> list[Member]:
    """Those on the metric that brings about the others, among the metrics that are clearly out.

    More requests than usual are the cause of errors whatever stands out more: a flood runs into limits.
    """
    clear = 0.5 * max(m.level for m in standing)
    metric = min((m.alert.metric for m in standing if m.level >= clear), key=CAUSES.index)
    if metric == ERROR_RATIO:
        floods = [m for m in standing if m.alert.metric == REQUESTS and m.up]
        if floods:
            return floods
    return [m for m in standing if m.alert.metric == metric]


def explaining(members: Sequence[Member]) -> list[Member]:
    """Of members on one metric those that explain most, or about as much, for they hold about the same requests.

    The first is the one to tell of. A caller may well have all requests of a service; but it is what serves that is
    slow, fails or costs more, and callers that have long prompts.
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
    """Whether they are on metrics that are one thing to a group."""
    a, b = one.alert.metric, other.alert.metric
    return a == b or {a, b} <= SLOWNESS


def share_requests(one: Member, other: Member) -> bool:
    """Whether they may be of the same requests, and on one metric in the same direction."""
    if one.alert.metric == other.alert.metric and one.up != other.up:
        return False
    return same_requests(one.alert.series, one.seen, other.alert.series, other.seen)


def same_requests(one: dict[str, str], seen_of_one: Labels, other: dict[str, str], seen_of_other: Labels) -> bool:
    """Whether two series may hold the same requests.

    Not so where both name a dimension with different values, nor where neither's requests were seen with the values
    that the other names: the rarer the requests of one, the fewer of its values were seen in the other's.
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
    """What `plain_finding` made, as it was."""
    *rest, alert, fresh = plain
    alert, fresh = (None if a is None else Alert(*a) for a in (alert, fresh))
    return Finding(*rest)._replace(alert=alert, fresh=fresh)
