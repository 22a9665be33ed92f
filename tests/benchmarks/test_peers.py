"""The parts of the comparison with other stream processors that need none of them."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers.figures import Result, Run, figures
from benchmarks.peers.panes import Pane, Table, closed, differences, of_messages, of_store
from benchmarks.peers.process_tree import run
from benchmarks.throughput import Measured
from connectors.base import Row
from connectors.sqlite import SqliteWriter
from connectors.tables import PANES

PANE = Pane(3, 1, 0.3, 0.1, 0.2, 30, 20, 0.5)
TABLE: Table = {("a|b", 0): PANE, ("a|b", 10_000): PANE}


def message(**changes: object) -> bytes:
    return json.dumps({"start": 0, **PANE._asdict(), **changes}).encode()


def row(**values: object) -> Row:
    zeros = {column.name: None if column.null else 0 for column in PANES.columns}
    texts = {column.name: "" for column in PANES.columns if column.type.value == "text"}
    known = {**zeros, **texts, "sketch": b"", **values}
    return Row(PANES.name, tuple(known[column.name] for column in PANES.columns))


def test_a_table_is_read_from_messages_whether_the_series_is_their_key_or_a_field() -> None:
    assert of_messages([(b"a|b", message()), (None, message(key="a|b", start=10_000))]) == TABLE
    nothing = of_messages([(b"a|b", message(latency_sum=0.0, latency_min=float("inf"), latency_max=float("-inf")))])
    assert nothing["a|b", 0] == PANE._replace(latency_sum=0.0, latency_min=None, latency_max=None)
    with pytest.raises(ValueError, match="twice"):
        of_messages([(b"a|b", message()), (b"a|b", message())])


def test_our_table_is_read_from_the_store(tmp_path: Path) -> None:
    pane = {
        "service": "a", "model": "b", "requests": 3, "errors": 1, "latency_sum": 0.3, "latency_min": 0.1,
        "latency_max": 0.2, "prompt_tokens_sum": 30.0, "completion_tokens_sum": 20.0, "cost_sum": 0.5,
    }  # fmt: skip
    names = {"dimension_set": "service,model,operation", "series": "service=a,model=b,operation="}
    writer = SqliteWriter(tmp_path / "store.db", 1.0)
    writer.write([
        row(**names, **pane, width_s=10, pane_start=0),
        row(**names, **pane, width_s=10, pane_start=10_000_000),
        row(**names, **pane, width_s=60, pane_start=0),
        row(**{**names, "dimension_set": "service"}, **pane, width_s=10, pane_start=0),
    ])  # fmt: skip
    writer.close()
    assert of_store(tmp_path / "store.db") == TABLE


def test_differences_are_named_and_rounding_is_none() -> None:
    assert differences(TABLE, {name: pane._replace(latency_sum=0.1 + 0.2) for name, pane in TABLE.items()}) == []
    theirs = {("a|b", 0): PANE._replace(requests=4, latency_min=None), ("c|d", 0): PANE}
    assert differences(TABLE, theirs) == [
        "('a|b', 10000): only ours",
        "('c|d', 0): only theirs",
        "('a|b', 0): requests is 3 in ours, 4 in theirs",
        "('a|b', 0): latency_min is 0.1 in ours, None in theirs",
    ]
    assert closed(TABLE, 19_999) == {("a|b", 0): PANE}


def test_a_million_events_are_the_difference_of_the_two_topics() -> None:
    def runs(*cpu_s: float) -> list[Run]:
        return [Run(Measured(10 * cpu, cpu, 100 + cpu), TABLE, 7) for cpu in cpu_s]

    found = figures(runs(2, 1, 9), runs(5, 6.5, 5.5), 50_000, 550_000)
    assert (found.cpu_s_per_million, found.run_cpu_s, found.run_seconds) == (7.0, 5.5, 55.0)
    assert (found.peak_mib, found.panes, found.alerts) == (106, 2, 7)
    result = Result(550_000, 1_000, 3, "here", 2, {"x": "x 1"}, {"x": found}, {"x": ["a", "b"]})
    assert json.loads(result.as_json())["differences"] == {"x": 2}
    assert "7.00" in result.as_text() and "x: b" in result.as_text()


def test_what_a_process_starts_counts_and_does_not_outlive_it(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.4: pass\n"
    code = (
        "import os, subprocess, sys\n"
        f"subprocess.Popen([sys.executable, '-c', {burn!r}]).wait()\n"
        "sleeper = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('sleeper', 'w').write(str(sleeper.pid))\n"
        "os._exit(int(sys.argv[1]))\n"
    )
    measured = run([sys.executable, "-c", code, "0"], os.environ, tmp_path, 100)
    assert measured.cpu_s >= 0.4 and measured.peak_mib > 5
    sleeper = Path("/proc", (tmp_path / "sleeper").read_text())
    deadline = time.monotonic() + 30
    while (sleeper / "stat").exists() and (sleeper / "stat").read_text().rpartition(") ")[2][0] != "Z":
        assert time.monotonic() < deadline, "the child process still runs"
        time.sleep(0.05)
    with pytest.raises(SystemExit, match="ended with 3"):
        run([sys.executable, "-c", code, "3"], os.environ, tmp_path, 100)
    with pytest.raises(SystemExit, match="was not done within"):
        run([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, tmp_path, 0.2)
