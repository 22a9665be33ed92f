"""The memory for calls that were told before, of one source partition."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import numpy as np
import xxhash

from operators.kernels.seen import Keys, forget_older, ring, see
from operators.model import Bools, Ints

_FIRST: Final = 1_024
_STEP: Final = 20 * 1_000_000_000  # nanoseconds
_NONE: Final = bytes(16)


def hashed(texts: Iterable[str]) -> Keys:
    """The 128-bit hashes [n, 2] of texts, two zeros for an empty one. Takes about 0.2 us each."""
    digests = [xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass")) if text else _NONE for text in texts]
    return np.frombuffer(b"".join(digests), np.uint64).reshape(len(digests), 2)


def keys_of(texts: Sequence[Sequence[str]]) -> Keys:
    """The keys [n, k, 2] of n events, each with its texts; k is the largest number of them."""
    most = max(map(len, texts), default=0)
    padded = chain.from_iterable((*of, *[""] * (most - len(of))) for of in texts)
    return hashed(padded).reshape(len(texts), most, 2)


def response_keys(response_id: str, end: int) -> list[str]:
    """The keys of a response by its id and the end of its call in nanoseconds, in two grids half a step apart.

    Calls with one id that end within half a step of each other share a key. Those that end later do not: some servers
    give ids that are not the response's alone.
    """
    if not response_id:
        return []
    return [f"response:{response_id}@{grid}{(end + shift) // _STEP}" for grid, shift in (("", 0), ("+", _STEP // 2))]


class Seen:
    """The keys of the recent past of one partition, bounded in event time and in number, at most 64 bytes each."""

    def __init__(self, horizon: int, most: int) -> None:
        self._horizon = horizon
        self._most = most
        self._ring = ring(_FIRST)

    def __len__(self) -> int:
        return int(self._ring.use[1])

    @property
    def oldest(self) -> int | None:
        """The time of the oldest key; None if there is none."""
        return int(self._ring.at[self._ring.use[0]]) if len(self) else None

    @property
    def full(self) -> bool:
        """Whether the memory is bounded by the number of keys, rather than by time."""
        return len(self) >= self._most

    def repeats(self, keys: Keys, times: Ints) -> Bools:
        """Whether each event has a key seen within the horizon; `times` is the running maximum at each event."""
        repeat = np.zeros(len(keys), np.bool_)
        if not len(keys):
            return repeat
        self._make_room(len(self) + keys.shape[0] * keys.shape[1])
        see(self._ring, self._most, keys, times, self._horizon, repeat)
        forget_older(self._ring, int(times[-1]) - self._horizon)
        return repeat

    def _make_room(self, keys: int) -> None:
        """Let the ring grow to hold this many, or as many as are kept."""
        old = self._ring
        capacity = len(old.at)
        while capacity < min(keys, self._most):
            capacity *= 2
        if capacity == len(old.at):
            return
        kept = (int(old.use[0]) + np.arange(int(old.use[1]))) % len(old.at)
        self._ring = ring(capacity)
        see(self._ring, capacity, old.key[kept][:, None], old.at[kept], -1, np.zeros(len(kept), np.bool_))

    @property
    def nbytes(self) -> int:
        """The bytes that the memory takes."""
        return sum(part.nbytes for part in self._ring)
