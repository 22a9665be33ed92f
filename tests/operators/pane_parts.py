"""The parts that make panes, each replaceable, so that the laws of panes can run over parts with a bug."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from operators.decode.seen import Seen
from operators.panes import fold, watermark
from operators.panes.admission import Admission
from operators.panes.rollup import Rollup
from operators.panes.shard import Shard
from operators.panes.table import PaneTable
from operators.panes.watermark import ShardClock
from tests.operators.pane_events import EVIDENCE, SETS, VALUES, WIDTH, Call, columns


@dataclass(frozen=True)
class Parts:
    """The parts that aggregate; by default those of production."""

    fold_events: Callable[..., PaneTable] = fold.fold_events
    merge: Callable[..., PaneTable] = fold.merge
    judge: Callable[..., watermark.Judged] = watermark.judge
    clock: Callable[..., ShardClock] = ShardClock
    admission: type[Admission] = Admission
    shard: Callable[..., Shard] = Shard
    rollup: Callable[..., Rollup] = Rollup
    seen: Callable[..., Seen] = Seen

    def folded(self, calls: Sequence[Call], sets: tuple[tuple[str, ...], ...] = SETS, width: int = WIDTH) -> PaneTable:
        """The table of all these calls."""
        return self.fold_events(columns(list(calls)), np.ones(len(calls), np.bool_), sets, width, EVIDENCE, VALUES)

    def merged(self, tables: Sequence[PaneTable]) -> PaneTable:
        """These tables merged into one."""
        return self.merge(tables, EVIDENCE, VALUES)


REAL: Final = Parts()
