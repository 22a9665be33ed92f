"""The detectors that vote on a shard's panes, each with its calibration and its learned state."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
from numpy.typing import NDArray

from operators.detect import registry
from operators.detect.base import LEARNED, Block, Detector, State, Verdicts, Watch
from operators.detect.engine.calibration import Calibration
from operators.detect.slots import Arrays, unpacked
from operators.kernels.detect import FIELDS, SCORE, Floats
from operators.kernels.voting import add_up, take_mean, take_stronger
from operators.metrics import REQUESTS
from operators.model import Bools


class Panel:
    """Scores with every detector, takes the strongest verdict of each cell, and lets all of them learn."""

    def __init__(self, watch: Watch, beside: Panel | None = None) -> None:
        """A panel `beside` another one has the detectors of that one too, and shares its arrays."""
        others = [d.name for d in beside.detectors] if beside else ()
        self.detectors: tuple[Detector, ...] = registry.build(watch, others)
        self._calibrations = [Calibration(watch, d) if d.traits.needs_warm_up else None for d in self.detectors]
        self._first = [watch.cells.index(d.cells[0]) for d in self.detectors]
        self._requests = watch.cells.index(REQUESTS)
        self._weights = [registry.votes(watch, d) for d in self.detectors]
        votes = watch.config.votes
        self._agreed: Bools = np.array([c in votes and votes[c].combine == "agreement" for c in watch.cells], np.bool_)
        self._any_agreed = bool(self._agreed.any())
        # If detectors are to agree, alerts tell the verdict with the highest own score, so all weigh the same here.
        self._votes = [
            np.where(self._agreed[a : a + len(w)], np.sign(w), w)
            for a, w in zip(self._first, self._weights, strict=True)
        ]
        self._judges = [i for i, d in enumerate(self.detectors) if d.traits.finds != "limit"]
        self._limits = [i for i, d in enumerate(self.detectors) if d.traits.finds == "limit"]
        self._learned: list[Arrays] = beside._learned if beside else [Arrays(d.state) for d in self.detectors]
        self._levels: list[Arrays | None] = (
            beside._levels if beside else [Arrays(c.state) if c else None for c in self._calibrations]
        )
        self.owners = (*self._learned, *(a for a in self._levels if a))
        self._raw: list[Verdicts] = []
        self._verdicts: list[Verdicts] = []
        self._clock: Callable[[], float] = lambda: 0.0
        self._seconds = {d.name: 0.0 for d in self.detectors}

    def time_by(self, clock: Callable[[], float], seconds: dict[str, float] | None = None) -> dict[str, float]:
        """Measure by this clock from now on; the returned dict sums up the seconds of each detector."""
        self._clock = clock
        self._seconds = self._seconds if seconds is None else seconds
        return self._seconds

    def judge(self, block: Block, best: Floats, winner: NDArray[np.int8], combined: Bools) -> None:
        """Write the verdict of each cell to `best`, and the number of its detector to `winner` (-1 if none has a vote).

        It is the strongest calibrated verdict, by weight; if detectors are to agree, its score is their weighted mean.
        `combined` [slots] says whether a wider series has the requests too; if so, only limits judge their number.
        """
        self._raw = [self._score(d, owner, block) for d, owner in zip(self.detectors, self._learned, strict=True)]
        self._verdicts = []
        winner[: block.used] = -1
        best[: block.used] = 0.0
        for raw, calibration, levels in zip(self._raw, self._calibrations, self._levels, strict=True):
            self._verdicts.append(calibration.score(levels.state, raw) if calibration and levels else raw)
        self._take(self._judges, best, winner)
        if self._any_agreed:
            self._agree(best)
        best[: block.used, self._requests][combined[: block.used]] = 0.0
        winner[: block.used, self._requests][combined[: block.used]] = -1
        self._take(self._limits, best, winner)  # last, since nothing outvotes a limit

    def _score(self, detector: Detector, owner: Arrays, block: Block) -> Verdicts:
        began = self._clock()
        verdicts = detector.score(owner.state, block)
        self._seconds[detector.name] += self._clock() - began
        return verdicts

    def _take(self, these: list[int], best: Floats, winner: NDArray[np.int8]) -> None:
        for i in these:
            take_stronger(self._verdicts[i].table, self._votes[i], self._first[i], i, best, winner)

    def _agree(self, best: Floats) -> None:
        total, mass = np.zeros((2, len(self._verdicts[0].table), len(self._agreed)))
        for i in self._judges:
            add_up(self._verdicts[i].table, self._weights[i], self._first[i], total, mass)
        take_mean(total, mass, self._agreed, best)

    def learn(self, block: Block, excluded: Bools) -> None:
        """Learn from the block that was judged last, without the cells of `excluded` [slots, cells]."""
        for detector, owner in zip(self.detectors, self._learned, strict=True):
            began = self._clock()
            detector.learn(owner.state, block, excluded)
            self._seconds[detector.name] += self._clock() - began
        for raw, calibration, levels in zip(self._raw, self._calibrations, self._levels, strict=True):
            if calibration and levels:
                calibration.learn(levels.state, raw, excluded)

    def blank(self, slot: int, cell: int) -> dict[str, State]:
        """For each detector that judges the cell, an initial state of one slot, with the arrays that it `keeps`."""
        found: dict[str, State] = {}
        for detector, owner, first in zip(self.detectors, self._learned, self._first, strict=True):
            if first <= cell < first + len(detector.cells):
                kept = {name: owner.state[name][slot : slot + 1].copy() for name in detector.traits.keeps}
                found[detector.name] = {**detector.state(1), **kept}
        return found

    def learn_apart(self, states: dict[str, State], block: Block, excluded: Bools) -> None:
        """Let states that are not the panel's own learn from a block of one slot."""
        for detector in self.detectors:
            if detector.name in states:
                detector.learn(states[detector.name], block, excluded)

    def restart(self, slot: int, cell: int, states: dict[str, State]) -> None:
        """Replace the learned state of the cell by these states (see `blank`).

        A detector without such a state learns the cell anew. Levels stay, and so do the arrays that a detector `keeps`.
        """
        for detector, owner, first in zip(self.detectors, self._learned, self._first, strict=True):
            if not first <= cell < first + len(detector.cells):
                continue
            at = (cell - first,) if len(detector.cells) > 1 else ()
            for name, fresh in (states.get(detector.name) or detector.state(1)).items():
                if name not in detector.traits.keeps:
                    owner.state[name][slot, *at] = fresh[0, *at]

    def lasting(self, slot: int, cell: int) -> tuple[tuple[float, ...], str]:
        """The strongest verdict of the detectors of deviations on the cell, and the name of its detector."""
        found: tuple[tuple[float, ...], str] = ((0.0,) * FIELDS, "")
        for detector, verdicts, votes, first in zip(
            self.detectors, self._verdicts, self._votes, self._first, strict=True
        ):
            k = cell - first
            if detector.traits.finds == "deviation" and 0 <= k < len(detector.cells) and votes[k]:
                verdict = tuple(verdicts.table[slot, k].tolist())
                if not found[1] or verdict[SCORE] > found[0][SCORE]:
                    found = verdict, detector.name
        return found

    def expect(self, block: Block) -> Floats:
        """The verdicts of `lasting` on all cells of any block, judged anew: [used, cells, FIELDS]."""
        best = np.zeros((block.used, len(self._agreed), FIELDS))
        whose = np.full(best.shape[:2], -1, np.int8)
        mine = zip(self.detectors, self._learned, self._calibrations, self._levels, strict=True)
        for i, (detector, owner, calibration, levels) in enumerate(mine):
            if detector.traits.finds != "deviation":
                continue
            verdicts = self._score(detector, owner, block)
            if calibration and levels:
                verdicts = calibration.score(levels.state, verdicts)
            take_stronger(verdicts.table, np.sign(self._votes[i]), self._first[i], i, best, whose)
        return best

    def agreeing(self, slot: int, cell: int) -> tuple[str, ...]:
        """The detectors that called the cell anomalous in the last judged block."""
        return tuple(
            d.name
            for d, v, votes, c in zip(self.detectors, self._verdicts, self._votes, self._first, strict=True)
            if c <= cell < c + len(d.cells) and votes[cell - c] and v.score[slot, cell - c] >= 0.5
        )

    def learned_panes(self, slot: int, cell: int, by: str) -> int:
        """The number of panes from which this detector has learned the cell; 0 if it does not count them."""
        for detector, owner, first in zip(self.detectors, self._learned, self._first, strict=True):
            if detector.name == by and LEARNED in owner.state:
                learned = owner.state[LEARNED][slot]
                return int(np.max(learned[cell - first] if len(detector.cells) > 1 else learned))
        return 0

    def save(self, used: int) -> dict[str, object]:
        """By detector: its learned state and its levels."""
        return {
            d.name: (a.save(used), c.save(used) if c else {})
            for d, a, c in zip(self.detectors, self._learned, self._levels, strict=True)
        }

    def load(self, saved: dict[str, object]) -> None:
        """Load a saved state; a new detector begins cold, and the state of a removed one is dropped."""
        for detector, learned, levels in zip(self.detectors, self._learned, self._levels, strict=True):
            if detector.name in saved:
                mine, calibrated = cast(tuple[dict[str, object], dict[str, object]], saved[detector.name])
                learned.load(unpacked(mine))
                if levels:
                    levels.load(unpacked(calibrated))
