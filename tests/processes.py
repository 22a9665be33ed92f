"""The main job as its users start it: a process with settings in its environment, and all its files in one folder."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from connectors.tables import TABLES
from tests.conftest import ROOT

Settings = Mapping[str, object]
"""Dotted keys and values: {"source.batch_size": 500}."""

RowKey = tuple[str, str, int, int]


class Process:
    """A started job. Leaving the context kills it if it is still there."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._from = log.stat().st_size if log.exists() else 0
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def said(self) -> str:
        """The text that the job has written to its standard output and error so far."""
        return self._log.read_bytes()[self._from :].decode()

    def wait_for(self, text: str, seconds: float = 120, times: int = 1) -> None:
        """Wait for the text in the output, `times` times. Raises `AssertionError` if the job ends or takes too long."""
        deadline = time.monotonic() + seconds
        while self.said().count(text) < times:
            assert self._process.poll() is None, f"it ended without {text!r}:\n{self.said()}"
            assert time.monotonic() < deadline, f"it did not say {text!r} in {seconds:g} s:\n{self.said()}"
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def limit_descriptors(self, most: int) -> None:
        """Limit the number of files that the job may have open from now on."""
        resource.prlimit(self._process.pid, resource.RLIMIT_NOFILE, (most, most))

    def alive(self) -> bool:
        return self._process.poll() is None

    def members(self) -> list[int]:
        """The ids of the processes of the cluster's last start, in order of their numbers, including ended ones."""
        return [int(pid) for pid in re.findall(r"started \d+ processes: ([\d, ]+)\n", self.said())[-1].split(",")]

    def children(self) -> list[int]:
        """The ids of the processes that the job has started and that are still alive, oldest first."""
        pid = self._process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def finish(self, seconds: float = 200) -> int:
        """Wait for the end of the job: its exit code, or minus the number of the signal that ended it."""
        return self._process.wait(seconds)

    def finish_watched(self, seconds: float = 200) -> tuple[int, float]:
        """Wait for the end of the job: its exit code, and the most memory that it held, in MiB.

        The memory is read while it runs: the system's figure at the end includes memory of the parent at the fork.
        """
        deadline = time.monotonic() + seconds
        status, peak = Path(f"/proc/{self._process.pid}/status"), 0.0
        while self._process.poll() is None:
            assert time.monotonic() < deadline, self.said()
            for line in status.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    peak = int(line.split()[1]) / 1024
            time.sleep(0.05)
        return self._process.returncode, peak


class Job:
    """Settings and a folder with the job's store, alerts, dead letters, balance, recovery store and log."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.toml").touch()  # so that no other sentinel.toml is read
        self._settings: dict[str, object] = {
            "store.sqlite.path": folder / "sentinel.db",
            "alerts.jsonl": folder / "alerts.jsonl",
            "alerts.terminal": False,
            "dead_letters.jsonl": folder / "dead_letters.jsonl",
            "metrics.balance_file": folder / "balance.json",
            **settings,
        }

    def environment(self, changes: Settings) -> dict[str, str]:
        """The environment of this process, with the settings of this job in place of any others."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SENTINEL_", "BYTEWAX_"))}
        ours = {
            f"SENTINEL_{key.replace('.', '__').upper()}": value if isinstance(value, str) else _text(value)
            for key, value in {**self._settings, **changes}.items()
        }
        return {**kept, "SENTINEL_CONFIG": str(self.folder / "settings.toml"), **ours}

    def start(
        self, *arguments: str, flow: str = "flows.main", changes: Settings | None = None, log: str = "log"
    ) -> Process:
        """Start the job with these arguments of `bytewax.run`."""
        command = [sys.executable, "-m", "bytewax.run", flow, *arguments]
        return Process(command, self.environment(changes or {}), self.folder / log)

    def cluster(self, workers: int, *arguments: str, changes: Settings | None = None, log: str = "log") -> Process:
        """Start `flows.cluster` with these arguments."""
        command = [sys.executable, "-m", "flows.cluster", "--workers", str(workers), *arguments]
        return Process(command, self.environment(changes or {}), self.folder / log)

    def recovered(self, snapshot_s: int = 0) -> tuple[str, ...]:
        """The arguments of a run with a recovery store and a snapshot after this many seconds, or each batch (0)."""
        return "-r", str(self.folder / "recovery"), "-s", str(snapshot_s), "-b", "0"

    def run(self, *arguments: str, seconds: float = 200) -> str:
        """Run the job to its end and return its output. Raises `AssertionError` unless its exit code is 0."""
        with self.start(*arguments) as process:
            code = process.finish(seconds)
        assert code == 0, process.said()
        return process.said()

    def alerts(self) -> list[bytes]:
        """The lines of the alert file, in order."""
        return _lines(self.folder / "alerts.jsonl")

    def letters(self) -> list[bytes]:
        """The lines of the dead-letter file, sorted: two partitions have no order between them."""
        return sorted(_lines(self.folder / "dead_letters.jsonl"))

    def rows(self, table: str) -> dict[RowKey, tuple[object, ...]]:
        """The rows of a table of the store by their first four columns, which identify a row."""
        path = self.folder / "sentinel.db"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return {row[:4]: row for row in db.execute(f"SELECT * FROM {table}")}

    def tables(self) -> tuple[dict[RowKey, tuple[object, ...]], ...]:
        """The rows of all tables."""
        return tuple(self.rows(table) for table in TABLES)

    def requests(self, dimension_set: str) -> dict[int, int]:
        """The total of requests in the pane rows of a dimension set, by the rows' width in seconds."""
        query = "SELECT width_s, sum(requests) FROM llm_panes WHERE dimension_set = ? GROUP BY width_s"
        path = self.folder / "sentinel.db"
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return dict(db.execute(query, (dimension_set,)))

    def balance(self) -> dict[str, Any]:
        """The balance of all records of the last run (and of all runs that it resumed)."""
        found: dict[str, Any] = json.loads((self.folder / "balance.json").read_bytes())
        return found

    def outcome(self) -> tuple[object, ...]:
        """All results of the job that a user sees, in a form that can be compared."""
        return self.alerts(), self.letters(), self.balance(), *self.tables()


def files(*paths: Path) -> dict[str, object]:
    """The settings of a run over these files; each is a partition."""
    return {"source.kind": "files", "source.files.paths": paths}


def _text(value: object) -> str:
    return json.dumps(value, default=str) if not isinstance(value, Path) else str(value)


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines() if path.exists() else []
