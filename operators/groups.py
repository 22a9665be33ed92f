"""One incident is one group, and one alert: the lead's.

The one step that sees all shards. It holds what shards find until none can add anything earlier, so it sees event time
pass, pane by pane, whatever the number of workers. Volume is low: one marker a shard and closing, and a line for each
open episode and pane.

An incident shows in several series and metrics at once: a model, the services that use it, their tenants; latency and
errors. The first episode founds a group. Others join that begin within `join_s`, later only on the lead's metric, if
they may be of the same requests as a member (as the lead, once there is one). After `settle_s` the lead is chosen, once
and for all, among the members that still stand out: on the metric that is furthest out, the one that explains most
(`Finding.explained`). Only the lead's transitions are told; who else is in the group stands in `related`. When the
lead resolves, members that are still open found a group of their own: what goes on after the incident is told too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, cast

from operators.config import GroupsConfig
from operators.episodes import alert_id
from operators.errors import FatalError
from operators.explain import RAW
from operators.model import SECOND, Alert, Status
from operators.same_requests import Labels, same_requests
from operators.series import text

CAUSES: Final = (
    "requests", "error_ratio", "prompt_tokens", "cached_tokens", "reasoning_tokens", "completion_tokens", "quality",
    "cost", "tokens_per_second", "latency", "ttft",
)  # fmt: skip
"""Metrics, causes before what they bring about: more and longer requests cost and take more, not the reverse."""

SLOWNESS: Final = frozenset({"tokens_per_second", "latency", "ttft"})
"""Metrics that are one thing to a group: the same slowness, seen three ways."""

STANDS: Final = 2.87
"""The level (-log10 of the tail) from which a member still stands out: three standard deviations."""


class Finding(NamedTuple):
    """What the series of an open episode shows at a pane that has data; in the order of (at, series, metric).

    `level` is -log10 of the tail. `explained` is comparable among series of one metric: how much of all requests'
    squared deviations goes, a pane, if this series' own shift since the episode began is taken out, n * d ** 2 (for
    counts the squared excess over the expected). `reach` is how far back the verdict looks. `alert` is the transition,
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
class _Member:
    """An episode of a group; `alert` is its last transition."""

    alert: Alert
    level: float
    explained: float
    seen: Labels
    told: bool = False  # an alert of its own, where members are asked for
    held_until: int = 0  # of a lead that has no episode yet: when it resolves unless it stands out once more

    @property
    def open(self) -> bool:
        return self.alert.status != "resolved"

    def stands(self) -> bool:
        """Whether it stands out still. A single request and a broken limit are facts: they need not last."""
        return self.open and (self.level >= STANDS or RAW.issuperset(self.alert.detectors))

    def save(self) -> tuple[object, ...]:
        seen = tuple(self.seen.items())
        return _fields(self.alert), self.level, self.explained, seen, self.told, self.held_until

    @staticmethod
    def load(state: Any) -> _Member:
        fields, level, explained, seen, told, held_until = state
        return _Member(Alert(*fields), level, explained, dict(seen), told, held_until)


@dataclass(slots=True)
class _Group:
    """`id` is the episode that founded it, at `founded`; `told` are the related that the last alert named."""

    id: str
    founded: int
    members: dict[str, _Member] = field(default_factory=dict)
    lead: str = ""
    sequence: int = 0
    told: tuple[str, ...] = ()
    left_over: bool = False  # of a group that is over

    @property
    def related(self) -> tuple[str, ...]:
        return tuple(sorted(e for e in self.members if e != self.lead))


