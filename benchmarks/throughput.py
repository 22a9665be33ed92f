"""Events per second from a broker to the store and the alert topic, beside a bare consumer and a plain Bytewax flow.

    python -m benchmarks.throughput [--events N] [--rounds N] [--plot FILE] [--json]

One topic is written once: it repeats the recorded scenario, with times compressed to 5,000 events a second of event
time. Then the contestants take turns, and the median of the rounds counts:

    bare     consume() plus .value() of every record: the cost of the client alone
    flow_1   this flow, one worker, to SQLite and the alert topic, with recovery snapshots
    flow_2   the same in two processes
    naive    the plain flow beside the repository (../shared/tools/naive_flow.py): an object per event, a window per key

The broker is the one from the wheel unless --broker names another. Every contestant is a process of its own; its CPU
time and peak memory are the operating system's figures.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.plot import bars
from tests.brokers import tansu_broker

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
SCENARIO = SHARED / "data" / "scenarios" / "servegen_dev" / "events.jsonl.gz"
NAIVE = SHARED / "tools" / "naive_flow.py"
TOPIC = "bench.telemetry"
PARTITIONS = 2
EVENTS_A_SECOND = 5_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


@dataclass(frozen=True)
class Measured:
    """One run of one contestant."""

    seconds: float
    cpu_s: float
    peak_mib: float


@dataclass(frozen=True)
class Result:
    """Medians of all contestants, and their ratios."""

    events: int
    rounds: int
    machine: str
    figures: dict[str, dict[str, float]]
    ratios: dict[str, float]

    def as_json(self) -> str:
        """The result as one JSON object."""
        head = {"events": self.events, "rounds": self.rounds, "machine": self.machine}
        return json.dumps({**head, **self.figures, "ratios": self.ratios})

    def as_text(self) -> str:
        """The result as a table."""
        lines = [f"{self.events:,} events, median of {self.rounds} rounds, {self.machine}"]
        lines += [
            f"  {name:8} {f['events_per_s']:>10,.0f} events/s {f['cpu_s']:>8.1f} s CPU {f['peak_mib']:>8.0f} MiB peak"
            for name, f in self.figures.items()
        ]
        lines += [f"  {name:16} {ratio}" for name, ratio in self.ratios.items()]
        return "\n".join(lines)


def records(events: int, pace: int = EVENTS_A_SECOND) -> Iterator[bytes]:
    """Repeat the scenario, with a new event_id and a compressed time in each event, `pace` a second, in order."""
    number = 0
    while number < events:
        with gzip.open(SCENARIO, "rb") as lines:
            for line in lines:
                if number == events:
                    return
                event = orjson.loads(line)
                ms = START_MS + number * 1_000 // pace
                seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ms // 1_000))
                event["timestamp"] = f"{seconds}.{ms % 1_000:03d}Z"
                event["event_id"] = f"bench-{number:08d}"
                yield orjson.dumps(event)
                number += 1


def make_topic(broker: str, topic: str, partitions: int) -> None:
    """Make a topic and wait until it exists."""
    admin = AdminClient({"bootstrap.servers": broker})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def write_topic(broker: str, events: int) -> None:
    """Make the topic and fill its partitions in turn."""
    make_topic(broker, TOPIC, PARTITIONS)
    send(broker, TOPIC, ({"value": value, "partition": i % PARTITIONS} for i, value in enumerate(records(events))))


def send(broker: str, topic: str, messages: Iterable[Mapping[str, Any]]) -> None:
    """Write messages, each as the arguments of `Producer.produce`, and wait until all are on the topic."""
    producer = Producer({"bootstrap.servers": broker, "linger.ms": 50, "queue.buffering.max.messages": 1_000_000})
    for i, message in enumerate(messages):
        while True:
            try:
                producer.produce(topic, **message)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise SystemExit("the broker did not take all records")


def bare(broker: str, events: int) -> int:
    """Read the topic as fast as the client can; returns the number of records."""
    consumer = Consumer(
        {"bootstrap.servers": broker, "group.id": "bare", "auto.offset.reset": "earliest", "fetch.queue.backoff.ms": 20}
    )
    consumer.assign([TopicPartition(TOPIC, p, 0) for p in range(PARTITIONS)])
    seen = 0
    while seen < events:
        for message in consumer.consume(20_000, 1):
            if message.error() is None and message.value() is not None:
                seen += 1
    consumer.close()
    return seen


def run(commands: Sequence[Sequence[str]], environ: dict[str, str], log: Path) -> Measured:
    """Run the processes side by side; returns the wall time, the CPU time of all, the peak memory of the largest."""
    begin = time.perf_counter()
    with log.open("wb") as out:
        # Byte code is kept, as in an ordinary installation.
        env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **environ}
        processes = [
            subprocess.Popen(c, cwd=ROOT, env=env, stdout=out, stderr=out, stdin=subprocess.DEVNULL) for c in commands
        ]
    cpu, peak = 0.0, 0.0
    for command, process in zip(commands, processes, strict=True):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}:\n{tail}")
        cpu += usage.ru_utime + usage.ru_stime
        peak = max(peak, usage.ru_maxrss / 1024)
    return Measured(time.perf_counter() - begin, cpu, peak)


def free_ports(count: int) -> list[int]:
    """Ports that are free at the moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def our_flow(processes: int, settings: Mapping[str, str] | None = None) -> Callable[[str, Path], Measured]:
    """This flow as a contestant, in this number of processes; `settings` are more variables of its environment."""

    def contest(broker: str, folder: Path) -> Measured:
        environ = {
            "SENTINEL_SOURCE__KIND": "kafka",
            "SENTINEL_KAFKA__BROKERS": broker,
            "SENTINEL_KAFKA__TOPICS": json.dumps([TOPIC]),
            "SENTINEL_KAFKA__STOP_AT_END": "true",
            "SENTINEL_KAFKA__GROUP_ID": folder.name,
            "SENTINEL_KAFKA__ALERT_TOPIC": f"{folder.name}.alerts",
            "SENTINEL_ALERTS__TERMINAL": "false",
            "SENTINEL_ALERTS__JSONL": "",
            "SENTINEL_ALERTS__KAFKA": "true",
            "SENTINEL_DEAD_LETTERS__JSONL": str(folder / "dead.jsonl"),
            "SENTINEL_STORE__SQLITE__PATH": str(folder / "store.db"),
            "SENTINEL_RECOVERY__SHARDS": "4" if processes == 1 else "16",
            **(settings or {}),
        }
        command = [
            sys.executable,
            "-m",
            "bytewax.run",
            "flows.main",
            "-r",
            str(folder / "recovery"),
            "-s",
            "10",
            "-b",
            "0",
        ]
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(processes))
        commands = (
            [command] if processes == 1 else [[*command, "-i", str(i), "-a", addresses] for i in range(processes)]
        )
        return run(commands, environ, folder / "log")

    return contest


