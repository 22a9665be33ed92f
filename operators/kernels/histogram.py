"""Fading histograms: equal buckets on the scale that a metric is judged in, laid around the first value.

Both end buckets are open. When the median has left the middle half, the buckets follow it, so a level that drifts over
days stays in range. Their position depends on the values alone, so a shift of all values does not change scores.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled

Floats = NDArray[np.float64]
Counts = NDArray[np.float32]


@compiled
def quantile(mass: Counts, low: float, width: float, share: float) -> float:
    """The value below which this share of the mass lies, linear within a bucket; bucket 0 begins at `low`."""
    total = 0.0
    for b in range(len(mass)):
        total += float(mass[b])
    want = share * total
    below = 0.0
    for b in range(len(mass)):
        if below + mass[b] >= want and mass[b] > 0.0:
            return low + width * (b + (want - below) / float(mass[b]))
        below += float(mass[b])
    return low + width * len(mass)


@compiled
def share_below(mass: Counts, low: float, width: float, value: float) -> float:
    """The mass below the value, linear within a bucket."""
    place = (value - low) / width
    if place <= 0.0:
        return 0.0
    whole = min(int(place), len(mass))
    below = 0.0
    for b in range(whole):
        below += float(mass[b])
    if whole < len(mass):
        below += float(mass[whole]) * (place - whole)
    return below


@compiled
def distance(mass: Counts, low: float, width: float, centre: float) -> float:
    """The distance from the centre within which half of the mass lies."""
    total = 0.0
    for b in range(len(mass)):
        total += float(mass[b])
    near, far = 0.0, width * len(mass)
    for _ in range(20):
        middle = 0.5 * (near + far)
        inside = share_below(mass, low, width, centre + middle) - share_below(mass, low, width, centre - middle)
        if inside < 0.5 * total:
            near = middle
        else:
            far = middle
    return far


@compiled
def enter(mass: Counts, low: float, width: float, value: float, weight: float, home: int) -> float:
    """Add weight at the value, in place; returns the new beginning of bucket 0. The first value is in bucket `home`."""
    buckets = len(mass)
    total = 0.0
    for b in range(buckets):
        total += float(mass[b])
    if total == 0.0:
        low = value - (home + 0.5) * width
    place = int(min(max(math.floor((value - low) / width), 0.0), buckets - 1.0))
    mass[place] += weight
    if buckets // 4 <= place < buckets - buckets // 4:
        return low
    step = buckets // 4
    middle = (quantile(mass, low, width, 0.5) - low) / width
    if middle < step:
        for b in range(step):
            mass[buckets - 1 - step] += mass[buckets - 1 - b]
        for b in range(buckets - 1, -1, -1):
            mass[b] = mass[b - step] if b >= step else 0.0
        low -= step * width
    elif middle >= buckets - step:
        for b in range(step):
            mass[step] += mass[b]
        for b in range(buckets):
            mass[b] = mass[b + step] if b + step < buckets else 0.0
        low += step * width
    return low


@compiled
def fade(mass: Counts, keep: float) -> None:
    """Multiply the mass by `keep`, in place."""
    for b in range(len(mass)):
        mass[b] *= keep
