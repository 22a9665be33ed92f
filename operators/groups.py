"""The one step that sees all shards: alerts in one order, whatever the number of workers.

It holds a shard's alerts until every shard has closed the panes they come from. Volume is low: one marker a shard and
closing, and the alerts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from operators.errors import FatalError
from operators.model import Alert


class Judged(NamedTuple):
    """What a shard's detection says: all panes before `upto` (microseconds) are judged, these alerts came of them.

    `final`: the source is over, nothing will follow.
    """

    shard: int
    upto: int
    alerts: tuple[Alert, ...]
    final: bool = False


class Groups:
    """Alerts of all shards, released by (at, series, metric, sequence) once no shard can add an earlier one."""

    VERSION = 1
    dropped = False

    def __init__(self, shards: int, lateness: int) -> None:
        self._shards = shards
        self._lateness = lateness
        self._upto: dict[int, int] = {}
        self._held: list[Alert] = []
        self._final: dict[int, tuple[Alert, ...]] = {}

    def take(self, items: Sequence[Judged]) -> list[Alert]:
        """Take in markers and alerts; return what can be released, in order."""
        out: list[Alert] = []
        for item in items:
            if item.final:
                self._final[item.shard] = item.alerts
                continue
            self._upto[item.shard] = item.upto
            self._held.extend(item.alerts)
        if len(self._upto) == self._shards:
            safe = min(self._upto.values()) + self._lateness
            out += sorted((a for a in self._held if a.at <= safe), key=_order)
            self._held = [a for a in self._held if a.at > safe]
        if len(self._final) == self._shards:
            out += sorted([*self._held, *(a for alerts in self._final.values() for a in alerts)], key=_order)
            self._final = {}
        return out

    def save(self) -> tuple[object, ...]:
        held = tuple(tuple(getattr(a, f) for f in _FIELDS) for a in sorted(self._held, key=_order))
        return (self.VERSION, self._shards, tuple(sorted(self._upto.items())), _FIELDS, held)

    def restore(self, state: tuple[object, ...]) -> None:
        """Take over the state of a predecessor. Raises `FatalError` for another version or number of shards."""
        match state:
            case (self.VERSION, self._shards, tuple() as upto, tuple() as fields, tuple() as held):
                self._upto = dict(upto)
                self._held = [Alert(**dict(zip(fields, values, strict=True))) for values in held]
            case _:
                raise FatalError(
                    f"the state of the alert step has version {state[0]!r} and {state[1]!r} shards; "
                    f"this flow reads version {self.VERSION} with {self._shards}"
                )


_FIELDS = tuple(f.name for f in dataclasses.fields(Alert))


def _order(alert: Alert) -> tuple[int, str, str, int]:
    return alert.at, ",".join(f"{k}={v}" for k, v in alert.series.items()), alert.metric, alert.sequence
