from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.enrich import enricher
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, Events


def event(latency: int, ttft: int, output: int) -> Events:
    values = np.full((len(METRICS), 1), MISSING, np.int64)
    values[METRIC_INDEX["latency"]] = latency
    values[METRIC_INDEX["ttft"]] = ttft
    values[METRIC_INDEX["completion_tokens"]] = output
    zero = np.zeros(1, np.int64)
    return Events(zero, zero, zero, values, zero > 0, zero.astype(np.int32), [("",) * len(LABELS)], [""], [""])


def speed(latency: int, ttft: int, output: int) -> int:
    events = event(latency, ttft, output)
    enricher.speed(events)
    return int(events.values[METRIC_INDEX["tokens_per_second"], 0])


@pytest.mark.parametrize(
    ("latency_us", "ttft_us", "output", "milli_tokens_per_second"),
    [
        (1_500_000, 500_000, 20, 20_000),
        (2_000_000, MISSING, 20, 10_000),
        (3_000_000, 0, 1, 333),
        (3_000_000, 0, 2, 667),
        (500_000, 500_000, 20, MISSING),
        (400_000, 500_000, 20, MISSING),
        (0, MISSING, 20, MISSING),
        (MISSING, 500_000, 20, MISSING),
        (MISSING, MISSING, MISSING, MISSING),
        (1_000_000, 0, 0, MISSING),
        (1_000_000, 0, MISSING, MISSING),
        (1, MISSING, 1, 1_000_000_000),
        (1, MISSING, 2, MISSING),
    ],
)
def test_tokens_per_second(latency_us: int, ttft_us: int, output: int, milli_tokens_per_second: int) -> None:
    assert speed(latency_us, ttft_us, output) == milli_tokens_per_second


@given(st.integers(-1, 86_400_000_000), st.integers(-1, 86_400_000_000), st.integers(-1, 1_000_000_000))
def test_is_within_the_limit_and_exact(latency: int, ttft: int, output: int) -> None:
    found = speed(latency, ttft, output)
    time = latency - max(ttft, 0)
    if found == MISSING:
        assert latency == MISSING or time <= 0 or output <= 0 or output * 10**9 > time * 10**9 - time
    else:
        assert abs(found * time - output * 10**9) * 2 <= time
        assert found <= METRICS[METRIC_INDEX["tokens_per_second"]].limit * 1_000
