"""Simulated requests as native JSON records, one for each request, without line ends."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from connectors.simulation.traffic import FAILED, Requests
from connectors.simulation.world import ERRORS, Fleet
from operators.metrics import MEASURES
from operators.model import Ints

_OUTCOMES: Final = (
    '"status":"ok","finish_reason":"stop"',
    '"status":"ok","finish_reason":"length"',
    '"status":"ok","finish_reason":"tool_calls"',
    '"status":"ok"',
    *(f'"status":"error","error_type":"{name}"' for name in ERRORS),
)
assert len(_OUTCOMES) == FAILED + len(ERRORS)

_RECORD: Final = '{"event_id":"%s","timestamp":"%s",%s,%s%s,"trace_id":"%s","span_id":"%s"}'


def _mixed(seed: int, numbers: Ints, stream: int) -> NDArray[np.uint64]:
    """A well spread 64-bit value for each number, by the finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    z = numbers.astype(np.uint64) + np.uint64(
        (0x9E3779B97F4A7C15 * (2 * seed + 1) + stream * 0xD1B54A32D192ED03) % (1 << 64)
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _hex(values: NDArray[np.uint64]) -> list[str]:
    """[n, w] 64-bit values as n texts of 16 * w hexadecimal digits."""
    width = 16 * values.shape[1]
    text = values.astype(">u8").tobytes().hex()
    return [text[i : i + width] for i in range(0, len(text), width)]


def _values(requests: Requests) -> dict[str, Ints | NDArray[np.float64]]:
    """The simulated values of each metric, in its unit and in the order of writing; below 0 means none."""
    return {
        "latency": requests.latency / 10,
        "ttft": requests.ttft / 10,
        "prompt_tokens": requests.prompt,
        "completion_tokens": requests.completion,
        "cached_tokens": requests.cached,
        "reasoning_tokens": requests.reasoning,
        "cost": requests.cost / 1e9,
        "quality": requests.quality / 10_000,
    }


def _written(metric: str, values: Ints | NDArray[np.float64]) -> list[str]:
    """The JSON field of the metric with each value; "" for none."""
    field = MEASURES[metric].field
    return ["" if v < 0 else f',"{field}":{v}' for v in values.tolist()]


def encode(seed: int, fleet: Fleet, requests: Requests) -> list[bytes]:
    """The records of the requests, in order."""
    if not len(requests):
        return []
    r = requests
    ids = [f"sim{seed}-{n >> 32}-{n & 0xFFFFFFFF}" for n in r.number.tolist()]
    stamps = np.datetime_as_string(r.start.astype("datetime64[us]"), unit="ms", timezone="UTC").tolist()
    labels = [fleet.fragment[k] for k in r.combo.tolist()]
    outcomes = [_OUTCOMES[k] for k in r.outcome.tolist()]
    traces = _hex(np.stack([_mixed(seed, r.trace, 1), _mixed(seed, r.trace, 2)], axis=1))
    spans = _hex(_mixed(seed, r.number, 3)[:, None])
    written = [_written(metric, values) for metric, values in _values(r).items()]
    lines = map(
        _RECORD.__mod__,
        zip(ids, stamps, labels, outcomes, map("".join, zip(*written, strict=True)), traces, spans, strict=True),
    )
    return "\n".join(lines).encode("ascii").split(b"\n")
