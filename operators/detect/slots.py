"""Where each series of a shard has its row in the arrays: slots that are reused, arrays that grow by a quarter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from operators.detect.base import State


class Slots:
    """Series text to slot. The smallest free slot is taken first, so the same history gives the same slots."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self.texts: list[str] = list(texts)  # by slot, "" where free
        self._index = {t: i for i, t in enumerate(self.texts) if t}
        self._free = [i for i, t in enumerate(self.texts) if not t]
        heapify(self._free)

    def __len__(self) -> int:
        return len(self._index)

    @property
    def used(self) -> int:
        """Slots in use, free ones between them included."""
        return len(self.texts)

    def get(self, series: str) -> int | None:
        return self._index.get(series)

    def add(self, series: str) -> int:
        """A slot for a series that has none."""
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
    """The arrays of one owner, all with a leading slot axis; `blank` makes them for a number of new slots."""

    def __init__(self, blank: Callable[[int], State], capacity: int = 8) -> None:
        self._blank = blank
        self._fresh = blank(1)
        self.capacity = capacity
        self.state = blank(capacity)

    def reserve(self, slots: int) -> None:
        """Make room for so many slots; what is there keeps its place."""
        if slots <= self.capacity:
            return
        while self.capacity < slots:
            self.capacity += self.capacity // 4 + 6
        grown = self._blank(self.capacity)
        for name, old in self.state.items():
            grown[name][: len(old)] = old
        self.state = grown

    def clear(self, slot: int) -> None:
        """As if nothing was ever seen in the slot."""
        for name, fresh in self._fresh.items():
            self.state[name][slot] = fresh[0]

    def save(self, used: int) -> dict[str, object]:
        """What is known of the slots in use, `packed`."""
        return packed({name: array[:used] for name, array in self.state.items()}, self._fresh)

    def load(self, saved: State) -> None:
        used = max((len(a) for a in saved.values()), default=0)
        self.reserve(used)
        for name, array in saved.items():
            self.state[name][: len(array)] = array


def packed(state: State, fresh: State) -> dict[str, object]:
    """Arrays for a snapshot; nothing of it changes later. `fresh` is what they are while nothing is known, of one slot.

    By name: the shape, the value of what is as in `fresh`, a bit for each value that is not, and these. Histograms,
    hours and what a series does not carry are mostly empty, and a snapshot costs what it holds.
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
