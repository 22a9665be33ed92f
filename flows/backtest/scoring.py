"""Scores alerts by labelled incidents: precision, recall, false episodes, delay, by kind of incident.

An episode BELONGS to an incident if it meets two conditions. Its time: it was known between the incident's start and a
grace after its end, or it overlaps more than half of the incident. Its series: no dimension that both name has
different values. An episode that belongs to an incident finds it if it shows one of its metrics. It finds it exactly if
it shows the primary metric and its series holds the incident's whole entity. Episodes that belong to no incident are
false.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from operators.errors import ConfigError
from operators.incidents.alert_json import microseconds
from operators.metrics import MEASURES
from operators.model import SECOND, SEVERITIES

GRACE_S: Final = 600.0
"""How long after an incident's end an episode may still open because of it, in seconds."""
ABRUPT: Final = frozenset({
    "latency_spike", "token_explosion", "completion_collapse", "cost_surge", "error_burst", "traffic_surge",
    "traffic_drop", "tenant_abuse",
})  # fmt: skip
"""Kinds of incidents that are at their full strength from the start."""
_DAY: Final = 86_400 * SECOND
_STATISTICS: Final = ("_p50", "_p95", "_p99", "_mean", "_max", "_sum")
_SAME: Final = {name: of.in_labels for of in MEASURES.values() for name in (of.name, *of.aliases)}
"""The name or an alias of a metric, to its name in labels."""


@dataclass(frozen=True, slots=True)
class Incident:
    """One labelled incident; times in microseconds; `metrics` as `canonical` names them, with the primary one."""

    id: str
    kind: str
    entity: Mapping[str, str]
    metric: str
    metrics: frozenset[str]
    start: int
    end: int


@dataclass(slots=True)
class PredictedEpisode:
    """One episode, from its alerts; `at` is the time of the first one, `until` is None while the episode is open."""

    id: str
    series: Mapping[str, str]
    metrics: set[str]
    severity: int  # index of SEVERITIES
    at: int
    since: int
    until: int | None
    kind: str
    metric: str  # of its first alert, not canonical


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one incident: `episodes` is how many belong to it; `delay_s` is None if it was not found."""

    incident: Incident
    found: bool
    exact: bool
    delay_s: float | None
    episodes: int


@dataclass(frozen=True, slots=True)
class Extent:
    """The base of the figures by day and series: first and last event time in microseconds, number of series."""

    first: int
    last: int
    series: int | None = None

    @property
    def days(self) -> float:
        return (self.last - self.first) / _DAY


@dataclass(frozen=True, slots=True)
class Score:
    """The outcomes in the order of the labels, and the false episodes in the order in which they were known."""

    outcomes: list[Outcome]
    episodes: int
    false: list[PredictedEpisode]
    extent: Extent | None
    pane_s: float
    figures: dict[str, Any] = field(default_factory=dict)


def canonical(metric: str | None) -> str:
    """The name of the metric in labels, without its statistic: `latency_p95` is `latency_ms`."""
    base = (metric or "").split(":")[0].split(".")[0]
    for suffix in _STATISTICS:
        base = base.removesuffix(suffix)
    return _SAME.get(base, base)


def read_lines(path: Path, what: str) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines, plain or gzip. Raises `ConfigError` that names the file and the bad line."""
    number = 0
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            lines = gzip.GzipFile(fileobj=raw) if packed else raw
            for number, line in enumerate(lines, 1):  # noqa: B007 - for the error below
                if line.strip():
                    row = orjson.loads(line)
                    if not isinstance(row, dict):
                        raise ValueError("no JSON object")
                    yield row
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        raise ConfigError(f"the file of {what} {path} cannot be read: {why}") from None
    except ValueError:
        raise ConfigError(
            f"the file of {what} {path} is not JSON lines (line {number}): give one JSON object a line"
        ) from None


def incidents(path: Path) -> list[Incident]:
    """The labels of the file, in its order. Raises `ConfigError` where a label lacks a field."""
    found = []
    for number, row in enumerate(read_lines(path, "labels"), 1):
        try:
            metric = canonical(row["metric"])
            found.append(
                Incident(
                    id=str(row["anomaly_id"]),
                    kind=str(row["type"]),
                    entity={str(k): str(v) for k, v in row["entity"].items()},
                    metric=metric,
                    metrics=frozenset([metric, *map(canonical, row.get("secondary_metrics") or ())]),
                    start=microseconds(row["start"]),
                    end=microseconds(row["end"]),
                )
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"the file of labels {path}: label {number} is wrong ({type(error).__name__}: {error}); it needs "
                "anomaly_id, type, entity (dimension to value), metric, start and end (RFC 3339)"
            ) from None
    return found


