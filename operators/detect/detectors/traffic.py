"""Surges, drops and silence: the number of requests over horizons of a minute and more, against the usual number.

The detector compares square roots, because the square root of a Poisson count has the variance 1/4 at any level.
Requests come in sessions of a few, so the floor of the variance is 1. The detector learns how much a series varies
beyond the floor (bursts, the slopes of the day), per horizon, relative to the usual number, separately above and below.

The usual number is the recent rate times the season. The recent rate is a faded mean of about an hour, which stands
still during an anomaly. The season is the ratio of this hour of the day and of the week to the hours before it, once a
few days have shown it (`operators.kernels.season`). So the silence of every night is no anomaly, but silence by day is
one. The slopes of the day are unknown until a series is a day old, so until then its deviations count half.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import Block, State, Traits, Verdicts, Watch
from operators.detect.context.season import HOUR, Clock
from operators.kernels import traffic as kernels
from operators.kernels.season import WEEK, Hours, Times
from operators.metrics import REQUESTS
from operators.model import Bools


class Traffic:
    """Judges `requests`."""

    name = "traffic"
    traits = Traits(
        needs_warm_up=True, scale_free=False, shift_free=False, answers_step=True, prior=1000.0,
        keeps=("hours", "hour", "hour_total", "hour_panes"), judges=(REQUESTS,), votes_on=(REQUESTS,),
    )  # fmt: skip
    cells: tuple[str, ...] = (REQUESTS,)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        traffic = watch.config.traffic
        self._clock = Clock(traffic.time_zone, watch.pane_s)
        self._rules = kernels.TrafficRules(
            column=watch.cells.index(REQUESTS),
            first=watch.horizons.index_of(traffic.min_horizon_s, watch.pane_s),
            warm=watch.config.warm_up_panes,
            patience=watch.panes(watch.config.adopt_after_s),
            trusted_after=watch.panes(traffic.trusted_after_s),
            surge=traffic.min_surge,
            drop=traffic.max_drop,
            boundary=watch.boundary,
            threshold=watch.threshold,
            share_of_late=1.0 - 2.0 ** (-watch.pane_s / traffic.rate_half_life_s),
            share_of_new=1.0 - watch.keep,
            hour=max(1, HOUR // watch.pane_s // 2),
        )

    def state(self, slots: int) -> State:
        shape = (slots, len(self._watch.horizons))
        return {
            "rate": np.zeros(slots),
            "above": np.zeros(shape),
            "below": np.zeros(shape),
            "learned": np.zeros(shape, np.int64),
            "seen": np.zeros(slots, np.int64),
            "dirty": np.zeros(slots, np.int64),
            "far": np.zeros(slots, np.int32),
            "late": np.zeros(slots),
            "hours": np.full((slots, WEEK), -1.0, np.float32),
            "hour": np.full(slots, -1, np.int64),
            "hour_total": np.zeros(slots),
            "hour_panes": np.zeros(slots, np.int32),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        return Verdicts(kernels.score_traffic(block.seen, *self._learned(state), self._times(block), self._rules))

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        kernels.learn_traffic(block.seen, *self._learned(state), self._times(block), self._rules, excluded)

    def _times(self, block: Block) -> Times:
        return self._clock.times(block.pane, self._watch.horizons.widths)

    def _learned(self, state: State) -> tuple[kernels.Deviations, Hours]:
        return (
            kernels.Deviations(*map(state.__getitem__, kernels.Deviations._fields)),
            Hours(*map(state.__getitem__, Hours._fields)),
        )
