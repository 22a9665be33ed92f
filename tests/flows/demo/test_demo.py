"""The demo with the real flow for some seconds: as lines, on a terminal, and with faults."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from connectors.listener import Listener
from connectors.registry import ALERTS, asked_for
from flows.demo import __main__ as demo
from flows.demo.feed import Alerts, Feed
from flows.folder import read_status
from flows.settings.model import load
from operators.model import SECOND
from tests.brokers import free_port
from tests.conftest import ROOT

QUICK = ["--learn", "1", "--watch", "1", "--speed", "3000", "--rate", "4"]


def command(runs: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "flows.demo", "--runs", str(runs), *QUICK, *options]


def environment(**changes: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SENTINEL_", "BYTEWAX_"))}
    return kept | {"TERM": "xterm-256color"} | changes


def test_lines_are_printed_without_a_terminal(tmp_path: Path) -> None:
    said: list[str] = []
    with subprocess.Popen(
        command(tmp_path), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None and demo.stderr is not None
        for line in demo.stdout:
            said.append(line.rstrip("\n"))
            if (found := re.search(r", ([\d,]+) events", line)) and int(found[1].replace(",", "")) > 5_000:
                demo.send_signal(signal.SIGTERM)
                break
        said += demo.stdout.read().splitlines()
        errors = demo.stderr.read()
        assert demo.wait(60) == 0, errors
    assert "\x1b" not in "".join(said) and errors == ""
    assert said[0].startswith("starting, 0 events")
    assert said[-1] == f"python -m flows.report --run {tmp_path / '0001'}"
    assert re.match(r"[\d,]+ events, \d+ episodes, \d+ of them open; 0 late, 0 dead letters", said[-2])
    assert read_status(tmp_path / "0001")["status"] == "stopped"
    log = (tmp_path / "0001" / "flow.log").read_text()
    assert "stopping after a last snapshot" in log and "Traceback" not in log


@pytest.mark.parametrize(("until", "number"), [(rb"[1-9][\d,]* events", signal.SIGINT), (rb"LLM-", signal.SIGTERM)])
def test_a_signal_ends_it_and_the_terminal_is_whole(until: bytes, number: signal.Signals, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(tmp_path), cwd=ROOT, env=environment(COLUMNS="60", LINES="24"), stdout=theirs, stderr=theirs
    ) as demo:
        os.close(theirs)
        said = b""
        deadline = time.monotonic() + 90
        while not re.search(until, said) and time.monotonic() < deadline:
            if select.select([ours], [], [], 0.5)[0]:
                said += os.read(ours, 1 << 16)
        demo.send_signal(number)
        while more := rest_of(ours):
            said += more
        assert demo.wait(60) == 0
    os.close(ours)
    assert said.count(b"\x1b[?1049h") == said.count(b"\x1b[?1049l") == 1  # the alternate screen, and back
    assert said.rindex(b"\x1b[?25h") > said.rindex(b"\x1b[?25l")  # the cursor is shown again
    after = said[said.rindex(b"\x1b[?1049l") :].decode()
    assert "python -m flows.report --run" in after and "Traceback" not in after


def test_it_ends_by_itself_when_told_to(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--seconds", "0.1"), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=90,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def rest_of(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:  # the other end has been closed
        return b""


def test_a_flow_that_cannot_start_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path), cwd=ROOT, env=environment(SENTINEL_METRICS__HOST="192.0.2.1"), capture_output=True,
        text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "the flow has ended with code 78" in done.stderr and "metrics.host" in done.stderr
    assert read_status(tmp_path / "0001") == {"status": "failed", "events": [], "exit_code": 78}


def test_wrong_options_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "--speed", "0"), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 78
    assert "--speed" in done.stderr and not (tmp_path / "0001").exists()


def test_simulated_incidents_page_nobody() -> None:
    asked = {"SENTINEL_KAFKA__BROKERS": "127.0.0.1:9", "SENTINEL_ALERTS__KAFKA": "true"}
    assert [name for name in asked_for(ALERTS, load(asked, Path("/")).settings) if ALERTS[name].pages] == ["kafka"]
    args = demo._parser().parse_args(QUICK)
    settings = demo._settings(args, asked, now=1_800_000_000 * SECOND).settings
    assert [name for name in asked_for(ALERTS, settings) if ALERTS[name].pages] == []


# ---- the alert file and the metrics that it reads


def transition(episode: str, status: str, severity: str = "high") -> bytes:
    since = "2026-01-05T12:00:00.000Z"
    return orjson.dumps({"episode_id": episode, "status": status, "severity": severity, "since": since}) + b"\n"


def test_the_alert_file_is_followed_by_whole_lines(tmp_path: Path) -> None:
    alerts = Alerts(tmp_path / "alerts.jsonl")
    alerts.follow()
    assert (alerts.fresh, alerts.open(), alerts.episodes) == ([], [], 0)
    with alerts.path.open("ab") as file:
        cut = transition("c", "firing", "critical")
        file.write(transition("a", "firing", "low") + transition("b", "firing") + cut[:20])
        file.flush()
        alerts.follow()
        assert [a["episode_id"] for a in alerts.open()] == ["b", "a"]
        file.write(cut[20:] + transition("b", "resolved") + transition("a", "updated", "medium"))
        file.flush()
        alerts.follow()
    assert [(a["episode_id"], a["severity"]) for a in alerts.open()] == [("c", "critical"), ("a", "medium")]
    assert [a["status"] for a in alerts.fresh] == ["firing", "resolved", "updated"]
    assert alerts.recent[0]["status"] == "updated" and len(alerts.recent) == 5
    assert alerts.episodes == 3


def test_the_counts_of_a_listener(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    events = Counter("sentinel_events", "x", ["partition", "outcome"], registry=registry)
    mark = Gauge("sentinel_watermark_timestamp_seconds", "x", ["partition"], registry=registry)
    port = free_port()
    feed = Feed(f"http://127.0.0.1:{port}/metrics", tmp_path / "a", tmp_path / "s", 10, "service")
    assert not feed.look(1_000_000).started
    listener = Listener("127.0.0.1", port, registry, lambda: True)
    try:
        events.labels("0", "on_time").inc(100)
        scene = feed.look(2_000_000)
        assert (scene.started, scene.events, list(scene.rates), scene.watermark) == (True, 100, [], None)
        events.labels("1", "late").inc(10)
        events.labels("1", "dead_letter").inc(5)
        mark.labels("0").set(20.5)
        mark.labels("1").set(10.5)
        scene = feed.look(4_000_000)
    finally:
        listener.stop()
    assert (scene.events, scene.late, scene.dead, scene.watermark) == (115, 10, 5, 10_500_000)
    assert list(scene.rates) == [7.5]
