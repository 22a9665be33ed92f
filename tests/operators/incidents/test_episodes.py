"""Episodes against a plain state machine, and their ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.config import DetectConfig, EpisodesConfig
from operators.detect.base import Block, Watch
from operators.incidents.episodes import (
    FADED,
    OPENED,
    QUIET,
    RESOLVED,
    RISEN,
    STEADY,
    Episodes,
    Step,
    alert_id,
    episode_id,
)
from operators.kernels.detect import FIELDS, Floats, Seen
from operators.model import SEVERITIES
from tests.conftest import examples

WATCH = Watch(DetectConfig(), 10)
ALL = np.zeros(1, np.int8)
"""The settings' number of each series: all have the same settings."""
CELLS = len(WATCH.cells)
LATENCY, REQUESTS, ERRORS = 0, CELLS - 2, CELLS - 1
BEGIN = 1000


def block_of(now: Floats, pane: int, born: int = 0) -> Block:
    """A block of one series with these statistics [1, V], with only the parts that episodes read."""
    none, one = np.zeros((1, 0)), np.ones(1, np.int64)
    seen = Seen(pane, 1, np.array([born]), now, none, none[None], one, one)
    return cast(Block, SimpleNamespace(seen=seen, counts=now[:, 2::2]))


class Machine:
    """One cell of one series through `Episodes`."""

    def __init__(self, config: EpisodesConfig, cell: int = LATENCY) -> None:
        self.episodes = Episodes(config, WATCH, np.array([WATCH.threshold]))
        self.state = self.episodes.blank(1)
        self.cell = cell
        self.pane = BEGIN
        self.excluded = np.zeros((1, CELLS), np.bool_)

    def __call__(self, score: float | None) -> Step | None:
        """Step by one pane with this score; None is a pane without requests."""
        now = np.full((1, WATCH.columns), 0.0 if score is None else 1.0)
        best = np.zeros((1, CELLS, FIELDS))
        best[0, self.cell, 0] = score or 0.0
        steps = self.episodes.step(self.state, block_of(now, self.pane), best, self.excluded, ALL)
        self.pane += 1
        assert [s.cell for s in steps] in ([], [self.cell])
        return steps[0] if steps else None


@dataclass
class Plain:
    """The kernel as a plain state machine."""

    config: EpisodesConfig
    at_once: float
    recent: list[tuple[int, bool]] = field(default_factory=list)
    since: int | None = None
    last: int = -1
    severity: int = 0

    def __call__(self, pane: int, score: float | None) -> tuple[int, int] | None:
        """The expected (what, since) of a step."""
        window = max(self.config.open_of, self.config.open_panes)
        told = None
        if score is not None:
            marked = any(m for _, m in self.recent)
            self.recent = [*self.recent, (pane, score >= 0.5)][-window:]
            marks = [p for p, m in self.recent if m]
            if score >= 0.5:
                self.last = pane
                band = sum(score >= b for b in (0.7, 0.85, 0.95))
                told = STEADY
                if self.since is None:
                    if len(marks) >= self.config.open_panes or score >= self.at_once:
                        self.since, self.severity, told = marks[0], band, OPENED
                elif band > self.severity:
                    self.severity, told = band, RISEN
            elif marked and not marks and self.since is None:
                told = FADED
        if self.since is not None and pane - self.last >= self.config.resolve_s // 10:
            since, self.since, self.recent = self.since, None, []
            return RESOLVED, since
        if told is None and score is not None and self.since is not None:
            told = QUIET
        return None if told is None else (told, -1 if self.since is None else self.since)


scores = st.lists(
    st.one_of(st.none(), st.sampled_from([0.0, 0.2, 0.49, 0.5, 0.51, 0.6, 0.75, 0.9, 0.99])), min_size=1, max_size=60
)


@examples(150)
@given(
    history=scores,
    open_panes=st.integers(1, 4),
    open_of=st.integers(1, 5),
    resolve_s=st.sampled_from([10, 50, 300]),
    cell=st.sampled_from([LATENCY, ERRORS]),
)
def test_it_equals_the_plain_machine(
    history: list[float | None], open_panes: int, open_of: int, resolve_s: int, cell: int
) -> None:
    config = EpisodesConfig(open_panes=open_panes, open_of=open_of, resolve_s=resolve_s)
    machine = Machine(config, cell)
    plain = Plain(config, float(machine.episodes._rules.at_once[0]))
    for i, score in enumerate(history):
        step, expected = machine(score), plain(BEGIN + i, score)
        assert (step and (step.what, step.since)) == expected
        if step and step.what in (OPENED, RISEN):
            assert SEVERITIES.index(step.severity) == plain.severity
        if step and step.what == RESOLVED:
            assert step.until == plain.last
        excluded = (score is not None and score >= 0.5) or plain.since is not None
        assert machine.excluded[0].tolist() == [c == cell and excluded for c in range(CELLS)]


