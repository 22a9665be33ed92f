"""Judges a series against its mix: each request less the usual value of its part of the series.

A service is slower when a tenant with long prompts sends more; that is no anomaly of the service. So each value of one
dimension (`detect.mix_by`, the tenant) is a part of the series. Each part has its own usual value for each metric, a
faded mean, and the series is judged by the deviations from these values. A part counts once enough of its requests were
seen. Requests that the rows do not tell apart (without a value, or folded into `__other__`) are a part too. A series
that names the dimension is judged by plain values.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np

from operators.detect.base import State, Watch
from operators.detect.slots import Arrays, packed, unpacked
from operators.kernels.detect import Floats
from operators.kernels.mix import Entries, KnownParts, learn_the_usual, less_the_usual
from operators.model import LABELS, Bools, Ints
from operators.panes.sketch import LOG_STEPS
from operators.panes.table import PaneTable
from operators.series import dimension_set

MOST_PARTS = 256
"""Most parts of a series; all later values are one part."""

_REST = ""


class Parts(NamedTuple):
    """The parts of a table's rows, in the order of the rows: the values of the breakdown, then the rest of the row."""

    row: Ints  # [E]
    value: list[str]
    counts: Floats  # [E, K]
    totals: Floats  # [E, K] on the scale that is judged


class Mix:
    """The parts of a shard's series and their usual values. Its state is the parts' names, and arrays by part."""

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
        return {
            "usual": np.zeros(shape, np.float32),
            "weight": np.zeros(shape, np.float32),
            "last": np.full(parts, -1, np.int64),
        }

    def admit(self, slot: int, series: str) -> None:
        """Begin with a series that got this slot."""
        self._reference.reserve(slot + 1)
        if self._label >= 0 and self._dimension not in dimension_set(series).split(","):
            self._parts_of[slot] = []

    def drop(self, slot: int) -> None:
        """Forget the series of this slot."""
        self._reference.clear(slot)
        for value in self._parts_of.pop(slot, ()):
            part = self._part_of.pop((slot, value))
            self._learned.clear(part)
            self._free.append(part)

    def parts(self, table: PaneTable) -> Parts | None:
        """The parts of all rows whose series may have any; None if there are none."""
        if self._label < 0:
            return None
        mixed = np.array([self._dimension not in dimension_set(s).split(",") for s in table.series], np.bool_)
        rest = np.flatnonzero(mixed[table.row_series])
        if not len(rest):
            return None
        mine = np.flatnonzero(table.breakdown_label == self._label)
        mine = mine[mixed[table.row_series[table.breakdown_row[mine]]]]
        axis = self._watch.axis
        wholes = (table.count, table.total, table.logs)
        named = [t[mine][:, axis] for t in (table.breakdown_count, table.breakdown_total, table.breakdown_logs)]
        row = table.breakdown_row[mine].astype(np.int64)
        low, high = np.searchsorted(row, rest), np.searchsorted(row, rest, side="right")
        left = []
        for whole, of_parts in zip(wholes, named, strict=True):
            sums = np.cumsum(np.pad(of_parts, ((1, 0), (0, 0))), axis=0)
            left.append(whole[rest][:, axis] - (sums[high] - sums[low]))
        some = left[0].any(axis=1)
        row = np.concatenate([row, rest[some]])
        order = np.argsort(row, kind="stable")
        count, total, logs = (np.concatenate([n, rem[some]])[order] for n, rem in zip(named, left, strict=True))
        values = [table.breakdown_values[v] for v in table.breakdown_value[mine].tolist()] + [_REST] * int(some.sum())
        totals = logs / LOG_STEPS
        totals[:, self._linear] = total[:, self._linear] / self._scale[self._linear]
        return Parts(row[order], [values[o] for o in order.tolist()], count.astype(np.float64), totals)

    def entries(self, parts: Parts, first: int, slots: Ints) -> Entries | None:
        """The parts of the rows from `first` on, one row for each of `slots`; None if there are none."""
        a, b = np.searchsorted(parts.row, (first, first + len(slots))).tolist()
        if a == b:
            return None
        row = parts.row[a:b] - first
        slot = slots[row].astype(np.int64)
        part = [self._part(s, v) for s, v in zip(slot.tolist(), parts.value[a:b], strict=True)]
        return Entries(row, slot, np.array(part, np.int64), parts.counts[a:b], parts.totals[a:b])

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
        """Subtract the usual values of the parts from the pane's rows [R, V] and [R, K], in place."""
        less_the_usual(entries, KnownParts(**self._learned.state), stats, square, self._reference.state["mean"])

    def reference(self, slot: int, cell: int) -> float:
        """The value from which the cell's deviations count: the usual value of the recent mix, on the judged scale."""
        if cell >= len(self._watch.metrics):
            return 0.0
        return float(self._reference.state["mean"][slot, cell])

    @property
    def references(self) -> Floats:
        """`reference` of all watched metrics: [slots, K]."""
        means: Floats = self._reference.state["mean"]
        return means

    def learn(self, pane: int, entries: Entries, excluded: Bools) -> None:
        """Learn from the pane's parts, without the excluded cells [slots, C]."""
        learn_the_usual(pane, entries, KnownParts(**self._learned.state), excluded, self._watch.keep)

    def forget(self, before: int) -> None:
        """Forget the parts that were last seen before that pane."""
        last = self._learned.state["last"]
        for (slot, value), part in list(self._part_of.items()):
            if last[part] < before:
                del self._part_of[slot, value]
                self._parts_of[slot].remove(value)
                self._learned.clear(part)
                self._free.append(part)

    def save(self, used: int) -> tuple[object, ...]:
        """The parts by series and value, in the order in which they came, and their usual values."""
        parts = list(self._part_of)
        places = np.fromiter(self._part_of.values(), np.int64, len(parts))
        arrays = {name: array[places] for name, array in self._learned.state.items()}
        return parts, packed(arrays, self._blank(1)), self._reference.save(used)

    def load(self, saved: tuple[object, ...], texts: list[str]) -> None:
        """Load a saved state; `texts` are the series by slot."""
        parts, arrays, reference = cast(Any, saved)
        for slot, series in enumerate(texts):
            if series:
                self.admit(slot, series)
        self._reference.load(unpacked(reference))
        self._learned.load(unpacked(arrays))
        for part, (slot, value) in enumerate(parts):
            self._part_of[slot, value] = part
            self._parts_of[slot].append(value)
