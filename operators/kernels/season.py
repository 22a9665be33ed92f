"""Loops over what a series usually has at an hour of the day and of the week."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled
from operators.kernels.detect import Floats
from operators.model import Bools, Ints

WEEK = 168
DAY = 24
_DAYS = 7
_KNOWN = 2  # days that an hour was seen on before it says anything
_SURE = 4  # days after which it alone says what is usual
_TINY = 1.0 / 360.0  # requests a pane: one in an hour of panes of 10 s
_DAMPING = 0.2  # of the mean of all hours: how far little traffic is from telling how the day differs from others
_NORMAL = 1.4826  # spreads of a normal distribution in its median deviation


@compiled
def _level(hours: NDArray[np.float32], hour: int, days: Floats) -> tuple[int, float, float]:
    """How many days know this hour of the week's hour of the day; its level, and the median deviation from it.

    The level is the median over the days, half-way to the same hour of the last week where that is known.
    """
    known = 0
    for d in range(_DAYS):
        value = hours[d * DAY + hour % DAY]
        if value >= 0.0:
            k = known
            while k > 0 and days[k - 1] > value:
                days[k] = days[k - 1]
                k -= 1
            days[k] = value
            known += 1
    if known == 0:
        return 0, 0.0, 0.0
    middle = 0.5 * (days[(known - 1) // 2] + days[known // 2])
    for k in range(known):
        apart = abs(days[k] - middle)
        j = k
        while j > 0 and days[j - 1] > apart:
            days[j] = days[j - 1]
            j -= 1
        days[j] = apart
    deviation = 0.5 * (days[(known - 1) // 2] + days[known // 2])
    own = hours[hour]
    return known, (0.5 * (middle + own) if own >= 0.0 else middle), deviation


@compiled
def expect(
    used: int,
    wanted: Ints,  # [K] hours of the week
    left: Ints,  # [T] which of these each time lies after the middle of,
    right: Ints,  # [T] which it lies before the middle of,
    share: Floats,  # [T] and how far it is from the first to the second
    hours: NDArray[np.float32],  # [slots, WEEK] mean requests a pane in the last such hour, negative where unknown
    rate: Floats,  # [slots] requests a pane of late
    late: Floats,  # [slots] what the season says of the same panes, faded in the same way
) -> tuple[Floats, Floats, Floats]:
    """What is usual at each time [used, T], requests a pane; what the season alone says; how sure that is.

    The last is a relative variance on the square-root scale: of the days, and of when within two hours a change comes.
    The usual is the rate of late, times how that time differs from the hours before it on other days. Between the
    middles of two hours it moves from one to the other. Until `_SURE` days have shown both it stays nearer to the rate.
    """
    times = len(left)
    usual = np.empty((used, times))
    season = np.empty((used, times))
    slack = np.zeros((used, times))
    days = np.empty(_DAYS)
    known = np.zeros(len(wanted), np.int64)
    level = np.zeros(len(wanted))
    deviation = np.zeros(len(wanted))
    for s in range(used):
        usual[s] = rate[s]
        season[s] = rate[s]
        most = 0
        for k in range(len(wanted)):
            known[k], level[k], deviation[k] = _level(hours[s], wanted[k], days)
            most = max(most, known[k])
        if most < _KNOWN:
            continue
        total, count = 0.0, 0
        for h in range(WEEK):
            if hours[s, h] >= 0.0:
                total += hours[s, h]
                count += 1
        damping = _DAMPING * total / count + _TINY
        for t in range(times):
            a, b = left[t], right[t]
            both = min(known[a], known[b])
            if both < _KNOWN:
                continue
            w = share[t]
            season[s, t] = (1.0 - w) * level[a] + w * level[b]
            expected = season[s, t] * (rate[s] + damping) / (late[s] + damping)
            sure = min(1.0, (both - 1.0) / (_SURE - 1.0))
            blend = (1.0 - sure) * math.log(rate[s] + _TINY) + sure * math.log(expected + _TINY)
            usual[s, t] = max(math.exp(blend) - _TINY, 0.0)
            spread = _NORMAL * max(deviation[a], deviation[b])
            step = min(w, 1.0 - w) * (level[b] - level[a])  # a change at once, told as a slope between two middles
            relative = sure * math.sqrt(spread * spread + step * step) / (season[s, t] + _TINY)
            root = 1.0 - math.sqrt(max(1.0 - relative, 0.0))
            slack[s, t] = root * root
    return usual, season, slack


@compiled
def remember(
    used: int,
    pane: int,
    born: Ints,
    number: int,  # of the hour, counted on
    least: int,  # panes that must be known of an hour
    requests: Floats,  # [slots] of this pane
    excluded: Bools,  # [slots]
    hours: NDArray[np.float32],
    running: Ints,  # [slots] the hour that is being added up, -1 for none
    total: Floats,
    panes: NDArray[np.int32],
) -> None:
    """Add the pane to its hour, and keep the hour before where the pane begins a new one; in place."""
    for s in range(used):
        if born[s] < 0 or born[s] > pane or excluded[s]:
            continue
        if running[s] != number:
            if running[s] >= 0 and panes[s] >= least:
                hours[s, running[s] % WEEK] = np.float32(total[s] / panes[s])
            running[s] = number
            total[s] = 0.0
            panes[s] = 0
        total[s] += requests[s]
        panes[s] += 1
