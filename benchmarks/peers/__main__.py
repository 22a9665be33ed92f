"""CPU time of this flow and of other stream processors for Python, for a million events of the same job.

    python -m benchmarks.peers [--only NAME ...] [--events N] [--pace N] [--rounds N] [--json]

The job: read JSON telemetry of LLM calls from Apache Kafka, make panes of 10 s in event time for each (service, model),
judge each closed pane by a detector with keyed state, write panes and alerts; exactly once, with a snapshot every 10 s.
The records repeat the recorded scenario, keyed by series, with event times as record times. The contestants:

    ours             this flow as it is shipped, one worker: much more than the job, to SQLite and the alert topic
    quix_reduce      Quix Streams, one reducing function for each window: its cheapest way
    quix             Quix Streams, one aggregation for each field, as in its documentation
    quix_grouped     the same for a topic that is not keyed by series: group_by, through a topic of its own
    pyflink          PyFlink's DataStream API: windows in Python functions
    pyflink_table    PyFlink's Table API: windows in SQL, which runs in the JVM; the detector in Python

Each one runs alone, with one worker; its CPU time is that of all its processes. It reads one topic of N records and one
of a tenth: the difference gives the cost of a million events without start and warm-up. After each run its table of
panes is compared with ours. The figures are medians of the rounds.

The command needs Java, Maven and Apache Kafka (make services), and the network the first time: the packages of the
others go to environments below .services/peers. On a busy machine: chrt -f 50 python -m benchmarks.peers
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.environments import HERE, flink_connector, python_of, version_of
from benchmarks.peers.figures import Result, Run, figures
from benchmarks.peers.panes import WIDTH_MS, closed, differences, of_messages, of_store
from benchmarks.peers.process_tree import run
from benchmarks.peers.topic import fill
from benchmarks.throughput import Measured, machine, our_flow
from tests.brokers import JARS, Broker, create_topic, kafka_broker, read_all

OURS = "ours"
LIMIT_S = 1_800
GRACE_MS = 10_000

Contestant = Callable[[Broker, str, Path], Run]
"""Reads a topic to its end, with its files in a folder."""


def ours(broker: Broker, topic: str, folder: Path) -> Run:
    """This flow. Its panes follow the `timestamp`, like those of the others, not timestamp + latency as by default."""
    settings = {"SENTINEL_KAFKA__TOPICS": json.dumps([topic]), "SENTINEL_TIME__TIMESTAMP_IS": "end"}
    alerts = f"{folder.name}.alerts"
    create_topic(broker, alerts)
    measured = our_flow(1, settings)(broker.address, folder)
    return Run(measured, of_store(folder / "store.db"), len(read_all(broker, alerts)))


def quix(way: str, idle_s: float) -> Contestant:
    """Quix Streams; it ends after it has waited `idle_s` for more records, and that is no part of its time."""

    def contest(broker: Broker, topic: str, folder: Path) -> Run:
        command = [str(python_of("quix")), str(HERE / "quix_app.py"), way]
        found = peer(command, broker, topic, folder, [str(folder / "state"), str(idle_s)])
        spent = found.measured
        return Run(Measured(spent.seconds - idle_s, spent.cpu_s, spent.peak_mib), found.table, found.alerts)

    return contest


def pyflink(api: str) -> Contestant:
    """PyFlink with a cluster in its own process, as `python job.py` runs it."""

    def contest(broker: Broker, topic: str, folder: Path) -> Run:
        command = [str(python_of("pyflink")), str(HERE / "flink_job.py"), api]
        return peer(command, broker, topic, folder, [str(folder), str(flink_connector())])

    return contest


def peer(command: list[str], broker: Broker, topic: str, folder: Path, more: list[str]) -> Run:
    """Run a peer's program with the arguments that all of them take, and read its panes and alerts."""
    panes, alerts = f"{folder.name}.panes", f"{folder.name}.alerts"
    create_topic(broker, panes)
    create_topic(broker, alerts)
    kept = ("PATH", "HOME", "LANG", "JAVA_HOME", "TMPDIR")
    environ = {key: value for key, value in os.environ.items() if key in kept}
    measured = run([*command, broker.address, topic, panes, alerts, *more], environ, folder, LIMIT_S)
    messages = [(m.key(), value) for m in read_all(broker, panes) if (value := m.value()) is not None]
    return Run(measured, of_messages(messages), len(read_all(broker, alerts)))


