"""What an event does not say itself but follows from what it says: speed, cost, the family of its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from operators.config import EnrichConfig
from operators.enrich.pricing import NO_PRICES, PriceTable
from operators.enrich.renames import Renames
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import MISSING, SECOND, Events

_LATENCY: Final = METRIC_INDEX["latency"]
_TTFT: Final = METRIC_INDEX["ttft"]
_OUTPUT: Final = METRIC_INDEX["completion_tokens"]
_SPEED: Final = METRIC_INDEX["tokens_per_second"]
_SCALE: Final = METRICS[_SPEED].scale
_LIMIT: Final = round(METRICS[_SPEED].limit * _SCALE)

_OF_GOOD: Final = tuple(i for i, metric in enumerate(METRICS) if metric.of_good)

Enrich = Callable[[Events], Events]
"""Fills in what follows from an event itself; may change the events it is given."""


@dataclass(frozen=True)
class Enricher:
    """Speed, then cost by the model as it was sent, then the model's family; keeps the contract `Enrich`.

    `prices` is asked for the table once a batch: it may be another one when the price file has changed.
    """

    config: EnrichConfig
    prices: Callable[[], PriceTable] = lambda: NO_PRICES
    renames: Renames = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "renames", Renames(self.config.families, self.config.dated_versions))

    def __call__(self, events: Events) -> Events:
        of_good_requests(events)
        speed(events)
        self.prices().fill(events)
        self.renames.apply(events)
        return events


def of_good_requests(events: Events) -> None:
    """Take the times, the output and the quality from requests that failed, in place: they are of the failure.

    A request that timed out, or was turned away at once, says nothing of how fast the others are answered.
    """
    for metric in _OF_GOOD:
        events.values[metric, events.error] = MISSING


def speed(events: Events) -> None:
    """Fill in `tokens_per_second`, in place: output tokens over the time from the first token to the end.

    Where no time to first token is known it is over the whole latency. `MISSING` where there are no output tokens,
    where that time is not above 0, and where the result is above the metric's limit. Integers, rounded half up.
    """
    latency, ttft, output = events.values[_LATENCY], events.values[_TTFT], events.values[_OUTPUT]
    time = np.where(latency == MISSING, 0, latency - np.maximum(ttft, 0))
    known = (time > 0) & (output > 0)
    divisor = np.where(known, time, 1)
    # At most 10^9 tokens x 10^3 x 10^6: below 2^63.
    found = (np.maximum(output, 0) * (_SCALE * SECOND) + divisor // 2) // divisor
    events.values[_SPEED] = np.where(known & (found <= _LIMIT), found, MISSING)
