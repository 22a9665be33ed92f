"""The flow in a process of its own, watched while it runs: its metrics, its memory, its CPU time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from tests.brokers import free_port

ROOT = Path(__file__).parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE = re.compile(r"(?m)^(\w+)(?:\{[^}]*\})? ([-+.\deE]+)$")


class Speed(NamedTuple):
    """The speed at which a backlog was read, and the CPU time of an event in microseconds, without the start."""

    events_per_s: float
    cpu_us: float

    def figures(self) -> dict[str, float]:
        """The figures by name, rounded."""
        return {"events_per_s": round(self.events_per_s), "cpu_us_an_event": round(self.cpu_us, 1)}


class Flow:
    """`flows.main` over a topic, with its files in a folder; leaving the context kills it.

    Several `workers` run under `flows.cluster`; then memory and CPU time are the supervisor's and mean nothing. Without
    `snapshot_s` there is no recovery store.
    """

    def __init__(
        self,
        folder: Path,
        broker: str,
        topic: str,
        settings: Mapping[str, object],
        snapshot_s: int | None,
        workers: int = 1,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.toml").touch()  # so that the flow does not read a sentinel.toml of the user
        first = free_port()
        self._ports = range(first, first + workers)
        self._log = folder / "log"
        values: dict[str, object] = {
            "source.kind": "kafka",
            "kafka.brokers": broker,
            "kafka.topics": [topic],
            "kafka.group_id": folder.name,
            "kafka.alert_topic": f"{folder.name}.alerts",
            "kafka.heartbeat_topic": f"{folder.name}.heartbeat",
            "alerts.terminal": False,
            "alerts.jsonl": "",
            "alerts.kafka": True,
            "dead_letters.jsonl": "",
            "store.sqlite.path": str(folder / "store.db"),
            "metrics.port": first,
            **settings,
        }
        ours = {
            f"SENTINEL_{key.replace('.', '__').upper()}": value if isinstance(value, str) else json.dumps(value)
            for key, value in values.items()
        }
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SENTINEL_", "BYTEWAX_"))}
        environ = {**kept, "SENTINEL_CONFIG": str(folder / "settings.toml"), "PYTHONDONTWRITEBYTECODE": "", **ours}
        command = ["-m", "bytewax.run", "flows.main"]
        if workers > 1:
            command = ["-m", "flows.cluster", "--workers", str(workers)]
        if snapshot_s is not None:
            command += ["-r", str(folder / "recovery"), "-s", str(snapshot_s), "-b", "0"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def __enter__(self) -> Flow:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def metrics(self) -> dict[str, float]:
        """The sum of each metric over its labels and processes; empty until the flow listens.

        Raises `SystemExit` if the flow has ended.
        """
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
            raise SystemExit(f"the flow ended with {self._process.returncode}:\n{tail}")
        found: dict[str, float] = {}
        for port in self._ports:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                for name, value in _SAMPLE.findall(answer.read().decode()):
                    found[name] = found.get(name, 0.0) + float(value)
        return found

    def records(self) -> int:
        """The number of records that it has read."""
        return round(self.metrics().get("sentinel_records_total", 0))

    def speed(self, records: int, seconds: float) -> Speed:
        """The speed from the first look that shows a tenth of the records to the one that shows all.

        If there are too few events for that, the start of the process is included.
        """
        begin, read, used = time.perf_counter(), 0, 0.0
        first = self.until(records // 10, seconds)
        if (seen := self.records()) < records:
            begin, read, used = first, seen, self.cpu_s()
        end = self.until(records, seconds)
        return Speed((records - read) / (end - begin), (self.cpu_s() - used) * 1e6 / (records - read))

    def until(self, records: int, seconds: float) -> float:
        """Wait until it has read this number; returns the `time.perf_counter` of the first look that shows it."""
        deadline = time.monotonic() + seconds
        while self.records() < records:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self.records():,} of {records:,} records were read within {seconds:g} s")
            time.sleep(0.05)
        return time.perf_counter()

    def memory_mib(self) -> float:
        """The memory that it holds now, in MiB."""
        with suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line[:6] == "VmRSS:"), 0.0)
        return 0.0

    def cpu_s(self) -> float:
        """The CPU time that it has used so far, in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def stop(self, seconds: float = 120) -> None:
        """End it with a last snapshot."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(seconds)
