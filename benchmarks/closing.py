"""What closing a pane costs, by the number of series: from open panes over detection to alerts, on one worker.

    python -m benchmarks.closing [--series N ...] [--panes N] [--json]

Every series is a tenant with four metrics (latency, prompt and completion tokens, cost) and one request a pane. A pane
closes on all shards of the worker, is judged by the default detectors and goes through the groups; what is measured is
the CPU time from the first shard's closing to the last finding, without decoding and without stores. Each number of
series is a process of its own, whose peak memory is the operating system's figure. The first panes, in which series
are admitted and loops compiled, are left out; the median of the rest counts.
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

import numpy as np

from operators import panes
from operators.config import DetectConfig, EpisodesConfig, GroupsConfig, PanesConfig, TimeConfig
from operators.detect.monitor import ShardMonitor
from operators.groups import Groups
from operators.incidents import Judged
from operators.model import LABELS, METRIC_INDEX, METRICS, MISSING, SECOND, Events
from operators.pane_table import Closed, PaneTable
from operators.shard import Partial, Shard
from operators.steps import Detect
from operators.watermark import Watermark

BEGIN = 176_722_560  # 2026-01-01T00:00:00Z, as a pane of ten seconds
WARM = 16
CENTRES = {"latency": 800.0, "prompt_tokens": 900.0, "completion_tokens": 300.0, "cost": 0.002}
SETS = (("tenant",),)


def pane_of(series: int, pane: int, draw: np.random.Generator, width: int) -> PaneTable:
    """The rows of one pane with a request of every series."""
    values = np.full((len(METRICS), series), MISSING, np.int64)
    for name, centre in CENTRES.items():
        m = METRIC_INDEX[name]
        values[m] = np.maximum(1, np.round(centre * draw.lognormal(0.0, 0.3, series) * METRICS[m].scale))
    end = pane * width + draw.integers(0, width, series)
    tenant = LABELS.index("tenant")
    events = Events(
        record=np.arange(series),
        start=end - values[METRIC_INDEX["latency"]],
        end=end,
        values=values,
        error=np.zeros(series, np.bool_),
        combo=np.arange(series, dtype=np.int32),
        combos=[tuple(f"tenant-{i:06d}" if j == tenant else "" for j in range(len(LABELS))) for i in range(series)],
        event_id=[f"{pane}-{i}" for i in range(series)],
        trace_id=[""] * series,
    )
    config = PanesConfig()
    return panes.fold_events(events, np.ones(series, np.bool_), SETS, width, config.evidence, config.breakdown_values)


def measure(series: int, count: int) -> dict[str, float]:
    """CPU seconds a pane, in all and of detection, and the peak memory of this process in MiB."""
    times, episodes, groups = TimeConfig(), EpisodesConfig(), GroupsConfig()
    # All is judged soon, over a minute too: with one request a pane it would else take hours of panes.
    metrics = {name: {"min_count": 1} for name in DetectConfig().metrics}
    detect = DetectConfig.model_validate({"warm_up_panes": 12, "metrics": metrics})
    config = PanesConfig(dimension_sets=SETS)
    number = max(1, -(-2 * series // config.series_per_shard))  # names spread unevenly: half of the room is used
    width = times.pane_s * SECOND
    shards = [Shard(number, times, config, lambda *_: None, rows=False) for _ in range(number)]

    def monitor() -> ShardMonitor:
        return ShardMonitor(detect, episodes, times, config.expiry_s, SETS)

    judges = [Detect(width, monitor(), lambda _: monitor()) for _ in shards]
    lateness = round(times.lateness_s * SECOND)
    told = Groups(number, lateness, groups, detect.horizons_s[-1] * SECOND, episodes.resolve_s * SECOND)
    draw = np.random.default_rng(1)
    whole, judging = [], []
    for pane in range(BEGIN, BEGIN + WARM + count):
        cuts = panes.cut(pane_of(series, pane, draw, width), number)
        for i, shard in enumerate(shards):
            list(shard.take([Partial(i, "p", ("p",), Watermark(pane * width), cuts[i], None)]))
            cuts[i] = None
        began = time.process_time()
        spent, found = 0.0, list[Judged]()
        for i, (shard, judge) in enumerate(zip(shards, judges, strict=True)):
            end = Partial(i, "p", ("p",), Watermark((pane + 1) * width), None, None)
            closed = [c for c in shard.take([end]) if isinstance(c, Closed)]
            at = time.process_time()
            found += judge.take(closed)
            spent += time.process_time() - at
        told.take(found)
        whole.append(time.process_time() - began)
        judging.append(spent)
    return {
        "series": series,
        "shards": number,
        "seconds": statistics.median(whole[WARM:]),
        "detection_s": statistics.median(judging[WARM:]),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, each number of series in a process of its own, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000])
    parser.add_argument("--panes", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.here:
        print(json.dumps(measure(options.series[0], options.panes)))
        return 0
    for series in options.series:
        command = [sys.executable, "-m", "benchmarks.closing", "--here", "--series", str(series)]
        run = subprocess.run([*command, "--panes", str(options.panes)], check=True, capture_output=True, text=True)
        found = json.loads(run.stdout)
        if options.json:
            print(json.dumps(found), flush=True)
        else:
            print(
                "{series:>9,} series, {shards:>3} shards: {seconds:8.4f} s a pane, "
                "{detection_s:8.4f} s of it detection; {peak_mib:7,.0f} MiB".format(**found),
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
