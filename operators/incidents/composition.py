"""The composition of a series' requests: sums of all, and by value of each label that the series does not name.

A vector of sums has the columns of `operators.kernels.detect`: requests, errors, then count and total of each metric in
`METRICS_TOLD`, totals in fixed-point steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.metrics import METRICS
from operators.model import LABELS, Ints
from operators.panes.table import PaneTable
from operators.series import OTHER

MOST_VALUES: Final = 32
"""Most values of a label that `Observed` tells apart; all others count as one."""

COLUMNS: Final = 2 + 2 * len(METRICS)

Vector = NDArray[np.float64]
ByLabel = dict[str, dict[str, Vector]]


class Usual(NamedTuple):
    """The usual sums, over fading panes: the number of panes, the sums of all requests, those of each known value."""

    panes: float
    whole: Vector
    values: ByLabel
    full: frozenset[str]  # labels whose rarer values are not told apart


@dataclass(slots=True)
class Observed:
    """The sums of the panes that were added: exact, so that the order of adding does not matter."""

    panes: int = 0
    whole: Ints = field(default_factory=lambda: np.zeros(COLUMNS, np.int64))
    values: dict[tuple[int, str], Ints] = field(default_factory=dict)  # by label and value

    def add(self, table: PaneTable, row: int, first: int, last: int) -> None:
        """Add the row, whose breakdown entries are those from `first` to `last` - 1."""
        self.whole += rows(table, row, row + 1)[0]
        parts = entries(table, first, last)
        labels, values = table.breakdown_label[first:last].tolist(), table.breakdown_value[first:last].tolist()
        for i, (label, value) in enumerate(zip(labels, values, strict=True)):
            key = (label, table.breakdown_values[value])
            known = self.values.get(key)
            if known is None and sum(of == label for of, _ in self.values) >= MOST_VALUES:
                key = (label, OTHER)
                known = self.values.get(key)
            if known is None:
                self.values[key] = parts[i].copy()
            else:
                known += parts[i]

    def by_label(self) -> dict[str, dict[str, Ints]]:
        """The sums by label and value, both in order."""
        out: dict[str, dict[str, Ints]] = {}
        for (label, value), sums in sorted(self.values.items(), key=lambda item: item[0]):
            out.setdefault(LABELS[label], {})[value] = sums
        return out

    def save(self) -> tuple[object, ...]:
        """The state as builtins."""
        return self.panes, self.whole.tolist(), [(*k, v.tolist()) for k, v in sorted(self.values.items(), key=_key)]

    @staticmethod
    def load(panes: int, whole: list[int], values: list[tuple[int, str, list[int]]]) -> Observed:
        """Restore the state that `save` gave."""
        return Observed(
            panes,
            widened(np.array(whole, np.int64)),
            {(label, v): widened(np.array(sums, np.int64)) for label, v, sums in values},
        )


def widened(sums: NDArray[Any]) -> NDArray[Any]:
    """Sums [..., columns] of a release with fewer metrics, with zeros for those that came after them."""
    return np.pad(sums, (*[(0, 0)] * (sums.ndim - 1), (0, COLUMNS - sums.shape[-1])))


def _key(item: tuple[tuple[int, str], Ints]) -> tuple[int, str]:
    return item[0]


def rows(table: PaneTable, first: int, last: int) -> Ints:
    """The sums of rows `first` to `last` - 1, one vector for each."""
    at = slice(first, last)
    return _columns(table.requests[at], table.errors[at], table.count[at], table.total[at])


def entries(table: PaneTable, first: int, last: int) -> Ints:
    """The sums of breakdown entries `first` to `last` - 1, one vector for each."""
    at = slice(first, last)
    return _columns(
        table.breakdown_requests[at], table.breakdown_errors[at], table.breakdown_count[at], table.breakdown_total[at]
    )


def _columns(requests: Ints, errors: Ints, count: Ints, total: Ints) -> Ints:
    out = np.empty((len(requests), COLUMNS), np.int64)
    out[:, 0], out[:, 1] = requests, errors
    out[:, 2::2], out[:, 3::2] = count, total
    return out
