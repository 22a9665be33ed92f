"""Compiled loops of the vote: the scores of several detectors on a cell become one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import SCORE, SPAN, Floats
from operators.model import Bools


@compiled
def take_stronger(
    verdicts: Floats, weights: Floats, first: int, detector: int, best: Floats, winner: NDArray[np.int8]
) -> None:
    """Keep, per cell, the verdict with the highest weighted score; the detector's columns begin at cell `first`.

    The first detector with a vote sets the verdict, and a higher score replaces it. A weight multiplies the ratio of
    the level to the boundary, so a detector with half the weight must be twice as sure.
    """
    for s in range(verdicts.shape[0]):
        for k in range(verdicts.shape[1]):
            weight = weights[k]
            if weight == 0.0:
                continue
            score = verdicts[s, k, SCORE]
            if weight != 1.0:
                score = weight * score / (weight * score + (1.0 - score))
            if winner[s, first + k] < 0 or score > best[s, first + k, SCORE]:
                best[s, first + k] = verdicts[s, k]
                best[s, first + k, SCORE] = score
                winner[s, first + k] = detector


@compiled
def add_up(verdicts: Floats, weights: Floats, first: int, total: Floats, mass: Floats) -> None:
    """Add the weighted scores of the cells that the detector judged, and the weights."""
    for s in range(verdicts.shape[0]):
        for k in range(verdicts.shape[1]):
            if weights[k] > 0.0 and verdicts[s, k, SPAN] > 0.0:
                total[s, first + k] += weights[k] * verdicts[s, k, SCORE]
                mass[s, first + k] += weights[k]


@compiled
def take_mean(total: Floats, mass: Floats, agreed: Bools, best: Floats) -> None:
    """Set the score of the `agreed` cells to the weighted mean; the rest of the verdict stays as it is."""
    for s in range(total.shape[0]):
        for c in range(total.shape[1]):
            if agreed[c]:
                best[s, c, SCORE] = total[s, c] / mass[s, c] if mass[s, c] > 0.0 else 0.0
