"""Compiled loop that steps the episode of each cell with a pane's verdicts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import REQUESTS_COLUMN, SCORE, Floats, Seen, is_live
from operators.model import Bools, Ints

STEADY, OPENED, RISEN, RESOLVED, FADED, QUIET = range(6)
"""The outcomes of a cell's step: anomalous as before, the four changes, and not anomalous while its episode is open."""


class EpisodeRules(NamedTuple):
    """When an episode opens, rises and resolves."""

    open_panes: int
    resolve: int  # panes
    at_once: Floats  # [N] score at which one pane opens it, by the number of a slot's settings
    bands: Floats  # [3] scores at which severity rises


class CellEpisodes(NamedTuple):
    """The state of each cell's episode."""

    recent: Ints  # [slots, C, N] the last panes with data: the pane if it was anomalous, else -1
    opened: Ints  # [slots, C] first anomalous pane of the open episode, -1 where none is open
    last: Ints  # [slots, C] last anomalous pane
    severity: NDArray[np.int8]  # [slots, C]


@compiled
def step_episodes(
    seen: Seen,
    counts: Floats,
    best: Floats,
    episodes: CellEpisodes,
    rules: EpisodeRules,
    numbers: NDArray[np.int8],
    excluded: Bools,
) -> Ints:
    """Step every cell by one pane; returns [n, 4] of (slot, cell, outcome, first pane of its episode or -1), in order.

    `counts` [slots, K] are this pane's requests that carry the metric, `best` [slots, C, FIELDS] the verdicts on the K
    metrics, then requests, then the error ratio. `numbers` [used] are those of the slots' settings; `excluded`
    [slots, C] is written.
    """
    now, bands, at_once = seen.now, rules.bands, rules.at_once
    recent, opened, last, severity = episodes.recent, episodes.opened, episodes.last, episodes.severity
    cells, window = recent.shape[1], recent.shape[2]
    out = np.empty((seen.used * cells, 4), np.int64)
    n = 0
    pane = seen.pane
    for s in range(seen.used):
        if not is_live(seen, s):
            continue
        for c in range(cells):
            data = counts[s, c] > 0.0 if c < cells - 2 else (c == cells - 2 or now[s, REQUESTS_COLUMN] > 0.0)
            score = best[s, c, SCORE]
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
                        if marks >= rules.open_panes or score >= at_once[numbers[s]]:
                            opened[s, c] = since
                            severity[s, c] = band
                            what = OPENED
                    elif band > severity[s, c]:
                        severity[s, c] = band
                        what = RISEN
            episode = opened[s, c]
            if episode >= 0 and pane - last[s, c] >= rules.resolve:
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