def episodes(alerts: Iterable[Mapping[str, Any]], least: str = "low") -> list[PredictedEpisode]:
    """The episodes of these alerts (as on the topic, in order) that at some time had at least the severity `least`.

    They are in the order of their first alerts. Raises `ConfigError` where a line is no alert.
    """
    found: dict[str, PredictedEpisode] = {}
    for number, row in enumerate(alerts, 1):
        try:
            key = str(row.get("episode_id") or row["alert_id"])
            at, resolved = microseconds(row["at"]), row["status"] == "resolved"
            episode = found.get(key)
            if episode is None:
                if resolved:
                    continue
                since = microseconds(row["since"]) if row.get("since") else at
                series = {str(k): str(v) for k, v in row["series"].items()}
                episode = found[key] = PredictedEpisode(
                    key, series, set(), -1, at, since, None, str(row.get("kind")), str(row["metric"])
                )
            episode.metrics.add(canonical(row.get("metric")))
            episode.severity = max(episode.severity, SEVERITIES.index(row["severity"]))
            if resolved:
                episode.until = microseconds(row["until"]) if row.get("until") else at
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"alert {number} is wrong: {type(error).__name__}: {error}") from None
    return [e for e in found.values() if e.severity >= SEVERITIES.index(least)]


def belongs(episode: PredictedEpisode, incident: Incident, grace_us: int) -> bool:
    """Whether the episode is a consequence of the incident, by its time and by the dimensions that both name."""
    if not incident.start <= episode.at <= incident.end + grace_us:
        until = episode.at if episode.until is None else episode.until
        overlap = min(until, incident.end) - max(episode.since, incident.start)
        if overlap * 2 <= incident.end - incident.start:
            return False
    return all(episode.series.get(name, value) == value for name, value in incident.entity.items())


def score(
    found: Sequence[PredictedEpisode],
    labels: Sequence[Incident],
    extent: Extent | None = None,
    *,
    grace_s: float = GRACE_S,
    pane_s: float = 10,
) -> Score:
    """Judge the episodes by the labels. `extent` defaults to that of the labels and episodes, without series."""
    grace = round(grace_s * SECOND)
    by_incident = [[e for e in found if belongs(e, incident, grace)] for incident in labels]
    mine = {e.id for episodes_ in by_incident for e in episodes_}
    false = [e for e in found if e.id not in mine]
    outcomes = [_outcome(i, e) for i, e in zip(labels, by_incident, strict=True)]
    if extent is None and (found or labels):
        times = [e.at for e in found] + [t for i in labels for t in (i.start, i.end)]
        extent = Extent(min(times), max(times))
    result = Score(outcomes, len(found), false, extent, pane_s)
    result.figures.update(_figures(result))
    return result


def _outcome(incident: Incident, mine: Sequence[PredictedEpisode]) -> Outcome:
    hits = [e for e in mine if e.metrics & incident.metrics]
    exact = any(
        incident.metric in e.metrics and all(e.series.get(k) == v for k, v in incident.entity.items()) for e in hits
    )
    delay = min((max(e.at - incident.start, 0) for e in hits), default=None)
    return Outcome(incident, bool(hits), exact, None if delay is None else delay / SECOND, len(mine))


def _figures(score: Score) -> dict[str, Any]:
    """The figures by name, in the order in which they are shown; None if the divisor is 0 or not known."""
    outcomes, false = score.outcomes, len(score.false)
    n, found = len(outcomes), sum(o.found for o in outcomes)
    days = score.extent.days if score.extent else None
    series = score.extent.series if score.extent else None
    recall = found / n if n else None
    precision = 1 - false / score.episodes if score.episodes else None
    abrupt = _median_delay([o for o in outcomes if o.incident.kind in ABRUPT])
    counts = [o.episodes for o in outcomes]
    return {
        "incidents": n,
        "episodes": score.episodes,
        "recall": recall,
        "recall_exact": sum(o.exact for o in outcomes) / n if n else None,
        "precision": precision,
        "f1": 2 * precision * recall / (precision + recall) if precision and recall else 0.0,
        "false": false,
        "false_per_day": false / days if days else None,
        "false_per_series_day": false / days / series if days and series else None,
        "median_delay_s": _median_delay(outcomes),
        "median_delay_abrupt_s": abrupt,
        "median_delay_abrupt_panes": None if abrupt is None else abrupt / score.pane_s,
        "storm_median": median(counts) if counts else None,
        "storm_max": max(counts, default=0),
        "episodes_per_incident": (score.episodes - false) / max(found, 1),
        "by_type": {
            kind: _of_kind([o for o in outcomes if o.incident.kind == kind])
            for kind in sorted({o.incident.kind for o in outcomes})
        },
    }


def _of_kind(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "incidents": len(outcomes),
        "found": sum(o.found for o in outcomes),
        "exact": sum(o.exact for o in outcomes),
        "median_delay_s": _median_delay(outcomes),
    }


def _median_delay(outcomes: Iterable[Outcome]) -> float | None:
    delays = [o.delay_s for o in outcomes if o.delay_s is not None]
    return median(delays) if delays else None
