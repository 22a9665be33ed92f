"""Integers as bytes: zigzag (0, -1, 1, -2, ... become 0, 1, 2, 3, ...) and LEB128, small numbers in one byte."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.model import Ints

Bytes = NDArray[np.uint8]


@compiled
def write(numbers: Ints, start: Ints) -> tuple[Bytes, Ints]:
    """Groups of numbers, cut at `start`, as bytes; and where the bytes of each group start."""
    out = np.empty(10 * len(numbers), np.uint8)
    byte_start = np.zeros(len(start), np.int64)
    end = 0
    for g in range(len(start) - 1):
        for i in range(start[g], start[g + 1]):
            n = numbers[i]
            x = np.uint64((n << 1) ^ (n >> 63))
            while x >= np.uint64(128):
                out[end] = np.uint8((x & np.uint64(127)) | np.uint64(128))
                x >>= np.uint64(7)
                end += 1
            out[end] = np.uint8(x)
            end += 1
        byte_start[g + 1] = end
    return out[:end].copy(), byte_start


@compiled
def read(data: Bytes, room: int) -> tuple[Ints, int]:
    """The numbers in the bytes, and the number of bytes that they took.

    Stops early at the `room`-th number, at one that does not end, and at one of more than 64 bits.
    """
    out = np.empty(room, np.int64)
    found = 0
    taken = 0
    x = np.uint64(0)
    shift = 0
    for i in range(len(data)):
        b = np.uint64(data[i])
        if found == room or shift > 63 or (shift == 63 and b > np.uint64(1)):
            break
        x |= (b & np.uint64(127)) << np.uint64(shift)
        if b & np.uint64(128):
            shift += 7
            continue
        out[found] = np.int64(x >> np.uint64(1)) ^ -np.int64(x & np.uint64(1))
        found += 1
        taken = i + 1
        x = np.uint64(0)
        shift = 0
    return out[:found].copy(), taken
