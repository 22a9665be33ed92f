"""Episodes: a run of anomalous panes of one cell (a metric of one series), and its transitions.

An episode opens when enough of the last panes with data were anomalous, or at once if one pane leaves no doubt; it is
updated when its severity rises, and resolves after quiet event time. Panes without data are quiet time, but no
evidence.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.config import EpisodesConfig
from operators.detect.base import Block, State, Watch
from operators.incidents.composition import Observed
from operators.kernels.detect import FIELDS, Floats
from operators.kernels.episodes import (
    FADED,
    OPENED,
    QUIET,
    RESOLVED,
    RISEN,
    STEADY,
    CellEpisodes,
    EpisodeRules,
    step_episodes,
)
from operators.model import SEVERITIES, Bools, Severity

BANDS: Final = (0.7, 0.85, 0.95)
"""Scores from which an episode is medium, high, critical; from 0.5 on it is low."""

MAX_EVIDENCE: Final = 5
MAX_SEEN: Final = 100
"""Most values of a dimension that an episode remembers; with more, any value may be among its requests."""


def episode_id(series: str, cell: str, since: int) -> str:
    """The id of an episode, the same in every run; `since` is in microseconds."""
    return _digest(series, cell, str(since))


def alert_id(episode: str, sequence: int) -> str:
    """The id of a transition, the same in every run."""
    return _digest(episode, str(sequence))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class Witness(NamedTuple):
    """A request that shows the anomaly; ordered so that the worst comes first."""

    order: int  # the value in fixed-point steps, negated if high values are the bad ones
    start: int
    event_id: str
    trace_id: str
    value: float
    pane: int
    caller: str = ""


@dataclass(slots=True)
class Trail:
    """The memory of a cell's anomalous panes, from the first one until the episode is over."""

    sequence: int = 0
    kind: str = ""
    detectors: tuple[str, ...] = ()
    by: str = ""  # the detector of the peak
    peak: tuple[float, ...] = (0.0,) * FIELDS  # the verdict with the highest score
    expected: float | None = None  # at the first anomalous pane, on the scale that is judged
    seen: dict[str, set[str]] = field(default_factory=dict)  # values of each dimension that the series does not name
    witnesses: list[Witness] = field(default_factory=list)
    observed: Observed = field(default_factory=Observed)  # the sums of the anomalous panes

    def save(self) -> tuple[object, ...]:
        """The state as builtins, none of which changes later."""
        return (
            self.sequence, self.kind, self.detectors, self.by, self.peak, self.expected,
            [(d, sorted(v)) for d, v in sorted(self.seen.items())], [tuple(w) for w in self.witnesses],
            self.observed.save(),
        )  # fmt: skip

    @classmethod
    def load(cls, *saved: Any) -> Trail:
        """Restore the state that `save` gave."""
        seen, witnesses, observed = saved[-3:]
        known: list[Any] = [{d: set(v) for d, v in seen}, [Witness(*w) for w in witnesses], Observed.load(*observed)]
        return cls(*saved[:-3], *known)


class Step(NamedTuple):
    """A cell that was anomalous at the pane, or changed, or whose episode is open.

    `what` is one of the codes of `operators.kernels.episodes`. `since` and `until` are the first and the last anomalous
    pane of the episode; `since` is -1 if none is open.
    """

    slot: int
    cell: int
    what: int
    since: int
    until: int
    severity: Severity


class Episodes:
    """Steps all cells of a shard. Holds settings only; the state is in the arrays of `blank`."""

    def __init__(self, config: EpisodesConfig, watch: Watch, thresholds: Floats) -> None:
        """`thresholds`: the level from which a pane is anomalous, by the number of a slot's settings."""
        self._window = max(config.open_of, config.open_panes)
        at_once = thresholds - float(np.log10(config.at_once))
        self._rules = EpisodeRules(
            config.open_panes, watch.panes(config.resolve_s), at_once / (at_once + thresholds), np.array(BANDS)
        )
        self._cells = len(watch.cells)

    def blank(self, slots: int) -> State:
        shape = (slots, self._cells)
        return {
            "recent": np.full((*shape, self._window), -1, np.int64),
            "opened": np.full(shape, -1, np.int64),
            "last": np.full(shape, -1, np.int64),
            "severity": np.zeros(shape, np.int8),
        }

    def fitted(self, state: State) -> State:
        """A saved state made to fit these settings, which may keep more or fewer of the last panes with data."""
        recent = state["recent"]
        kept = recent[..., max(0, recent.shape[-1] - self._window) :]
        before = np.full((*recent.shape[:-1], self._window - kept.shape[-1]), -1, np.int64)
        return {**state, "recent": np.concatenate([before, kept], axis=-1)}

    def remembers(self, state: State, slot: int, cell: int) -> bool:
        """Whether an episode of the cell is open, or one of its last panes was anomalous."""
        return bool(state["opened"][slot, cell] >= 0 or (state["recent"][slot, cell] >= 0).any())

    def step(self, state: State, block: Block, best: Floats, excluded: Bools, numbers: NDArray[np.int8]) -> list[Step]:
        """Take the pane's strongest verdicts [slots, cells, FIELDS]; returns the steps by slot and cell.

        `numbers`: the number of each slot's settings. Changes `state`, and writes `excluded` [slots, cells]: the cells
        that are anomalous or have an open episode, of which nothing may be learned.
        """
        episodes = CellEpisodes(**state)
        found = step_episodes(block.seen, block.counts, best, episodes, self._rules, numbers, excluded)
        return [
            Step(s, c, what, since, int(episodes.last[s, c]), SEVERITIES[episodes.severity[s, c]])
            for s, c, what, since in found.tolist()
        ]


__all__ = [
    "FADED",
    "OPENED",
    "QUIET",
    "RESOLVED",
    "RISEN",
    "STEADY",
    "Episodes",
    "Step",
    "Trail",
    "Witness",
    "alert_id",
    "episode_id",
]
