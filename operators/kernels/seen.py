"""The memory for keys that were seen: a ring in the order of sight, and a table of open addresses into it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import in_place, inner
from operators.model import Bools, Ints

Keys = NDArray[np.uint64]


class Ring(NamedTuple):
    """Keys [capacity, 2], the times at which they were seen, and the first and the number of those in use.

    `place` has twice as many slots, a power of two: the index of a key's last sight, or -1. A key is looked for from
    the slot of its second half on. A place for a key takes 32 bytes.
    """

    key: Keys
    at: Ints
    place: NDArray[np.int32]
    use: Ints


def ring(capacity: int) -> Ring:
    """An empty memory for `capacity` keys, a power of two."""
    return Ring(
        np.zeros((capacity, 2), np.uint64),
        np.zeros(capacity, np.int64),
        np.full(2 * capacity, -1, np.int32),
        np.zeros(2, np.int64),
    )


@inner
def _slot(key: Keys, place: NDArray[np.int32], high: np.uint64, low: np.uint64) -> np.uint64:
    """The slot of this key, or the empty one where it belongs."""
    mask = np.uint64(len(place) - 1)
    slot = low & mask
    while place[slot] >= 0:
        i = place[slot]
        if key[i, 0] == high and key[i, 1] == low:
            break
        slot = (slot + np.uint64(1)) & mask
    return slot


@inner
def _forget(key: Keys, place: NDArray[np.int32], use: Ints) -> None:
    """Drop the oldest sight; its key goes with it unless it was seen again later."""
    first = use[0]
    size = np.uint64(len(place))
    mask = size - np.uint64(1)
    hole = _slot(key, place, key[first, 0], key[first, 1])
    if place[hole] == first:
        place[hole] = -1
        slot = (hole + np.uint64(1)) & mask
        while place[slot] >= 0:  # move what was pushed aside back into the hole
            home = key[place[slot], 1] & mask
            if (slot + size - home) & mask >= (slot + size - hole) & mask:
                place[hole] = place[slot]
                place[slot] = -1
                hole = slot
            slot = (slot + np.uint64(1)) & mask
    use[0] = (first + 1) % len(key)
    use[1] -= 1


@in_place
def forget_older(memory: Ring, oldest: int) -> None:
    """Drop what was last seen before `oldest`."""
    key, at, place, use = memory.key, memory.at, memory.place, memory.use
    while use[1] > 0 and at[use[0]] < oldest:
        _forget(key, place, use)


@in_place
def see(memory: Ring, most: int, keys: Keys, times: Ints, horizon: int, repeat: Bools) -> None:
    """Remember the keys [n, k, 2] of n events, and mark the events of which one key was seen within the horizon.

    A key of two zeros is none. `times` never falls. The ring keeps the last `most` sights; it must have room for them,
    or for those that it has and all of `keys`.
    """
    key, at, place, use = memory.key, memory.at, memory.place, memory.use
    for i in range(len(keys)):
        for k in range(keys.shape[1]):  # before any of them is remembered: two equal keys of one event are no repeat
            last = place[_slot(key, place, keys[i, k, 0], keys[i, k, 1])]
            if last >= 0 and times[i] - at[last] <= horizon:
                repeat[i] = True
        for k in range(keys.shape[1]):
            high, low = keys[i, k, 0], keys[i, k, 1]
            if high == 0 and low == 0:
                continue
            if use[1] >= most:
                _forget(key, place, use)
            slot = _slot(key, place, high, low)
            new = (use[0] + use[1]) % len(key)
            key[new, 0], key[new, 1] = high, low
            at[new] = times[i]
            place[slot] = new
            use[1] += 1
