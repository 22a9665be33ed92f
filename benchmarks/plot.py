"""Draws bars and curves as SVG, for a handful of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 720, 26, 14, 90, 110


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """Horizontal bars in the given order, the largest as wide as the picture; readable on light and dark grounds."""
    height = 44 + len(values) * (_BAR + _GAP)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(values.values())
    rows = []
    for number, (name, value) in enumerate(values.items()):
        y = 40 + number * (_BAR + _GAP)
        width = max(1.0, value * scale)
        rows.append(
            f'<text x="{_LEFT - 8}" y="{y + 18}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="3" fill="#4f81bd"/>'
            f'<text x="{_LEFT + width + 8:.1f}" y="{y + 18}">{value:,.0f}</text>'
        )
    style = "font: 14px system-ui, sans-serif; fill: #808890"
    head = f'<text x="8" y="22">{escape(title)}, {escape(unit)}</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" style="{style}" role="img" '
        f'aria-label="{escape(title)}">\n{head}\n' + "\n".join(rows) + "\n</svg>\n"
    )


def curves(title: str, along: str, series: Mapping[str, Sequence[float]]) -> str:
    """A panel for each series, one below the other, from 0 to its largest value; one value a unit of `along`."""
    panel, gap = 130, 46
    height = 40 + len(series) * (panel + gap)
    wide = _WIDTH - 70 - 20
    out = []
    for number, (name, values) in enumerate(series.items()):
        top = 62 + number * (panel + gap)
        most = max([*values, 1e-9])
        step = wide / max(1, len(values) - 1)
        points = " ".join(f"{70 + i * step:.1f},{top + panel * (1 - v / most):.1f}" for i, v in enumerate(values))
        out += [
            f'<text x="70" y="{top - 8}">{escape(name)}</text>',
            f'<text x="62" y="{top + 12}" text-anchor="end">{most:,.4g}</text>',
            f'<text x="62" y="{top + panel}" text-anchor="end">0</text>',
            f'<path d="M70,{top} V{top + panel} H{70 + wide}" fill="none" stroke="#808890"/>',
            f'<polyline points="{points}" fill="none" stroke="#4f81bd" stroke-width="2"/>',
            f'<text x="{70 + wide}" y="{top + panel + 18}" text-anchor="end">{len(values)} {escape(along)}</text>',
        ]
    style = "font: 14px system-ui, sans-serif; fill: #808890"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" style="{style}" role="img" '
        f'aria-label="{escape(title)}">\n<text x="8" y="22">{escape(title)}</text>\n' + "\n".join(out) + "\n</svg>\n"
    )
