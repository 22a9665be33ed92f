"""Measures how the flow scales with series and processes, the cost of exactly-once, and the delay of alerts.

    python -m benchmarks.scale [--quick] [--only series snapshots workers once latency] [--json]

series   a backlog of distinct series: events/s, CPU time an event, memory and snapshot bytes a series, exchanged bytes
         an event; 10,000 series at two densities, since a row costs as much as many events. A million series are more
         than 64 shards admit by default: the rest is folded into __other__
snapshots  10,000 series with a snapshot every 10 s, 100,000 with one every minute, against one a day: the same events
         in turn, speed and CPU time an event; then the time from a start on the last snapshot until it reads new
         records
workers  the same backlog in 1 to 4 processes; more processes than cores show only the cost of the exchange
once     snapshots and the alert topic on against both off, in turn
latency  half of the speed with 1,000 series: the time from the first moment at which an alert can be known (the end of
         its pane and the lateness) to its arrival at a read_committed reader, beside a bare record there and back

The broker is Apache Kafka (make services). --quick runs all parts with a hundredth of the events; its speeds mean
nothing.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.events import Events, Filler, paced
from benchmarks.throughput import machine
from benchmarks.watched import Flow, Speed
from operators.config import EnrichConfig, PanesConfig, TimeConfig
from operators.decode.config import DecodeConfig
from operators.decode.intake import Batch, Intake
from operators.decode.registry import decoder
from operators.enrich.enricher import Enricher
from operators.panes.watermark import Watermark
from operators.steps import PartialPanes
from tests.brokers import Broker, create_topic, kafka_broker

Figures = dict[str, Any]
Say = Callable[[str], None]

PARTITIONS = 4
EVENT_RATE = 5_000
"""Events a second of event time; fewer if there are not enough for a minute."""
DENSE = 35_000
SERIES = ((100, EVENT_RATE), (10_000, EVENT_RATE), (10_000, DENSE), (100_000, EVENT_RATE), (1_000_000, EVENT_RATE))
"""The series of each backlog, and its events a second of event time."""
PANE_S = TimeConfig().pane_s
SNAPSHOTS = ((10_000, 10), (100_000, 60))
EVENTS = 2_000_000
SHARDS = 64
START_MS = 1_767_225_600_000
SETTINGS: dict[str, object] = {
    "recovery.shards": SHARDS,
    "panes.dimension_sets": [["service", "model"]],
    "kafka.stop_at_end": False,
}
LIMIT = {"metric": "latency", "above": 2_000, "statistic": "mean", "horizon_s": 10, "min_count": 1}
WAIT_S = 1_800


def backlog(broker: Broker, topic: str, events: int, series: int, rate: float) -> None:
    """Make a topic with this number of events and series, `rate` events a second of event time."""
    create_topic(broker, topic, PARTITIONS)
    fill(broker, topic, range(events), series, rate)


def fill(broker: Broker, topic: str, numbers: range, series: int, rate: float) -> None:
    """Write the events of these numbers to a topic, `rate` a second of event time."""
    made, filler = Events(series), Filler(broker.address, topic, PARTITIONS)
    for number in numbers:
        filler.send(made.record(begin_ms(number, rate)))
    filler.done()


def begin_ms(number: int, rate: float) -> int:
    """The time at which the event of this number begins, in milliseconds."""
    return START_MS + round(number * 1_000 / rate)


def pace(events: int, most: float = EVENT_RATE) -> float:
    """The events a second of event time: at most `most`, and so few that the events last at least a minute."""
    return min(most, events / 60)


def of_series(broker: Broker, folder: Path, plan: Sequence[tuple[int, int]], events: int, say: Say) -> list[Figures]:
    """One line for each (series, events a second of event time); memory a series counts beyond the first line's."""
    out: list[Figures] = []
    base = 0.0
    for count, most in plan:
        topic, rate = f"series-{count}-{most}", pace(events, most)
        backlog(broker, topic, events, count, rate)
        with Flow(folder / topic, broker.address, topic, SETTINGS, 10) as flow:
            speed = flow.speed(events, WAIT_S)
            time.sleep(2)  # the last records pass through the steps
            watched, memory = round(flow.metrics().get("sentinel_series", 0)), flow.memory_mib()
            flow.stop(WAIT_S)
        base = base or memory
        store = sum(file.stat().st_size for file in (folder / topic / "recovery").glob("part-*"))
        out.append({
            "series": count, "requests_a_series_and_pane": round(rate * PANE_S / count, 3),
            "watched": watched, **speed.figures(), "memory_mib": round(memory),
            "kib_a_series": round((memory - base) * 1024 / watched, 2) if watched > plan[0][0] else None,
            "snapshot_mib": round(store / 2**20, 1), "exchanged_bytes_an_event": exchanged(count, events, rate),
        })  # fmt: skip
        say(json.dumps(out[-1]))
    return out


