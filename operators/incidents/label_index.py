"""An index that finds the series that contradict another in no label, without looking at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")
Names = tuple[str, ...]


class LabelIndex(Generic[V]):
    """Values, each under its own key and with the labels of its series.

    `find` costs a step for each result and for each set of dimensions in the index; the first call with a new
    combination of dimensions sorts all values by it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Mapping[str, str], V]] = {}
        # Keys by the dimensions of their series, then by the dimensions asked for, then by the values of these.
        self._sorted: dict[Names, dict[Names, dict[Names, dict[str, None]]]] = {}

    def values(self) -> list[V]:
        """All values, in the order in which they were put in."""
        return [value for _, value in self._entries.values()]

    def add(self, key: str, labels: Mapping[str, str], value: V) -> None:
        """Put in a value, in place of any other under the key."""
        self.discard(key)
        self._entries[key] = labels, value
        for common, by_values in self._sorted.setdefault(tuple(labels), {(): {}}).items():
            by_values.setdefault(_values(labels, common), {})[key] = None

    def discard(self, key: str) -> None:
        """Take out the value under the key, if there is one."""
        if key not in self._entries:
            return
        labels, _ = self._entries.pop(key)
        for common, by_values in self._sorted[tuple(labels)].items():
            keys = by_values[_values(labels, common)]
            del keys[key]
            if not keys:
                del by_values[_values(labels, common)]

    def find(self, labels: Mapping[str, str]) -> Iterator[V]:
        """The values of series that agree with `labels` in every dimension that both name, in no order."""
        for dimensions, orders in self._sorted.items():
            common = tuple(d for d in dimensions if d in labels)
            if common not in orders:
                orders[common] = {}
                for key in orders[()].get((), ()):
                    orders[common].setdefault(_values(self._entries[key][0], common), {})[key] = None
            for key in orders[common].get(_values(labels, common), ()):
                yield self._entries[key][1]


def _values(labels: Mapping[str, str], dimensions: Names) -> Names:
    return tuple(map(labels.__getitem__, dimensions))
