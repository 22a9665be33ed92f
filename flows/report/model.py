"""The parts of a report: a run, its episodes, and their transitions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from operators.model import SEVERITIES


def rank(severity: str) -> int:
    """0 for the worst severity, and more for lesser ones; the most for text that is not one of our severities."""
    return SEVERITIES[::-1].index(severity) if severity in SEVERITIES else len(SEVERITIES)


@dataclass(frozen=True, slots=True)
class Transition:
    """One alert of an episode, with its values at `at` (microseconds)."""

    at: int
    status: str
    severity: str
    observed: float | None
    expected: float | None
    lower: float | None
    upper: float | None
    score: float | None


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode, from its transitions; times in microseconds, `until` is None while it is open.

    Values, detectors, evidence, explanation and text are those of the transition with the highest score.
    """

    episode_id: str
    group_id: str
    severity: str
    kind: str
    metric: str
    unit: str
    dimension_set: str
    series: str
    dimensions: dict[str, str]
    status: str
    since: int
    until: int | None
    at: int
    observed: float | None
    expected: float | None
    score: float | None
    transitions: int
    steps: list[Transition]
    detectors: list[str]
    evidence: list[dict[str, Any]]
    contributors: list[dict[str, Any]]
    text: str
    factors: list[dict[str, Any]] = field(default_factory=list)
    learned_panes: int = 0
    learned_since: int | None = None

    @property
    def open(self) -> bool:
        return self.status != "resolved"

    @property
    def level(self) -> str:
        """The severity if it is one of ours, else `other`."""
        return self.severity if self.severity in SEVERITIES else "other"


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a run.

    `balance`: numbers of late, duplicate and skipped events and of dead letters, as far as known. `fullest`: the
    dimension set with the most events.
    """

    store: str
    events: int
    series: dict[str, int]  # number of series by dimension set
    fullest: str | None
    first: int | None  # microseconds
    last: int | None
    balance: dict[str, int]
    transitions: int
    episodes: list[Episode]
    files: dict[str, str]
    command: str
    page: str | None = None  # the file of the HTML page, once it is written

    @property
    def counts(self) -> dict[str, int]:
        """The number of episodes of each severity that has any, worst first."""
        found = {s: sum(e.severity == s for e in self.episodes) for s in reversed(SEVERITIES)}
        return {severity: n for severity, n in found.items() if n}
