"""Golden cases: up to two hours of traffic each, and exactly the alerts that must result.

A case is a folder with settings.toml (written by hand), events.jsonl (the records in order of arrival, made here),
alerts.jsonl (the expected alerts) and balance.json (the expected balance of the records). `python -m tests.golden.make`
shows how the present results differ; --write makes them the expected ones. Read the differences first.
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flows.settings.model import load
from flows.wiring import shape
from operators.decode.intake import Balance
from operators.incidents.alert_json import rfc3339
from operators.model import SECOND
from tests.harness import BEGAN, MemoryTopic, World

FOLDER: Final = Path(__file__).parent
START: Final = BEGAN - 86_400 * SECOND

Change = Callable[[float, dict[str, Any]], None]
"""Called with (seconds since the start, event): may change the event."""


def nothing(at: float, event: dict[str, Any]) -> None:
    """Leaves every event as it is."""


@dataclass
class Traffic:
    """Steady requests of one service: one every `every` seconds, give or take half."""

    service: str
    every: float
    minutes: float
    seed: int
    latency_ms: float = 400.0
    change: Change = nothing
    pauses: Sequence[tuple[float, float]] = field(default_factory=tuple)

    def events(self) -> Iterator[tuple[float, dict[str, Any]]]:
        """(end in seconds since the start, event), in order of the events' starts."""
        rng = random.Random(self.seed)
        at = 0.0
        number = 0
        while (at := at + self.every * rng.uniform(0.5, 1.5)) < self.minutes * 60:
            event: dict[str, Any] = {
                "event_id": f"{self.service}-{number:04d}",
                "timestamp": rfc3339(START + round(at * SECOND)),
                "service": self.service,
                "model": "m-small",
                "latency_ms": round(self.latency_ms * rng.lognormvariate(0, 0.2), 1),
                "completion_tokens": rng.randint(80, 120),
                "status": "ok",
            }
            number += 1
            self.change(at, event)
            if not any(low <= at < high for low, high in self.pauses):
                yield at + event["latency_ms"] / 1000, event


def emitted(*traffics: Traffic) -> list[dict[str, Any]]:
    """All events in order of their ends, as a collector gets them."""
    events = [pair for traffic in traffics for pair in traffic.events()]
    return [event for _, event in sorted(events, key=lambda pair: pair[0])]


def lines(events: Sequence[dict[str, Any]]) -> list[bytes]:
    return [json.dumps(event, separators=(",", ":")).encode() for event in events]


def between(low: float, high: float, change: dict[str, Any] | None = None, slower: float = 1.0) -> Change:
    """A change from `low` to `high` minutes: latency times `slower`, and these fields."""

    def apply(at: float, event: dict[str, Any]) -> None:
        if low * 60 <= at < high * 60:
            event["latency_ms"] = round(event["latency_ms"] * slower, 1)
            event.update(change or {})

    return apply


def latency_spike() -> list[bytes]:
    """One of two services is five times slower for two minutes."""
    slow = Traffic("chat", 2, 11, 1, change=between(5, 7, slower=5))
    return lines(emitted(slow, Traffic("search", 4, 11, 2)))


def error_burst() -> list[bytes]:
    """Two of three requests fail quickly for two minutes."""
    failed = {"status": "error", "error_type": "rate_limit", "completion_tokens": None}
    burst = between(6, 8, failed, slower=0.2)

    def change(at: float, event: dict[str, Any]) -> None:
        if int(event["event_id"][-4:]) % 3:
            burst(at, event)

    return lines(emitted(Traffic("chat", 2, 12, 3, change=change)))


def silence() -> list[bytes]:
    """A service sends nothing for two minutes while another continues."""
    return lines(emitted(Traffic("chat", 1.5, 16, 4, pauses=[(720, 840)]), Traffic("search", 10, 16, 5)))


def sparse_service() -> list[bytes]:
    """A request every half minute: too few in a pane, but enough in the longer horizons."""
    return lines(emitted(Traffic("batch", 30, 120, 6, change=between(80, 95, slower=6))))


def late_and_broken() -> list[bytes]:
    """The latency spike again, with unusable records and with events one, two and eight minutes late."""
    events = emitted(Traffic("chat", 2, 11, 1, change=between(5, 7, slower=5)), Traffic("search", 4, 11, 2))
    out = lines(events)
    for number in (40, 160, 280):
        out.insert(number, b'{"timestamp": "2025-12-31T00:')
        out.insert(number + 7, b'{"timestamp": "2025-12-31T00:01:00Z", "service": "chat", "latency_ms": -5}')
        out.insert(number + 9, b'{"timestamp": "2099-12-31T00:00:00Z", "service": "chat", "latency_ms": 9000}')
    for number, minutes in ((200, 1.0), (300, 2.0), (400, 8.0)):
        for i in range(4):
            late = {"event_id": f"late-{number}-{i}", "service": "chat", "model": "m-small", "latency_ms": 9000.0}
            old = json.loads(out[number])["timestamp"]
            out.insert(number + i, lines([{**late, "timestamp": _earlier(old, minutes)}])[0])
    return out


def _earlier(timestamp: str, minutes: float) -> str:
    from operators.incidents.alert_json import microseconds

    return rfc3339(microseconds(timestamp) - round(minutes * 60 * SECOND))


def still_on_at_the_end() -> list[bytes]:
    """The source ends inside an incident: the episode stays open."""
    return lines(emitted(Traffic("chat", 2, 7, 8, change=between(5, 7, slower=5))))


CASES: Final[dict[str, Callable[[], list[bytes]]]] = {
    case.__name__: case
    for case in (latency_spike, error_burst, silence, sparse_service, late_and_broken, still_on_at_the_end)
}


def judged(case: str, events: Sequence[bytes]) -> tuple[bytes, bytes]:
    """(alerts.jsonl, balance.json) of the real flow over these records, from one partition."""
    settings = load({"SENTINEL_CONFIG": "settings.toml"}, FOLDER / case).settings
    world = World(MemoryTopic({"p0": list(events)}), shape(settings), decode=settings.decoding)
    world.run(settings.source.batch_size)
    total = sum(world.balances.values(), Balance())
    outcomes = ("records", "on_time", "late", "duplicate", "dead")
    balance = {name: getattr(total, name) for name in outcomes}
    return (
        b"".join(line.value + b"\n" for line in world.alerts.lines),
        json.dumps(balance, indent=1).encode() + b"\n",
    )


def read(case: str) -> list[bytes]:
    """The records in the folder of the case."""
    return (FOLDER / case / "events.jsonl").read_bytes().splitlines()


def main(argv: Sequence[str] | None = None) -> int:
    """Show the differences and write them with --write; returns 1 if there are any that are not written."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden.make", description="Golden cases: show what differs.")
    parser.add_argument("--write", action="store_true", help="write the records and the results as the expected ones")
    write = parser.parse_args(argv).write
    different = False
    for case, make in CASES.items():
        events = make()
        alerts, balance = judged(case, events)
        made = {"events.jsonl": b"".join(e + b"\n" for e in events), "alerts.jsonl": alerts, "balance.json": balance}
        for name, now in made.items():
            path = FOLDER / case / name
            before = path.read_bytes() if path.exists() else b""
            if before == now:
                continue
            different = True
            before_lines, now_lines = (text.decode().splitlines(keepends=True) for text in (before, now))
            sys.stdout.writelines(difflib.unified_diff(before_lines, now_lines, f"{case}/{name}", "now", n=0))
            if write:
                path.write_bytes(now)
    return int(different and not write)


if __name__ == "__main__":
    sys.exit(main())
