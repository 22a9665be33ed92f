"""Runs the flow at half of its top speed for a while: memory must stay flat and the lag bounded.

    python -m benchmarks.soak [--seconds N] [--series N] [--rate N] [--plot FILE] [--json]

First the top speed is measured on a backlog. Then a producer in a process of its own sends at half of it for the given
time, with current event times, while memory and lag are measured each second. The broker is Apache Kafka (make
services). The exit code is 1 if the peak memory in the last fifth of the time is more than a tenth above that in the
second fifth, or if the flow was ever more than ten seconds of traffic behind. Peaks are compared since a memory limit
must hold them, and since the allocator may or may not give back free memory in between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.events import Events, Filler, paced
from benchmarks.plot import curves
from benchmarks.throughput import machine
from benchmarks.watched import ROOT, Flow
from tests.brokers import Broker, create_topic, kafka_broker

PARTITIONS = 2
BACKLOG = 1_000_000
MOST_GROWTH = 1.1
MOST_LAG_S = 10.0
SETTINGS = {"time.correction_s": 60}
"""Late events correct rows for one minute, not for ten, so the memory for them reaches its full size early."""
RETENTION = "log.retention.check.interval.ms=5000"
TOPIC_OPTIONS = {"retention.bytes": str(256 << 20), "segment.bytes": str(64 << 20)}


@dataclass(frozen=True)
class Soaked:
    """The figures of a soak; memory is the peak in a fifth of the time, lag is in seconds of traffic."""

    seconds: int
    series: int
    top_speed: int
    rate: int
    events: int
    memory_second_fifth_mib: float
    memory_last_fifth_mib: float
    lag_median_s: float
    lag_most_s: float
    machine: str

    @property
    def well(self) -> bool:
        """Whether memory was flat and the lag bounded."""
        return (
            self.memory_last_fifth_mib <= MOST_GROWTH * self.memory_second_fifth_mib and self.lag_most_s <= MOST_LAG_S
        )


def feed(broker: str, topic: str, rate: float, seconds: float, series: int) -> None:
    """Send at this rate, and print the number of records on the topic each second."""
    events, filler = Events(series), Filler(broker, topic, PARTITIONS)
    sent, told = 0, time.monotonic()
    for due in paced(rate, seconds):
        now = time.time_ns() // 1_000_000
        for _ in range(due):
            filler.send(events.record(now))
        sent += due
        if time.monotonic() - told >= 1:
            told = time.monotonic()
            print(sent - filler.waiting(), flush=True)
    filler.done()
    print(sent, flush=True)


def top_speed(broker: str, flow: Flow, topic: str, series: int, backlog: int) -> float:
    """Events a second on a backlog, without the start."""
    events, filler = Events(series), Filler(broker, topic, PARTITIONS)
    began = time.time_ns() // 1_000_000 - backlog // 50  # 50,000 a second of event time, up to now
    for number in range(backlog):
        filler.send(events.record(began + number // 50))
    filler.done()
    return flow.speed(backlog, 300).events_per_s


def soak(
    broker: Broker, folder: Path, seconds: int, series: int, rate: float, backlog: int, say: Callable[[str], None]
) -> tuple[Soaked, dict[str, list[float]]]:
    """Run the soak; returns its figures, and memory and lag by second."""
    topic = "soak"
    create_topic(broker, topic, PARTITIONS, TOPIC_OPTIONS)
    memory: list[float] = []
    lag: list[float] = []
    with Flow(folder / "soak", broker.address, topic, SETTINGS, 10) as flow:
        top = top_speed(broker.address, flow, topic, series, backlog)
        rate = rate or top / 2
        say(f"top speed {top:,.0f} events/s; now {rate:,.0f} for {seconds} s")
        before = flow.records()
        command = [sys.executable, "-m", "benchmarks.soak", "--feed", broker.address, "--rate", str(rate)]
        command += ["--seconds", str(seconds), "--series", str(series)]
        on_topic = 0
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as feeder:
            assert feeder.stdout is not None
            for line in feeder.stdout:
                on_topic = int(line)
                lag.append(max(0.0, (on_topic - (flow.records() - before)) / rate))
                memory.append(flow.memory_mib())
                if len(lag) % 60 == 0:
                    say(f"{len(lag)} s: {memory[-1]:,.0f} MiB, {lag[-1]:.1f} s behind")
            if feeder.wait():
                raise SystemExit(f"the producer ended with {feeder.returncode}")
        flow.until(before + on_topic, 120)
        flow.stop()
    fifth = max(1, len(memory) // 5)
    found = Soaked(
        seconds, series, round(top), round(rate), on_topic,
        round(max(memory[fifth : 2 * fifth] or memory), 1), round(max(memory[-fifth:]), 1),
        round(statistics.median(lag), 2), round(max(lag), 2), machine(),
    )  # fmt: skip
    return found, {"memory, MiB": memory, "lag, s of traffic": lag}


def main() -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=600, help="how long (600)")
    parser.add_argument("--series", type=int, default=1_000, help="how many series (1,000)")
    parser.add_argument("--rate", type=float, default=0, help="events a second; half of top speed if not given")
    parser.add_argument("--backlog", type=int, default=BACKLOG, help="events for measuring top speed (1,000,000)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw memory and lag as SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--feed", metavar="BROKER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.feed:
        feed(args.feed, "soak", args.rate, args.seconds, args.series)
        return 0

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        broker = kafka_broker(Path(folder), RETENTION)
        broker.start()
        try:
            found, seen = soak(broker, Path(folder), args.seconds, args.series, args.rate, args.backlog, say)
        finally:
            broker.kill()
    if args.plot:
        title = f"{found.rate:,} events/s over {found.seconds} s, {found.series:,} series; {found.machine}"
        args.plot.write_text(curves(title, "seconds", seen))
    shown = asdict(found)
    print(json.dumps(shown) if args.json else "\n".join(f"{name:24} {value}" for name, value in shown.items()))
    return 0 if found.well else 1


if __name__ == "__main__":
    sys.exit(main())
