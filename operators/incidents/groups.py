"""One incident is one group, and one alert: the lead's.

This step alone sees all shards. It holds findings until no shard can add an earlier one, so event time passes pane by
pane, whatever the number of workers. Volume is low: one marker for each shard and closing, and one finding for each
open episode and pane.

An incident shows in several series and metrics at once: a model, the services that use it, their tenants; latency and
errors. The first episode founds a group. Another episode joins if it may be of the same requests as a member (as the
lead, once there is one) and begins within `join_s`; later ones join only on the lead's metric. After `settle_s`, if a
member holds (`Finding.holds`), the lead is chosen, once and for all, among the members that still stand out: on the
metric that causes the others, the one that explains most (`Finding.explained`). Only the lead's transitions are told;
the other members stand in `related`. When the lead resolves, members that are still open found a group of their own, so
they are told too, unless they show the level that the lead told and that was adopted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, cast

from operators.config import GroupsConfig
from operators.detect.base import Finds
from operators.errors import FatalError
from operators.incidents.episodes import alert_id
from operators.incidents.findings import (
    SLOWNESS,
    STANDS,
    Finding,
    Group,
    Judged,
    Member,
    explaining,
    finding_of,
    of_the_cause,
    plain_finding,
    same_kind,
    share_requests,
)
from operators.incidents.label_index import LabelIndex
from operators.metrics import MEASURES, REQUESTS
from operators.model import SECOND, Alert, Status
from operators.series import text

OUTLIER_SETTLE_FACTOR: Final = 4
"""Settling times that a group of single requests waits: they may be the first of many."""

FADES: Final = 0.8
"""The share of the pane before's `explained` that still counts: not all series have requests in the same panes."""

CLEAR: Final = 5.0
"""The level from which a surge of requests is no swing, however far errors are out: 4.3 standard deviations."""


