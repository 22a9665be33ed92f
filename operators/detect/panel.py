"""The detectors that vote on a shard's panes, each with its calibration and with what it has learned."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from operators.detect import registry
from operators.detect.base import Block, State, Verdicts, Watch
from operators.detect.calibration import Calibration
from operators.detect.slots import Arrays
from operators.explain import RAW
from operators.kernels.detect import FIELDS, SCORE, Floats
from operators.kernels.detect_panes import take_stronger
from operators.model import Bools


class Panel:
    """Scores with every detector, takes the strongest verdict of each cell, and lets all of them learn."""

    def __init__(self, watch: Watch) -> None:
        self.detectors = registry.build(watch)
        self._calibrations = [Calibration(watch, d) if d.traits.needs_warm_up else None for d in self.detectors]
        self._votes = [registry.votes(watch, d) for d in self.detectors]
        self._first = [watch.cells.index(d.cells[0]) for d in self.detectors]
        self._learned = [Arrays(d.state) for d in self.detectors]
        self._levels = [Arrays(c.state) if c else None for c in self._calibrations]
        self.owners = (*self._learned, *(a for a in self._levels if a))
        self._raw: list[Verdicts] = []
        self._verdicts: list[Verdicts] = []

    def judge(self, block: Block, best: Floats, winner: NDArray[np.int8]) -> None:
        """Write the strongest calibrated verdict of each cell, and whose it is (-1 where nobody has a vote)."""
        self._raw = [d.score(a.state, block) for d, a in zip(self.detectors, self._learned, strict=True)]
        self._verdicts = []
        winner[: block.used] = -1
        best[: block.used] = 0.0
        for i, (raw, calibration, levels) in enumerate(zip(self._raw, self._calibrations, self._levels, strict=True)):
            verdicts = calibration.score(levels.state, raw) if calibration and levels else raw
            self._verdicts.append(verdicts)
            take_stronger(verdicts.table, self._votes[i], self._first[i], i, best, winner)

    def learn(self, block: Block, excluded: Bools) -> None:
        """Learn from the block that was judged last, without what is excluded [slots, cells]."""
        for detector, owner in zip(self.detectors, self._learned, strict=True):
            detector.learn(owner.state, block, excluded)
        for raw, calibration, levels in zip(self._raw, self._calibrations, self._levels, strict=True):
            if calibration and levels:
                calibration.learn(levels.state, raw, excluded)

    def restart(self, slot: int, cell: int) -> None:
        """Forget what was learned of the cell, so that it is learned anew; its levels are kept."""
        for detector, owner, first in zip(self.detectors, self._learned, self._first, strict=True):
            if not first <= cell < first + len(detector.cells):
                continue
            for name, fresh in detector.state(1).items():
                if len(detector.cells) > 1:
                    owner.state[name][slot, cell - first] = fresh[0, 0]
                else:
                    owner.state[name][slot] = fresh[0]

    def lasting(self, slot: int, cell: int) -> tuple[tuple[float, ...], str]:
        """The strongest verdict of the detectors that judge more than single requests, and whose it is."""
        found: tuple[tuple[float, ...], str] = ((0.0,) * FIELDS, "")
        for detector, verdicts, votes, first in zip(
            self.detectors, self._verdicts, self._votes, self._first, strict=True
        ):
            k = cell - first
            if detector.name not in RAW and 0 <= k < len(detector.cells) and votes[k]:
                verdict = tuple(verdicts.table[slot, k].tolist())
                if not found[1] or verdict[SCORE] > found[0][SCORE]:
                    found = verdict, detector.name
        return found

    def agreeing(self, slot: int, cell: int) -> tuple[str, ...]:
        """The detectors that called the cell anomalous in the block that was judged last."""
        return tuple(
            d.name
            for d, v, votes, c in zip(self.detectors, self._verdicts, self._votes, self._first, strict=True)
            if c <= cell < c + len(d.cells) and votes[cell - c] and v.score[slot, cell - c] >= 0.5
        )

    def save(self, used: int) -> dict[str, object]:
        """By detector: what it has learned, and the levels it gave."""
        return {
            d.name: (a.save(used), c.save(used) if c else {})
            for d, a, c in zip(self.detectors, self._learned, self._levels, strict=True)
        }

    def load(self, saved: dict[str, object]) -> None:
        """Take over what was saved; a detector that is new begins cold, what another one had learned is forgotten."""
        for detector, learned, levels in zip(self.detectors, self._learned, self._levels, strict=True):
            if detector.name in saved:
                mine, calibrated = cast(tuple[State, State], saved[detector.name])
                learned.load(mine)
                if levels:
                    levels.load(calibrated)
