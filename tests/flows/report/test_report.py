"""The report of a run, on a small store made by hand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Row
from connectors.config import SqliteConfig
from connectors.sqlite import SqliteFactory
from connectors.tables import ALERTS, PANES, Table, Type
from flows.report.__main__ import main
from tests.conftest import ROOT

NOON = 1_767_614_400_000_000  # 2026-01-05T12:00:00Z
MINUTE = 60_000_000

GOLDEN_40 = """\
events      360
series      2 of service,model, 1 of
            tenant
time (UTC)  2026-01-05 12:00:00 to
            2026-01-05 13:30:00 (90 min)
late        4
episodes    3 (2 still open), 5 alerts

critical  latency_spike
service=code-helper model=north-large
2026-01-05 12:31:00 to 12:45:00 (14 min)
observed 38.3 s, expected 7.61 s
from tenant=acme 92 %, mix by tenant
x1.5
learned from 2,100 panes since
2026-01-05 12:00:00
requests sim7-12-3 (115 s), sim7-12-9
(76.6 s)

medium  error_burst: error_ratio
tenant=acme[red]?
2026-01-05 12:40:00 still open
observed 33.9 %, expected 0.42 %
requests sim7-20-1

low  cost_spike
tenant=globex
2026-01-05 12:50:00 still open
observed 0.00293 USD, expected 0.0008
USD

Where the rows are
  store: run/sentinel.db
  alerts: run/alerts.jsonl
  run: run/run.json
Look further
  page: run/report.html
sqlite3 -box run/sentinel.db "SELECT at, severity, kind, metric, series, observed, expected \
FROM llm_alerts_readable WHERE status = 'firing' ORDER BY at"
"""

GOLDEN_TABLE = """\
 severity  what                where                time (UTC)               observed    expected  requests
 ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
 critical  latency_spike       service=code-helper  2026-01-05 12:31:00        38.3 s      7.61 s  sim7-12-3 (115 s)
           tenant=acme 92 %    model=north-large    to 12:45:00 (14 min)                           sim7-12-9 (76.6 s)
           mix by tenant x1.5
 medium    error_burst:        tenant=acme[red]?    2026-01-05 12:40:00        33.9 %      0.42 %  sim7-20-1
           error_ratio                              still open
 low       cost_spike          tenant=globex        2026-01-05 12:50:00   0.00293 USD  0.0008 USD
                                                    still open
