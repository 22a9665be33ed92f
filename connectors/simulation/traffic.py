"""The requests of the simulated fleet, block by block, as columns.

Model. Arrivals: the combination's weight times the service's day shape (a raised cosine), times the service's weekend
factor, times a slow random factor of the tenant (exp of an AR(1) by the minute, phi 0.97, stationary sd 0.15), times a
Gamma factor of the service and one of the tenant for each 10 s. Counts are Poisson with this mean, so over-dispersed.
Tenants differ in burstiness (`world.BURSTS`). Tokens are log-normal, with a length of each service and tenant. Time to
first token is (base + prefill * prompt tokens) * F * LogNormal(0, 0.18); latency adds completion tokens / decode speed
* F * LogNormal(0, 0.06). F is load ** 0.2 (of the model's minute), clipped to [0.8, 1.6], times a slow random factor of
the model (exp of an AR(1) by the minute, phi 0.98, stationary sd 0.1), times the region's factor. 0.8 % of the requests
are stragglers (latency times 2 to 6). No request takes longer than `LONGEST`. A call that failed with a transient error
is tried again with the probability 0.6, after 1 to 4 s, at most twice; in a retry storm always, after 0.1 to 1 s, at
most four times.

Calibration. The tests compute figures of recorded traffic and hold the simulation to them, within the bounds that they
state. From ServeGen's statistics (Alibaba, 2025): the coefficient of variation of a tenant's gaps between calls, the
variation of the calls a minute beyond Poisson, for tenants and for the whole, and the swing of the rate over a day.
From Azure's traces (Patel et al., 2024), Mooncake's and ServeGen's: the spread and the tail of prompt and completion
lengths. From the llmperf leaderboard (2023): the spread of the logarithms of time to first token and of decode speed
at one model.

Every block draws from a generator of its own, seeded by (seed, number of the block), so a block depends only on its
position in time and on no earlier block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import count
from typing import Final

import numpy as np

from connectors.simulation.config import SimulatorConfig
from connectors.simulation.effects import effects, rate_factor
from connectors.simulation.incidents import MINUTE, Incident, Schedule
from connectors.simulation.world import ERRORS, MODELS, Fleet, Floats
from operators.model import MISSING, Bools, Ints

SLOT: Final = 10_000_000
"""Length of the time in which the rate is constant, in microseconds."""
_SLOTS: Final = MINUTE // SLOT
_EVEN: Final = 3.0
"""The shape of the Gamma factor on a service's rate."""
LONGEST: Final = 600_000_000
"""The longest latency in microseconds: callers give up then."""
STOP, LENGTH, TOOL_CALLS, EMBEDDED, FAILED = range(5)
"""Outcomes: the reasons to finish, then FAILED + index of the error type in `world.ERRORS`."""
RATE_LIMIT, TIMEOUT, SERVER_ERROR, CONTEXT_LENGTH = (
    FAILED + list(ERRORS).index(name) for name in ("rate_limit", "timeout", "server_error", "context_length")
)
_RETRIED: Final = (RATE_LIMIT, TIMEOUT, SERVER_ERROR)
_TRIES, _STUBBORN_TRIES = 2, 4
_PATIENCE: Final = 600_000
"""The longest call that is tried again, in tenths of a millisecond."""
_REACH: Final = _STUBBORN_TRIES * (_PATIENCE * 100 + 5_000_000) + LONGEST
"""The time within which a request and all its retries have ended, in microseconds from its start."""
_STREAM_PACE, _STREAM_BLOCK, _STREAM_RATE = 1, 2, 5


@dataclass(slots=True)
class Requests:
    """n requests as columns. Times in microseconds; `MISSING` if a request has no such value."""

    number: Ints  # block << 32 | place in the block: unique
    start: Ints
    end: Ints
    combo: Ints  # index into the fleet's combinations
    outcome: Ints
    latency: Ints  # tenths of a millisecond
    ttft: Ints  # tenths of a millisecond
    prompt: Ints
    completion: Ints
    cached: Ints
    reasoning: Ints
    cost: Ints  # nano-USD
    quality: Ints  # ten-thousandths
    trace: Ints  # number of the session: requests of one session share it
    stubborn: Bools  # whether the caller tries again at once if the request fails

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: Ints | Bools | slice) -> Requests:
        """The requests at `index`, in its order."""
        return Requests(*(getattr(self, f.name)[index] for f in fields(self)))


