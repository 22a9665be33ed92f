"""Surges, drops and silence: the number of requests over horizons of a minute and more, against the usual of this time.

On the square-root scale, where the variance of a Poisson count is 1/4 at any level, which is the floor. What a series
varies beyond it (bursts, the slopes of the day) is learned per horizon relative to the usual, separately above and
below. The usual is the rate of late, a faded mean of the last hour or so which stands still while something is wrong,
times how this hour of the day and of the week differs from those before it, once a few days have shown that
(`operators.kernels.season`). So what falls silent every evening is not missed at night, and is by day. Until a day was
seen its slopes are not known, so scores are drawn down.
"""

from __future__ import annotations

import numpy as np

from operators.detect.base import REQUESTS, Block, State, Traits, Verdicts, Watch
from operators.detect.context.season import HOUR, Clock
from operators.kernels import detect as kernels
from operators.kernels import season
from operators.kernels.detect import Floats
from operators.model import Bools


class Traffic:
    """Watches `requests`."""

    name = "traffic"
    traits = Traits(
        needs_warm_up=True, scale_free=False, shift_free=False, answers_step=True, prior=1000.0,
        keeps=("hours", "hour", "hour_total", "hour_panes"), judges=(REQUESTS,), votes_on=(REQUESTS,),
    )  # fmt: skip
    cells: tuple[str, ...] = (REQUESTS,)

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._column = watch.cells.index(REQUESTS)
        long_enough = watch.horizons.widths * watch.pane_s >= watch.config.traffic.min_horizon_s
        self._clock = Clock(watch.config.traffic.time_zone, watch.pane_s)
        self._least = max(1, HOUR // watch.pane_s // 2)  # panes that must be known of an hour
        self._first = int(np.argmax(long_enough)) if long_enough.any() else len(watch.horizons) - 1

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
            "hours": np.full((slots, season.WEEK), -1.0, np.float32),
            "hour": np.full(slots, -1, np.int64),
            "hour_total": np.zeros(slots),
            "hour_panes": np.zeros(slots, np.int32),
        }

    def score(self, state: State, block: Block) -> Verdicts:
        watch, traffic = self._watch, self._watch.config.traffic
        usual, _, slack = self._expect(state, block)
        return Verdicts(
            kernels.score_traffic(
                block.used, block.pane, block.born, block.sums, watch.horizons.widths, block.spans, self._first,
                usual, slack, state["above"], state["below"], state["learned"], watch.config.warm_up_panes,
                watch.panes(traffic.trusted_after_s), traffic.min_surge, traffic.max_drop, watch.boundary,
                watch.threshold,
            )
        )  # fmt: skip

    def learn(self, state: State, block: Block, excluded: Bools) -> None:
        watch = self._watch
        usual, seasonal, slack = self._expect(state, block)
        kernels.learn_traffic(
            block.used, block.pane, block.born, block.sums, block.now, watch.horizons.widths, block.spans, excluded,
            self._column, usual, seasonal, slack, state["rate"], state["late"], state["above"], state["below"],
            state["learned"], state["seen"], state["dirty"], state["far"], watch.panes(watch.config.adopt_after_s),
            1.0 - 2.0 ** (-watch.pane_s / watch.config.traffic.rate_half_life_s), 1.0 - watch.keep,
        )  # fmt: skip
        season.remember(
            block.used, block.pane, block.born, self._clock.hour(block.pane), self._least, block.now[:, 0],
            excluded[:, self._column], state["hours"], state["hour"], state["hour_total"], state["hour_panes"],
        )  # fmt: skip

    def _expect(self, state: State, block: Block) -> tuple[Floats, Floats, Floats]:
        times = self._clock.times(block.pane, self._watch.horizons.widths)
        return season.expect(block.used, *times, state["hours"], state["rate"], state["late"])
