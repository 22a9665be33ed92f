"""Judging a series against its mix: each request less what is usual for its part of the series.

A service is slower when a tenant with long prompts sends more; that is no anomaly of the service. So each value of one
dimension (`detect.mix_by`, the tenant) within a series is a part with a usual value of its own per metric, a faded
mean, and the series is judged by the deviations from those. A part counts once enough of its requests were seen. What
the rows do not tell apart (no value, or folded into `__other__`) is a part too. Series that name the dimension are
judged as they are.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np

from operators.detect.base import State, Watch
from operators.detect.slots import Arrays
from operators.kernels.detect import Floats
from operators.kernels.mix import learn_the_usual, less_the_usual
from operators.model import LABELS, Bools, Ints
from operators.pane_table import PaneTable
from operators.series import dimension_set
from operators.sketch import LOG_STEPS

KNOWN = 10.0
"""Requests of a part, fading, from which its usual value counts."""

MOST_PARTS = 256
"""Parts of a series; those that come later are one."""

_REST = ""


class Entries(NamedTuple):
    """The parts of one pane's rows, by row."""

    row: Ints  # [E] among the pane's rows
    slot: Ints
    part: Ints
    counts: Floats  # [E, K]
    totals: Floats  # [E, K] on the scale that is judged


class Mix:
    """The parts of a shard's series, and what is usual for them. State: the parts' names, and arrays by part."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._dimension = watch.config.mix_by
        self._label = LABELS.index(self._dimension) if self._dimension else -1
        self._linear: Ints = np.flatnonzero([not s.in_logs for s in watch.settings])
        self._scale = np.array([float(m.scale) for m in watch.metrics])
        self._part_of: dict[tuple[int, str], int] = {}
        self._parts_of: dict[int, list[str]] = {}
        self._free: list[int] = []
        self._learned = Arrays(self._blank)
        self._reference = Arrays(lambda slots: {"mean": np.zeros((slots, len(watch.metrics)))})

    def _blank(self, parts: int) -> State:
        shape = (parts, len(self._watch.metrics))
        return {"usual": np.zeros(shape), "weight": np.zeros(shape), "last": np.full(parts, -1, np.int64)}

    def admit(self, slot: int, series: str) -> None:
        """A series got this slot."""
        self._reference.reserve(slot + 1)
        if self._label >= 0 and self._dimension not in dimension_set(series).split(","):
            self._parts_of[slot] = []

    def drop(self, slot: int) -> None:
        """The series of this slot is forgotten."""
        self._reference.clear(slot)
        for value in self._parts_of.pop(slot, ()):
            part = self._part_of.pop((slot, value))
            self._learned.clear(part)
            self._free.append(part)

    def entries(self, table: PaneTable, first: int, slots: Ints) -> Entries | None:
        """The parts of the rows from `first` on, one for each of `slots`; None where no series has any."""
        places = [i for i, slot in enumerate(slots.tolist()) if slot in self._parts_of]
        if not places:
            return None
        a, b = np.searchsorted(table.breakdown_row, (first, first + len(slots))).tolist()
        mine = a + np.flatnonzero(table.breakdown_label[a:b] == self._label)
        judged = np.zeros(len(slots), np.bool_)
        judged[places] = True
        row = table.breakdown_row[mine].astype(np.int64) - first
        mine, row = mine[judged[row]], row[judged[row]]
        axis = self._watch.axis
        count = table.breakdown_count[mine][:, axis]
        total, logs = table.breakdown_total[mine][:, axis], table.breakdown_logs[mine][:, axis]
        rest = np.array(places, np.int64)
        by_row = np.zeros((3, len(slots), len(axis)), np.int64)
        for sums, column in zip(by_row, (count, total, logs), strict=True):
            np.add.at(sums, row, column)
        whole = (table.count, table.total, table.logs)
        left = [t[first + rest][:, axis] - sums[rest] for t, sums in zip(whole, by_row, strict=True)]
        some = left[0].any(axis=1)
        rest = rest[some]
        row = np.concatenate([row, rest])
        order = np.argsort(row, kind="stable")
        count, total, logs = (
            np.concatenate([c, more[some]])[order] for c, more in zip((count, total, logs), left, strict=True)
        )
        values = [table.breakdown_values[v] for v in table.breakdown_value[mine].tolist()] + [_REST] * len(rest)
        row = row[order]
        slot = slots[row].astype(np.int64)
        part = [self._part(s, values[o]) for s, o in zip(slot.tolist(), order.tolist(), strict=True)]
        judged_total = logs / LOG_STEPS
        judged_total[:, self._linear] = total[:, self._linear] / self._scale[self._linear]
        return Entries(row, slot, np.array(part, np.int64), count.astype(np.float64), judged_total)

    def _part(self, slot: int, value: str) -> int:
        part = self._part_of.get((slot, value))
        if part is not None:
            return part
        known = self._parts_of[slot]
        if len(known) >= MOST_PARTS and value != _REST:
            return self._part(slot, _REST)
        part = self._free.pop() if self._free else len(self._part_of)
        self._learned.reserve(part + 1)
        self._part_of[slot, value] = part
        known.append(value)
        return part

    def apply(self, entries: Entries, stats: Floats, square: Floats) -> None:
        """Take from the pane's rows [R, V] and [R, K] what is usual for their parts, in place."""
        learned = self._learned.state
        reference = np.full(square.shape, np.nan)
        less_the_usual(
            entries.row, entries.part, entries.counts, entries.totals, learned["usual"], learned["weight"], KNOWN,
            stats, square, reference,
        )  # fmt: skip
        mean = self._reference.state["mean"]
        rows = np.unique(entries.row)
        slots = np.zeros(len(square), np.int64)
        slots[entries.row] = entries.slot
        now, before, n = reference[rows], mean[slots[rows]], stats[rows, 2::2][:, : square.shape[1]]
        share = np.where(before == 0.0, 1.0, np.minimum(1.0, n / 100.0))
        mean[slots[rows]] = np.where(np.isnan(now), before, before + share * (np.nan_to_num(now) - before))

    def reference(self, slot: int, cell: int) -> float:
        """What the deviations of the cell are from, on the scale that is judged: the usual value of the recent mix."""
        if cell >= len(self._watch.metrics):
            return 0.0
        return float(self._reference.state["mean"][slot, cell])

    def learn(self, pane: int, entries: Entries, excluded: Bools) -> None:
        """Learn from the pane's parts, without the excluded cells [slots, C]."""
        learned = self._learned.state
        learn_the_usual(
            pane, entries.slot, entries.part, entries.counts, entries.totals, excluded, self._watch.keep,
            learned["usual"], learned["weight"], learned["last"],
        )  # fmt: skip

    def forget(self, before: int) -> None:
        """Forget the parts that were not seen since that pane."""
        last = self._learned.state["last"]
        for (slot, value), part in list(self._part_of.items()):
            if last[part] < before:
                del self._part_of[slot, value]
                self._parts_of[slot].remove(value)
                self._learned.clear(part)
                self._free.append(part)

    def save(self, used: int) -> tuple[object, ...]:
        """The parts by series and value, and what is usual for them, in that order."""
        parts = sorted(self._part_of)
        places = np.array([self._part_of[p] for p in parts], np.int64)
        arrays = {name: array[places] for name, array in self._learned.state.items()}
        return parts, arrays, self._reference.save(used)

    def load(self, saved: tuple[object, ...], texts: list[str]) -> None:
        """Take over what was saved for the series in these slots."""
        parts, arrays, reference = cast(tuple[list[tuple[int, str]], State, State], saved)
        for slot, series in enumerate(texts):
            if series:
                self.admit(slot, series)
        self._reference.load(reference)
        self._learned.load(arrays)
        for part, (slot, value) in enumerate(parts):
            self._part_of[slot, value] = part
            self._parts_of[slot].append(value)
