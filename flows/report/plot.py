"""Plots as numbers: axes, and the shapes between them; `templates/plot.html.jinja` has their markup.

Coordinates are thousandths of the width and of the height, for an SVG that stretches with the page.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from operators.model import SECOND

SIZE: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STEPS_S: Final = (
    60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 345_600, 604_800,
    1_209_600, 2_419_200,
)  # fmt: skip
_TICKS: Final = 9
_LEAST_SHARE: Final = 1e-6  # the low end of a logarithmic axis, as a share of the largest value
_LEAST_ROOM: Final = 1e-15


def number(value: float) -> str:
    """A number in as few characters as it needs."""
    return f"{value:.1f}".rstrip("0").rstrip(".")


class TimeAxis:
    """Maps microseconds from `start` to `end` to 0 to 1000; times outside are put at the edge."""

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, max(end, start + 1)

    def at(self, time: float) -> float:
        return min(max((time - self.start) / (self.end - self.start), 0.0), 1.0) * SIZE

    def ticks(self) -> list[tuple[float, str]]:
        """Places and texts of round times, at most nine."""
        span_s = (self.end - self.start) / SECOND
        step_s = next((s for s in _STEPS_S if span_s / s <= _TICKS), _STEPS_S[-1] * math.ceil(span_s / 2e7))
        step = step_s * SECOND
        out = []
        for time in range(-(-self.start // step) * step, self.end + 1, step):
            moment = _EPOCH + timedelta(microseconds=time)
            whole_day = time % (86_400 * SECOND) == 0
            out.append((self.at(time), f"{moment:%b %d}" if whole_day else f"{moment:%H:%M}"))
        return out


class ValueAxis:
    """Maps values to 1000 (the least) to 0 (the most), by logarithm if `logs` and they span a factor of 20."""

    def __init__(self, values: Iterable[float], logs: bool) -> None:
        found = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
        low, high = min(found), max(found)
        positive = min((v for v in found if v > 0), default=1.0)
        self.logs = logs and high > 20 * positive
        if self.logs:
            self.low, self.high = max(positive / 1.15, high * _LEAST_SHARE), high * 1.15
        else:
            low = low if low > 0.5 * high else min(low, 0.0)
            room = max((high - low) * 0.08 or abs(high) * 0.1 or 1.0, _LEAST_ROOM)
            self.low, self.high = (low - room if low else low), high + room

    def at(self, value: float) -> float:
        if self.logs:
            share = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return (1 - min(max(share, 0.0), 1.0)) * SIZE

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high

    def ticks(self) -> list[float]:
        """Round values, from three to seven."""
        if not self.logs:
            rough = (self.high - self.low) / 4
            size = 10.0 ** math.floor(math.log10(rough))
            step = next(s for s in (1, 2, 2.5, 5, 10) if s * size >= rough) * size
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [n * step for n in range(first, last + 1)]
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for parts in ((1, 2, 5), (1, 3), (1,)):
            found = [p * 10.0**e for e in powers for p in parts if self.holds(p * 10.0**e)]
            if len(found) <= 6:
                return found
        return found[:: math.ceil(len(found) / 6)]


class _Pen:
    """Writes relative steps between whole coordinates, half as long as absolute ones; roundings do not add up."""

    def __init__(self) -> None:
        self.at: tuple[int, int] | None = None

    def to(self, point: tuple[float, float], step: str) -> str:
        """The command that goes to the point: `step` is m (move) or l (line); the first command is absolute."""
        x, y = round(point[0]), round(point[1])
        before, self.at = self.at, (x, y)
        if before is None:
            return f"M{x} {y}"
        dx, dy = x - before[0], y - before[1]
        return f"{step}{dx}{'' if dy < 0 else ' '}{dy}"


def line(points: Iterable[tuple[float, float] | None]) -> str:
    """The path of a line that breaks where a point is None."""
    out: list[str] = []
    pen = _Pen()
    drawing = False
    for point in points:
        if point is not None:
            out.append(pen.to(point, "l" if drawing else "m"))
        drawing = point is not None
    return "".join(out)


def dots(points: Iterable[tuple[float, float]]) -> str:
    """The path of dots, as lines of length 0 that are visible by their round ends."""
    pen = _Pen()
    return "".join(f"{pen.to(point, 'm')}h0" for point in points)


def area(points: Sequence[tuple[float, float]]) -> str:
    """The path of the area below a line."""
    return f"{line([(points[0][0], SIZE), *points])}V{SIZE}z" if points else ""


class Path(NamedTuple):
    """A path; its name is its class, which sets its colour. Nothing is drawn if `d` is empty."""

    name: str
    d: str


class Box(NamedTuple):
    """A rectangle; its name is its class, and `title` is shown while the pointer rests on it."""

    name: str
    x: int
    y: int
    width: int
    height: int
    title: str


class Mark(NamedTuple):
    """A point over the plot that keeps its size; its name is its class, and `title` describes it."""

    name: str
    x: float
    y: float
    title: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot: its shapes, the places and texts of both axes, and the marks over them.

    `label` describes the plot for people who cannot see it.
    """

    name: str
    label: str
    columns: Sequence[tuple[float, str]]
    rows: Sequence[tuple[float, str]]
    shapes: Sequence[Path | Box]
    marks: Sequence[Mark] = ()

    @property
    def grid(self) -> str:
        """The path of the lines at the places of both axes."""
        level = "".join(f"M0 {round(y)}H{SIZE}" for y, _ in self.rows)
        upright = "".join(f"M{round(x)} 0V{SIZE}" for x, _ in self.columns)
        return level + upright


def box(name: str, left: float, right: float, top: float = 0, bottom: float = SIZE, title: str = "") -> Box:
    """The rectangle between these places, wide enough to be seen."""
    width = max(round(right) - round(left), 2)
    return Box(name, min(round(left), SIZE - width), round(top), width, max(round(bottom) - round(top), 0), title)


def percent(coordinate: float) -> str:
    """A coordinate as CSS writes it."""
    return f"{number(coordinate / SIZE * 100)}%"