class Groups:
    """Findings of all shards in, alerts out, in the order of (at, series, metric).

    `horizon` is how far back detection looks: for that long an incident that is over still shows. `resolve` is the
    quiet time after which an episode is over. These and `lateness` are in microseconds. `finds` gives the `Finds` of a
    detector by its name.
    """

    VERSION = 4
    dropped = False

    def __init__(
        self,
        shards: int,
        lateness: int,
        config: GroupsConfig,
        horizon: int,
        resolve: int,
        finds: Callable[[str], Finds],
    ) -> None:
        self._shards = shards
        self._lateness = lateness
        self._config = config
        self._settle = round(config.settle_s * SECOND)
        self._join = round(config.join_s * SECOND)
        self._horizon = horizon
        self._aftermath = max(self._join, horizon)
        self._resolve = resolve
        self._finds = finds
        self._recent = max(self._settle, 60 * SECOND)
        self._upto: dict[int, int] = {}
        self._held: list[Finding] = []
        self._final: dict[int, tuple[Finding, ...]] = {}
        self._groups: dict[str, Group] = {}
        self._group_of: dict[str, str] = {}
        self._members: LabelIndex[Member] = LabelIndex()  # of all groups, by episode
        self._over: LabelIndex[Member] = LabelIndex()  # leads that resolved not long ago, by episode
        self._candidates: dict[tuple[str, str], Finding] = {}  # by series and metric, of the last minute
        self._promoted: dict[tuple[str, str], str] = {}  # episodes of candidates that lead, by series and metric
        self._rising: LabelIndex[Member] | None = None  # candidates that may lead at this moment, once asked for
        self._founded = 0
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
            # A copy tells these panes: if the source has grown when the flow resumes, they come again.
            rest = Groups(self._shards, self._lateness, self._config, self._horizon, self._resolve, self._finds)
            rest.restore(self.save())
            findings = [*rest._held, *(f for found in self._final.values() for f in found)]
            out += rest._pass(findings, max((f.at for f in findings), default=0) + self._settle)
            self._final = {}
        return out

    def _pass(self, findings: Iterable[Finding], until: int) -> Iterator[Alert]:
        """Let event time pass up to `until`: at each moment, take in the findings, then decide."""
        queue = sorted(findings, key=lambda f: f[:4], reverse=True)
        while True:
            due = [self._due(g) for g in self._groups.values()]
            now = min([*(t for t in due if t > self._now), *([queue[-1].at] if queue else [])], default=until + 1)
            if now > until:
                self._candidates = {p: f for p, f in self._candidates.items() if f.at > until - self._recent}
                return
            self._now, self._rising = now, None
            told: list[Alert] = []
            while queue and queue[-1].at == now:
                told += self._note(queue.pop())
            for group in list(self._groups.values()):
                told += self._decide(group, now)
            self._forget(now)
            yield from sorted(told, key=_order)

    def _note(self, finding: Finding) -> Iterator[Alert]:
        place = (finding.series, finding.metric)
        episode = self._promoted.get(place, finding.episode)
        group = self._groups.get(self._group_of.get(episode, ""))
        if group is None:
            before = self._candidates.get(place)
            if before is not None and before.at > finding.at - self._recent:
                finding = finding._replace(explained=max(finding.explained, FADES * before.explained))
            self._candidates[place] = finding
            if not finding.sure or finding.alert is None or finding.alert.status != "firing":
                return
            member = Member(finding.alert, finding.level, finding.explained, dict(finding.seen), finding.holds)
            over = list(self._over.find(member.alert.series))
            if any(_adopted(o, member, finding.at) for o in over):
                return
            left_over = any(self._aftermath_of(o, member, finding) for o in over)
            self._enter(episode, member, finding.at, left_over)
            return
        member = group.members[episode]
        member.level, member.holds = finding.level, finding.holds
        member.explained = max(finding.explained, FADES * member.explained)
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

    def _enter(self, episode: str, member: Member, at: int, left_over: bool, group_id: str = "") -> None:
        """Add the member to the oldest group that it fits, else a new one; groups without a lead that it fits merge."""
        alike = [(g, near) for g, near in self._near(member) if g.lead or g.left_over == left_over]
        fitting = [g for g, near in alike if self._fits(g, near, member, at)]
        if not fitting:
            group = Group(group_id or episode, at, left_over=left_over, number=self._founded)
            self._founded += 1
            self._groups[group.id] = group
        else:
            group, *others = fitting
            if not group.lead:
                for other in others:
                    if not other.lead:
                        self._merge(other, group)
        self._add(group, episode, member)

    def _add(self, group: Group, episode: str, member: Member) -> None:
        group.members[episode] = member
        self._group_of[episode] = group.id
        self._members.add(episode, member.alert.series, member)

    def _near(self, member: Member) -> list[tuple[Group, list[Member]]]:
        """The groups with members that contradict this one in no label, oldest first, and these members."""
        found: dict[str, list[Member]] = {}
        for other in self._members.find(member.alert.series):
            found.setdefault(self._group_of[other.alert.episode_id], []).append(other)
        return sorted(((self._groups[g], near) for g, near in found.items()), key=lambda pair: pair[0].number)

    def _fits(self, group: Group, near: Sequence[Member], member: Member, at: int) -> bool:
        """Whether the member belongs to the group; `near` are the group's members that contradict it in no label."""
        lead = group.members.get(group.lead)
        if lead is not None and not lead.open:
            return False
        if at - group.founded > self._join and (lead is None or not same_kind(lead, member)):
            return False
        slow = lead is not None and {lead.alert.metric, member.alert.metric} <= SLOWNESS
        others = [m for m in near if m.open and (lead is None or m is lead or (slow and m.alert.metric in SLOWNESS))]
        return any(share_requests(m, member) for m in others)

    def _merge(self, group: Group, into: Group) -> None:
        into.members.update(group.members)
        for episode in group.members:
            self._group_of[episode] = into.id
        del self._groups[group.id]

    def _decide(self, group: Group, now: int) -> Iterator[Alert]:
        """Choose the lead when it is time, name new members, and end the group when its lead is over."""
        if group.id not in self._groups:
            return
        lead = group.members.get(group.lead)
        if lead is None and now >= group.founded + self._first_wait(group):
            standing = [m for m in group.members.values() if self._stands(m)]
            certain = [m for m in standing if m.holds]
            early = now < group.founded + OUTLIER_SETTLE_FACTOR * self._settle
            if certain and not (early and all(map(self._of_single_requests, certain))):
                around = [(older, near, m) for m in standing for older, near in self._near(m) if older.lead]
                fitting = [older for older, near, m in around if self._fits(older, near, m, group.founded)]
                if fitting:
                    older = min(fitting, key=lambda g: g.number)
                    self._merge(group, older)
                    yield from self._told(older, "updated", now)
                    return
                on_it = of_the_cause(standing)
                lead = self._choose(group, on_it)
                group.lead = lead.alert.episode_id
                group.sequence = lead.alert.sequence + 1 if lead.told else 0
                yield from self._told(group, "firing", now)
        elif lead is not None and lead.open and 0 < lead.held_until <= now and not group.others_open:
            until = max(
                lead.held_until - self._resolve - self._lateness, *(m.alert.until or 0 for m in group.members.values())
            )
            lead.alert = dataclasses.replace(lead.alert, status="resolved", until=until, reason="quiet")
            yield from self._told(group, "resolved", now)
        elif lead is not None and lead.open and group.related != group.told:
            yield from self._told(group, "updated", now)
        if lead is not None and not lead.open:
            self._part(group, now)
        elif lead is None and not any(m.open for m in group.members.values()):
            self._drop(group)

    def _stands(self, member: Member) -> bool:
        """Whether the member still stands out. A single request and a broken limit are facts: they need not last."""
        facts = all(self._finds(name) != "deviation" for name in member.alert.detectors)
        return member.open and (member.level >= STANDS or facts)

    def _of_single_requests(self, member: Member) -> bool:
        """Whether single requests are all that stands out."""
        found = {self._finds(name) for name in member.alert.detectors}
        return found == {"outlier"}

    def _first_wait(self, group: Group) -> int:
        return self._aftermath if group.left_over else self._settle

    def _due(self, group: Group) -> int:
        """When the group must be decided next, even without findings; a time in the past for never."""
        if group.lead:
            return 0 if group.others_open else group.members[group.lead].held_until
        waits = self._first_wait(group), OUTLIER_SETTLE_FACTOR * self._settle
        return next((t for w in waits if (t := group.founded + w) > self._now), group.founded)

    def _choose(self, group: Group, on_it: Sequence[Member]) -> Member:
        """The lead: a member on the metric, or a series that explains more but stands out too little to be a member.

        For example, all tenants of a service have moved, but only one tenant has an episode: the service leads. If the
        lead's metric follows from another (`Measure.follows`) that stands out in the same series, that one leads.
        """
        metric = on_it[0].alert.metric
        wider = [c for c in self._risen(on_it, metric) if any(share_requests(c, m) for m in on_it)]
        alike = explaining([*on_it, *wider])
        lead = alike[0]
        for followed in MEASURES[metric].follows:
            standing = [m for m in group.members.values() if m.alert.metric == followed and self._stands(m)]
            on_cause = [*standing, *self._risen(alike, followed)]
            causes = [m for m in on_cause if any(_brings_about(m, effect) for effect in alike)]
            if causes:
                lead = explaining(causes)[0]
                break
        if lead.alert.episode_id not in group.members:
            lead.held_until = self._now + self._resolve
            self._enter_as_lead(group, lead)
        return lead

    def _risen(self, members: Sequence[Member], metric: str) -> list[Member]:
        """The candidates on the metric whose labels contradict none of those of at least one member."""
        if self._rising is None:
            self._candidates = {p: f for p, f in self._candidates.items() if f.at > self._now - self._recent}
            self._rising = LabelIndex()
            for place, f in self._candidates.items():
                if not f.sure and f.alert is not None and place not in self._promoted:
                    candidate = Member(f.alert, f.level, f.explained, dict(f.seen))
                    self._rising.add(f.alert.episode_id, f.alert.series, candidate)
        found = (c for m in members for c in self._rising.find(m.alert.series) if c.alert.metric == metric)
        return list({c.alert.episode_id: c for c in found}.values())

    def _enter_as_lead(self, group: Group, lead: Member) -> None:
        episode = lead.alert.episode_id
        self._add(group, episode, lead)
        self._promoted[_place(lead)] = episode
        if self._rising is not None:
            self._rising.discard(episode)

    def _aftermath_of(self, over: Member, member: Member, finding: Finding) -> bool:
        """Whether the finding may still show the incident of this lead, which is over."""
        until = over.alert.until or 0
        return finding.reach < until and same_kind(over, member) and share_requests(over, member)

    def _drop(self, group: Group) -> None:
        del self._groups[group.id]
        for episode, member in group.members.items():
            self._group_of.pop(episode, None)
            self._members.discard(episode)
            if self._promoted.get(_place(member)) == episode:
                del self._promoted[_place(member)]

    def _part(self, group: Group, now: int) -> None:
        """End the group, since its lead is over; members that are still open enter anew, as if they had begun now."""
        self._drop(group)
        over = group.members[group.lead]
        self._over.add(over.alert.episode_id, over.alert.series, over)
        for episode, member in sorted(group.members.items()):
            if member.open and not _adopted(over, member, now):
                # The episode's own id may name a group that is over: this one, if the episode founded it.
                self._enter(episode, member, now, left_over=True, group_id=alert_id(episode, -now))

    def _forget(self, now: int) -> None:
        """Forget the leads whose incidents no finding can show any more."""
        for over in self._over.values():
            if max((over.alert.until or 0) + 2 * self._horizon, _new_normal(over)) <= now:
                self._over.discard(over.alert.episode_id)

    def _told(self, group: Group, status: Status, at: int) -> Iterator[Alert]:
        """The lead's alert as the group's next one; then, with `groups.members`, the alerts of new members."""
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
            tuple(plain_finding(f) for f in sorted(self._held, key=lambda f: f[:4])),
            tuple(
                (g.id, g.founded, g.lead, g.sequence, g.told, g.left_over, tuple(m.save() for m in g.members.values()))
                for g in self._groups.values()
            ),
            tuple(m.save() for m in self._over.values()),
            tuple(plain_finding(f) for _, f in sorted(self._candidates.items())),
            tuple(sorted(self._promoted.items())),
        )

    def restore(self, state: tuple[object, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for another version or number of shards."""
        match cast(Any, state):
            case (self.VERSION, self._shards, upto, now, held, groups, over, candidates, promoted):
                self._upto = dict(upto)
                self._now = now
                self._held = [finding_of(f) for f in held]
                self._candidates = {(f.series, f.metric): f for f in map(finding_of, candidates)}
                self._promoted = dict(promoted)
                for member in map(Member.load, over):
                    self._over.add(member.alert.episode_id, member.alert.series, member)
                for number, (group_id, founded, lead, sequence, told, left_over, members) in enumerate(groups):
                    group = Group(group_id, founded, {}, lead, sequence, told, left_over, number)
                    self._groups[group_id] = group
                    for member in map(Member.load, members):
                        self._add(group, member.alert.episode_id, member)
                self._founded = len(groups)
            case _:
                raise FatalError(
                    f"the state of the alert step has version {state[0]!r} and {state[1]!r} shards; "
                    f"this flow reads version {self.VERSION} with {self._shards}"
                )


def _order(alert: Alert) -> tuple[int, str, str, int]:
    return alert.at, ",".join(f"{k}={v}" for k, v in alert.series.items()), alert.metric, alert.sequence


def _place(member: Member) -> tuple[str, str]:
    """The member's series and metric."""
    series = member.alert.series
    return text(list(series), list(series.values())), member.alert.metric


def _new_normal(over: Member) -> int:
    """The time until which narrower series may still find this lead's new level: as long again as the shift lasted."""
    until = over.alert.until or 0
    return 2 * until - over.alert.since if over.alert.reason == "level_shift" else 0


def _brings_about(cause: Member, effect: Member) -> bool:
    """Whether one causes the other in the same series. Requests swing: they must stand out clearly, or half as far."""
    if cause.alert.series != effect.alert.series:
        return False
    return cause.alert.metric != REQUESTS or (cause.up and cause.level >= min(0.5 * effect.level, CLEAR))


def _adopted(over: Member, member: Member, at: int) -> bool:
    """Whether the member shows the level shift of this lead, which is the new normal."""
    return at < _new_normal(over) and over.up == member.up and same_kind(over, member) and share_requests(over, member)