def of_snapshots(
    broker: Broker, folder: Path, plan: Sequence[tuple[int, int]], rounds: int, events: int, say: Say
) -> list[Figures]:
    """One line for each (series, seconds between snapshots): medians of turns with these snapshots and one a day."""
    out: list[Figures] = []
    for count, seconds in plan:
        topic, rate = f"snapshots-{count}", pace(events)
        backlog(broker, topic, events, count, rate)
        speeds: dict[int, list[Speed]] = {seconds: [], 86_400: []}
        for number in range(rounds):
            for every, runs in speeds.items():
                home = folder / f"{topic}-{every}-{number}"
                with Flow(home, broker.address, topic, SETTINGS, every) as flow:
                    runs.append(flow.speed(events, WAIT_S))
                    flow.stop(WAIT_S)
        fill(broker, topic, range(events, events + 1_000), count, rate)
        begin = time.perf_counter()
        with Flow(folder / f"{topic}-{seconds}-0", broker.address, topic, SETTINGS, seconds) as flow:
            resumed = flow.until(events + 1, WAIT_S) - begin
        out.append({
            "series": count, "snapshot_every_s": seconds, **on_against_off(*speeds.values()),
            "resume_s": round(resumed, 1),
        })  # fmt: skip
        say(json.dumps(out[-1]))
    return out


def on_against_off(on: Sequence[Speed], off: Sequence[Speed]) -> Figures:
    """The medians of both, and the ratio of the first to the second; `ratios` are the speeds' ratios of each turn."""
    first, second = (Speed(*map(statistics.median, zip(*runs, strict=True))) for runs in (on, off))
    return {
        "on": first.figures(), "off": second.figures(),
        "ratio": round(first.events_per_s / second.events_per_s, 3),
        "cpu_ratio": round(first.cpu_us / second.cpu_us, 3),
        "ratios": [round(a.events_per_s / b.events_per_s, 3) for a, b in zip(on, off, strict=True)],
    }  # fmt: skip


def exchanged(series: int, events: int, rate: float = EVENT_RATE) -> float:
    """The pickled bytes an event that a poll sends to the shards, as if all shards were in other processes."""
    made = Events(series)
    values = [made.record(begin_ms(i, rate)) for i in range(min(events, 20_000))]
    time_config, decode = TimeConfig(), DecodeConfig()
    intake = Intake(
        ("t", 0), decoder("native"), Enricher(EnrichConfig()), time_config, decode, (START_MS + 10**9) * 1_000
    )
    taken = intake.take(values, np.arange(len(values)), None)
    batch = Batch("t/0", ("t/0",), Watermark(intake.watermark), *taken)
    panes = PartialPanes(SHARDS, time_config, PanesConfig(dimension_sets=(("service", "model"),)))
    return round(sum(len(pickle.dumps(item, pickle.HIGHEST_PROTOCOL)) for item in panes(batch)) / len(values), 1)


def of_workers(broker: Broker, folder: Path, most: int, events: int, say: Say) -> list[Figures]:
    """One line for each number of processes over the same topic."""
    backlog(broker, "workers", events, 1_000, pace(events))
    out: list[Figures] = []
    for workers in range(1, most + 1):
        with Flow(folder / f"workers-{workers}", broker.address, "workers", SETTINGS, 10, workers) as flow:
            speed = flow.speed(events, WAIT_S)
            flow.stop(WAIT_S)
        out.append({"workers": workers, "events_per_s": round(speed.events_per_s)})
        say(json.dumps(out[-1]))
    return out


def of_once(broker: Broker, folder: Path, rounds: int, events: int, say: Say) -> Figures:
    """Medians with snapshots and the alert topic, and without both; the contestants take turns."""
    backlog(broker, "once", events, 1_000, pace(events))
    speeds: dict[str, list[Speed]] = {"on": [], "off": []}
    for number in range(rounds):
        for name, runs in speeds.items():
            settings = SETTINGS if name == "on" else {**SETTINGS, "alerts.kafka": False}
            home = folder / f"once-{name}-{number}"
            with Flow(home, broker.address, "once", settings, 10 if name == "on" else None) as flow:
                runs.append(flow.speed(events, WAIT_S))
    found = on_against_off(*speeds.values())
    say(json.dumps(found))
    return found


def slow_in_turn(series: int, at_ms: int) -> bool:
    """Every ten seconds another fiftieth of the series, for ten seconds."""
    return series % 50 == at_ms // 10_000 % 50