"""


def row(table: Table, **given: object) -> Row:
    """A row with these values; the other columns are null if they may be, else empty or 0."""
    empty: dict[Type, object] = {Type.TEXT: "", Type.BYTES: b""}
    return Row(table.name, tuple(given.get(c.name, None if c.null else empty.get(c.type, 0)) for c in table.columns))


def pane(series: str, minute: int, requests: int) -> Row:
    names = ",".join(part.split("=")[0] for part in series.split(","))
    start = NOON + minute * MINUTE
    return row(PANES, dimension_set=names, series=series, width_s=60, pane_start=start, requests=requests)


def alert(episode: str, sequence: int, status: str, severity: str, series: str, **given: Any) -> Row:
    labels = dict(part.split("=") for part in series.split(","))
    for name in ("evidence", "detectors", "contributors", "factors", "related"):
        given[name] = json.dumps(given.get(name, []))
    return row(
        ALERTS, alert_id=f"{episode}-{sequence}", episode_id=episode, sequence=sequence,
        status=status, severity=severity, dimension_set=",".join(labels), series=series, links="{}",
        **{"group_id": episode, **labels, **given},
    )  # fmt: skip


def store(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(exist_ok=True)
    writer = SqliteFactory(SqliteConfig(path=path, busy_timeout_s=1)).open("sqlite", None)
    writer.write(rows)
    writer.close()


PANE_ROWS = [
    pane(series, minute, requests)
    for minute in range(90)
    for series, requests in (("service=a,model=m", 1), ("service=b,model=m", 3), ("tenant=acme", 4))
]


def alert_rows() -> list[Row]:
    latency: dict[str, Any] = {"kind": "latency_spike", "metric": "latency", "unit": "ms", "since": NOON + 31 * MINUTE}
    slow = [{"event_id": f"sim7-12-{n}", "trace_id": "t", "value": v} for n, v in ((3, 114_900.0), (9, 76_600.0))]
    why: dict[str, Any] = {
        "contributors": [{"dimension": "tenant", "value": "acme", "share": 0.92, "usual_share": 0.08}],
        "factors": [{"factor": "mix", "dimension": "tenant", "usual": 1.0, "observed": 1.5, "times": 1.5}],
        "learned_panes": 2_100, "learned_since": NOON,
    }  # fmt: skip
    where = "service=code-helper,model=north-large"
    return [
        alert("e1", 1, "firing", "high", where, at=1, observed=28319.7, expected=7612.0, score=0.9, **latency),
        alert("e1", 2, "updated", "critical", where, at=2, observed=38319.7, expected=7612.0, score=0.99,
              evidence=slow, **latency, **why),
        alert("e1", 3, "resolved", "critical", where, at=3, observed=7000.0, expected=7612.0, score=0.1,
              until=NOON + 45 * MINUTE, **latency),
        alert("e2", 1, "firing", "medium", "tenant=acme[red]\x1b", at=4, kind="error_burst",
              metric="error_ratio", unit="1", since=NOON + 40 * MINUTE, observed=0.339, expected=0.0042, score=0.75,
              evidence=[{"event_id": "sim7-20-1", "trace_id": "", "value": 60_000.0}]),
        alert("e3", 1, "firing", "low", "tenant=globex", at=5, kind="cost_spike", metric="cost", unit="USD",
              since=NOON + 50 * MINUTE, observed=0.00293, expected=0.0008, score=0.55),
    ]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a finished run in `run`."""
    monkeypatch.chdir(tmp_path)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
        monkeypatch.delenv(name, raising=False)
    store(tmp_path / "run" / "sentinel.db", [*PANE_ROWS, *alert_rows()])
    (tmp_path / "run" / "alerts.jsonl").touch()
    (tmp_path / "run" / "run.json").write_text('{"status": "finished"}')
    (tmp_path / "run" / "balance.json").write_text('{"late": 4, "on_time": 356, "skipped": "many"}')
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    """The printed text, without blanks at line ends."""
    return "".join(line.rstrip() + "\n" for line in capsys.readouterr().out.splitlines())


def test_forty_columns(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["--run", "run"]) == 0
    assert shown(capsys) == GOLDEN_40


def test_a_wide_terminal_gets_a_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "118")
    assert main(["--store", "run/sentinel.db"]) == 0
    out = shown(capsys)
    assert out[out.index(" severity") : out.index("\nWhere the rows are")] == GOLDEN_TABLE


