"""Loops over the usual requests of a series at an hour of the day and of the week."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.kernels import compiled, in_place, inner
from operators.kernels.detect import REQUESTS_COLUMN, Floats, Seen, is_live
from operators.model import Bools, Ints

WEEK = 168
DAY = 24
_DAYS = 7
_KNOWN = 2  # days on which an hour must be seen before it counts
_SURE = 4  # days after which the hour alone gives the usual
_TINY = 1.0 / 360.0  # requests a pane: one in an hour of panes of 10 s
_DAMPING = 0.2  # of the mean of all hours; added to both rates, so little traffic says little about a different day
_NORMAL = 1.4826  # spread of a normal distribution, in median deviations


class Times(NamedTuple):
    """The hour of a pane, and T times, each between the middles of two hours."""

    hour: int  # its number, which goes on from week to week
    wanted: Ints  # [W] hours of the week
    left: Ints  # [T] indexes into `wanted`
    right: Ints
    share: Floats  # [T] of the way from left to right


class Hours(NamedTuple):
    """The requests of each slot in the hours of the last week, and in the hour that is being added up."""

    hours: NDArray[np.float32]  # [slots, WEEK] mean requests a pane in the last such hour, negative where unknown
    hour: Ints  # [slots] the number of the hour that is being added up, -1 for none
    hour_total: Floats
    hour_panes: NDArray[np.int32]


class Usual(NamedTuple):
    """The usual requests a pane at T times, those of the horizons and then that of the pane: [used, T]."""

    rate: Floats
    season: Floats  # by the season alone
    slack: Floats  # relative variance on the square-root scale: of the days, and of the time of a change in two hours


@inner
def _level(hours: NDArray[np.float32], hour: int, days: Floats) -> tuple[int, float, float]:
    """The number of days that know the hour of the day, its level, and the median deviation of the days from it.

    `hour` is one of the week. The level is the median over the days; if `hour` itself is known, it lies half-way
    between the two.
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
def expect(used: int, times: Times, hours: Hours, rate: Floats, late: Floats) -> Usual:
    """The usual requests of the slots in use at each time; `rate` and `late` are those of `operators.kernels.traffic`.

    The usual is the recent rate times the ratio, on other days, of that time to the hours before it. Between the
    middles of two hours it is interpolated. Until `_SURE` days have shown both hours, it stays nearer to the rate.
    """
    wanted, last = times.wanted, hours.hours
    usual = np.empty((used, len(times.left)))
    season = np.empty(usual.shape)
    slack = np.zeros(usual.shape)
    days = np.empty(_DAYS)
    known = np.zeros(len(wanted), np.int64)
    level = np.zeros(len(wanted))
    deviation = np.zeros(len(wanted))
    for s in range(used):
        usual[s] = rate[s]
        season[s] = rate[s]
        most = 0
        for k in range(len(wanted)):
            known[k], level[k], deviation[k] = _level(last[s], wanted[k], days)
            most = max(most, known[k])
        if most < _KNOWN:
            continue
        total, count = 0.0, 0
        for h in range(WEEK):
            if last[s, h] >= 0.0:
                total += last[s, h]
                count += 1
        damping = _DAMPING * total / count + _TINY
        for t in range(len(times.left)):
            a, b, w = times.left[t], times.right[t], times.share[t]
            both = min(known[a], known[b])
            if both < _KNOWN:
                continue
            season[s, t] = (1.0 - w) * level[a] + w * level[b]
            expected = season[s, t] * (rate[s] + damping) / (late[s] + damping)
            sure = min(1.0, (both - 1.0) / (_SURE - 1.0))
            blend = (1.0 - sure) * math.log(rate[s] + _TINY) + sure * math.log(expected + _TINY)
            usual[s, t] = max(math.exp(blend) - _TINY, 0.0)
            spread = _NORMAL * max(deviation[a], deviation[b])
            step = min(w, 1.0 - w) * (level[b] - level[a])  # a sudden change looks like a slope between two middles
            relative = sure * math.sqrt(spread * spread + step * step) / (season[s, t] + _TINY)
            root = 1.0 - math.sqrt(max(1.0 - relative, 0.0))
            slack[s, t] = root * root
    return Usual(usual, season, slack)


@in_place
def remember(seen: Seen, hours: Hours, hour: int, least: int, excluded: Bools) -> None:
    """Add the pane to its hour, and store the hour before if the pane begins a new one; in place.

    `hour` is its number, as in `Times`; an hour with fewer than `least` known panes is not stored; `excluded` [slots].
    """
    running, total, panes = hours.hour, hours.hour_total, hours.hour_panes
    for s in range(seen.used):
        if not is_live(seen, s) or excluded[s]:
            continue
        if running[s] != hour:
            if running[s] >= 0 and panes[s] >= least:
                hours.hours[s, running[s] % WEEK] = np.float32(total[s] / panes[s])
            running[s] = hour
            total[s] = 0.0
            panes[s] = 0
        total[s] += seen.now[s, REQUESTS_COLUMN]
        panes[s] += 1
