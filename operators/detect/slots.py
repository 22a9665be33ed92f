"""The slots of a shard's series, which are reused, and arrays with a row for each slot, which grow by a quarter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from operators.detect.base import State


class Slots:
    """The slot of each series, by its text. The smallest free slot is taken first, so slots repeat with the history."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = list(texts)  # by slot, "" where free
        self._index = {t: i for i, t in enumerate(self.texts) if t}
        self._free = [i for i, t in enumerate(self.texts) if not t]
        heapify(self._free)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def used(self) -> int:
        """The number of slots that were ever taken, free ones included."""
        return len(self.texts)

    def get(self, series: str) -> int | None:
        return self._index.get(series)

    def add(self, series: str) -> int:
        """Take a slot for a series that has none."""
        if self._free:
            slot = heappop(self._free)
            self.texts[slot] = series
        else:
            slot = len(self.texts)
            self.texts.append(series)
        self._index[series] = slot
        return slot

    def drop(self, slot: int) -> None:
        del self._index[self.texts[slot]]
        self.texts[slot] = ""
        heappush(self._free, slot)


class Arrays:
    """The arrays of one owner, all with the slot as first axis; `blank` makes them for a number of new slots."""

    def __init__(self, blank: Callable[[int], State], capacity: int = 8) -> None:
        self._blank = blank
        self._fresh = blank(1)
        self.capacity = capacity
        self.state = blank(capacity)

    def reserve(self, slots: int) -> None:
        """Make room for this number of slots; present values keep their places."""
        if slots <= self.capacity:
            return
        while self.capacity < slots:
            self.capacity += self.capacity // 4 + 6
        grown = self._blank(self.capacity)
        for name, old in self.state.items():
            grown[name][: len(old)] = old
        self.state = grown

    def clear(self, slot: int) -> None:
        """Set the slot back to its initial state."""
        for name, fresh in self._fresh.items():
            self.state[name][slot] = fresh[0]

    def save(self, used: int) -> dict[str, object]:
        """The state of the slots in use, `packed`."""
        return packed({name: array[:used] for name, array in self.state.items()}, self._fresh)

    def load(self, saved: State) -> None:
        used = max((len(a) for a in saved.values()), default=0)
        self.reserve(used)
        for name, array in saved.items():
            self.state[name][: len(array)] = array


def packed(state: State, fresh: State) -> dict[str, object]:
    """Copy arrays for a snapshot. `fresh` is the initial state of one slot.

    By name: the shape, the initial value, a bit for each place that says whether it has another value, and these other
    values. Histograms, hours and metrics that a series does not carry are mostly empty, so snapshots stay small.
    """
    out: dict[str, object] = {}
    for name, array in state.items():
        other = array != fresh[name]
        out[name] = array.shape, fresh[name].flat[0].item() if array.size else 0, np.packbits(other), array[other]
    return out


def unpacked(saved: Mapping[str, Any]) -> State:
    """The arrays that `packed` was given."""
    state: State = {}
    for name, (shape, known, bits, others) in saved.items():
        array = np.full(shape, known, others.dtype)
        array[np.unpackbits(bits, count=array.size).reshape(shape).view(np.bool_)] = others
        state[name] = array
    return state
