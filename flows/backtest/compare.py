"""The effect of another configuration: compares the episodes of two runs over the same events, one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flows.backtest.scoring import PredictedEpisode


@dataclass(frozen=True, slots=True)
class Difference:
    """The episodes of both runs as pairs, and those of only one run, each in the order in which they were known."""

    both: list[tuple[PredictedEpisode, PredictedEpisode]]
    only: tuple[list[PredictedEpisode], list[PredictedEpisode]]


def compare(a: Sequence[PredictedEpisode], b: Sequence[PredictedEpisode]) -> Difference:
    """Pair the episodes of the same series and metric whose times touch; each is paired once, in order."""
    waiting: dict[tuple[object, ...], list[PredictedEpisode]] = {}
    for episode in b:
        waiting.setdefault(_key(episode), []).append(episode)
    both, only = [], []
    for episode in a:
        rest = waiting.get(_key(episode), [])
        match = next((other for other in rest if _touch(episode, other)), None)
        if match is None:
            only.append(episode)
        else:
            rest.remove(match)
            both.append((episode, match))
    paired = {other.id for _, other in both}
    return Difference(both, (only, [e for e in b if e.id not in paired]))


def _key(episode: PredictedEpisode) -> tuple[object, ...]:
    return (tuple(sorted(episode.series.items())), episode.metric)


def _touch(a: PredictedEpisode, b: PredictedEpisode) -> bool:
    return a.since <= _end(b) and b.since <= _end(a)


def _end(episode: PredictedEpisode) -> float:
    return float("inf") if episode.until is None else max(episode.until, episode.at)