def naive(broker: str, folder: Path) -> Measured:
    """The plain flow as a contestant."""
    environ = {
        "BROKER": broker, "TOPIC": TOPIC, "ALERTS": f"{folder.name}.alerts", "STORE": str(folder / "naive.db"),
        "PYTHONPATH": str(NAIVE.parent),
    }  # fmt: skip
    make_topic(broker, environ["ALERTS"], 1)
    return run([[sys.executable, "-m", "bytewax.run", NAIVE.stem]], environ, folder / "log")


def consume_only(broker: str, folder: Path, events: int) -> Measured:
    """The bare client as a contestant."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--bare", broker, "--events", str(events)]
    return run([command], {}, folder / "log")


def contest(broker: str, events: int, rounds: int, say: Callable[[str], None]) -> Result:
    """Run all contestants in turn, `rounds` times; returns the medians and their ratios."""
    say(f"writing {events:,} records")
    write_topic(broker, events)
    contestants: dict[str, Callable[[str, Path], Measured]] = {
        "bare": lambda b, f: consume_only(b, f, events),
        "flow_1": our_flow(1),
        "flow_2": our_flow(2),
        "naive": naive,
    }
    measured: dict[str, list[Measured]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, contestant in contestants.items():
            folder = Path(tempfile.mkdtemp(prefix=f"bench-{name}-{number}-".replace("_", "-")))
            try:
                result = contestant(broker, folder)
            finally:
                shutil.rmtree(folder)
            measured[name].append(result)
            say(f"round {number + 1} of {rounds}: {name} {events / result.seconds:,.0f} events/s")
    figures = {
        name: {
            "events_per_s": round(events / statistics.median(m.seconds for m in runs)),
            "cpu_s": round(statistics.median(m.cpu_s for m in runs), 2),
            "peak_mib": round(max(m.peak_mib for m in runs), 1),
        }
        for name, runs in measured.items()
    }
    speed = {name: figure["events_per_s"] for name, figure in figures.items()}
    ratios = {
        "flow_1/bare": round(speed["flow_1"] / speed["bare"], 3),
        "flow_2/flow_1": round(speed["flow_2"] / speed["flow_1"], 3),
        "flow_1/naive": round(speed["flow_1"] / speed["naive"], 2),
    }
    return Result(events, rounds, machine(), figures, ratios)


def machine() -> str:
    """The machine of the measurement."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {platform.system()}"


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000, help="records on the topic (2,000,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (3)")
    parser.add_argument("--broker", help="host:port of a broker to use instead of the one from the wheel")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="also draw the events per second as SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--bare", metavar="BROKER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        bare(args.bare, args.events)
        return
    if not SCENARIO.exists():
        raise SystemExit(f"the recorded scenario is missing: {SCENARIO}")
    say = (lambda line: None) if args.json else (lambda line: print(line, file=sys.stderr, flush=True))
    if args.broker:
        result = contest(args.broker, args.events, args.rounds, say)
    else:
        with tempfile.TemporaryDirectory() as folder:
            broker = tansu_broker(Path(folder))
            broker.start()
            try:
                result = contest(broker.address, args.events, args.rounds, say)
            finally:
                broker.kill()
    if args.plot:
        speeds = {name: figure["events_per_s"] for name, figure in result.figures.items()}
        args.plot.write_text(bars("Throughput from a broker", f"events a second; {result.machine}", speeds))
    print(result.as_json() if args.json else result.as_text())


if __name__ == "__main__":
    main()
