"""Values that follow from the fields of an event: its speed, its cost, the family of its model."""

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
"""Fills in values that follow from the events themselves; may change the given events."""


@dataclass(frozen=True)
class Enricher:
    """Speed, then cost by the model as it was sent, then the model's family; keeps the contract `Enrich`.

    `prices` gives the user's own table once a batch: another one if the price file has changed. Events that it gives no
    cost get one from the table `shipped`.
    """

    config: EnrichConfig
    prices: Callable[[], PriceTable] = lambda: NO_PRICES
    shipped: PriceTable = NO_PRICES
    renames: Renames = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "renames", Renames(self.config.families, self.config.dated_versions))

    def __call__(self, events: Events) -> Events:
        of_good_requests(events)
        speed(events)
        self.prices().fill(events)
        self.shipped.fill(events)
        self.renames.apply(events)
        return events


def of_good_requests(events: Events) -> None:
    """Remove the times, the output and the quality of failed requests, in place: they describe the failure.

    A request that timed out, or was refused at once, tells nothing about the speed of the others.
    """
    for metric in _OF_GOOD:
        events.values[metric, events.error] = MISSING


def speed(events: Events) -> None:
    """Fill in `tokens_per_second`, in place: output tokens over the time from the first token to the end.

    Without a time to first token the whole latency counts. The result is `MISSING` if there are no output tokens, if
    that time is not above 0, or if the speed is above the metric's limit. Integers, rounded half up.
    """
    latency, ttft, output = events.values[_LATENCY], events.values[_TTFT], events.values[_OUTPUT]
    time = np.where(latency == MISSING, 0, latency - np.maximum(ttft, 0))
    known = (time > 0) & (output > 0)
    divisor = np.where(known, time, 1)
    # At most 10^9 tokens x 10^3 x 10^6: below 2^63.
    found = (np.maximum(output, 0) * (_SCALE * SECOND) + divisor // 2) // divisor
    events.values[_SPEED] = np.where(known & (found <= _LIMIT), found, MISSING)
