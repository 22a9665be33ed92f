"""The detection of one shard: closed panes in, alerts out.

For each judged pane, in order: enter the rows into the horizons, let every detector score, take the strongest verdict
of each cell, step the episodes, and let the detectors learn the cells that are not anomalous. Alerts depend only on the
panes and this order, so they are the same for any cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from operators import series as names
from operators.config import DetectConfig, EpisodesConfig, PanesConfig, TimeConfig
from operators.detect import registry
from operators.detect.base import Block, State, Watch
from operators.detect.context.mix import Mix, Parts
from operators.detect.context.shares import Shares
from operators.detect.detectors.static_limits import applying, names_of, refitted
from operators.detect.engine.expectations import Expectations
from operators.detect.engine.row_values import RowReader, RowValues
from operators.detect.engine.shadows import Shadows
from operators.detect.engine.telling import Teller, Why, look, see
from operators.detect.engine.variants import Panels
from operators.detect.slots import Arrays, Slots, unpacked
from operators.errors import ConfigError, FatalError
from operators.incidents import episodes as ep
from operators.incidents.findings import STANDS, Finding
from operators.kernels.detect import EXPECTED, FIELDS, SCORE, SPAN, Seen
from operators.kernels.outlier import Requests
from operators.model import SEVERITIES, Alert, Bools, Ints
from operators.panes.table import Closed, PaneTable

VERSION = 8
_NOTHING = (0.0,) * FIELDS
YOUNG_S = 120
"""How long after its first anomalous pane an untold episode keeps refreshing the alert it would send, in seconds."""
EXPIRY_S: int = PanesConfig.model_fields["expiry_s"].default


class ShardMonitor:
    """Judges the series of one shard. `take` is the only way in; no data makes it raise.

    `expiry_s` and `dimension_sets` are those of `PanesConfig`. A series without requests for `expiry_s` is forgotten. A
    set that contains another one does not judge traffic, since requests that move between models are no surge. With
    `expectations`, `expected` holds the expected bands. A series takes kilobytes, and a pane microseconds.
    """

    def __init__(
        self,
        config: DetectConfig,
        episodes: EpisodesConfig,
        time: TimeConfig,
        expiry_s: int = EXPIRY_S,
        dimension_sets: Collection[tuple[str, ...]] = (),
        expectations: bool = False,
    ) -> None:
        self._sets = [set(s) for s in dimension_sets]
        self.watch = Watch(config, time.pane_s, episodes.open_panes)
        self._panel = Panels(self.watch, episodes.open_panes)
        self._shadows = Shadows(self.watch, self._panel)
        self._mix = Mix(self.watch)
        self._reader = RowReader(self.watch)
        self.expected = Expectations(self.watch, self._panel, self._mix, on=expectations)
        self._shares = Shares(self.watch.keep, time.pane_s)
        self._teller = Teller(self.watch, self._mix, self._shares, time, self._panel.threshold)
        self._episodes = ep.Episodes(episodes, self.watch, self._panel.thresholds)
        self._expiry = self.watch.panes(expiry_s)
        self._stands = np.where(self._panel.muted, np.inf, STANDS / (STANDS + self._panel.thresholds))
        until = config.silent_until
        self._tells_from = 0 if until is None else round(until.timestamp()) // time.pane_s
        self._adopt = self.watch.panes(config.adopt_after_s)
        self._young = self.watch.panes(YOUNG_S)
        self._minute = self.watch.horizons.index_of(60, time.pane_s)
        self._slots = Slots()
        self._open = Arrays(self._episodes.blank)
        self._panes = Arrays(self._blank)
        self._owners = (*self._panel.owners, self._open, self._panes)
        self._trails: dict[tuple[int, int], ep.Trail] = {}
        self._last = -1  # the last judged pane
        self._next_expiry = 0
        self._scratch(self._panes.capacity)

    def _blank(self, slots: int) -> State:
        return {
            "born": np.full(slots, -1, np.int64),
            "seen": np.full(slots, -1, np.int64),
            "ring": self.watch.horizons.blank(slots, self.watch.columns),
        }

    def _scratch(self, capacity: int) -> None:
        """Make room for the values of one pane; none of them outlives the pane."""
        columns, metrics, cells = self.watch.columns, len(self.watch.metrics), len(self.watch.cells)
        self._now = np.zeros((capacity, columns))
        self._square = np.zeros((capacity, metrics))
        self._most = np.zeros((capacity, metrics))
        self._counts = np.zeros((capacity, metrics))
        self._limited: Bools = np.zeros((capacity, len(self.watch.config.limits)), np.bool_)
        self._combined: Bools = np.zeros(capacity, np.bool_)
        for slot, series in enumerate(self._slots.texts):
            self._limited[slot] = applying(self.watch.config.limits, series)
            self._combined[slot] = self._is_combined(series)
        self._panel.place(self._slots.texts, capacity)
        self._sums = np.zeros((capacity, len(self.watch.horizons), columns))
        self._best = np.zeros((capacity, cells, FIELDS))
        self._winner = np.full((capacity, cells), -1, np.int8)
        self._excluded: Bools = np.zeros((capacity, cells), np.bool_)

    def __len__(self) -> int:
        """The number of known series."""
        return len(self._slots)

    def time_by(self, clock: Callable[[], float]) -> dict[str, float]:
        """Measure the detectors by this clock from now on; the returned dict keeps the seconds of each one."""
        return self._panel.time_by(clock)

    @property
    def open_episodes(self) -> int:
        """The number of cells with an open episode."""
        return int((self._open.state["opened"][: self._slots.used] >= 0).sum())

    def take(self, closed: Closed) -> list[Finding]:
        """Judge the closed panes; returns their findings in the order of (at, series, metric).

        Panes that were judged before are skipped. All panes are remembered, those of a final `closed` too: a caller
        that will see these panes again judges them on a copy (`load` of `save`).
        """
        table = closed.table
        high = min(closed.high, closed.judged)
        pane = max(closed.low, self._last + 1)
        rows = self._row_values(table)
        parts = self._mix.parts(table)
        where = self._where(table)
        found: list[Finding] = []
        bounds = (
            np.searchsorted(table.pane, np.arange(pane, high + 1)).tolist()
            if high - pane < 4 * len(table.pane) + 64
            else None
        )
        low = pane
        while pane < high:
            if bounds is not None:
                a, b = bounds[pane - low], bounds[pane - low + 1]
            else:
                a, b = np.searchsorted(table.pane, (pane, pane + 1)).tolist()
            if a == b and not len(self._slots):
                # No series is known and the pane has no row: go on to the next row, however far.
                pane = min(int(table.pane[a]), high) if a < len(table.pane) else high
                self._last = pane - 1
                continue
            told: list[Finding] = []
            if pane >= self._next_expiry and self._expire(pane, told):
                where = self._where(table)
            slots = where[table.row_series[a:b]]
            if b > a:
                if slots.min() < 0:
                    self._admit(table, table.row_series[a:b][slots < 0], pane)
                    where = self._where(table)
                    slots = where[table.row_series[a:b]]
                self._panes.state["seen"][slots] = pane
            told += self._step(table, a, pane, slots, rows, parts)
            found += sorted(told, key=lambda f: (f.at, f.series, f.metric))
            self._last = pane
            pane += 1
        return found

    def _row_values(self, table: PaneTable) -> RowValues:
        return self._reader.read(table)

    def _where(self, table: PaneTable) -> Ints:
        """The slot of each series of the table, -1 if it has none."""
        get = self._slots.get
        return np.array([-1 if (slot := get(s)) is None else slot for s in table.series], np.int64)

    def _admit(self, table: PaneTable, rows: NDArray[np.int32], pane: int) -> None:
        for owner in self._owners:
            owner.reserve(self._slots.used + len(rows))
        for i in rows.tolist():
            slot = self._slots.add(table.series[i])
            self._mix.admit(slot, table.series[i])
            if slot < len(self._limited):
                self._limited[slot] = applying(self.watch.config.limits, table.series[i])
                self._combined[slot] = self._is_combined(table.series[i])
                self._panel.admit(slot, table.series[i])
            self._panes.state["born"][slot] = pane
            self._panes.state["seen"][slot] = pane
        if self._panes.capacity > len(self._now):
            self._scratch(self._panes.capacity)
        self._next_expiry = min(self._next_expiry, pane + self._expiry)

    def _is_combined(self, series: str) -> bool:
        """Whether a wider series, which is watched too, has these requests and others; that one judges the traffic."""
        named = set(names.dimension_set(series).split(","))
        return any(s < named for s in self._sets)

    def _expire(self, pane: int, told: list[Finding]) -> bool:
        """Forget series that were silent too long, and close their episodes; returns whether there were any."""
        born, seen = self._panes.state["born"], self._panes.state["seen"]
        live = np.flatnonzero(born[: self._slots.used] >= 0)
        gone = live[pane - seen[live] >= self._expiry]
        for slot in gone.tolist():
            opened, last = self._open.state["opened"][slot], self._open.state["last"][slot]
            for cell in np.flatnonzero(opened >= 0).tolist():
                severity = SEVERITIES[self._open.state["severity"][slot, cell]]
                step = ep.Step(slot, cell, ep.RESOLVED, int(opened[cell]), int(last[cell]), severity)
                if (trail := self._trails[slot, cell]).sequence:
                    told.append(self._over(step, trail, pane, "expired"))
            for key in [k for k in self._trails if k[0] == slot]:
                del self._trails[key]
            self._slots.drop(slot)
            self._mix.drop(slot)
            self._shadows.drop(slot)
            for owner in self._owners:
                owner.clear(slot)
        if len(gone):
            self._shares.drop(gone)
        self._mix.forget(pane - self._expiry)
        kept = seen[: self._slots.used][born[: self._slots.used] >= 0]
        self._next_expiry = int(kept.min()) + self._expiry if len(kept) else 0
        return len(gone) > 0

    def _step(
        self, table: PaneTable, first: int, pane: int, slots: Ints, rows: RowValues, parts: Parts | None
    ) -> list[Finding]:
        used, state = self._slots.used, self._panes.state
        last, metrics = first + len(slots), len(self.watch.metrics)
        start = rows.start[first * metrics : last * metrics + 1]
        self._most[:used] = 0.0
        self._most[slots] = rows.most[first:last]
        self._counts[:used] = 0.0
        self._counts[slots] = table.count[first:last, self.watch.axis]
        stats, square = rows.stats[first:last], rows.square[first:last]
        entries = None if parts is None else self._mix.entries(parts, first, slots)
        if entries is not None:
            stats, square = stats.copy(), square.copy()
            self._mix.apply(entries, stats, square)
        horizons = self.watch.horizons
        seen = Seen(pane, used, state["born"], self._now, self._square, self._sums, horizons.spans, horizons.widths)
        horizons.advance(seen, self._last, slots, stats, square, state["ring"])
        requests = Requests(slots, start, rows.value, rows.counts)
        block = Block(seen, self._most, requests, self._limited, self._counts)
        self._panel.judge(block, self._best, self._winner, self._combined)
        self.expected.note(block, state["seen"], self._slots.texts)
        steps = self._episodes.step(
            self._open.state, block, self._best, self._excluded, self._panel.numbers(slice(used))
        )
        self._panel.learn(block, self._excluded)
        if entries is not None:
            self._mix.learn(pane, entries, self._excluded)
        self._shadows.learn(block, steps)
        found = self._tell(steps, table, first, pane, slots) if steps else []
        self._shares.note(table, first, slots, pane, {slot for slot, _ in self._trails})
        return found + self._candidates(table, first, pane, slots) if pane >= self._tells_from else found

    def _tell(self, steps: list[ep.Step], table: PaneTable, first: int, pane: int, slots: Ints) -> list[Finding]:
        """Keep the trails of the episodes; returns the findings, with an alert for each change."""
        row_of = {slot: first + i for i, slot in enumerate(slots.tolist())}
        found: list[Finding] = []
        for step in steps:
            key = (step.slot, step.cell)
            if step.what == ep.FADED:
                self._trails.pop(key, None)
                continue
            if step.what == ep.RESOLVED:
                if (trail := self._trails.pop(key)).sequence:
                    found.append(self._over(step, trail, pane, "quiet"))
                continue
            verdict = tuple(self._best[step.slot, step.cell].tolist())
            by = self._panel.detectors[self._winner[step.slot, step.cell]].name
            trail = self._trails.setdefault(key, ep.Trail())
            self._expect(trail, *key)
            if step.slot in row_of:
                see(trail, table, row_of[step.slot], self._slots.texts[step.slot])
            if 0 <= step.since <= pane - self._adopt and registry.finds(trail.by) != "limit":
                if trail.sequence:
                    found.append(self._over(step, trail, pane, "level_shift"))
                self._restart(*key)
                continue
            if step.what == ep.QUIET:
                if trail.sequence:
                    found.append(self._finding(step, trail, pane, verdict))
                continue
            look(trail, table, row_of.get(step.slot))
            if verdict[SCORE] > trail.peak[SCORE]:
                trail.peak, trail.by = verdict, by
            if step.slot in row_of:
                self._teller.witness(trail, step, table, row_of[step.slot], pane, verdict, by)
            if step.since >= 0 and not trail.sequence:  # it opens now, or has opened while alerts were off
                step = step._replace(what=ep.OPENED)
            if step.what == ep.STEADY:
                if step.since >= 0:
                    finding = self._finding(step, trail, pane, verdict)
                    if pane - step.since < self._young:
                        finding = finding._replace(fresh=self._alert(step, trail, pane, verdict, by, again=True))
                    found.append(finding)
                continue
            if step.what == ep.OPENED:
                quiet = pane - int(self._panes.state["seen"][step.slot])
                trail.kind = self._teller.kind(step.cell, verdict, by, quiet)
                trail.witnesses = [w for w in trail.witnesses if w.pane >= step.since]
                if pane < self._tells_from or self._panel.is_muted(step.slot):
                    continue
            trail.detectors = self._panel.agreeing(step.slot, step.cell)
            alert = self._alert(step, trail, pane, verdict, by)
            found.append(self._finding(step, trail, pane, verdict, alert))
        return found

    def _candidates(self, table: PaneTable, first: int, pane: int, slots: Ints) -> list[Finding]:
        """Findings of this pane's series that stand out too little for an episode, but might lead a group."""
        scores = self._best[slots, :, SCORE]
        stands = np.broadcast_to(self._panel.spread(self._stands, slots), (len(slots), 1))
        places = np.argwhere((scores >= stands) & ~self._excluded[slots])
        found: list[Finding] = []
        for row, cell in places.tolist():
            slot = int(slots[row])
            verdict, by = self._panel.lasting(slot, cell)
            if verdict[SCORE] < stands[row, 0]:
                continue
            step = ep.Step(slot, cell, ep.OPENED, pane, pane, SEVERITIES[0])
            trail = ep.Trail(kind=self._teller.kind(cell, verdict, by, 0), detectors=(by,), by=by)
            self._expect(trail, slot, cell)
            see(trail, table, first + row, self._slots.texts[slot])
            alert = self._alert(step, trail, pane, verdict, by)
            found.append(self._finding(step, trail, pane, verdict, alert)._replace(sure=False))
        return found

    def _expect(self, trail: ep.Trail, slot: int, cell: int) -> None:
        """Note the expected value of the cell when it is first known."""
        if trail.expected is None:
            verdict, _ = self._panel.lasting(slot, cell)
            if verdict[SPAN] > 0.0:
                trail.expected = verdict[EXPECTED]

    def _over(self, step: ep.Step, trail: ep.Trail, pane: int, reason: Why) -> Finding:
        """The finding that ends an episode; its alert tells the peak."""
        return self._finding(step, trail, pane, _NOTHING, self._alert(step, trail, pane, trail.peak, trail.by, reason))

    def _alert(
        self,
        step: ep.Step,
        trail: ep.Trail,
        pane: int,
        verdict: tuple[float, ...],
        by: str,
        reason: Why = "",
        again: bool = False,
    ) -> Alert:
        seen, born = (int(self._panes.state[name][step.slot]) for name in ("seen", "born"))
        learned = self._panel.learned_panes(step.slot, step.cell, by), born
        series = self._slots.texts[step.slot]
        return self._teller.alert(step, series, trail, pane, seen, verdict, by, learned, reason, again)

    def _finding(
        self, step: ep.Step, trail: ep.Trail, pane: int, verdict: tuple[float, ...], alert: Alert | None = None
    ) -> Finding:
        minute = self._sums[step.slot, self._minute]
        explained = self._teller.explained(trail, step.cell, minute, int(self.watch.horizons.spans[self._minute]))
        return self._teller.finding(step, self._slots.texts[step.slot], trail, pane, verdict, explained, alert)

    def _restart(self, slot: int, cell: int) -> None:
        """End the episode of the cell; the cell's last hour becomes the usual."""
        del self._trails[slot, cell]
        self._open.state["opened"][slot, cell] = -1
        self._open.state["recent"][slot, cell] = -1
        self._shadows.adopt(slot, cell)
        self._shares.drop(np.array([slot]))

    def retire(self, dimension_sets: Collection[tuple[str, ...]]) -> None:
        """Forget the series of all other dimension sets at the next pane; their episodes resolve.

        Their sets are no longer configured: the series will get no more requests, which is no silence.
        """
        kept = {",".join(s) for s in dimension_sets}
        for slot, text in enumerate(self._slots.texts):
            if text and names.dimension_set(text) not in kept:
                self._panes.state["seen"][slot] = self._last - self._expiry
                self._next_expiry = 0

    def save(self) -> tuple[object, ...]:
        """The whole state, as arrays and builtins; later panes do not change them."""
        used = self._slots.used
        return (
            VERSION,
            tuple(self.watch.form.items()),
            self._last,
            list(self._slots.texts),
            self._panel.save(used),
            self._open.save(used),
            self._panes.save(used),
            self._mix.save(used),
            self._shares.save(used),
            self._shadows.save(),
            names_of(self.watch.config.limits),
            [(slot, cell, *trail.save()) for (slot, cell), trail in sorted(self._trails.items())],
        )

    @classmethod
    def load(
        cls,
        state: tuple[object, ...],
        config: DetectConfig,
        episodes: EpisodesConfig,
        time: TimeConfig,
        expiry_s: int = EXPIRY_S,
        dimension_sets: Collection[tuple[str, ...]] = (),
        expectations: bool = False,
    ) -> ShardMonitor:
        """Continue from a snapshot.

        Raises `FatalError` for a state of another version, `ConfigError` for one that does not fit the settings.
        """
        self = cls(config, episodes, time, expiry_s, dimension_sets, expectations)
        match cast(Any, state):
            case (7 | 8, made_for, last, texts, learned, opened, panes, mix, shares, shadows, limits, trails):
                pass
            case _:
                raise FatalError(
                    f"detection state in the snapshot has version {state[0]!r}; this release reads {VERSION}"
                )
        was = dict(made_for)
        other = [f"{k} = {was.get(k)} (now {v})" for k, v in self.watch.form.items() if was.get(k) != v]
        if other:
            raise ConfigError(
                f"the learned state of detection (in the recovery store) is for {'; '.join(other)}; set that back, or "
                "set recovery.relearn to learn anew, or give -r a new folder to start over"
            )
        self._last = last
        self._slots = Slots(texts)
        self._panel.load(learned)
        self._mix.load(mix, self._slots.texts)
        self._shares.load(shares)
        self._open.load(self._episodes.fitted(unpacked(opened)))
        self._panes.load(refitted(self.watch, unpacked(panes), limits))
        for owner in self._owners:  # a new detector has loaded nothing, and needs room for all slots
            owner.reserve(self._slots.used)
        self._scratch(self._panes.capacity)
        self._shadows.load(shadows)
        self._trails = {
            (slot, cell): ep.Trail.load(*trail)
            for slot, cell, *trail in trails
            if self._episodes.remembers(self._open.state, slot, cell)
        }
        return self
