"""The incidents of the simulation, their times, and their labels.

The time after the calm hours is cut into slots of equal length; each slot holds one incident, somewhere inside it. A
slot's incident depends only on the seed and the slot's number, so a longer simulation begins with the same incidents.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from connectors.simulation.config import KindName, SimulatorConfig
from operators.decode.times import format_time

MINUTE: Final = 60_000_000
_DAY: Final = 1_440  # minutes
_STREAM_ROUND: Final = 3
_STREAM_SLOT: Final = 4
_LEAST_SLOT: Final = 2.0  # minutes

Range = tuple[float, float]
_NONE: Final[Range] = (0, 0)
_ALL: Final[Range] = (1, 1)


class Kind(NamedTuple):
    """One kind of incident: its primary metric, the direction there, secondary metrics, and its parameters.

    `entities`: the labels that it may happen to. `minutes`, `size`, `share`, `errors`: ranges of uniform draws.
    """

    metric: str
    direction: str
    secondary: tuple[str, ...]
    entities: tuple[str, ...]
    minutes: Range
    size: Range = _NONE
    share: Range = _ALL
    errors: Range = _NONE


KINDS: Final[dict[KindName, Kind]] = {
    # Each call takes `size` times as long.
    "latency_spike": Kind("latency_ms", "up", ("ttft_ms",), ("model", "service"), (6, 20), (3, 6)),
    # The same, growing from 1 over the first 80 % of the time.
    "latency_drift": Kind("latency_ms", "up", ("ttft_ms",), ("model",), (60, 120), (1.8, 2.6)),
    # Prompts are `size` times as long, on `share` of the requests.
    "token_explosion": Kind(
        "prompt_tokens", "up", ("ttft_ms", "latency_ms", "cost_usd"), ("tenant",), (10, 30), (8, 20), (0.6, 1)
    ),
    # Completions are `size` times as long.
    "completion_collapse": Kind(
        "completion_tokens", "down", ("latency_ms", "cost_usd"), ("model", "service"), (15, 45), (0.03, 0.12)
    ),
    # `share` of the calls goes to a dearer model.
    "cost_surge": Kind("cost_usd", "up", ("latency_ms", "ttft_ms"), ("service",), (30, 60), share=(0.7, 1)),
    # Calls fail with the probability `errors`, all with the same type of error.
    "error_burst": Kind(
        "error_rate", "up", ("completion_tokens", "cost_usd", "latency_ms"), ("service", "model"), (5, 20),
        errors=(0.25, 0.6),
    ),
    # `size` times the requests.
    "traffic_surge": Kind("request_count", "up", ("latency_ms",), ("service",), (10, 30), (3, 6)),
    "traffic_drop": Kind("request_count", "down", (), ("service",), (15, 40), (0, 0.1)),
    # `size` times the usual requests are added. Of these, prompts are up to three times as long, and the rate limit
    # refuses a share of `errors`.
    "tenant_abuse": Kind(
        "request_count", "up", ("prompt_tokens", "error_rate", "cost_usd"), ("tenant",), (15, 45), (10, 25),
        errors=(0.1, 0.4),
    ),
    # The mean of the quality scores is shifted by `size`.
    "quality_degradation": Kind("quality_score", "down", (), ("model", "service"), (60, 180), (-0.30, -0.15)),
    # Calls fail with the probability `errors`, and callers try again at once, up to four times; other calls are slower.
    "retry_storm": Kind(
        "error_rate", "up", ("request_count", "latency_ms", "cost_usd"), ("service",), (5, 20), errors=(0.4, 0.7)
    ),
    # A new version under the same name is `size` times as dear and 1.5 times as slow, and its answers are 1.3 times as
    # long.
    "model_update": Kind(
        "cost_usd", "up", ("latency_ms", "ttft_ms", "completion_tokens"), ("model",), (30, 60), (2, 3)
    ),
    # Like quality_degradation, but for one tenant with all its services and models.
    "tenant_quality_drop": Kind("quality_score", "down", (), ("tenant",), (60, 180), (-0.35, -0.2)),
    # Streams begin as usual, but decoding takes `size` times as long.
    "stuck_stream": Kind("tokens_per_second", "down", ("latency_ms",), ("model",), (10, 30), (4, 8)),
}  # fmt: skip

_ERRORS: Final = ("rate_limit", "timeout", "server_error")
"""The types of errors that incidents cause."""


class Incident(NamedTuple):
    """One incident: `begin` <= start of a request < `end` (microseconds, whole minutes), for requests of `entity`.

    `KINDS` has the meanings of `size`, `share` and `errors`; `error` is the type of the added errors.
    """

    kind: KindName
    entity: dict[str, str]
    begin: int
    end: int
    size: float = 0
    share: float = 1
    errors: float = 0
    error: str = "server_error"

    def label(self, number: int) -> dict[str, object]:
        """The incident as a line of a labels file."""
        kind = KINDS[self.kind]
        magnitude: dict[str, object] = {}
        if kind.size != _NONE:
            magnitude["size"] = self.size
        if kind.share != _ALL:
            magnitude["share"] = self.share
        if kind.errors != _NONE:
            magnitude |= {"errors": self.errors, "error_type": self.error}
        return {
            "anomaly_id": f"S{number:03d}",
            "type": self.kind,
            "entity_key": ",".join(f"{k}={v}" for k, v in self.entity.items()),
            "entity": self.entity,
            "metric": kind.metric,
            "direction": kind.direction,
            "secondary_metrics": list(kind.secondary),
            "start": format_time(self.begin),
            "end": format_time(self.end),
            "magnitude": magnitude,
        }


class Schedule:
    """The incidents of a simulation. `candidates`: for each kind and label, the values that it can happen to."""

    def __init__(self, config: SimulatorConfig, candidates: Mapping[KindName, Mapping[str, Sequence[str]]]) -> None:
        wanted = config.incidents
        total = config.minutes
        calm, scale = wanted.calm_h * 60, 1.0
        if total is not None and calm > total * 2 / 3:
            calm, scale = total * 2 / 3, total * 2 / 3 / calm
        self._kinds = wanted.kinds
        self._candidates = candidates
        self._seed = config.seed
        self._scale = scale
        self._slot = max(_LEAST_SLOT, scale * _DAY / wanted.per_day) if wanted.per_day else 0.0
        self._first = config.start_us // MINUTE + round(calm)
        self.count: int | None = None
        if not self._slot:
            self.count = 0
        elif total is not None:
            self.count = int((total - round(calm)) / self._slot + 1e-9)
        self._incident = lru_cache(maxsize=64)(self._make)

    def between(self, begin: int, end: int) -> list[Incident]:
        """The incidents that overlap begin <= t < end (microseconds), in order of time."""
        if not self._slot:
            return []
        first = max(0, int((begin / MINUTE - self._first) / self._slot) - 1)
        last = int((end / MINUTE - self._first) / self._slot) + 2
        if self.count is not None:
            last = min(last, self.count)
        found = [self._incident(slot) for slot in range(first, last)]
        return [i for i in found if i.begin < end and begin < i.end]

    def _make(self, slot: int) -> Incident:
        turn, place = divmod(slot, len(self._kinds))
        order = np.random.default_rng([self._seed, _STREAM_ROUND, turn]).permutation(len(self._kinds))
        name = self._kinds[int(order[place])]
        kind = KINDS[name]
        rng = np.random.default_rng([self._seed, _STREAM_SLOT, slot])
        at, length, size, share, errors = rng.random(5).tolist()
        begins, ends = int(slot * self._slot), int((slot + 1) * self._slot)
        minutes = int(min(_between(kind.minutes, length) * self._scale, 0.6 * self._slot)) or 1
        begin = self._first + begins + int(at * (ends - begins - minutes))
        possible = [{label: v} for label in kind.entities for v in self._candidates[name][label]]
        entity = possible[int(rng.integers(len(possible)))]
        error = "rate_limit" if name == "tenant_abuse" else _ERRORS[int(rng.integers(len(_ERRORS)))]
        return Incident(
            name,
            entity,
            begin * MINUTE,
            (begin + minutes) * MINUTE,
            round(_between(kind.size, size), 3),
            round(_between(kind.share, share), 3),
            round(_between(kind.errors, errors), 3),
            "server_error" if name == "retry_storm" else error,
        )


def _between(limits: Range, share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share
