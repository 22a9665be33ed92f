"""The times that the files of a source span, and how they overlap."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from operators.model import Ints
from operators.units import moment


@dataclass
class Spans:
    """The first and the last start of an event on time, by partition, as far as this process has read."""

    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, partition: str, starts: Ints) -> None:
        """Events of this partition have these starts."""
        if not len(starts):
            return
        low, high = int(starts.min()), int(starts.max())
        with self._lock:
            self.first[partition] = min(low, self.first.get(partition, low))
            self.last[partition] = max(high, self.last.get(partition, high))

    def overlap(self) -> str:
        """A sentence that tells how many files begin before an earlier one ends, with one example; "" if none does."""
        pairs: list[tuple[str, str]] = []
        longest = ""
        for name in sorted(self.first, key=lambda name: (self.first[name], name)):
            if longest and self.first[name] < self.last[longest]:
                pairs.append((longest, name))
            if not longest or self.last[name] > self.last[longest]:
                longest = name
        if not pairs:
            return ""
        a, b = pairs[0]
        more = f", and {len(pairs) - 1} more begin so" if len(pairs) > 1 else ""
        return (
            f"files overlap in time: {a} ends {moment(self.last[a])}, after {b} begins {moment(self.first[b])}{more}; "
            "they are read side by side, and an event that stands in two files counts twice"
        )
