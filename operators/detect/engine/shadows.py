"""Second states of cells that have changed, learned beside the usual ones until they replace them.

While an episode is open, its cell is not learned. In the last hour before a lasting change becomes the usual
(`detect.adopt_after_s`), a second state learns the cell. It then replaces the old one, so the cell is judged by it from
the next pane on and need not warm up again.
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
    """The second states, by (slot, cell). They are few: one for each episode that is about to become the usual."""

    def __init__(self, watch: Watch, panel: Panels) -> None:
        self._panel = panel
        adopt = watch.config.adopt_after_s
        self._after = watch.panes(adopt) - watch.panes(min(HOUR_S, adopt / 2))
        self._cells = len(watch.cells)
        self._states: dict[tuple[int, int], dict[str, State]] = {}

    def learn(self, block: Block, steps: Iterable[Step]) -> None:
        """Learn cells whose episodes have lasted from the pane; forget cells whose episodes are over."""
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
        """Replace the usual state of the cell by the second one; without one, the cell is learned anew."""
        self._panel.restart(slot, cell, self._states.pop((slot, cell), {}))

    def drop(self, slot: int) -> None:
        """Forget the series of the slot."""
        for key in [k for k in self._states if k[0] == slot]:
            del self._states[key]

    def save(self) -> list[tuple[object, ...]]:
        """The states as builtins and arrays; later panes do not change them."""
        return [
            (slot, cell, {d: {n: a.copy() for n, a in state.items()} for d, state in states.items()})
            for (slot, cell), states in sorted(self._states.items())
        ]

    def load(self, saved: Iterable[Any]) -> None:
        """Load saved states; a new detector begins with its initial state."""
        for slot, cell, states in saved:
            blank = self._panel.blank(slot, cell)
            self._states[slot, cell] = {d: {**state, **states.get(d, {})} for d, state in blank.items()}
