"""The effects of incidents on each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from connectors.simulation.incidents import Incident
from connectors.simulation.world import ERRORS, Fleet, Floats
from operators.model import Bools, Ints

UPDATE_SLOWER: Final = 1.5
UPDATE_LONGER: Final = 1.3
"""Factors on the latency and on the answers' length of a model's new version, beside its price (`incidents.KINDS`)."""
STORM_SLOWER: Final = 1.5
"""The factor on the latency of calls in a retry storm."""


@dataclass(slots=True)
class Effects:
    """Factors, shifts and probabilities for n requests; of shape () if no incident touches any."""

    slow: Floats  # on the whole latency
    decode: Floats  # on the time for decoding only
    prompt: Floats  # on the lengths
    completion: Floats
    price: Floats
    quality: Floats  # added to the mean score
    fails: Floats  # probability of an error beside the usual ones
    failure: Ints  # type of that error, an index into `world.ERRORS`
    dearer: Bools  # whether the request goes to a dearer model
    stubborn: Bools  # whether the caller tries again at once, several times

    @classmethod
    def none(cls) -> Effects:
        """No effects."""
        one, zero = np.ones(()), np.zeros(())
        return cls(one, one, one, one, one, zero, zero, np.zeros((), np.int64), zero > 0, zero > 0)


def rate_factor(incident: Incident) -> float:
    """The factor of the incident on its entity's rate."""
    match incident.kind:
        case "traffic_surge" | "traffic_drop":
            return incident.size
        case "tenant_abuse":
            return 1 + incident.size
        case _:
            return 1


def effects(incidents: Sequence[Incident], fleet: Fleet, start: Ints, combo: Ints, share: Floats) -> Effects:
    """The effects on requests of these combinations at these times.

    `share`, in [0, 1) for each request, decides which ones an incident hits if it hits only some.
    """
    e = Effects.none()
    for i in incidents:
        hit = (i.begin <= start) & (start < i.end) & fleet.mask(i.entity)[combo]
        if hit.any():
            _apply(e, i, hit, start, share)
    return e


def _apply(e: Effects, i: Incident, hit: Bools, start: Ints, share: Floats) -> None:
    match i.kind:
        case "latency_spike":
            e.slow = np.where(hit, e.slow * i.size, e.slow)
        case "latency_drift":
            grown = np.clip((start - i.begin) / (0.8 * (i.end - i.begin)), 0, 1)
            e.slow = np.where(hit, e.slow * (1 + (i.size - 1) * grown), e.slow)
        case "token_explosion":
            e.prompt = np.where(hit & (share < i.share), e.prompt * i.size, e.prompt)
        case "completion_collapse":
            e.completion = np.where(hit, e.completion * i.size, e.completion)
        case "cost_surge":
            e.dearer = e.dearer | (hit & (share < i.share))
        case "error_burst" | "retry_storm":
            _fail(e, i, hit)
            if i.kind == "retry_storm":
                e.stubborn = e.stubborn | hit
                e.slow = np.where(hit, e.slow * STORM_SLOWER, e.slow)
        case "tenant_abuse":
            part = share * (1 + i.size) / i.size  # uniform in [0, 1) for the flood, 1 or more for the usual calls
            flood = hit & (part < 1)
            e.prompt = np.where(flood, e.prompt * (1 + 2 * part), e.prompt)
            _fail(e, i, flood)
        case "quality_degradation" | "tenant_quality_drop":
            e.quality = np.where(hit, e.quality + i.size, e.quality)
        case "model_update":
            e.price = np.where(hit, e.price * i.size, e.price)
            e.slow = np.where(hit, e.slow * UPDATE_SLOWER, e.slow)
            e.completion = np.where(hit, e.completion * UPDATE_LONGER, e.completion)
        case "stuck_stream":
            e.decode = np.where(hit, e.decode * i.size, e.decode)
        case "traffic_surge" | "traffic_drop":
            pass  # changes the number of requests only


def _fail(e: Effects, i: Incident, hit: Bools) -> None:
    e.fails = np.where(hit, i.errors, e.fails)
    e.failure = np.where(hit, list(ERRORS).index(i.error), e.failure)