class Groups:
    """Findings of all shards in, alerts out, in the order of (at, series, metric).

    `horizon` is how far detection looks back, in microseconds: for so long an incident that is over still shows.
    `resolve` is for how long an episode must be quiet to be over.
    """

    VERSION = 3
    dropped = False

    def __init__(self, shards: int, lateness: int, config: GroupsConfig, horizon: int, resolve: int) -> None:
        self._shards = shards
        self._lateness = lateness
        self._config = config
        self._settle = round(config.settle_s * SECOND)
        self._join = round(config.join_s * SECOND)
        self._horizon = horizon
        self._aftermath = max(self._join, horizon)
        self._resolve = resolve
        self._recent = max(self._settle, 60 * SECOND)
        self._upto: dict[int, int] = {}
        self._held: list[Finding] = []
        self._final: dict[int, tuple[Finding, ...]] = {}
        self._groups: dict[str, _Group] = {}
        self._group_of: dict[str, str] = {}
        self._over: list[_Member] = []  # leads that resolved not long ago
        self._candidates: dict[tuple[str, str], Finding] = {}  # by series and metric, of the last minute
        self._promoted: dict[tuple[str, str], str] = {}  # candidates that lead: by series and metric, their episode
        self._now = 0

    def take(self, items: Sequence[Judged]) -> list[Alert]:
        """Take in markers and findings; return the alerts that are certain by now."""
        out: list[Alert] = []
        for item in items:
            if item.final:
                self._final[item.shard] = item.findings
                continue
            self._upto[item.shard] = item.upto
            self._held.extend(item.findings)
        if len(self._upto) == self._shards:
            safe = min(self._upto.values()) + self._lateness
            ready = [f for f in self._held if f.at <= safe]
            self._held = [f for f in self._held if f.at > safe]
            out += self._pass(ready, safe)
        if len(self._final) == self._shards:
            # Should the source have grown after a resume, these panes come again: a copy sees them through.
            rest = Groups(self._shards, self._lateness, self._config, self._horizon, self._resolve)
            rest.restore(self.save())
            findings = [*rest._held, *(f for found in self._final.values() for f in found)]
            out += rest._pass(findings, max((f.at for f in findings), default=0) + self._settle)
            self._final = {}
        return out

    def _pass(self, findings: Iterable[Finding], until: int) -> Iterator[Alert]:
        """Let event time pass up to `until`: at each moment what was found, then what is to be decided."""
        queue = sorted(findings, key=lambda f: f[:4], reverse=True)
        while True:
            due = [self._due(g) for g in self._groups.values()]
            now = min([*(t for t in due if t > self._now), *([queue[-1].at] if queue else [])], default=until + 1)
            if now > until:
                self._candidates = {p: f for p, f in self._candidates.items() if f.at > until - self._recent}
                return
            self._now = now
            told: list[Alert] = []
            while queue and queue[-1].at == now:
                told += self._note(queue.pop())
            for group in list(self._groups.values()):
                told += self._decide(group, now)
            yield from sorted(told, key=_order)

    def _note(self, finding: Finding) -> Iterator[Alert]:
        place = (finding.series, finding.metric)
        episode = self._promoted.get(place, finding.episode)
        group = self._groups.get(self._group_of.get(episode, ""))
        if group is None:
            self._candidates[place] = finding
            if not finding.sure or finding.alert is None or finding.alert.status != "firing":
                return
            member = _Member(finding.alert, finding.level, finding.explained, dict(finding.seen))
            left_over = any(self._aftermath_of(over, member, finding) for over in self._over)
            self._enter(episode, member, finding.at, left_over)
            return
        member = group.members[episode]
        member.level, member.explained = finding.level, finding.explained
        if not finding.sure:
            member.held_until = finding.at + self._resolve
        elif finding.fresh is not None and not group.lead:
            was = member.alert
            member.alert = dataclasses.replace(
                finding.fresh, alert_id=was.alert_id, episode_id=episode, since=was.since, sequence=was.sequence
            )
        elif finding.alert is not None:
            member.held_until = 0
            member.alert = dataclasses.replace(finding.alert, episode_id=episode, since=member.alert.since)
            for dimension, values in finding.seen:
                member.seen[dimension] = tuple(sorted({*member.seen.get(dimension, ()), *values}))
            if group.lead == episode:
                status = "updated" if finding.alert.status == "firing" else finding.alert.status
                yield from self._told(group, status, finding.at)
            elif member.told:
                yield dataclasses.replace(finding.alert, group_id=group.id)

    def _enter(self, episode: str, member: _Member, at: int, left_over: bool, group_id: str = "") -> None:
        """Into the oldest group that it may belong to; it joins groups without a lead that it ties together."""
        alike = [g for g in self._groups.values() if g.lead or g.left_over == left_over]
        fitting = [g for g in alike if self._fits(g, member, at)]
        if not fitting:
            group = _Group(group_id or episode, at, left_over=left_over)
            self._groups[group.id] = group
        else:
            group, *others = fitting
            if not group.lead:
                for other in others:
                    if not other.lead:
                        self._merge(other, group)
        group.members[episode] = member
        self._group_of[episode] = group.id

    def _fits(self, group: _Group, member: _Member, at: int) -> bool:
        lead = group.members.get(group.lead)
        if lead is not None and not lead.open:
            return False
        if at - group.founded > self._join and (lead is None or not _same_kind(lead, member)):
            return False
        slow = lead is not None and {lead.alert.metric, member.alert.metric} <= SLOWNESS
        others = [
            m
            for m in group.members.values()
            if m.open and (lead is None or m is lead or (slow and m.alert.metric in SLOWNESS))
        ]
        return any(_share(m, member) for m in others)

    def _merge(self, group: _Group, into: _Group) -> None:
        into.members.update(group.members)
        for episode in group.members:
            self._group_of[episode] = into.id
        del self._groups[group.id]

    def _decide(self, group: _Group, now: int) -> Iterator[Alert]:
        """Choose the lead when it is time, name new members, and part when it is over."""
        if group.id not in self._groups:
            return
        lead = group.members.get(group.lead)
        if lead is None and now >= self._due(group):
            standing = [m for m in group.members.values() if m.stands()]
            if standing:
                for older in self._groups.values():
                    if older.lead and any(self._fits(older, m, group.founded) for m in standing):
                        self._merge(group, older)
                        yield from self._told(older, "updated", now)
                        return
                on_it = _of_the_cause(standing)
                lead = max(on_it, key=lambda m: (m.explained, m.alert.episode_id))
                lead = self._promote(group, lead, on_it, now)
                group.lead = lead.alert.episode_id
                group.sequence = lead.alert.sequence + 1 if lead.told else 0
                yield from self._told(group, "firing", now)
        elif lead is not None and lead.open and 0 < lead.held_until <= now:
            until = lead.held_until - self._resolve - self._lateness
            lead.alert = dataclasses.replace(lead.alert, status="resolved", until=until, reason="quiet")
            yield from self._told(group, "resolved", now)
        elif lead is not None and lead.open and group.related != group.told:
            yield from self._told(group, "updated", now)
        if lead is not None and not lead.open:
            self._part(group, now)
        elif lead is None and not any(m.open for m in group.members.values()):
            self._drop(group)

    def _due(self, group: _Group) -> int:
        """When the group is next to be looked at, whatever comes."""
        if group.lead:
            return group.members[group.lead].held_until
        return group.founded + (self._aftermath if group.left_over else self._settle)

    def _promote(self, group: _Group, lead: _Member, others: Sequence[_Member], now: int) -> _Member:
        """A series that explains more than any member but stands out too little for an episode; else the lead as it is.

        Such is a service of which one tenant's episode has begun, when all its tenants have moved.
        """
        self._candidates = {p: f for p, f in self._candidates.items() if f.at > now - self._recent}
        for _, finding in sorted(self._candidates.items()):
            alert = finding.alert
            if finding.sure or alert is None or finding.metric != lead.alert.metric:
                continue
            member = _Member(alert, finding.level, finding.explained, dict(finding.seen))
            if finding.explained > lead.explained and any(_share(member, m) for m in others):
                lead = member
        if lead.alert.episode_id not in group.members:
            lead.held_until = now + self._resolve
            self._enter_as_lead(group, lead)
        return lead

    def _enter_as_lead(self, group: _Group, lead: _Member) -> None:
        episode = lead.alert.episode_id
        group.members[episode] = lead
        self._group_of[episode] = group.id
        self._promoted[text(list(lead.alert.series), list(lead.alert.series.values())), lead.alert.metric] = episode

    def _aftermath_of(self, over: _Member, member: _Member, finding: Finding) -> bool:
        """Whether the finding may still be of the incident that this lead told, which is over."""
        until = over.alert.until or 0
        return finding.reach < until and _same_kind(over, member) and _share(over, member)

    def _drop(self, group: _Group) -> None:
        del self._groups[group.id]
        for episode in group.members:
            self._group_of.pop(episode, None)
        self._promoted = {p: e for p, e in self._promoted.items() if e in self._group_of}

    def _part(self, group: _Group, now: int) -> None:
        """The lead is over: what is still open is looked at anew, as if it had begun now."""
        self._drop(group)
        self._over = [m for m in self._over if (m.alert.until or 0) > now - 2 * self._horizon]
        self._over.append(group.members[group.lead])
        for episode, member in sorted(group.members.items()):
            if member.open:
                # Its own id may be that of a group that is over: of this one, should it have founded it.
                self._enter(episode, member, now, left_over=True, group_id=alert_id(episode, -now))

    def _told(self, group: _Group, status: Status, at: int) -> Iterator[Alert]:
        """The lead's alert as the group's next one; then, if they are asked for, those of members that are new."""
        group.told = group.related
        yield dataclasses.replace(
            group.members[group.lead].alert,
            alert_id=alert_id(group.lead, group.sequence),
            group_id=group.id,
            related=group.told,
            sequence=group.sequence,
            status=status,
            at=at,
        )
        group.sequence += 1
        for episode in group.told if self._config.members else ():
            member = group.members[episode]
            if member.open and not member.told:
                member.told = True
                yield dataclasses.replace(member.alert, group_id=group.id, status="firing", at=at)

    def save(self) -> tuple[object, ...]:
        return (
            self.VERSION,
            self._shards,
            tuple(sorted(self._upto.items())),
            self._now,
            tuple(_plain(f) for f in sorted(self._held, key=lambda f: f[:4])),
            tuple(
                (g.id, g.founded, g.lead, g.sequence, g.told, g.left_over, tuple(m.save() for m in g.members.values()))
                for g in self._groups.values()
            ),
            tuple(m.save() for m in self._over),
            tuple(_plain(f) for _, f in sorted(self._candidates.items())),
            tuple(sorted(self._promoted.items())),
        )

    def restore(self, state: tuple[object, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for another version or number of shards."""
        match cast(Any, state):
            case (self.VERSION, self._shards, upto, now, held, groups, over, candidates, promoted):
                self._upto = dict(upto)
                self._now = now
                self._held = [_finding(f) for f in held]
                self._candidates = {(f.series, f.metric): f for f in map(_finding, candidates)}
                self._promoted = dict(promoted)
                self._over = [_Member.load(m) for m in over]
                for group_id, founded, lead, sequence, told, left_over, members in groups:
                    group = self._groups[group_id] = _Group(group_id, founded, {}, lead, sequence, told, left_over)
                    for member in map(_Member.load, members):
                        group.members[member.alert.episode_id] = member
                        self._group_of[member.alert.episode_id] = group_id
            case _:
                raise FatalError(
                    f"the state of the alert step has version {state[0]!r} and {state[1]!r} shards; "
                    f"this flow reads version {self.VERSION} with {self._shards}"
                )


def _of_the_cause(standing: Sequence[_Member]) -> list[_Member]:
    """Those on the metric that brings about the others, among the metrics that are clearly out.

    More requests than usual are the cause of errors whatever stands out more: a flood runs into limits.
    """
    clear = 0.5 * max(m.level for m in standing)
    metric = min((m.alert.metric for m in standing if m.level >= clear), key=CAUSES.index)
    if metric == "error_ratio":
        floods = [m for m in standing if m.alert.metric == "requests" and m.alert.observed > m.alert.expected]
        if floods:
            return floods
    return [m for m in standing if m.alert.metric == metric]


def _same_kind(one: _Member, other: _Member) -> bool:
    a, b = one.alert.metric, other.alert.metric
    return a == b or {a, b} <= SLOWNESS


def _share(one: _Member, other: _Member) -> bool:
    return same_requests(one.alert.series, one.seen, other.alert.series, other.seen)


_FIELDS = tuple(f.name for f in dataclasses.fields(Alert))


def _fields(alert: Alert) -> tuple[object, ...]:
    return tuple(getattr(alert, name) for name in _FIELDS)


def _plain(finding: Finding) -> tuple[object, ...]:
    alert, fresh = (None if a is None else _fields(a) for a in (finding.alert, finding.fresh))
    return (*finding._replace(alert=None, fresh=None), alert, fresh)


def _finding(plain: Any) -> Finding:
    *rest, alert, fresh = plain
    alert, fresh = (None if a is None else Alert(*a) for a in (alert, fresh))
    return Finding(*rest)._replace(alert=alert, fresh=fresh)


def _order(alert: Alert) -> tuple[int, str, str, int]:
    return alert.at, ",".join(f"{k}={v}" for k, v in alert.series.items()), alert.metric, alert.sequence
