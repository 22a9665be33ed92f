"""Watched stateful steps do the same as others and report durations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from operators.config import PanesConfig, TimeConfig
from operators.errors import ConfigError
from operators.model import SECOND
from operators.panes.shard import Partial, Shard
from operators.panes.watermark import Idle, Progress, Watermark
from operators.steps import Step, Watching, step
from operators.stored import stored


class Adding:
    """A part that adds numbers up; 13 raises an error."""

    dropped = False

    def __init__(self) -> None:
        self.total = 0

    def take(self, items: Sequence[int]) -> list[int]:
        if 13 in items:
            raise ValueError("13")
        self.total += sum(items)
        return [self.total]

    def save(self) -> tuple[object, ...]:
        return (1, self.total)

    def restore(self, state: tuple[object, ...]) -> None:
        assert isinstance(state[1], int)
        self.total = state[1]


@dataclass
class Notes:
    """An observer that takes notes, and a clock that advances by a second at each call."""

    told: list[tuple[object, ...]] = field(default_factory=list)
    at: float = 0.0

    def clock(self) -> float:
        self.at += 1
        return self.at

    def worked(self, step: str, seconds: float) -> None:
        self.told.append(("worked", step, seconds))

    def failed(self, step: str) -> None:
        self.told.append(("failed", step))

    def saved(self, step: str, seconds: float, size: int) -> None:
        self.told.append(("saved", step, seconds, size))

    def folded(self, shard: int, requests: int) -> None:
        self.told.append(("folded", shard, requests))

    def judged(self, shard: int, upto: int, episodes: int) -> None:
        self.told.append(("judged", shard, upto, episodes))

    def detected(self, seconds: Mapping[str, float]) -> None:
        self.told.append(("detected", dict(seconds)))


def test_a_watched_step_does_the_same_and_reports_its_durations() -> None:
    notes = Notes()
    held = stored((1, 5))
    plain = step(Adding)(held)
    watched: Step[int, int] = step(Adding, "adding", Watching(notes, notes.clock))(held)
    assert watched.on_batch([1, 2]) == plain.on_batch([1, 2]) == ([8], False)
    assert watched.snapshot() == plain.snapshot() == stored((1, 8))
    assert notes.told == [("worked", "adding", 1.0), ("saved", "adding", 1.0, len(stored((1, 8))[1]))]


def test_a_shard_tells_how_far_panes_are_closed_and_how_far_the_foremost_partition_is() -> None:
    told: list[tuple[int, int | None, int | None]] = []

    def heard(partition: str, progress: Progress) -> None:
        watched.on_batch([Partial(3, partition, ("a", "b"), progress, None, None)])

    def reached(shard: int, closed: int | None, newest: int | None) -> None:
        told.append((shard, closed and closed // SECOND, newest and newest // SECOND))

    notes = Notes()
    watching = Watching(notes, notes.clock, reached)
    watched = step(lambda: Shard(4, TimeConfig(), PanesConfig(), lambda *_: None), "merge", watching)(None)
    heard("a", None)
    heard("a", Watermark(47 * SECOND))
    heard("b", Watermark(31 * SECOND))
    heard("a", Watermark(99 * SECOND))
    heard("a", Idle(200 * SECOND))
    heard("b", Idle(210 * SECOND))
    assert told == [(3, None, None), (3, None, 40), (3, 30, 40), (3, 30, 90), (3, 30, 90), (3, 200, 90)]


def test_a_fault_is_counted_and_raised_again() -> None:
    notes = Notes()
    watched: Step[int, int] = step(Adding, "adding", Watching(notes, notes.clock))(None)
    with pytest.raises(ValueError, match="13"):
        watched.on_batch([13])
    assert notes.told == [("failed", "adding")]


def test_a_state_that_cannot_be_used_is_told_with_its_step() -> None:
    form, data = stored((1, 5))
    with pytest.raises(ConfigError, match="the state of a key of step adding in the recovery store is damaged"):
        step(Adding, "adding")((form, data[:-1]))
