"""Which of many series contradict one in no label, without looking at all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

V = TypeVar("V")
Names = tuple[str, ...]


class LabelIndex(Generic[V]):
    """Values by the labels of a series each, under keys of their own.

    `find` costs what it finds, and a step for each set of dimensions that series here have; the first to ask for a
    combination of dimensions pays for sorting by it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Mapping[str, str], V]] = {}
        # By the dimensions that series have, then by those of them that were asked for: the keys by their values.
        self._sorted: dict[Names, dict[Names, dict[Names, dict[str, None]]]] = {}

    def values(self) -> list[V]:
        """All values, in the order in which they were put in."""
        return [value for _, value in self._entries.values()]

    def add(self, key: str, labels: Mapping[str, str], value: V) -> None:
        """Put in a value; one that is there under the key gives way."""
        self.discard(key)
        self._entries[key] = labels, value
        for common, by_values in self._sorted.setdefault(tuple(labels), {(): {}}).items():
            by_values.setdefault(_values(labels, common), {})[key] = None

    def discard(self, key: str) -> None:
        """Take out what is under the key, if there is anything."""
        if key not in self._entries:
            return
        labels, _ = self._entries.pop(key)
        for common, by_values in self._sorted[tuple(labels)].items():
            keys = by_values[_values(labels, common)]
            del keys[key]
            if not keys:
                del by_values[_values(labels, common)]

    def find(self, labels: Mapping[str, str]) -> Iterator[V]:
        """The values of series that have, in each dimension that both name, the value that is given. In no order."""
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
