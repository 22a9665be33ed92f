"""A bar chart as SVG: enough to look at a handful of figures."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_WIDTH, _BAR, _GAP, _LEFT, _RIGHT = 720, 26, 14, 90, 110


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """Horizontal bars in the order given, the largest as wide as the picture; readable on light and dark grounds."""
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
