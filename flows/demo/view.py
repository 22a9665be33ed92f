"""The view of the demo: frames for a terminal of any width, and plain lines without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from connectors.console import SEVERITY_STYLES
from flows.demo.feed import POINTS, Scene, Series
from operators.incidents.alert_json import microseconds
from operators.model import SECOND
from operators.text import printable
from operators.units import digits, duration, moment, readable

WIDE: Final = 96
"""The width in columns from which episodes and alerts take one line each."""
_MARKS: Final = {"firing": "▲", "updated": "◆", "resolved": "✓"}
_BARS: Final = " ▁▂▃▄▅▆▇█"
_LEAST_ROWS: Final = 2


def sparkline(values: Sequence[float], width: int) -> str:
    """The last `width` values as bars; the largest value has a full bar, 0 an empty place."""
    shown = list(values)[-width:] if width > 0 else []
    most = max(shown, default=0)
    if most <= 0:
        return " " * len(shown)
    return "".join(_BARS[max(1, round(v / most * 8)) if v > 0 else 0] for v in shown)


def behind(scene: Scene) -> str:
    """How far the watermark is behind the present; empty if it is not known."""
    if scene.watermark is None:
        return ""
    return f"{duration(max(0, scene.now - scene.watermark) / 1000)} ago"


def status(scene: Scene) -> str:
    """The scene in one line of text."""
    rate = scene.rates[-1] if scene.rates else 0.0
    parts = [scene.phase, f"{scene.events:,} events", f"{digits(rate)}/s"]
    if scene.watermark is not None:
        parts.append(f"at {moment(scene.watermark)} ({behind(scene)})")
    parts += [f"{len(scene.open)} open episodes", f"{scene.late:,} late", f"{scene.dead:,} dead letters"]
    return ", ".join(parts)


def where(alert: Mapping[str, Any]) -> str:
    """The series of an alert as its values, without the operation, which follows from the model."""
    series = alert.get("series") or {}
    return " ".join(printable(v) for k, v in series.items() if k != "operation" or len(series) == 1) or "?"


def _values(alert: Mapping[str, Any]) -> tuple[str, str]:
    """`error ratio`, `33.9 %, usual 0.4 %`; a unit that is part of the name is left out."""
    metric, unit = printable(alert.get("metric", "?")), printable(alert.get("unit", ""))
    unit = "" if unit in metric.split("_") else unit
    observed, expected = (readable(metric, unit, alert.get(name)) for name in ("observed", "expected"))
    return metric.replace("_", " "), f"{observed}, usual {expected}"


def what(alert: Mapping[str, Any]) -> str:
    """`error ratio 33.9 %, usual 0.4 %`."""
    return " ".join(_values(alert))


def label(entry: Mapping[str, Any]) -> str:
    """An incident of the simulation: `latency spike, north-large`."""
    return f"{printable(entry['type']).replace('_', ' ')}, {printable(' '.join(entry['entity'].values()))}"


def _clock(text: str) -> str:
    return printable(text)[11:19]


def _header(scene: Scene, width: int) -> list[Text]:
    rate = digits(scene.rates[-1]) if scene.rates else "0"
    bars = sparkline(scene.rates, max(8, min(60, width - 24)))
    lines = [
        Text.assemble(("LLM-Sentinel", "bold"), "  ", (scene.phase, "cyan")),
        Text.assemble((f"{rate:>7}", "bold"), " events/s  ", (bars, "green")),
    ]
    facts = [f"{scene.events:,} events", f"{scene.late:,} late", f"{scene.dead:,} dead letters"]
    mark = ["watermark ?"] if scene.watermark is None else [f"watermark {moment(scene.watermark)[5:]},", behind(scene)]
    if width >= WIDE:
        lines.append(Text("  ·  ".join([*facts, " ".join(mark)]), "dim"))
    else:
        lines += [Text("  ".join(facts), "dim"), Text(" ".join(mark), "dim")]
    going_on = "; ".join(label(entry) for entry in scene.injected) or "none"
    lines.append(Text.assemble(("injected: ", "dim"), (going_on, "magenta")))
    return lines


def _title(text: str) -> Text:
    return Text(text, "bold underline")


def _series(rows: Sequence[Series], width: int) -> Table:
    wide = width >= WIDE
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), show_header=True, header_style="dim")
    table.add_column("series", ratio=1, no_wrap=True, overflow="ellipsis")
    if wide:
        table.add_column("the last 10 minutes", no_wrap=True, width=POINTS)
    table.add_column("/min", justify="right", no_wrap=True, min_width=4)
    table.add_column("errors", justify="right", no_wrap=True, min_width=6)
    if width >= 60:
        table.add_column("worst p95", justify="right", no_wrap=True, min_width=9)
        table.add_column("USD", justify="right", no_wrap=True, min_width=6)
    for row in rows:
        cells = [Text(printable(row.name))]
        if wide:
            cells.append(Text(sparkline(row.curve, POINTS), "green"))
        bad = row.error_ratio >= 0.1
        cells += [
            Text(digits(row.requests_a_minute)),
            Text(f"{digits(row.error_ratio * 100, 2)} %", "red" if bad else ""),
        ]
        if width >= 60:
            cells += [Text(readable("latency", "ms", row.p95_ms)), Text(digits(row.cost_usd))]
        table.add_row(*cells)
    return table


def _alert(alert: Mapping[str, Any], width: int, scene: Scene | None) -> list[Text]:
    """An alert in one line, or in two on a narrow terminal; if `scene` is given, as an open episode with its age."""
    severity, state = printable(alert.get("severity", "?")), printable(alert.get("status", "?"))
    if scene is None:
        line = Text(f"{_clock(alert.get('at', '?'))} {_MARKS.get(state, '?')} ")
    else:
        until = max(scene.watermark or 0, since := microseconds(alert["since"]))
        line = Text(f"{duration((until - since) / 1000):>8} ")
    quiet = scene is None and state == "resolved"
    line.append(f"{severity:<8} ", "dim" if quiet else SEVERITY_STYLES.get(severity, ""))
    if width >= WIDE:
        line.append(where(alert), "" if quiet else "bold")
        line.append(f"  {what(alert)}", "dim" if quiet else "")
        return [line]
    metric, values = _values(alert)
    line.append(metric, "" if quiet else "bold")
    return [line, Text(f"  {where(alert)}: {values}", "dim" if quiet else "")]


def _lines(alerts: Sequence[Mapping[str, Any]], room: int, width: int, scene: Scene | None, none: str) -> list[Text]:
    """The lines of as many alerts as there is room for, then, for open episodes, the number of the others."""
    if not alerts:
        return [Text(none, "dim")]
    each = 1 if width >= WIDE else 2
    fit = max(1, room // each)
    if len(alerts) > fit and scene is not None:
        fit = max(1, (room - 1) // each)
    out = [line for alert in alerts[:fit] for line in _alert(alert, width, scene)]
    if len(alerts) > fit and scene is not None:
        out.append(Text(f"and {len(alerts) - fit} more", "dim"))
    return out


def frame(scene: Scene, width: int, height: int) -> RenderableType:
    """The scene as a frame of at most `height` lines, none wider than `width`."""
    header = _header(scene, width)
    room = height - len(header) - 7  # three titles, a table head, three empty lines
    series = max(_LEAST_ROWS, min(len(scene.series), room // 3))
    each = 1 if width >= WIDE else 2
    episodes = max(each, min(1 + each * len(scene.open), (room - series) // 2))
    recent = max(each, room - series - episodes)
    waiting = not scene.started
    parts: list[RenderableType] = [
        *header,
        Text(),
        _title("Top series"),
        _series(scene.series[:series], width) if scene.series else Text("nothing yet" if waiting else "-", "dim"),
        Text(),
        _title(f"Open episodes: {len(scene.open)} ({scene.episodes} in all)"),
        *_lines(scene.open, episodes, width, scene, "none"),
        Text(),
        _title("Alerts, newest first"),
        *_lines(scene.recent, recent, width, None, "none yet"),
    ]
    for part in parts:
        if isinstance(part, Text):
            part.truncate(width, overflow="ellipsis")
            part.no_wrap = True
    return Group(*parts)


def lag_s(scene: Scene) -> float | None:
    """How many seconds the watermark is behind the clock."""
    return None if scene.watermark is None else (scene.now - scene.watermark) / SECOND