def of_latency(broker: Broker, folder: Path, rate: float, seconds: float, say: Say) -> Figures:
    """The time from the earliest possible moment of an alert until it reaches a reader, in milliseconds."""
    settings = {
        **SETTINGS, "detect.limits": [LIMIT], "groups.settle_s": 0, "groups.members": True, "episodes.resolve_s": 10,
    }  # fmt: skip
    create_topic(broker, "latency", PARTITIONS)
    create_topic(broker, "latency.alerts")
    late: list[float] = []
    over = threading.Event()

    def read() -> None:
        consumer = reader(broker, "latency.alerts")
        while not over.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                at = json.loads(message.value() or b"{}").get("at", "")
                late.append(time.time() * 1_000 - moment_ms(at))
        consumer.close()

    with Flow(folder / "latency", broker.address, "latency", settings, 10) as flow:
        while not flow.metrics():
            time.sleep(0.1)
        thread = threading.Thread(target=read)
        thread.start()
        made, filler = Events(1_000, slow_in_turn), Filler(broker.address, "latency", PARTITIONS)
        for due in paced(rate, seconds):
            now = time.time_ns() // 1_000_000
            for _ in range(due):
                filler.send(made.record(now))
        filler.done()
        time.sleep(2)
        over.set()
        thread.join()
    if not late:
        raise SystemExit("no alert came: run it for longer (--seconds)")
    there_and_back = bare(broker, 300)
    found = {
        "events_per_s": round(rate), "alerts": len(late), **percentiles("alert", late),
        **percentiles("bare", there_and_back),
    }  # fmt: skip
    say(json.dumps(found))
    return found


def percentiles(name: str, values: Sequence[float]) -> dict[str, float]:
    """p50 and p99, in milliseconds."""
    p50, p99 = np.percentile(np.array(values), [50, 99]).tolist()
    return {f"{name}_p50_ms": round(p50, 1), f"{name}_p99_ms": round(p99, 1)}


def moment_ms(text: str) -> float:
    """An RFC 3339 time as milliseconds since 1970."""
    return datetime.fromisoformat(text).timestamp() * 1_000


def reader(broker: Broker, topic: str) -> Consumer:
    """A reader of a topic's only partition, from its start."""
    consumer = Consumer({
        "bootstrap.servers": broker.address, "group.id": "scale", "isolation.level": "read_committed",
        "enable.auto.commit": False,
    })  # fmt: skip
    consumer.assign([TopicPartition(topic, 0, 0)])
    return consumer


def bare(broker: Broker, records: int) -> list[float]:
    """The milliseconds from sending each record to reading it, one record after the other."""
    create_topic(broker, "bare")
    producer, consumer = Producer({"bootstrap.servers": broker.address, "linger.ms": 0}), reader(broker, "bare")
    out = []
    for number in range(records):
        begin = time.perf_counter()
        producer.produce("bare", b"%d" % number)
        producer.poll(0)
        while (message := consumer.poll(5)) is None or message.error() is not None:
            pass
        out.append((time.perf_counter() - begin) * 1_000)
    producer.flush(10)
    consumer.close()
    return out[records // 10 :]  # the first ones include connecting


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = ("series", "snapshots", "workers", "once", "latency")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="some of the five parts")
    parser.add_argument("--events", type=int, default=EVENTS, help="events of a backlog (2,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns with and without exactly-once, or snapshots (3)")
    parser.add_argument("--rate", type=float, default=50_000, help="events a second for latency if once is not run")
    parser.add_argument("--seconds", type=float, default=180, help="how long latency is measured (180)")
    parser.add_argument("--quick", action="store_true", help="little of everything")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    series: Sequence[tuple[int, int]] = SERIES
    snapshots: Sequence[tuple[int, int]] = SNAPSHOTS
    most = 4
    if args.quick:
        series, snapshots, most = ((100, EVENT_RATE), (5_000, DENSE)), ((1_000, 1),), 2
        args.events, args.rounds, args.seconds, args.rate = EVENTS // 100, 1, 35, 1_000

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found: Figures = {"machine": machine(), "events": args.events}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = kafka_broker(folder)
        broker.start()
        try:
            if "series" in args.only:
                found["series"] = of_series(broker, folder, series, args.events, say)
            if "snapshots" in args.only:
                found["snapshots"] = of_snapshots(broker, folder, snapshots, args.rounds, args.events, say)
            if "workers" in args.only:
                found["workers"] = of_workers(broker, folder, most, args.events, say)
            if "once" in args.only:
                found["once"] = of_once(broker, folder, args.rounds, args.events, say)
                args.rate = args.rate if args.quick else found["once"]["on"]["events_per_s"] / 2
            if "latency" in args.only:
                found["latency"] = of_latency(broker, folder, args.rate, args.seconds, say)
        finally:
            broker.kill()
    print(json.dumps(found) if args.json else json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