# group_by passes records on only with a commit, every 10 s, so that one must wait longer.
CONTESTANTS: dict[str, tuple[Contestant, tuple[str, str] | None]] = {
    OURS: (ours, None),
    "quix_reduce": (quix("reduce", 5), ("quix", "quixstreams")),
    "quix": (quix("agg", 5), ("quix", "quixstreams")),
    "quix_grouped": (quix("grouped", 15), ("quix", "quixstreams")),
    "pyflink": (pyflink("datastream"), ("pyflink", "apache-flink")),
    "pyflink_table": (pyflink("table"), ("pyflink", "apache-flink")),
}


def once(name: str, broker: Broker, topic: str) -> Run:
    """One run of a contestant, in a folder that is removed."""
    folder = Path(tempfile.mkdtemp(prefix=f"peers-{name}-".replace("_", "-")))
    try:
        return CONTESTANTS[name][0](broker, topic, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def contest(
    broker: Broker, names: list[str], events: int, pace: int, rounds: int, say: Callable[[str], None]
) -> Result:
    """Run ours, and the named contestants in turn `rounds` times, over a topic and over one of a tenth of it."""
    topics = {"small": events // 10, "full": events}
    say(f"writing {events:,} records and a tenth of it")
    lasts = {topic: fill(broker, topic, count, pace) for topic, count in topics.items()}
    mine = {topic: once(OURS, broker, topic).table for topic in topics}  # the first run compiles its loops too
    runs: dict[str, dict[str, list[Run]]] = {name: {topic: [] for topic in topics} for name in names}
    unlike: dict[str, list[str]] = {}
    compared = 0
    for number in range(rounds):
        for name in names:
            for topic, last_ms in lasts.items():
                found = once(name, broker, topic)
                runs[name][topic].append(found)
                # Quix Streams closes a pane only by a later record, so panes that are open at the end do not count.
                expected, got = (closed(table, last_ms - GRACE_MS - WIDTH_MS) for table in (mine[topic], found.table))
                unlike.setdefault(name, []).extend(differences(expected, got))
                compared = len(expected)
                spent = found.measured
                say(
                    f"round {number + 1} of {rounds}, {topic}: {name} {spent.cpu_s:.1f} s CPU, {spent.seconds:.1f} s,"
                    f" {len(found.table)} panes, {found.alerts} alerts, {len(unlike[name])} differences so far"
                )
    versions = {name: "" if (pin := CONTESTANTS[name][1]) is None else f"{pin[1]} {version_of(*pin)}" for name in names}
    measured = {name: figures(of["small"], of["full"], topics["small"], events) for name, of in runs.items()}
    return Result(events, pace, rounds, machine(), compared, versions, measured, unlike)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, metavar="NAME", help="these contestants alone")
    parser.add_argument("--events", type=int, default=1_000_000, help="records on the topic (1,000,000)")
    parser.add_argument("--pace", type=int, default=1_000, help="records a second of event time (1,000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contestant (3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if shutil.which("java") is None or not any(JARS.glob("kafka_2.13-*.jar")):
        raise SystemExit("Java and Apache Kafka are needed: make services")
    names = [name for name in CONTESTANTS if name in (args.only or CONTESTANTS)]

    def say(line: str) -> None:
        if not args.json:
            print(line, file=sys.stderr, flush=True)

    for environment in sorted({pin[0] for name in names if (pin := CONTESTANTS[name][1]) is not None}):
        say(f"the environment of {environment}")
        python_of(environment)
        if environment == "pyflink":
            flink_connector()
    with tempfile.TemporaryDirectory() as folder:
        broker = kafka_broker(Path(folder))
        broker.start()
        try:
            result = contest(broker, names, args.events, args.pace, args.rounds, say)
        finally:
            broker.kill()
    print(result.as_json() if args.json else result.as_text())


if __name__ == "__main__":
    main()
