"""The usual shares of a shard's series: the part that each model, tenant, region and kind of error usually has in it.

For each series, label and value it keeps the requests, errors, and counts and totals of all metrics. They fade with the
half-life of detection, and nothing is learned while anything of the series is abnormal. Only alerts need them, so panes
wait and are added a few dozen at once. They are added pane by pane in any case, so the time does not change the sums. A
value takes about 104 bytes; the `MOST` largest values of a label stay, and the others become one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np

from operators.detect.base import State
from operators.detect.slots import Arrays, packed, unpacked
from operators.incidents.composition import COLUMNS, ByLabel, Usual, entries, rows, widened
from operators.kernels.shares import Wholes, add_entries, add_rows
from operators.model import LABELS, Bools, Ints
from operators.panes.table import PaneTable
from operators.series import OTHER

MOST: Final = 8
"""Most values of a label that stay when an hour is over; up to twice as many are kept within the hour."""
FAINT: Final = 0.5
"""A value with fewer faded requests is forgotten."""
TABLES: Final = 64
ROWS: Final = 4_096
"""Most tables that wait, and most of their rows."""
TEXTS: Final = 1_024
"""Unused texts are forgotten once there are this many more texts than twice the values."""

_LABELS: Final = 16  # room for labels in a key
_TEXTS: Final = 32  # bits of a key for the number of the value's text


@dataclass(slots=True)
class _Waiting:
    """Rows of one table, of neighbouring panes, that are not added yet."""

    table: PaneTable
    first: int
    last: int
    slots: list[Ints] = field(default_factory=list)
    held: list[tuple[int, int]] = field(default_factory=list)  # (pane, slot)


class Shares:
    """Learns shares from each pane (`note`), and gives those of a series (`usual`).

    Its state is arrays by slot, and arrays by value in the order of the keys.
    """

    def __init__(self, keep: float, pane_s: int) -> None:
        self._keep = keep
        self._hour = max(1, 3600 // pane_s)
        self._pruned = -1
        self._whole = Arrays(self._blank)
        self._texts: list[str] = [OTHER]
        self._number: dict[str, int] = {OTHER: 0}
        self._keys: Ints = np.empty(0, np.int64)
        self._values = _no_values()
        self._waiting: list[_Waiting] = []
        self._rows = 0

    def _blank(self, slots: int) -> State:
        return {
            "sums": np.zeros((slots, COLUMNS), np.float32),
            "panes": np.zeros(slots, np.float32),
            "last": np.full(slots, -1, np.int64),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of the learned arrays."""
        arrays = (*self._whole.state.values(), *self._values.values(), self._keys)
        return sum(a.nbytes for a in arrays)

    def note(self, table: PaneTable, first: int, slots: Ints, pane: int, held: Collection[int]) -> None:
        """Learn the pane's rows from `first` on, one for each of `slots`, without the slots in `held`."""
        if pane // self._hour != self._pruned:
            self._take_in()
            self._prune(pane)
            self._pruned = pane // self._hour
        if not len(slots):
            return
        waiting = self._waiting[-1] if self._waiting else None
        if waiting is None or waiting.table is not table or waiting.last != first:
            waiting = _Waiting(table, first, first)
            self._waiting.append(waiting)
        waiting.last += len(slots)
        waiting.slots.append(slots)
        waiting.held += [(pane, slot) for slot in held]
        self._rows += len(slots)
        if len(self._waiting) >= TABLES or self._rows >= ROWS:
            self._take_in()

    def usual(self, slot: int, pane: int) -> Usual:
        """The usual shares of the series in this slot; all are 0 if nothing was learned."""
        self._take_in()
        self._whole.reserve(slot + 1)
        state = self._whole.state
        values: ByLabel = {}
        low, high = np.searchsorted(self._keys, (_key(slot, 0, 0), _key(slot + 1, 0, 0))).tolist()
        for i in range(low, high):
            label = LABELS[int(self._keys[i] >> _TEXTS) % _LABELS]
            text = self._texts[int(self._keys[i]) & (1 << _TEXTS) - 1]
            fade = self._keep ** max(pane - int(self._values["last"][i]), 0)
            values.setdefault(label, {})[text] = self._values["sums"][i].astype(np.float64) * fade
        values = {label: dict(sorted(known.items())) for label, known in values.items()}
        fade = self._keep ** max(pane - int(state["last"][slot]), 0)
        full = frozenset(label for label, known in values.items() if len(known) >= MOST)
        return Usual(float(state["panes"][slot]) * fade, state["sums"][slot].astype(np.float64) * fade, values, full)

    def _take_in(self) -> None:
        if not self._waiting:
            return
        slots, panes, held, added, keys, of_pane, parts = [], [], [], [], [], [], []
        for w in self._waiting:
            table = w.table
            slot, out = np.concatenate(w.slots), np.zeros(w.last - w.first, np.bool_)
            for pane, of in w.held:
                a, b = np.searchsorted(table.pane[w.first : w.last], (pane, pane + 1)).tolist()
                out[a:b] |= slot[a:b] == of
            slots.append(slot)
            held.append(out)
            panes.append(table.pane[w.first : w.last])
            added.append(rows(table, w.first, w.last))
            a, b = np.searchsorted(table.breakdown_row, (w.first, w.last)).tolist()
            row = table.breakdown_row[a:b].astype(np.int64) - w.first
            label = table.breakdown_label[a:b].astype(np.int64)
            key = ((slot[row] * _LABELS + label) << _TEXTS) | self._numbers(table, a, b)
            part = entries(table, a, b)
            if w.held:
                learned = ~out[row]
                row, key, part = row[learned], key[learned], part[learned]
            keys.append(key)
            of_pane.append(panes[-1][row])
            parts.append(part)
        self._waiting, self._rows = [], 0
        slot = np.concatenate(slots).astype(np.int64)
        self._whole.reserve(int(slot.max()) + 1)
        wholes = Wholes(**self._whole.state)
        add_rows(slot, np.concatenate(panes), np.concatenate(added), np.concatenate(held), self._keep, wholes)
        key = np.concatenate(keys)
        if len(key):
            place = self._places(key)
            add_entries(
                place, np.concatenate(of_pane), np.concatenate(parts), self._keep, self._values["sums"],
                self._values["last"],
            )  # fmt: skip
        if len(self._texts) > 2 * len(self._keys) + TEXTS:
            self._renumber()

    def _numbers(self, table: PaneTable, first: int, last: int) -> Ints:
        """The number of each entry's text."""
        index = table.breakdown_value[first:last]
        numbers = np.zeros(len(table.breakdown_values), np.int64)
        for i in np.unique(index).tolist():
            text = table.breakdown_values[i]
            number = self._number.get(text)
            if number is None:
                number = self._number[text] = len(self._texts)
                self._texts.append(text)
            numbers[i] = number
        return numbers[index]

    def _places(self, key: Ints) -> Ints:
        """The place of each key; a new key gets a place while its label has room, else the one of `__other__`."""
        place = np.searchsorted(self._keys, key)
        known = np.append(self._keys, -1)[place] == key
        if known.all():
            return place
        new = np.flatnonzero(~known)
        distinct, first, of_key = np.unique(key[new], return_index=True, return_inverse=True)
        group = distinct >> _TEXTS
        order = np.lexsort((first, group))
        group = group[order]
        nth = np.arange(len(group)) - np.searchsorted(group, group)
        taken = np.diff(np.searchsorted(self._keys, np.stack([group, group + 1]) << _TEXTS), axis=0)[0]
        beyond = order[nth >= 2 * MOST - taken]
        distinct[beyond] = distinct[beyond] >> _TEXTS << _TEXTS
        self._insert(np.unique(distinct))
        key = key.copy()
        key[new] = distinct[of_key.ravel()]
        return np.searchsorted(self._keys, key)

    def _insert(self, keys: Ints) -> None:
        keys = keys[~np.isin(keys, self._keys)]
        at = np.searchsorted(self._keys, keys)
        self._keys = np.insert(self._keys, at, keys)
        fresh = _no_values(len(keys))
        self._values = {name: np.insert(a, at, fresh[name], axis=0) for name, a in self._values.items()}

    def drop(self, slots: Ints) -> None:
        """Forget the series of these slots."""
        self._take_in()
        for slot in slots[slots < self._whole.capacity].tolist():
            self._whole.clear(slot)
        self._keep_only(~np.isin(self._keys >> _TEXTS >> 4, slots))

    def _keep_only(self, which: Bools) -> None:
        if not which.all():
            self._keys = self._keys[which]
            self._values = {name: a[which] for name, a in self._values.items()}

    def _prune(self, pane: int) -> None:
        """Forget faint values, and merge those that are not among the largest of their label."""
        if not len(self._keys):
            return
        requests = self._values["sums"][:, 0] * self._keep ** (pane - self._values["last"])
        self._keep_only(requests >= FAINT)
        self._renumber()
        group, real = self._keys >> _TEXTS, (self._keys & (1 << _TEXTS) - 1) > 0
        requests = np.where(real, self._values["sums"][:, 0] * self._keep ** (pane - self._values["last"]), np.inf)
        order = np.lexsort((self._keys, -requests, group))
        nth = np.arange(len(order)) - np.searchsorted(group[order], group[order])
        others = np.isin(group[order], group[~real])
        small = np.sort(order[nth >= MOST + others])
        if not len(small):
            return
        keys, values = self._keys[small], {name: a[small] for name, a in self._values.items()}
        self._keep_only(~np.isin(np.arange(len(self._keys)), small))
        other = keys >> _TEXTS << _TEXTS
        self._insert(np.unique(other))
        faded = values["sums"] * self._keep ** (pane - values["last"])[:, np.newaxis]
        now = np.full(len(small), pane, np.int64)
        place = np.searchsorted(self._keys, other)
        add_entries(place, now, faded, self._keep, self._values["sums"], self._values["last"])

    def _renumber(self) -> None:
        self._texts, self._keys, self._values = self._in_order()
        self._number = {text: i for i, text in enumerate(self._texts)}

    def _in_order(self) -> tuple[list[str], Ints, State]:
        """The texts in use in order, `__other__` first, and the values in that order, whatever order they came in."""
        number = self._keys & (1 << _TEXTS) - 1
        used = sorted({self._texts[i] for i in np.unique(number).tolist()} - {OTHER})
        texts = [OTHER, *used]
        place = {text: i for i, text in enumerate(texts)}
        renumbered = np.array([place.get(text, 0) for text in self._texts], np.int64)
        keys = (self._keys >> _TEXTS << _TEXTS) | renumbered[number]
        order = np.argsort(keys)
        return texts, keys[order], {name: a[order] for name, a in self._values.items()}

    def save(self, used: int) -> tuple[object, ...]:
        """The learned shares of the slots in use; waiting rows are added first."""
        self._take_in()
        self._whole.reserve(used)
        texts, keys, values = self._in_order()
        return self._pruned, self._whole.save(used), texts, keys, packed(values, _no_values(1))

    def load(self, saved: tuple[object, ...]) -> None:
        """Load a saved state."""
        pruned, whole, texts, keys, values = cast(Any, saved)
        self._pruned, self._texts, self._keys = pruned, list(texts), keys.copy()
        self._values, sums = unpacked(values), unpacked(whole)
        self._values["sums"], sums["sums"] = widened(self._values["sums"]), widened(sums["sums"])
        self._number = {text: i for i, text in enumerate(self._texts)}
        self._whole.load(sums)


def _key(slot: int, label: int, number: int) -> int:
    return ((slot * _LABELS + label) << _TEXTS) | number


def _no_values(of: int = 0) -> State:
    return {"sums": np.zeros((of, COLUMNS), np.float32), "last": np.full(of, -1, np.int64)}
