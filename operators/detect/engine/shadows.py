"""What a cell looks like since it changed: learned beside what is usual, until that is given up for it.

While an episode is open its cell is not learned. In the last hour before a lasting change is taken for the new normal
(`detect.adopt_after_s`) a state of its own learns from it, which then takes the place of the old one: the cell is
judged by it from the next pane on, and need not warm up anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from operators.detect.base import Block, State, Watch
from operators.detect.engine.variants import Panels
from operators.incidents.episodes import RESOLVED, Step

HOUR_S = 3_600


class Shadows:
    """The states that learn apart, by (slot, cell). Few: one an episode that is an hour old or more."""

    def __init__(self, watch: Watch, panel: Panels) -> None:
        self._panel = panel
        adopt = watch.config.adopt_after_s
        self._after = watch.panes(adopt) - watch.panes(min(HOUR_S, adopt / 2))
        self._cells = len(watch.cells)
        self._states: dict[tuple[int, int], dict[str, State]] = {}

    def learn(self, block: Block, steps: Iterable[Step]) -> None:
        """Learn from the pane the cells whose episodes have lasted; forget those whose episodes are over."""
        for step in steps:
            key = step.slot, step.cell
            if step.what == RESOLVED:
                self._states.pop(key, None)
            elif 0 <= step.since <= block.pane - self._after:
                if key not in self._states:
                    self._states[key] = self._panel.blank(*key)
                others = np.ones((1, self._cells), np.bool_)
                others[0, step.cell] = False
                self._panel.learn_apart(*key, self._states[key], block.alone(step.slot), others)

    def adopt(self, slot: int, cell: int) -> None:
        """Put what was learned apart in the place of what was usual; without any the cell is learned anew."""
        self._panel.restart(slot, cell, self._states.pop((slot, cell), {}))

    def drop(self, slot: int) -> None:
        """The series is gone."""
        for key in [k for k in self._states if k[0] == slot]:
            del self._states[key]

    def save(self) -> list[tuple[object, ...]]:
        """As builtins and arrays; nothing of it changes later."""
        return [
            (slot, cell, {d: {n: a.copy() for n, a in state.items()} for d, state in states.items()})
            for (slot, cell), states in sorted(self._states.items())
        ]

    def load(self, saved: Iterable[Any]) -> None:
        """Take over what was saved; of a detector that is new nothing was learned."""
        for slot, cell, states in saved:
            blank = self._panel.blank(slot, cell)
            self._states[slot, cell] = {d: {**state, **states.get(d, {})} for d, state in blank.items()}
