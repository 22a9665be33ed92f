"""The choice of the series that a shard watches: memory is bounded, and the order of arrival does not matter.

The choice is made when a pane closes, from that pane's whole content. A series that was admitted long enough ago is
protected: it always keeps its row. All others of the pane, known or new, are sorted by a fixed hash of their name; the
first `cap` of them are heard, the rest goes to the overflow series of its dimension set. New series among the heard are
admitted, in the same order, while there is room. So an open pane needs rows for the protected series and the first
`cap` others alone: the smallest k of a union are the smallest k of the parts' smallest k, so `prune` cuts early the
rows that closing would cut. A flood of new names can push young series to the overflow for a pane, never protected
ones.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise

import numpy as np

from operators.errors import FatalError
from operators.model import Bools
from operators.panes import fold
from operators.panes.table import PaneTable
from operators.series import OTHER, dimension_set, overflow, rank

_HASHES = 2.0**64


class Admission:
    """The admitted series of one shard. Overflow series are always let in and do not count.

    `cap`: most admitted series. `expiry_panes`: panes in a row without a request after which a series is forgotten.
    `protect_panes`: panes after its admission from which on a series is protected. `evidence` and `breakdown_values`
    are the bounds of the tables. `shard` is the number in the names of the overflow series, None for no number; it may
    be set until the first table comes.

    `folded_requests` and `folded_series` count, over all closed panes, requests and series (once a pane) that went to
    the overflow. In panes with `cap` or more unprotected series the number of series is an estimate from the density
    of the smallest hashes (k minimum values; Bar-Yossef et al., 2002), so that it does not depend on pruning either.
    """

    VERSION = 1

    def __init__(
        self,
        cap: int,
        expiry_panes: int,
        protect_panes: int,
        evidence: int,
        breakdown_values: int,
        shard: int | None = None,
    ) -> None:
        self.shard = shard
        self.folded_requests = 0
        self.folded_series = 0
        self._cap = cap
        self._expiry = expiry_panes
        self._protect = protect_panes
        self._bounds = (evidence, breakdown_values)
        self._since: dict[str, int] = {}  # the pane that admitted it
        self._last: dict[str, int] = {}  # the last pane with a request
        self._quiet_until = -(2**62)  # no series expires when panes up to this one close
        self._closed = False

    def __len__(self) -> int:
        return len(self._since)

    @property
    def settings(self) -> tuple[int, int, int, int, int, int | None]:
        """The arguments it was made with, in order."""
        return (self._cap, self._expiry, self._protect, *self._bounds, self.shard)

    @property
    def empty(self) -> bool:
        """Whether no pane with rows was closed yet."""
        return not self._closed

    def close(self, table: PaneTable, pane: int) -> PaneTable:
        """The rows of closing panes, those of series that are not admitted folded into the overflow.

        All rows are of `pane` or of earlier panes that are still open; they are judged pane by pane, in order. Then
        `pane` itself is closed, even without rows.
        """
        folded = np.zeros(len(table.pane), np.bool_)
        starts = np.flatnonzero(np.diff(table.pane, prepend=table.pane[:1] - 1)).tolist()
        for low, high in pairwise([*starts, len(table.pane)]):
            at = int(table.pane[low])
            self._expire(at)
            folded[low:high] = self._admit(table, low, high, at)
        self._expire(pane)
        self._closed = self._closed or bool(starts)
        return self._fold(table, folded)

    def prune(self, table: PaneTable, closed: int) -> PaneTable:
        """The rows of open panes, those folded that closing is sure to fold.

        `closed` is the first pane that is still open. Rows so far ahead that the protected series of their pane are not
        known yet stay as they are.
        """
        folded = np.zeros(len(table.pane), np.bool_)
        starts = np.flatnonzero(np.diff(table.pane, prepend=table.pane[:1] - 1)).tolist()
        for low, high in pairwise([*starts, len(table.pane)]):
            at = int(table.pane[low])
            if high - low > self._cap and at - self._protect < closed:
                names = [table.series[s] for s in table.row_series[low:high].tolist()]
                heard = set(self._unprotected(names, at)[: self._cap])
                folded[low:high] = [not (self._passes(name, at) or name in heard) for name in names]
        return self._fold(table, folded)

    def known(self, table: PaneTable) -> PaneTable:
        """Late rows of closed panes, those folded whose series was not admitted when the pane closed."""
        since, never = self._since, 2**62
        series, pane = table.row_series.tolist(), table.pane.tolist()
        folded = [
            since.get(table.series[s], never) > p and not self._is_overflow(table.series[s])
            for s, p in zip(series, pane, strict=True)
        ]
        return self._fold(table, np.array(folded, np.bool_))

    def retire(self, dimension_sets: Collection[tuple[str, ...]]) -> None:
        """Forget the series of all other dimension sets: they are no longer configured."""
        kept = {",".join(s) for s in dimension_sets}
        for name in [name for name in self._since if dimension_set(name) not in kept]:
            del self._since[name], self._last[name]

    def save(self) -> tuple[object, ...]:
        """The version; the names; for each name the pane that admitted it and the last with a request; the counters."""
        return (
            self.VERSION,
            list(self._since),
            np.array(list(self._since.values()), np.int64),
            np.array([self._last[s] for s in self._since], np.int64),
            self._closed,
            self.folded_requests,
            self.folded_series,
        )

    @classmethod
    def load(
        cls,
        state: tuple[object, ...],
        cap: int,
        expiry_panes: int,
        protect_panes: int,
        evidence: int,
        breakdown_values: int,
        shard: int | None = None,
    ) -> Admission:
        """The successor of the one that saved `state`. Raises `FatalError` for an unknown version.

        If `cap` has become smaller, series that are already admitted stay until they expire.
        """
        self = cls(cap, expiry_panes, protect_panes, evidence, breakdown_values, shard)
        match state:
            case (cls.VERSION, list(names), np.ndarray() as since, np.ndarray() as last, bool(closed), int(r), int(s)):
                self._since = dict(zip(names, since.tolist(), strict=True))
                self._last = dict(zip(names, last.tolist(), strict=True))
                self._closed, self.folded_requests, self.folded_series = closed, r, s
            case _:
                raise FatalError(
                    f"admitted series of version {state[0]!r} in the snapshot; this release reads version {cls.VERSION}"
                )
        return self

    def _admit(self, table: PaneTable, low: int, high: int, pane: int) -> list[bool]:
        """Admit series from the rows [low, high) of one pane; returns whether each row is folded."""
        names = [table.series[s] for s in table.row_series[low:high].tolist()]
        young = self._unprotected(names, pane)
        heard = young[: self._cap]
        for name in heard:
            if name not in self._since and len(self._since) < self._cap:
                self._since[name] = pane
        passing = {name for name in heard if name in self._since}
        folded = []
        for row, name in enumerate(names, low):
            stays = name in passing or self._passes(name, pane)
            folded.append(not stays)
            if not stays or self._is_overflow(name):
                self.folded_requests += int(table.requests[row])
            else:
                self._last[name] = pane
        overflowing = any(folded) or any(map(self._is_overflow, names))
        if len(heard) == self._cap and overflowing:
            estimate = round((self._cap - 1) * _HASHES / (rank(heard[-1]) + 1))
            self.folded_series += max(self._cap, estimate) - len(passing)
        else:
            self.folded_series += len(heard) - len(passing)
        return folded

    def _unprotected(self, names: list[str], pane: int) -> list[str]:
        """The names that compete for being heard in this pane, in the order of their hash."""
        return sorted((n for n in names if not self._passes(n, pane)), key=lambda n: (rank(n), n))

    def _passes(self, name: str, pane: int) -> bool:
        return self._since.get(name, pane) <= pane - self._protect or self._is_overflow(name)

    def _is_overflow(self, name: str) -> bool:
        return OTHER in name and name == self._overflow(name)

    def _overflow(self, name: str) -> str:
        return overflow(dimension_set(name).split(","), self.shard)

    def _expire(self, pane: int) -> None:
        """Forget the series with more than `expiry_panes` panes since their last request when `pane` closes."""
        if pane <= self._quiet_until:
            return
        gone = [name for name, last in self._last.items() if pane - last > self._expiry]
        for name in gone:
            del self._since[name], self._last[name]
        self._quiet_until = min(self._last.values(), default=pane) + self._expiry

    def _fold(self, table: PaneTable, folded: Bools) -> PaneTable:
        if not folded.any():
            return table
        names = {table.series[s] for s in table.row_series[folded].tolist()}
        return fold.rename_series(table, {n: self._overflow(n) for n in sorted(names)}, *self._bounds, folded)