@dataclass(frozen=True, slots=True)
class _Moment:
    """The common values of the requests of one block: its first number, its begin, the pace, the incidents."""

    number: int
    begin: int
    pace: Floats  # [models, minutes]
    incidents: Sequence[Incident]


def concatenate(parts: list[Requests]) -> Requests:
    """All requests of the parts, in order."""
    return Requests(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Requests)))


class _Wander:
    """Slow random factors, one for each minute and column: exp of an AR(1) that can be entered anywhere.

    The process starts at 0 a whole chunk before each chunk of minutes, early enough to forget that start.
    """

    CHUNK: Final = 512

    def __init__(self, seed: int, stream: int, columns: int, phi: float, sd: float) -> None:
        self._key = (seed, stream)
        self._columns = columns
        self._phi = phi
        self._step = sd * (1 - phi * phi) ** 0.5
        self._chunk = lru_cache(maxsize=2)(self._make)

    def _noise(self, chunk: int) -> Floats:
        return np.random.default_rng([*self._key, chunk]).normal(0, self._step, (self.CHUNK, self._columns))

    def _make(self, chunk: int) -> Floats:
        noise = np.concatenate([self._noise(chunk), self._noise(chunk + 1)])
        level = np.zeros(self._columns)
        for row in noise:
            row += self._phi * level
            level = row
        factors: Floats = np.exp(noise[self.CHUNK :])
        return factors

    def at(self, first: int, minutes: int) -> Floats:
        """[minutes, columns] factors of the minutes from `first` on."""
        chunks = range(first // self.CHUNK, (first + minutes - 1) // self.CHUNK + 1)
        rows = np.concatenate([self._chunk(c) for c in chunks])
        begin = first - chunks[0] * self.CHUNK
        return rows[begin : begin + minutes]


class Traffic:
    """The requests of a configuration. Blocks can be made in any order; each takes the same time and memory."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.fleet = Fleet()
        self.config = config
        self.start = config.start_us
        self.schedule = Schedule(config, self.fleet.candidates())
        # At most about ten thousand requests a block, so that memory does not grow with the rate. Live blocks are
        # short, since a block is made as a whole when it begins.
        self.block_minutes = 1 if config.live else max(1, min(10, int(10_000 / (config.rate * 60))))
        self.blocks = None if config.minutes is None else -(-config.minutes // self.block_minutes)
        self._pace = _Wander(config.seed, _STREAM_PACE, len(MODELS), 0.98, 0.1)
        self._rate = _Wander(config.seed, _STREAM_RATE, len(self.fleet.tenants), 0.97, 0.15)

    def block_of(self, time: int) -> int:
        """The number of the block at this time; 0 before the start."""
        return max(0, (time - self.start) // (self.block_minutes * MINUTE))

    def until(self, number: int) -> int:
        """The end of a block."""
        return self.start + (number + 1) * self.block_minutes * MINUTE

    def _rates(
        self, first: int, minutes: int, incidents: Sequence[Incident], rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """([K, slots] expected requests, [models, minutes] load against the weekday's mean) of a block."""
        fleet, slots = self.fleet, minutes * _SLOTS
        at = self.start + first * MINUTE + SLOT * np.arange(slots)
        hour = at / 3_600e6 % 24
        weekend = (at // 86_400_000_000 + 3) % 7 >= 5  # 1970-01-01 was a Thursday; Monday is 0
        day = 1 + fleet.day[:, None] * np.cos(2 * np.pi * (hour - fleet.peak[:, None]) / 24)
        day *= np.where(weekend, fleet.weekend[:, None], 1.0) * rng.gamma(
            _EVEN, 1 / _EVEN, (len(fleet.services), slots)
        )
        shape = np.repeat(fleet.burst[:, None], slots, axis=1)
        tenant = rng.gamma(shape, 1 / shape) * np.repeat(self._rate.at(first, minutes).T, _SLOTS, axis=1)
        rates: Floats = self.config.rate * SLOT / 1e6 * fleet.weight[:, None] * day[fleet.service]
        rates *= tenant[fleet.tenant]
        for incident in incidents:
            during = (incident.begin <= at) & (at < incident.end)
            rates[np.ix_(fleet.mask(incident.entity), during)] *= rate_factor(incident)
        of_model = fleet.model == np.arange(len(fleet.models))[:, None]
        usual = of_model @ fleet.weight * self.config.rate * SLOT / 1e6
        by_minute = (of_model @ rates).reshape(len(fleet.models), minutes, _SLOTS).mean(axis=2)
        return rates, by_minute / usual[:, None]

    def block(self, number: int) -> Requests:
        """The requests that start in a block, by start, and then the retries of those that failed."""
        config = self.config
        rng = np.random.default_rng([config.seed, _STREAM_BLOCK, number])
        first = number * self.block_minutes
        minutes = self.block_minutes if config.minutes is None else min(self.block_minutes, config.minutes - first)
        begin = self.start + first * MINUTE
        incidents = self.schedule.between(begin, begin + minutes * MINUTE + _REACH)
        rates, load = self._rates(first, minutes, incidents, rng)
        counts = rng.poisson(rates)
        combo = np.repeat(np.arange(len(rates)), counts.sum(axis=1))
        slot = np.repeat(np.tile(np.arange(minutes * _SLOTS), len(rates)), counts.ravel())
        start = begin + ((slot + rng.random(len(slot))) * (SLOT // 1000)).astype(np.int64) * 1000  # whole milliseconds
        order = np.lexsort((combo, start))
        combo, start = combo[order], start[order]
        pace = np.clip(np.maximum(load, 0.01) ** 0.2, 0.8, 1.6) * self._pace.at(first, minutes).T
        moment = _Moment(number << 32, begin, pace, incidents)
        parts = [self._requests(moment, start, combo, self._sessions(combo, rng), rng)]
        latest = None if self.blocks is None else self.start + (config.minutes or 0) * MINUTE
        for attempt in range(1, _STUBBORN_TRIES + 1):
            again = self._retries(parts[-1], attempt, latest, moment, rng)
            if again is None:
                break
            parts.append(again)
        found = concatenate(parts) if len(parts) > 1 else parts[0]
        found.number = moment.number + np.arange(len(found))
        return found

    def _sessions(self, combo: Ints, rng: np.random.Generator) -> Ints:
        """The number of each call's session in the block.

        A tenant's call belongs to the session of its last one with the probability 0.65.
        """
        order = np.argsort(self.fleet.tenant[combo], kind="stable")
        whose = self.fleet.tenant[combo][order]
        fresh = rng.random(len(combo)) < 0.35
        fresh[:1] = True
        fresh[1:] |= whose[1:] != whose[:-1]
        session = np.empty(len(combo), np.int64)
        session[order] = np.cumsum(fresh)
        return session

    def _retries(
        self, failed: Requests, attempt: int, latest: int | None, moment: _Moment, rng: np.random.Generator
    ) -> Requests | None:
        """The retries of these failed calls; None if there are none."""
        may = np.flatnonzero(np.isin(failed.outcome, _RETRIED) & (failed.latency <= _PATIENCE))
        if not len(may):
            return None
        stubborn = failed.stubborn[may]
        again = stubborn | ((rng.random(len(may)) < 0.6) & (attempt <= _TRIES))
        wait = np.where(stubborn, rng.uniform(100, 1_000, len(may)), rng.uniform(1_000, 4_000, len(may)))
        start = (failed.end[may] // 1000 + wait.astype(np.int64)) * 1000
        if latest is not None:
            again &= start < latest
        if not again.any():
            return None
        chosen, start = may[again], start[again]
        order = np.argsort(start, kind="stable")
        chosen = chosen[order]
        return self._requests(moment, start[order], failed.combo[chosen], failed.trace[chosen] - moment.number, rng)

    def _requests(self, moment: _Moment, start: Ints, combo: Ints, session: Ints, rng: np.random.Generator) -> Requests:
        fleet, n = self.fleet, len(start)
        share = rng.random(n)
        e = effects(moment.incidents, fleet, start, combo, share)
        combo = np.where(e.dearer, fleet.dearer[combo], combo)

        chat = fleet.chat[combo]
        prompt = fleet.prompt[0][combo] * np.exp(fleet.prompt[1][combo] * rng.standard_normal(n))
        prompt = np.clip(np.rint(prompt * e.prompt), 1, 200_000)
        completion = fleet.completion[0][combo] * np.exp(fleet.completion[1][combo] * rng.standard_normal(n))
        completion *= e.completion
        limit = fleet.max_tokens[combo]
        outcome = np.where(completion >= limit, LENGTH, np.where(rng.random(n) < fleet.tools[combo], TOOL_CALLS, STOP))
        outcome = np.where(chat, outcome, EMBEDDED)
        completion = np.where(chat, np.clip(np.rint(completion), 1, limit), 0)

        minute = np.minimum((start - moment.begin) // MINUTE, moment.pace.shape[1] - 1)
        pace = moment.pace[fleet.model[combo], minute] * fleet.slow[combo] * e.slow
        ttft = (fleet.ttft[combo] + fleet.prefill[combo] * prompt) * pace * np.exp(0.18 * rng.standard_normal(n))
        reasoning = np.rint(completion * fleet.reasoning[combo] * rng.gamma(4, 1 / 4, n))
        completion += reasoning  # as providers count them
        decode = completion * fleet.decode_ms[combo] * pace * e.decode * np.exp(0.06 * rng.standard_normal(n))
        latency = ttft + decode
        latency *= np.where(rng.random(n) < 0.008, rng.uniform(2, 6, n), 1)

        failed = rng.random(n) < fleet.errors[combo]
        failure = np.searchsorted(np.cumsum(list(ERRORS.values()))[:-1], rng.random(n), side="right")
        more = ~failed & (rng.random(n) < e.fails)
        failure, failed = np.where(more, e.failure, failure), failed | more
        outcome = np.where(failed, FAILED + failure, outcome)
        refused = (outcome == RATE_LIMIT) | (outcome == CONTEXT_LENGTH)
        timeout, server = outcome == TIMEOUT, outcome == SERVER_ERROR
        latency = np.where(refused, rng.uniform(20, 150, n), latency)
        latency = np.where(server, latency * rng.uniform(0.2, 1, n), np.where(timeout, 60_000, latency))
        latency = np.minimum(latency, LONGEST / 1000)
        streamed = chat & ~failed
        completion, reasoning = np.where(failed, 0, completion), np.where(failed, 0, reasoning)
        cached = np.floor(prompt * np.minimum(fleet.cached[combo] * rng.random(n) * 2, 1))
        cost = 1000 * fleet.price_in[combo] * (prompt - 0.5 * np.where(chat, cached, 0))
        cost += 1000 * fleet.price_out[combo] * completion
        cost = np.where(refused | server, 0, cost * e.price)

        mean = np.clip(fleet.quality[combo] + e.quality, 0.02, 0.98)
        quality = rng.beta(30 * mean, 30 * (1 - mean))
        scored = (rng.random(n) < 0.3) & streamed

        tenths = np.maximum(np.rint(latency * 10), 1).astype(np.int64)
        return Requests(
            number=np.zeros(n, np.int64),
            start=start,
            end=start + tenths * 100,
            combo=combo,
            outcome=outcome,
            latency=tenths,
            ttft=np.where(streamed, np.minimum(np.rint(ttft * 10), tenths), MISSING).astype(np.int64),
            prompt=prompt.astype(np.int64),
            completion=np.where(chat, completion, MISSING).astype(np.int64),
            cached=np.where(streamed, cached, MISSING).astype(np.int64),
            reasoning=np.where(streamed & (fleet.reasoning[combo] > 0), reasoning, MISSING).astype(np.int64),
            cost=np.rint(cost).astype(np.int64),
            quality=np.where(scored, np.rint(quality * 10_000), MISSING).astype(np.int64),
            trace=moment.number + session,
            stubborn=np.broadcast_to(e.stubborn, n),
        )

    def emitted(self, first: int = 0) -> Iterator[Requests]:
        """All requests in the order of their end, as a live collector gets them; one part for each block from `first`.

        A request that ends after its block waits for a later part; the last part also holds requests that end after the
        simulated time.
        """
        waiting: list[Requests] = []
        before = max(0, first - -(-_REACH // (self.block_minutes * MINUTE)))
        for number in count(before) if self.blocks is None else range(before, self.blocks):
            found = concatenate([*waiting, self.block(number)])
            last = self.blocks is not None and number == self.blocks - 1
            now = np.ones(len(found), bool) if last else found.end < self.until(number)
            waiting = [found.take(~now)]
            if number >= first:
                out = found.take(now)
                yield out.take(np.lexsort((out.number, out.end)))
