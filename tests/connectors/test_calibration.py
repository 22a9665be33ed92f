"""Figures of simulated traffic compared with those of recorded traffic, within bounds."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import orjson
import pytest
from numpy.typing import NDArray

from connectors.simulation.config import IncidentsConfig, SimulatorConfig
from connectors.simulation.traffic import FAILED, Requests, Traffic, concatenate
from operators.decode.times import parse_times
from operators.model import Bools

Floats = NDArray[np.float64]
MINUTE, HOUR = 60.0, 3_600.0
TRACES = ("azure2023_conv", "azure2023_code", "mooncake_conversation", "servegen_resampled")


@cache
def simulated() -> tuple[Traffic, Requests]:
    """A day and a half of traffic at the recorded rate, without incidents, sorted by start."""
    traffic = Traffic(SimulatorConfig(hours=36, rate=2, incidents=IncidentsConfig(per_day=0)))
    found = concatenate(list(traffic.emitted()))
    return traffic, found.take(np.argsort(found.start, kind="stable"))


@cache
def trace(data: Path, name: str) -> tuple[Floats, Floats, Floats, NDArray[np.str_]]:
    """Times in seconds, prompt and completion tokens, and tenants of a recorded trace."""
    with gzip.open(data / "llm_traces" / f"{name}.jsonl.gz") as lines:
        rows = [orjson.loads(line) for line in lines]
    times, _ = parse_times([r["timestamp"] for r in rows])
    prompt, completion = (np.array([float(r[k]) for r in rows]) for k in ("prompt_tokens", "completion_tokens"))
    return times / 1e6, prompt, completion, np.array([r.get("tenant", "") for r in rows])


def gaps(times: Floats) -> float:
    """Coefficient of variation of the gaps between calls: the median over 10 minute windows with 20 gaps or more."""
    windows = np.split(times, np.flatnonzero(np.diff(times // 600)) + 1)
    found = [float(d.std() / d.mean()) for d in map(np.diff, windows) if len(d) >= 20]
    return float(np.median(found)) if found else float("nan")


def excess(times: Floats) -> float:
    """Relative variance of the calls in a minute beyond that of a Poisson process, within half hours."""
    minutes = np.bincount(((times - times[0]) // MINUTE).astype(int))
    halves = minutes[: len(minutes) // 30 * 30].reshape(-1, 30)
    mean, spread = halves.mean(axis=1), halves.var(axis=1, ddof=1)
    seen = mean >= 1
    return float((spread - mean)[seen].sum() / (mean[seen] ** 2).sum())


def of_tenants(times: Floats, tenants: NDArray[np.generic]) -> list[tuple[float, float]]:
    found = [times[tenants == t] for t in np.unique(tenants)]
    return [(gaps(t), excess(t)) for t in found if len(t) > 1_000 and np.isfinite(gaps(t))]


def log_sd(values: Floats) -> float:
    return float(np.log(np.maximum(values, 1)).std())


def tail(values: Floats) -> float:
    return float(np.percentile(values, 99) / max(1, np.median(values)))


def spread(logs: Floats) -> Floats:
    """Standard deviations of the columns, estimated from quartiles, so that outliers do not count."""
    found: Floats = np.subtract(*np.percentile(logs, [75, 25], axis=0)) / 1.349
    return found


def test_arrivals_are_as_bursty_as_recorded(shared: Path) -> None:
    times, _, _, tenants = trace(shared / "data", "servegen_resampled")
    traffic, found = simulated()
    ours = found.start / 1e6
    assert gaps(ours) == pytest.approx(gaps(times), rel=0.2)
    assert excess(ours) == pytest.approx(excess(times), rel=0.4)
    theirs, mine = of_tenants(times, tenants), of_tenants(ours, traffic.fleet.tenant[found.combo])
    assert len(theirs) > 15 and len(mine) > 12
    for figure, near in ((0, 0.25), (1, 0.5)):
        recorded, simulated_ = (np.array([t[figure] for t in side]) for side in (theirs, mine))
        assert np.median(simulated_) == pytest.approx(np.median(recorded), rel=near)
        low, high = np.percentile(recorded, [10, 90])  # simulated tenants must differ as much
        assert 0.4 * (high - low) < np.ptp(np.percentile(simulated_, [10, 90])) < 1.5 * (high - low)


def test_the_day_swings_as_much_as_recorded(shared: Path) -> None:
    with gzip.open(shared / "data" / "llm_series" / "servegen_platform_rps_10min.csv.gz", "rt") as lines:
        rows = list(csv.DictReader(lines))

    def swing(profile: Floats) -> float:
        return float((profile.max() - profile.min()) / (profile.max() + profile.min()))

    recorded = []
    for model in ("m_large_rps", "m_mid_rps", "m_small_rps"):
        rates = np.array([float(row[model]) for row in rows])
        rates[rates == 0] = np.nan  # gaps in the recording
        recorded.append(swing(np.nanmean(rates.reshape(7, 24, 6), axis=(0, 2))))
    _, found = simulated()
    hours = np.bincount(((found.start - found.start[0]) // (HOUR * 1e6)).astype(int))[:24].astype(float)
    assert min(recorded) < swing(hours) < 1.1 * max(recorded)


@pytest.mark.parametrize("tokens", ["prompt", "completion"])
def test_tokens_are_as_heavy_tailed_as_recorded(shared: Path, tokens: str) -> None:
    found_traces = [trace(shared / "data", name) for name in TRACES]
    traces = [t[1] if tokens == "prompt" else t[2] for t in found_traces]
    _, found = simulated()
    ours = (found.prompt if tokens == "prompt" else found.completion[found.completion > 0]).astype(float)
    for figure in (log_sd, tail):
        recorded = [figure(values) for values in traces]
        assert 0.9 * min(recorded) < figure(ours) < 1.1 * max(recorded)


def test_latency_spreads_as_recorded(shared: Path) -> None:
    """Compares calls to one model in one region and hour, scaled by the length of the prompt, as in the leaderboard."""
    groups: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    with gzip.open(shared / "data" / "llm_reference" / "llmperf_latency.csv.gz", "rt") as lines:
        for row in csv.DictReader(lines):
            if not row["error_code"] and float(row["ttft_s"] or 0) > 0 and float(row["inter_token_latency_s"] or 0) > 0:
                groups[row["provider"], row["model"]].append(
                    (float(row["ttft_s"]), float(row["inter_token_latency_s"]))
                )
    recorded = np.array([spread(np.log(np.array(g))) for g in groups.values() if len(g) >= 20])
    assert len(recorded) >= 15

    traffic, found = simulated()
    fleet = traffic.fleet
    mine: Bools = (found.outcome < FAILED) & (found.completion > 20) & (found.ttft > 0)
    found = found.take(mine)
    ttft = found.ttft / (fleet.ttft[found.combo] + fleet.prefill[found.combo] * found.prompt)
    logs = np.log(np.stack([ttft, (found.latency - found.ttft) / found.completion], axis=1))
    same = (fleet.model[found.combo] * 10 + fleet.region[found.combo]) * 100 + (found.start // (HOUR * 1e6)) % 100
    ours = np.array(
        [spread(logs[same == k]) for k, n in zip(*np.unique(same, return_counts=True), strict=True) if n > 50]
    )
    assert len(ours) > 100
    low, high = np.percentile(recorded, [20, 80], axis=0)
    middle = np.median(ours, axis=0)
    assert ((low < middle) & (middle < high)).all(), (low, middle, high)
