"""Measures the cost of closing one pane (merging, admission and detection of all series of a worker) and its growth.

    python -m benchmarks.closing [--series N ...] [--panes N] [--requests N] [--json]

Every series has requests in every pane, each of another tenant, so all series are judged against their mix. Four
metrics are watched, besides the numbers of requests and errors. The series are spread over 64 shards. Panes are closed
until all series are warm; the median of the later ones counts. Each number of series runs in a process of its own, for
the sake of its peak memory. This includes the generated events; 0 series show the memory of an idle process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from flows.pipeline import Shape, detection
from operators.config import DetectConfig, EpisodesConfig, GroupsConfig, PanesConfig, TimeConfig
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Events
from operators.panes import fold
from operators.panes.shard import Partial, Shard
from operators.panes.table import Closed
from operators.panes.watermark import Watermark

ROOT = Path(__file__).parent.parent
SHARDS = 64
START = 1_767_225_600 * SECOND
WATCHED = ("latency", "ttft", "tokens_per_second", "cost")


@dataclass(frozen=True)
class Measured:
    """One number of series: CPU seconds of closing a pane (median, most), those of detection; peak memory in MiB."""

    series: int
    panes: int
    close_s: float
    most_s: float
    detect_s: float
    peak_mib: float


def shape() -> Shape:
    """The default settings, except for the watched metrics and the dimension sets."""
    unwatched = [m.name for m in METRICS if m.name not in WATCHED]
    detect = DetectConfig.model_validate({"metrics": {name: {"watch": False} for name in unwatched}})
    of = PanesConfig(dimension_sets=(("service",),), series_per_shard=100_000)
    return Shape(SHARDS, TimeConfig(), of, detect, EpisodesConfig(), GroupsConfig())


def events(series: int, requests: int, pane: int, width: int) -> Events:
    """The requests of a pane: `requests` of each series, each of another tenant; all of them end in the pane."""
    chance = np.random.default_rng([series, pane])
    n = series * requests
    values = np.full((len(METRICS), n), MISSING, np.int64)
    typical = {"latency": 1_500_000, "ttft": 300_000, "tokens_per_second": 60_000, "cost": 400_000}
    for name, middle in typical.items():
        values[METRIC_INDEX[name]] = (middle * chance.lognormal(0, 0.3, n)).astype(np.int64)
    end = START + pane * width + np.sort(chance.integers(0, width, n))
    of_series, tenant = np.arange(n) % max(series, 1), np.arange(n) // max(series, 1)
    blank = dict.fromkeys(LABELS, "")
    names = ({"service": f"service-{s:06d}", "tenant": f"tenant-{t}"} for s, t in zip(of_series, tenant, strict=True))
    combos = [tuple((blank | of).values()) for of in names]
    ids = [""] * n
    return Events(
        record=np.arange(n),
        start=end - values[METRIC_INDEX["latency"]],
        end=end,
        values=values,
        error=chance.random(n) < 0.01,
        combo=np.arange(n, dtype=np.int32),
        combos=combos,
        event_id=ids,
        trace_id=ids,
    )


def measure(series: int, counted: int, requests: int) -> Measured:
    """Close panes one after another in this process until `counted` were closed warm."""
    of = shape()
    width = of.time.pane_s * SECOND
    shards = [Shard(SHARDS, of.time, of.panes, lambda *_: None, rows=False) for _ in range(SHARDS)]
    detectors = [detection(of) for _ in range(SHARDS)]
    close: list[float] = []
    detect: list[float] = []
    for pane in range(of.detect.warm_up_panes + counted):
        batch = events(series, requests, pane, width)
        mask = np.ones(len(batch.end), np.bool_)
        config = of.panes
        table = fold.fold_events(batch, mask, config.dimension_sets, width, config.evidence, config.breakdown_values)
        cuts = fold.cut(table, SHARDS)
        del batch, table  # the flow has freed a batch too when panes close
        mark = Watermark(START + (pane + 1) * width)
        total = judged = 0.0
        for number, (shard, detector, cut) in enumerate(zip(shards, detectors, cuts, strict=True)):
            began = time.process_time()
            closed = [c for c in shard.take([Partial(number, "p", ("p",), mark, cut, None)]) if isinstance(c, Closed)]
            merged = time.process_time()
            list(detector.take(closed))
            total += time.process_time() - began
            judged += time.process_time() - merged
        close.append(total)
        detect.append(judged)
    warm = slice(of.detect.warm_up_panes, None)
    return Measured(
        series,
        counted,
        round(statistics.median(close[warm]), 4),
        round(max(close[warm]), 4),
        round(statistics.median(detect[warm]), 4),
        round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )


def apart(series: int, counted: int, requests: int) -> Measured:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.closing", "--one", str(series)]
    command += ["--panes", str(counted), "--requests", str(requests)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return Measured(**json.loads(done.stdout))


def as_text(found: Sequence[Measured]) -> str:
    """A table, with the microseconds of each series."""
    lines = ["  series   close s  (most)  detect s   peak MiB   us a series"]
    lines += [
        f"{m.series:>8,} {m.close_s:>9.3f} {m.most_s:>7.3f} {m.detect_s:>9.3f} {m.peak_mib:>10,.0f} "
        f"{m.close_s / max(m.series, 1) * 1e6:>13.1f}"
        for m in found
    ]
    return "\n".join(lines)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--panes", type=int, default=12, metavar="N", help="warm panes that count (12)")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="requests of a series in a pane (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", type=int, metavar="N", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one is not None:
        print(json.dumps(asdict(measure(args.one, args.panes, args.requests))))
        return
    found = []
    for series in args.series:
        print(f"{series:,} series ...", file=sys.stderr, flush=True)
        found.append(apart(series, args.panes, args.requests))
    print(
        json.dumps({"requests": args.requests, "closing": [asdict(m) for m in found]}) if args.json else as_text(found)
    )


if __name__ == "__main__":
    main()
