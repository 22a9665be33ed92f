"""Compiled loops around the detectors: statistics of pane rows, sliding horizons, and the steps of episodes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import Learned
from operators.model import Bools, Ints

Floats = NDArray[np.float64]

STEADY, OPENED, RISEN, RESOLVED, FADED, QUIET = range(6)
"""What a step says of a cell: anomalous as before, the four changes, and not anomalous while its episode is open."""


@compiled
def row_statistics(
    requests: Ints,
    errors: Ints,
    count: Ints,  # [R, M]
    total: Ints,  # [R, M] fixed-point
    logs: Ints,  # [R, M] in steps
    sketch_start: Ints,
    sketch_bucket: NDArray[np.int16],
    sketch_count: Ints,
    metrics: Ints,  # [K] index on the metric axis
    value_of: Floats,  # [K, buckets] what a value of the bucket is judged as
    linear: Floats,  # [K] fixed-point steps in a unit where the metric is judged as it is, else 0
    log_steps: float,
    stats: Floats,  # [R, 2 + 2K], written
    square: Floats,  # [R, K], written
) -> None:
    """Per row: requests, errors, and each metric's count, total and sum of squares on the scale it is judged in."""
    axis = count.shape[1]
    for r in range(len(requests)):
        stats[r, 0] = requests[r]
        stats[r, 1] = errors[r]
        for k in range(len(metrics)):
            cell = r * axis + metrics[k]
            second = 0.0
            for i in range(sketch_start[cell], sketch_start[cell + 1]):
                v = value_of[k, sketch_bucket[i]]
                second += sketch_count[i] * v * v
            stats[r, 2 + 2 * k] = count[r, metrics[k]]
            m = metrics[k]
            stats[r, 3 + 2 * k] = total[r, m] / linear[k] if linear[k] > 0.0 else logs[r, m] / log_steps
            square[r, k] = second


@compiled
def request_values(
    axis: int,
    sketch_start: Ints,
    sketch_bucket: NDArray[np.int16],
    sketch_count: Ints,
    metrics: Ints,
    value_of: Floats,
    start: Ints,  # [R * K + 1], written
) -> tuple[Floats, Ints]:
    """The values of the rows' requests on the scale they are judged in, with their counts, by (row, metric)."""
    width = len(metrics)
    rows = (len(start) - 1) // max(width, 1)
    n = 0
    for r in range(rows):
        for k in range(width):
            start[r * width + k] = n
            cell = r * axis + metrics[k]
            n += sketch_start[cell + 1] - sketch_start[cell]
    start[rows * width] = n
    value, count = np.empty(n), np.empty(n, np.int64)
    for r in range(rows):
        for k in range(width):
            cell = r * axis + metrics[k]
            j = start[r * width + k]
            for i in range(sketch_start[cell], sketch_start[cell + 1]):
                value[j] = value_of[k, sketch_bucket[i]]
                count[j] = sketch_count[i]
                j += 1
    return value, count


@compiled
def advance_horizons(
    used: int,
    last: int,  # the pane before, -1 for none
    pane: int,
    slots: Ints,  # [R] of the pane's rows
    stats: Floats,  # [R, V]
    square_rows: Floats,  # [R, K]
    step: Ints,  # [H] panes in a bucket
    buckets: Ints,  # [H]
    offset: Ints,  # [H] where the horizon's buckets begin
    ring: Learned,  # [slots, B, V]
    now: Floats,  # [slots, V], written
    square: Floats,  # [slots, K], written
    sums: Floats,  # [slots, H, V], written
    spans: Ints,  # [H], written: panes that each horizon spans now
) -> None:
    """Enter the pane into every horizon's ring, forget what has left it, and sum up."""
    horizons = len(step)
    width = ring.shape[2]
    now[:used] = 0.0
    square[:used] = 0.0
    for r in range(len(slots)):
        now[slots[r]] = stats[r]
        square[slots[r]] = square_rows[r]
    for h in range(horizons):
        current = pane // step[h]
        entered = min(current - last // step[h], buckets[h]) if last >= 0 else buckets[h]
        for b in range(entered):
            index = offset[h] + (current - b) % buckets[h]
            for s in range(used):
                for v in range(width):
                    ring[s, index, v] = 0.0
        index = offset[h] + current % buckets[h]
        for r in range(len(slots)):
            for v in range(width):
                ring[slots[r], index, v] += stats[r, v]
        spans[h] = (buckets[h] - 1) * step[h] + pane % step[h] + 1
    for s in range(used):
        for h in range(horizons):
            for v in range(width):
                t = 0.0
                for b in range(offset[h], offset[h] + buckets[h]):
                    t += ring[s, b, v]
                sums[s, h, v] = t


@compiled
def step_episodes(
    used: int,
    pane: int,
    born: Ints,
    now: Floats,  # [slots, V]
    counts: Floats,  # [slots, K] requests of this pane that carry the metric
    best: Floats,  # [slots, C, FIELDS]: the K metrics, then requests, then the error ratio
    recent: Ints,  # [slots, C, N] the last panes with data: their number where anomalous, else -1
    opened: Ints,  # [slots, C] first anomalous pane of the open episode, -1 where none is open
    last: Ints,  # [slots, C] last anomalous pane
    severity: NDArray[np.int8],  # [slots, C]
    open_panes: int,
    at_once: Floats,  # [N] score, by the number of a slot's settings
    numbers: NDArray[np.int8],  # [used]
    resolve: int,  # panes
    bands: Floats,  # [3] scores at which severity rises
    excluded: Bools,  # [slots, C], written
) -> Ints:
    """Step every cell by one pane; gives [n, 4] of (slot, cell, what, first pane of its episode or -1), in order."""
    cells, window = recent.shape[1], recent.shape[2]
    out = np.empty((used * cells, 4), np.int64)
    n = 0
    for s in range(used):
        if born[s] < 0 or born[s] > pane:
            continue
        for c in range(cells):
            data = counts[s, c] > 0.0 if c < cells - 2 else (c == cells - 2 or now[s, 0] > 0.0)
            score = best[s, c, 0]
            anomalous = data and score >= 0.5
            what = -1
            if data:
                held = False
                for i in range(window - 1):
                    held = held or recent[s, c, i] >= 0
                    recent[s, c, i] = recent[s, c, i + 1]
                held = held or recent[s, c, window - 1] >= 0
                recent[s, c, window - 1] = pane if anomalous else -1
                marks = 0
                since = pane
                for i in range(window):
                    if recent[s, c, i] >= 0:
                        marks += 1
                        since = min(since, recent[s, c, i])
                if held and marks == 0 and opened[s, c] < 0:
                    what = FADED
                if anomalous:
                    last[s, c] = pane
                    band = 0
                    for b in range(len(bands)):
                        if score >= bands[b]:
                            band = b + 1
                    what = STEADY
                    if opened[s, c] < 0:
                        if marks >= open_panes or score >= at_once[numbers[s]]:
                            opened[s, c] = since
                            severity[s, c] = band
                            what = OPENED
                    elif band > severity[s, c]:
                        severity[s, c] = band
                        what = RISEN
            episode = opened[s, c]
            if episode >= 0 and pane - last[s, c] >= resolve:
                opened[s, c] = -1
                recent[s, c] = -1
                what = RESOLVED
            if what < 0 and data and opened[s, c] >= 0:
                what = QUIET
            excluded[s, c] = anomalous or opened[s, c] >= 0
            if what >= 0:
                out[n, 0] = s
                out[n, 1] = c
                out[n, 2] = what
                out[n, 3] = episode
                n += 1
    return out[:n]