def whats(machine: Machine, history: list[float | None]) -> list[int | None]:
    return [step.what if (step := machine(s)) else None for s in history]


def test_two_of_three_panes_with_data_open_one_does_not() -> None:
    assert whats(Machine(EpisodesConfig()), [0.52, 0.1, 0.1, 0.1]) == [STEADY, None, None, FADED]
    assert whats(Machine(EpisodesConfig()), [0.52, 0.1, 0.52]) == [STEADY, None, OPENED]


def test_panes_without_data_are_no_evidence_between() -> None:
    machine = Machine(EpisodesConfig())
    assert whats(machine, [0.52, None, None, None, None, 0.52]) == [STEADY, None, None, None, None, OPENED]


def test_it_begins_with_its_first_anomalous_pane() -> None:
    machine = Machine(EpisodesConfig())
    machine(0.52)
    machine(0.1)
    step = machine(0.52)
    assert step is not None
    assert step.since == BEGIN


def test_a_tail_a_hundred_times_below_the_threshold_opens_at_once() -> None:
    enough = WATCH.threshold + 2
    assert whats(Machine(EpisodesConfig()), [enough / (enough + WATCH.threshold) + 1e-9]) == [OPENED]
    assert whats(Machine(EpisodesConfig()), [enough / (enough + WATCH.threshold) - 1e-3]) == [STEADY]


def test_severity_rises_by_bands_and_never_falls() -> None:
    machine = Machine(EpisodesConfig())
    told = [machine(s) for s in (0.6, 0.6, 0.72, 0.6, 0.86, 0.72, 0.96, 0.5)]
    assert [(s.what, s.severity) for s in told if s and s.what != STEADY] == [
        (OPENED, "low"), (RISEN, "medium"), (RISEN, "high"), (RISEN, "critical"),
    ]  # fmt: skip


def test_quiet_time_resolves_with_or_without_data() -> None:
    for quiet, said in ((0.1, QUIET), (None, None)):
        machine = Machine(EpisodesConfig(resolve_s=50))
        whats(machine, [0.9])
        assert whats(machine, [quiet] * 5) == [said, said, said, said, RESOLVED]
        assert not machine.excluded.any()


def test_panes_without_requests_are_evidence_for_traffic() -> None:
    machine = Machine(EpisodesConfig(), REQUESTS)
    now = np.zeros((1, WATCH.columns))
    best = np.zeros((1, CELLS, FIELDS))
    best[0, REQUESTS, 0] = best[0, LATENCY, 0] = 0.9
    steps = machine.episodes.step(machine.state, block_of(now, 5), best, machine.excluded, ALL)
    assert [(s.cell, s.what) for s in steps] == [(REQUESTS, OPENED)]


def test_a_series_is_stepped_from_its_first_pane_on() -> None:
    machine = Machine(EpisodesConfig())
    for born in (-1, 6):
        block = block_of(np.ones((1, WATCH.columns)), 5, born)
        assert machine.episodes.step(machine.state, block, np.ones((1, CELLS, FIELDS)), machine.excluded, ALL) == []


def test_ids_are_the_same_in_every_run_and_differ_by_each_part() -> None:
    known = episode_id("service=chat", "latency", 1_740_960_000_000_000)
    assert known == "5364b3610d89500e97a3f55a62ad7a14"
    ids = {
        known,
        episode_id("service=chat2", "latency", 1_740_960_000_000_000),
        episode_id("service=chat", "ttft", 1_740_960_000_000_000),
        episode_id("service=chat", "latency", 1_740_960_010_000_000),
        alert_id(known, 0),
        alert_id(known, 1),
    }
    assert len(ids) == 6
    assert all(len(i) == 32 for i in ids)


@pytest.mark.parametrize("text", ["service=\ud800", "service=é"])
def test_any_series_has_an_id(text: str) -> None:
    assert len(episode_id(text, "latency", 0)) == 32