@pytest.mark.parametrize("columns", [20, 40, 80, 118, 200])
def test_only_what_is_meant_to_be_copied_is_wider_than_the_terminal(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["--run", "run"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    body, rest = out.split("Where the rows are")
    assert max(map(len, body.splitlines())) <= columns
    assert "  store: run/sentinel.db\n" in rest


def test_the_query_runs_as_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", "run"]) == 0
    command = capsys.readouterr().out.splitlines()[-1]
    program, _, path, query = shlex.split(command)
    rows = sqlite3.connect(path).execute(query).fetchall()
    assert [r[2] for r in rows] == ["latency_spike", "error_burst", "cost_spike"]
    if shutil.which(program):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
        assert "service=code-helper,model=north-large" in done.stdout


def test_sort_and_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", "run", "--sort", "time", "--limit", "1"]) == 0
    out = shown(capsys)
    assert "cost_spike" in out and "latency_spike" not in out
    assert "2 more: --limit 0 shows all." in out
    assert main(["--run", "run", "--limit", "0"]) == 0
    assert "more:" not in shown(capsys)


def test_no_alerts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(folder / "calm" / "sentinel.db", PANE_ROWS)
    assert main(["--run", "calm"]) == 0
    out = shown(capsys)
    assert "No alerts: nothing abnormal was found." in out and "episodes    0 (0 still open), 0 alerts" in out


def test_a_run_without_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store(folder / "new" / "sentinel.db", [])
    assert main(["--run", "new"]) == 0
    assert "The run has stored nothing yet." in shown(capsys)


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", "run", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    report = json.loads(out)
    assert (report["events"], report["transitions"], report["balance"]) == (360, 5, {"late": 4})
    assert report["series"] == {"service,model": 2, "tenant": 1}
    assert (report["first"], report["last"]) == (NOON, NOON + 90 * MINUTE)
    worst = report["episodes"][0]
    assert (worst["episode_id"], worst["severity"], worst["transitions"], worst["status"]) == (
        "e1",
        "critical",
        3,
        "resolved",
    )
    assert (worst["observed"], worst["until"], worst["at"]) == (38319.7, NOON + 45 * MINUTE, 1)
    assert worst["dimensions"] == {"service": "code-helper", "model": "north-large"}
    assert [e["until"] for e in report["episodes"][1:]] == [None, None]


def test_the_newest_run_is_the_default(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for age, name in ((2, "one"), (1, "two")):
        (folder / "runs" / name).mkdir(parents=True)
        path = folder / "runs" / name / "sentinel.db"
        store(path, PANE_ROWS)
        os.utime(path, (1e9 - age, 1e9 - age))
    assert main([]) == 0
    assert "store: runs/two/sentinel.db" in shown(capsys)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "there is no folder runs"),
        (["--run", "nowhere"], "there is no run folder nowhere"),
        (["--run", "bare"], "the folder bare holds no SQLite store"),
        (["--run", "many"], "the folder many holds several SQLite stores (a.db, b.sqlite)"),
        (["--store", "missing.db"], "there is no SQLite store missing.db"),
        (["--store", "bare"], "bare is a folder"),
        (["--store", "empty.db"], "the file empty.db is empty"),
        (["--store", "text.db"], "text.db cannot be read"),
        (["--store", "foreign.db"], "foreign.db was made by another program"),
        (["--store", "old.db"], "old.db has schema 1, this program reads schema"),
    ],
)
def test_a_folder_without_a_run_is_refused_in_a_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    (folder / "bare").mkdir()
    (folder / "many").mkdir()
    for name in ("empty.db", "many/a.db", "many/b.sqlite"):
        (folder / name).touch()
    (folder / "text.db").write_text("not a database, but long enough to be looked at\n" * 100)
    store(folder / "old.db", PANE_ROWS[:1])
    with sqlite3.connect(folder / "old.db") as old:
        old.execute("PRAGMA user_version = 1")
    foreign = sqlite3.connect(folder / "foreign.db")
    foreign.execute("CREATE TABLE t (x)")
    foreign.close()
    assert main(args) == 78
    printed = capsys.readouterr()
    assert words in printed.err and printed.err.count("\n") == 1 and not printed.out


def test_no_run_in_the_folder_of_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "one").mkdir(parents=True)
    assert main([]) == 78
    assert "no run in the folder runs has a SQLite store yet" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", '{"balance": 3}', "{"])
def test_a_damaged_run_file_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    (folder / "run" / "balance.json").write_text(text)
    assert main(["--run", "run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["balance"] == {}


@pytest.mark.parametrize(
    "balance", ['{"dead": {"not_json": 2, "bad_time": 1}, "duplicate": 7}', '{"duplicate": 7}', "{}"]
)
def test_dead_letters_are_those_of_the_run_else_of_their_file(
    folder: Path, capsys: pytest.CaptureFixture[str], balance: str
) -> None:
    (folder / "run" / "balance.json").write_text(balance)
    (folder / "run" / "dead_letters.jsonl").write_text("{}\n" * 5)
    assert main(["--run", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["balance"]
    assert found["dead letters"] == (3 if "dead" in balance else 5)
    assert found.get("duplicate") == (7 if "duplicate" in balance else None)


def test_a_reader_that_goes_away_ends_it_quietly(folder: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "flows.report", "--run", str(folder / "run")],
        cwd=ROOT,
        check=False,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_any_encoding_of_the_output(folder: Path, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flows.report", "--run", str(folder / "run")],
        cwd=ROOT, env={**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "132"}, capture_output=True, check=True,
    )  # fmt: skip
    assert b"latency_spike" in done.stdout
