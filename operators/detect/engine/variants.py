"""Series with settings of their own: a panel for each override, all on the same arrays.

A series gets its override together with its slot. A detector judges the live slots of a block and skips the others, so
each panel gets a block in which only its own slots are live. The learned state of a slot has the same place whichever
panel judges it, so overrides can come and go on a running state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from operators.detect.base import Block, Detector, State, Watch
from operators.detect.engine.panel import Panel
from operators.kernels.detect import FIELDS, Floats
from operators.model import Bools, Ints
from operators.overrides import matching_override


class Panels:
    """The general panel and one for each override; callers use them as one panel.

    A slot's number is 0, or that of its override, counted from 1. By number: `thresholds` are the levels at which a
    pane is anomalous, and `muted` says whether alerts are off.
    """

    def __init__(self, watch: Watch, open_panes: int) -> None:
        self._overrides = watch.config.overrides
        self._cells = len(watch.cells)
        own = [Watch(watch.config.of_override(n), watch.pane_s, open_panes) for n in range(len(self._overrides))]
        self.thresholds: Floats = np.array([w.threshold for w in (watch, *own)])
        self.muted: Bools = np.array([False, *(o.mute for o in self._overrides)], np.bool_)
        first = Panel(watch)
        self._panels: tuple[Panel, ...] = (first, *(Panel(w, first) for w in own))
        self._of = np.zeros(0, np.int8)
        self.owners = first.owners

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors in the order of the numbers that `judge` writes; every panel has the same."""
        return self._panels[0].detectors

    def time_by(self, clock: Callable[[], float]) -> dict[str, float]:
        """As `Panel.time_by`, all panels together."""
        first, *others = self._panels
        seconds = first.time_by(clock)
        for panel in others:
            panel.time_by(clock, seconds)
        return seconds

    def place(self, slots: Sequence[str], capacity: int) -> None:
        """Find the numbers of all slots anew; `slots` are the series' texts, "" for a free slot."""
        self._of = np.zeros(capacity, np.int8)
        if self._overrides:
            for slot, series in enumerate(slots):
                self.admit(slot, series)

    def admit(self, slot: int, series: str) -> None:
        """Find the number of a slot for its new series."""
        if slot < len(self._of):
            number = matching_override(self._overrides, series)
            self._of[slot] = 0 if number is None else number + 1

    def numbers(self, slots: Ints | slice) -> NDArray[np.int8]:
        """The numbers of these slots."""
        return self._of[slots]

    def spread(self, values: Floats, slots: Ints) -> Floats:
        """The value of each slot, from values by number: [slots, 1], or [1] if there are no overrides."""
        return values[self._of[slots], np.newaxis] if self._overrides else values

    def is_muted(self, slot: int) -> bool:
        """Whether alerts of the slot are off."""
        return bool(self.muted[self._of[slot]])

    def threshold(self, slot: int) -> float:
        """The level at which a pane of the slot is anomalous."""
        return float(self.thresholds[self._of[slot]])

    def judge(self, block: Block, best: Floats, winner: NDArray[np.int8], combined: Bools) -> None:
        """As `Panel.judge`."""
        if not self._overrides:
            self._panels[0].judge(block, best, winner, combined)
            return
        for number, part in self._parts(block):
            verdicts, whose = np.empty_like(best[: block.used]), np.empty_like(winner[: block.used])
            self._panels[number].judge(part, verdicts, whose, combined)
            mine = np.flatnonzero(self._of[: block.used] == number)
            best[mine], winner[mine] = verdicts[mine], whose[mine]

    def learn(self, block: Block, excluded: Bools) -> None:
        """As `Panel.learn`."""
        for number, part in self._parts(block):
            self._panels[number].learn(part, excluded)

    def _parts(self, block: Block) -> Iterator[tuple[int, Block]]:
        """The numbers of the slots in use, each with the block for its panel."""
        if not self._overrides:
            yield 0, block
            return
        of = self._of[: block.used]
        for number in np.unique(of).tolist():
            born = block.born.copy()
            born[: block.used][of != number] = -1
            yield number, replace(block, seen=block.seen._replace(born=born))

    def blank(self, slot: int, cell: int) -> dict[str, State]:
        """As `Panel.blank`."""
        panel: Panel = self._panels[self._of[slot]]
        return panel.blank(slot, cell)

    def learn_apart(self, slot: int, cell: int, states: dict[str, State], block: Block, excluded: Bools) -> None:
        """As `Panel.learn_apart`, for the block of this slot alone."""
        self._panels[self._of[slot]].learn_apart(states, block, excluded)

    def restart(self, slot: int, cell: int, states: dict[str, State]) -> None:
        """As `Panel.restart`."""
        self._panels[self._of[slot]].restart(slot, cell, states)

    def agreeing(self, slot: int, cell: int) -> tuple[str, ...]:
        """As `Panel.agreeing`."""
        panel: Panel = self._panels[self._of[slot]]
        return panel.agreeing(slot, cell)

    def lasting(self, slot: int, cell: int) -> tuple[tuple[float, ...], str]:
        """As `Panel.lasting`."""
        panel: Panel = self._panels[self._of[slot]]
        return panel.lasting(slot, cell)

    def expect(self, block: Block) -> Floats:
        """As `Panel.expect`."""
        if not self._overrides:
            return self._panels[0].expect(block)
        best = np.zeros((block.used, self._cells, FIELDS))
        for number, part in self._parts(block):
            mine = np.flatnonzero(self._of[: block.used] == number)
            best[mine] = self._panels[number].expect(part)[mine]
        return best

    def learned_panes(self, slot: int, cell: int, by: str) -> int:
        """As `Panel.learned_panes`."""
        panel: Panel = self._panels[self._of[slot]]
        return panel.learned_panes(slot, cell, by)

    def save(self, used: int) -> dict[str, object]:
        """As `Panel.save`; the numbers of slots are not saved."""
        return self._panels[0].save(used)

    def load(self, saved: dict[str, object]) -> None:
        """As `Panel.load`."""
        self._panels[0].load(saved)
