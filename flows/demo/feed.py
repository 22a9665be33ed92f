"""The public outputs of a running flow, gathered for a view: its metrics, its alert file and its store."""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client.parser import text_string_to_metric_families

from connectors.sqlite import read
from operators.errors import ConfigError
from operators.model import SECOND, SEVERITIES

log = logging.getLogger(__name__)

RATES: Final = 60
"""Number of readings of the rate that are kept."""
RECENT: Final = 50
_SERIES: Final = 20
_SMOOTH: Final = 6
"""Number of readings that a rate is averaged over, since the flow works in bursts."""
_SPAN_S: Final = 600
POINTS: Final = 30
"""Number of points of a series' curve."""

_TOP: Final = """
SELECT series, service, model, sum(requests) AS requests, sum(errors) AS errors,
       max(latency_p95) AS slowest, sum(cost_sum) AS cost
FROM llm_panes
WHERE width_s = ? AND dimension_set = ? AND pane_start > ?
GROUP BY series ORDER BY requests DESC, series LIMIT ?
"""
_LAST: Final = "SELECT max(pane_start) AS last FROM llm_panes WHERE width_s = ?"
_CURVE: Final = """
SELECT pane_start, requests FROM llm_panes
WHERE width_s = ? AND dimension_set = ? AND series = ? AND pane_start > ?
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One series over the last ten minutes of event time; `curve` is requests a minute, oldest first."""

    name: str
    requests_a_minute: float
    error_ratio: float
    p95_ms: float | None
    cost_usd: float
    curve: tuple[float, ...]


@dataclass(slots=True)
class Scene:
    """The content of a view. Times are microseconds since 1970; alerts are their JSON objects."""

    now: int
    started: bool = False
    phase: str = "starting"
    rates: Sequence[float] = ()  # events a second of wall time, oldest first
    events: int = 0
    late: int = 0
    dead: int = 0
    watermark: int | None = None
    series: Sequence[Series] = ()
    open: Sequence[Mapping[str, Any]] = ()  # the last transition of each open episode, worst first
    recent: Sequence[Mapping[str, Any]] = ()  # transitions, newest first
    episodes: int = 0
    injected: Sequence[Mapping[str, Any]] = ()  # labels of the current incidents


@dataclass(slots=True)
class Alerts:
    """Follows a file of alert transitions as it grows."""

    path: Path
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=RECENT))
    fresh: list[dict[str, Any]] = field(default_factory=list)
    episodes: int = 0
    _open: dict[str, dict[str, Any]] = field(default_factory=dict)
    _at: int = 0

    def follow(self) -> None:
        """Read the complete lines that were added since the last call; `fresh` holds them, oldest first."""
        self.fresh = []
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            alert = orjson.loads(line)
            self.fresh.append(alert)
            self.recent.appendleft(alert)
            if alert["status"] == "resolved":
                self._open.pop(alert["episode_id"], None)
            else:
                self.episodes += alert["episode_id"] not in self._open
                self._open[alert["episode_id"]] = alert

    def open(self) -> list[dict[str, Any]]:
        """The last transition of each open episode: the worst first, then the newest."""
        by_time = sorted(self._open.values(), key=lambda a: (a["since"], a["episode_id"]), reverse=True)
        return sorted(by_time, key=lambda a: -SEVERITIES.index(a["severity"]))


class Feed:
    """Reads a flow's listener, alert file and store; values of those that do not answer stay as they were."""

    def __init__(self, metrics: str, alerts: Path, store: Path, pane_s: int, dimensions: str) -> None:
        self.alerts = Alerts(alerts)
        self._metrics = metrics
        self._store = store
        self._pane_s = pane_s
        self._dimensions = dimensions
        self._rates: deque[float] = deque(maxlen=RATES)
        self._before: deque[tuple[int, int]] = deque(maxlen=_SMOOTH)  # wall time and events at the last readings
        self._scene = Scene(now=0)

    def look(self, now: int) -> Scene:
        """The scene at this wall time."""
        scene = self._scene
        scene.now = now
        if (text := self._scrape()) is not None:
            scene.started = True
            self._counts(scene, text, now)
        self.alerts.follow()
        scene.open, scene.recent, scene.episodes = self.alerts.open(), list(self.alerts.recent), self.alerts.episodes
        scene.rates = list(self._rates)
        if self._store.is_file():
            try:
                scene.series = self._series()
            except ConfigError as error:  # the store is being made, or is locked for a moment
                log.debug("%s", error)
        return scene

    def _scrape(self) -> str | None:
        try:
            with urllib.request.urlopen(self._metrics, timeout=2) as answer:  # noqa: S310 - our own address
                text: str = answer.read().decode()
                return text
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def _counts(self, scene: Scene, text: str, now: int) -> None:
        outcomes: dict[str, int] = {}
        marks: list[float] = []
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "sentinel_events_total":
                    outcome = sample.labels["outcome"]
                    outcomes[outcome] = outcomes.get(outcome, 0) + int(sample.value)
                elif sample.name == "sentinel_watermark_timestamp_seconds":
                    marks.append(sample.value)
        scene.events = sum(outcomes.values())
        scene.late, scene.dead = outcomes.get("late", 0), outcomes.get("dead_letter", 0)
        scene.watermark = round(min(marks) * SECOND) if marks else None
        if self._before and now > (since := self._before[0])[0]:
            self._rates.append((scene.events - since[1]) * SECOND / (now - since[0]))
        self._before.append((now, scene.events))

    def _series(self) -> list[Series]:
        (row,) = read(self._store, _LAST, (self._pane_s,))
        last = row["last"]
        if not isinstance(last, int):
            return []
        end = last + self._pane_s * SECOND
        since = end - _SPAN_S * SECOND - 1
        rows: list[dict[str, Any]] = read(self._store, _TOP, (self._pane_s, self._dimensions, since, _SERIES))
        return [self._one(r, since, end) for r in rows]

    def _one(self, row: Mapping[str, Any], since: int, end: int) -> Series:
        panes: list[dict[str, Any]] = read(self._store, _CURVE, (self._pane_s, self._dimensions, row["series"], since))
        curve = [0.0] * POINTS
        for pane in panes:
            place = (pane["pane_start"] - since) * POINTS // (end - since)
            curve[min(place, POINTS - 1)] += pane["requests"] * POINTS * 60 / _SPAN_S
        return Series(
            name=f"{row['service']} / {row['model']}",
            requests_a_minute=row["requests"] * 60 / _SPAN_S,
            error_ratio=row["errors"] / row["requests"] if row["requests"] else 0.0,
            p95_ms=row["slowest"],
            cost_usd=row["cost"] or 0.0,
            curve=tuple(curve),
        )
