"""Local hours of panes and horizons, in the time zone of the traffic's senders."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np

from operators.kernels.season import WEEK, Times
from operators.model import Ints

HOUR = 3_600
"""In seconds."""


class Clock:
    """Local hours of panes. When clocks are set back, two hours have the same number."""

    def __init__(self, time_zone: str, pane_s: int) -> None:
        self._zone: tzinfo = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
        self._pane_s = pane_s
        self._offset = lru_cache(maxsize=8)(self._offset_at)

    def hour(self, pane: int) -> int:
        """The number of the hour that the middle of the pane lies in; modulo 168 it is the hour of the week."""
        return self._local(self._middle(pane)) // HOUR

    def times(self, pane: int, widths: Ints) -> Times:
        """The middles of the horizons that end with the pane, by their widths in panes; then the middle of the pane."""
        middle = self._middle(pane)
        back = [(w - 1) * self._pane_s // 2 for w in [*widths.tolist(), 1]]
        halves = [divmod(self._local(middle - b) - HOUR // 2, HOUR) for b in back]
        wanted = sorted({number + i for number, _ in halves for i in (0, 1)})
        place = {number: i for i, number in enumerate(wanted)}
        return Times(
            self.hour(pane),
            np.array(wanted, np.int64) % WEEK,
            np.array([place[number] for number, _ in halves], np.int64),
            np.array([place[number + 1] for number, _ in halves], np.int64),
            np.array([rest / HOUR for _, rest in halves]),
        )

    def _middle(self, pane: int) -> int:
        return pane * self._pane_s + self._pane_s // 2

    def _local(self, seconds: int) -> int:
        return seconds + self._offset(seconds // 900)

    def _offset_at(self, quarter: int) -> int:
        """The offset from UTC in a quarter of an hour, in seconds; offsets change only between quarters."""
        offset = datetime.fromtimestamp(quarter * 900, UTC).astimezone(self._zone).utcoffset()
        return 0 if offset is None else round(offset.total_seconds())
