"""The main flow: the source and sinks that its settings name, its start and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
import pytest

from connectors.files.source import FilesFactory
from connectors.greptime.writer import GreptimeFactory
from connectors.jsonl import JsonlFactory
from connectors.kafka.once import KafkaOnce
from connectors.kafka.source import KafkaSource
from connectors.simulator import Simulator
from connectors.sqlite import SqliteFactory
from connectors.terminal import TerminalFactory
from flows.main import flow
from flows.pipeline import alert_record
from flows.process.progress import Progress
from flows.process.run import STUCK_S, Run, stop_on_signals, wall_clock
from flows.process.start import check_folders
from flows.settings.model import Settings
from flows.wiring import build, pipeline_io, reader, writers
from operators.decode.intake import Balance, Batch
from operators.errors import ConfigError, FatalError
from operators.model import Alert
from operators.observe.telemetry import Telemetry
from tests.conftest import ROOT
from tests.operators.pane_events import columns
from tests.operators.shard_flow import call

NONE = np.zeros(0, np.bool_)
ALERT = Alert(
    "id", "episode", "", (), 1, "firing", "low", "spike", {"service": "a"}, "latency", "ms", 5, 0, None, 2.0, 1.0, None,
    None, 0.5, ("zscore",),
)  # fmt: skip
EMPTY = Batch("p", ("p",), None, columns([]), NONE, NONE, [])


def settings(**sections: object) -> Settings:
    return Settings.model_validate(sections)


def a_run(progress: Progress | None = None) -> Run:
    return Run(Telemetry(), progress)


def started(folder: Path, environ: Mapping[str, str], program: str = "", *arguments: str) -> tuple[int, str]:
    """The exit code and the standard error of a process that builds the flow, or runs this program."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SENTINEL_", "BYTEWAX_"))}
    done = subprocess.run(
        [sys.executable, "-c", program or "from flows.main import flow; flow()", *arguments],
        cwd=folder, env={**clean, "PYTHONPATH": str(ROOT), **environ}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


# --- source and sinks ----------------------------------------------------------------------------------------------


def test_the_source_is_the_one_that_the_settings_name(tmp_path: Path) -> None:
    assert isinstance(reader(settings()), Simulator)
    assert isinstance(reader(settings(source={"kind": "kafka"})), KafkaSource)
    recorded = tmp_path / "a.jsonl"
    recorded.write_text('{"timestamp": 1767225600, "service": "chat"}\n')
    files = reader(settings(source={"kind": "files", "files": {"paths": [recorded]}}))
    assert isinstance(files, FilesFactory)
    assert len(files.partitions()) == 1


def test_the_sinks_are_those_that_the_settings_name() -> None:
    usual = writers(settings())
    assert {n: type(w) for n, w in usual.stores.items()} == {"sqlite": SqliteFactory}
    assert {n: type(w) for n, w in usual.alerts.items()} == {"terminal": TerminalFactory, "jsonl": JsonlFactory}
    assert {n: type(w) for n, w in usual.dead_letters.items()} == {"jsonl": JsonlFactory}

    all_else = writers(settings(
        store={"kind": "greptime"}, alerts={"terminal": False, "jsonl": None, "kafka": True},
        dead_letters={"jsonl": None, "kafka": True},
    ))  # fmt: skip
    assert {n: type(w) for n, w in all_else.stores.items()} == {"greptime": GreptimeFactory}
    assert {n: type(w) for n, w in all_else.alerts.items()} == {"kafka": KafkaOnce}
    assert {n: type(w) for n, w in all_else.dead_letters.items()} == {"kafka": KafkaOnce}
    names = [w.name for w in (*usual.alerts.values(), *usual.dead_letters.values(), *all_else.alerts.values(),
                              *all_else.dead_letters.values())]  # fmt: skip
    assert len(set(names)) == len(names)  # each name is a label of metrics

    none = writers(
        settings(store={"kind": "none"}, alerts={"terminal": False, "jsonl": None}, dead_letters={"jsonl": None})
    )
    assert (none.stores, none.alerts, none.dead_letters) == ({}, {}, {})


def test_the_ends_ask_their_neighbours_at_the_start() -> None:
    away = settings(
        alerts={"terminal": False, "jsonl": None, "kafka": True}, kafka={"brokers": "127.0.0.1:1", "start_budget_s": 0}
    )
    with pytest.raises(FatalError, match=r"kafka.brokers"):
        pipeline_io(away, a_run(), reader(away), wall_clock, writers(away))
    misspelt = settings(dead_letters={"kafka": True}, kafka={"options": {"linger.mss": 5}})
    with pytest.raises(ConfigError, match=r"kafka.options.*linger.mss"):
        pipeline_io(misspelt, a_run(), reader(misspelt), wall_clock, writers(misspelt))


def test_the_graph_is_built_of_any_ends() -> None:
    for store in ("sqlite", "none"):
        given = settings(store={"kind": store})
        steps = [s.step_id for s in build(given, a_run(), reader(given), wall_clock, writers(given)).substeps]
        assert ("sentinel.store" in steps) is (store == "sqlite")
        assert {"sentinel.telemetry", "sentinel.merge", "sentinel.alerts_terminal"} <= set(steps)


def test_an_alert_that_is_too_old_to_page_for_says_so() -> None:
    assert alert_record(ALERT, True).headers["replayed"] == "true"
    assert "replayed" not in alert_record(ALERT, False).headers


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"store": {"sqlite": {"path": "no/x.db"}}}, "store.sqlite.path"),
        ({"alerts": {"jsonl": "no/x"}}, "alerts.jsonl"),
        ({"dead_letters": {"jsonl": "no/x"}}, "dead_letters.jsonl"),
        ({"sinks": {"rejected_file": "no/x"}}, "sinks.rejected_file"),
        ({"metrics": {"balance_file": "no/x"}}, "metrics.balance_file"),
    ],
)
def test_a_file_without_a_folder_is_refused(
    section: dict[str, object], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    check_folders(settings())
    with pytest.raises(ConfigError, match=f"^{key}: the file no/x.* has no folder no: make it, or set another path$"):
        check_folders(settings(**section))


def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # the tests may run as root, who can write anywhere
    with pytest.raises(ConfigError, match=r"^alerts.jsonl: the file .*alerts may not be written"):
        check_folders(settings(
            store={"kind": "none"}, alerts={"jsonl": tmp_path / "alerts"}, dead_letters={"jsonl": None}
        ))  # fmt: skip


# --- the life of a process -----------------------------------------------------------------------------------------


def test_polls_and_alerts_are_seen_by_metrics_and_progress(capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(Progress())
    events = columns([call(0), call(1)])
    batch = Batch("p", ("p",), None, events, np.array([True, False]), np.array([False, True]), [])
    assert not run.polled_once.is_set()
    run.polled("p", batch, Balance(records=2, on_time=1, late=1), 5)
    run.alerted(ALERT)
    assert run.polled_once.is_set()
    run.finish(None)
    shown = capsys.readouterr().err
    assert "2 events" in shown and "1 alert" in shown
    assert run.telemetry.balances.total() == Balance(records=2, on_time=1, late=1)
    plain = a_run()
    plain.polled("p", EMPTY, Balance(), None)
    plain.alerted(ALERT)


def test_idle_is_not_stuck() -> None:
    """A source that is polled without records is live; a source that is not polled any more is stuck."""
    now = 1_000.0
    run = Run(Telemetry(), None, clock=lambda: now)
    settings = Settings.model_validate({"source": {"kind": "kafka"}, "sinks": {"budget_s": 60}})
    assert run.is_live(settings), "a process without a part of the source is live"
    for _ in range(10):
        now += 300
        assert not run.stopping()
        assert run.is_live(settings), "a source that is polled without records is live"
    now += STUCK_S + 59
    assert run.is_live(settings), "a sink may still be trying"
    now += 2
    assert not run.is_live(settings)
    assert run.is_live(Settings.model_validate({"source": {"kind": "simulator"}})), "a source with an end is live"


def test_the_end_tells_the_balance_of_all_records(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = a_run()
    run.polled("p", EMPTY, Balance(records=5, on_time=2, late=1, dead={"not_json": 1}), None)
    run.polled("q", EMPTY, Balance(records=3, duplicate=3, dead={"not_json": 1, "bad_time": 2}), None)
    with caplog.at_level("INFO"):
        run.finish(tmp_path / "balance.json")
    assert caplog.messages[0].startswith("8 records: 2 on time, 1 late, 3 duplicate, 4 dead letters")
    written = orjson.loads((tmp_path / "balance.json").read_bytes())
    assert written["records"] == 8 and written["dead"] == {"bad_time": 2, "not_json": 2}
    with caplog.at_level("WARNING"):
        run.finish(tmp_path / "no" / "balance.json")
    assert "balance.json cannot be written: No such file or directory" in caplog.text


def test_the_clock_counts_microseconds() -> None:
    assert 1_600_000_000_000_000 < wall_clock() < 4_000_000_000_000_000


def test_signals_stop_the_sources_first_and_the_process_the_second_time(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    stop = threading.Event()
    try:
        stop_on_signals(stop)
        signal.raise_signal(signal.SIGTERM)
        assert stop.is_set()
        assert capsys.readouterr().err == "\nSIGTERM: stopping after a last snapshot\n"
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])
    code, said = started(ROOT, {}, (
        "import signal, threading; from flows.process.run import stop_on_signals; stop_on_signals(threading.Event()); "
        "signal.raise_signal(signal.SIGINT); signal.raise_signal(signal.SIGINT); print('still here')"
    ))  # fmt: skip
    assert (code, said) == (130, "\nSIGINT: stopping after a last snapshot\n")


def test_only_the_main_thread_may_set_signals() -> None:
    failed: list[BaseException] = []
    before = threading.excepthook
    threading.excepthook = lambda args: failed.append(args.exc_value or RuntimeError())
    try:
        thread = threading.Thread(target=stop_on_signals, args=(threading.Event(),))
        thread.start()
        thread.join()
    finally:
        threading.excepthook = before
    assert not failed


def test_a_wrong_setting_ends_the_start_with_78(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENTINEL_TIME__PANE_S", "7")
    with pytest.raises(SystemExit) as ended:
        flow()
    assert ended.value.code == 78
    said = capsys.readouterr().err
    assert said.startswith("llm-sentinel cannot start: ") and "time.pane_s = 7" in said and "Traceback" not in said


def test_the_flow_listens_says_its_balance_and_lets_go(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environ = {
        "SENTINEL_METRICS__PORT": str(port),
        "SENTINEL_METRICS__BALANCE_FILE": "balance.json",
        "SENTINEL_LOG__FORMAT": "json",
    }
    program = (
        "import sys, urllib.request; from flows.main import flow; sys.argv = ['x', '-r', 'state']; made = flow(); "
        f"print(urllib.request.urlopen('http://127.0.0.1:{port}/health/live').read(), file=sys.stderr)"
    )
    code, said = started(tmp_path, environ, program)
    assert code == 0, said
    lines = said.splitlines()
    assert "b'alive\\n'" in lines
    logged = [orjson.loads(line) for line in lines if line.startswith("{")]
    assert logged[-1]["message"].startswith("0 records: ") and logged[-1]["time"].endswith("Z")
    assert orjson.loads((tmp_path / "balance.json").read_bytes())["records"] == 0
    assert (tmp_path / "state" / "manifest.json").exists()
    code, said = started(tmp_path, environ | {"SENTINEL_RECOVERY__SHARDS": "8"}, program)
    assert code == 78
    assert "llm-sentinel cannot start: the recovery folder state was made with recovery.shards = 4, now it is 8" in said


def test_a_port_that_is_taken_ends_the_start_with_78(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = started(tmp_path, {"SENTINEL_METRICS__PORT": str(taken.getsockname()[1])})
    assert code == 78
    assert "llm-sentinel cannot start: cannot listen on 127.0.0.1:" in said


def test_a_neighbour_that_stays_away_ends_the_start_with_1(tmp_path: Path) -> None:
    environ = {
        "SENTINEL_SOURCE__KIND": "kafka",
        "SENTINEL_KAFKA__BROKERS": "127.0.0.1:1",
        "SENTINEL_KAFKA__START_BUDGET_S": "0",
        "SENTINEL_STORE__KIND": "none",
        "SENTINEL_ALERTS__JSONL": "",
        "SENTINEL_DEAD_LETTERS__JSONL": "",
    }
    code, said = started(tmp_path, environ)
    assert code == 1
    assert "llm-sentinel cannot start: " in said and "kafka.brokers" in said and "Traceback" not in said
