"""`python -m flows.demo`: runs the flow on simulated LLM services and shows its findings as they come.

The flow is the one of production, in a process of its own with a run folder of its own. The demo only sets its
environment and reads its public outputs: its metrics, its alert file and its store.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final

from rich.console import Console
from rich.live import Live

from connectors.registry import ALERTS
from connectors.simulation.config import SimulatorConfig
from connectors.simulator import Simulator, wall_clock
from connectors.terminal import alert_line
from flows.demo.feed import Feed, Scene
from flows.demo.view import frame, lag_s, status
from flows.folder import new_folder, write_status
from flows.run import flow_command, variables
from flows.settings.model import CONFIG_EXIT_CODE, Loaded, load
from operators.errors import ConfigError
from operators.model import SECOND

_HOUR: Final = 3_600
_LOOK_S: Final = 0.5
_LINE_S: Final = 5.0
_STOP_S: Final = 30.0
_PRESENT_S: Final = 120.0
"""A watermark has reached the present if it is at most this many seconds behind."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel demo",
        description="Run the flow of production on simulated LLM services and show its findings as they come. "
        "First it learns from hours without incidents, as fast as it can; then time passes at a speed that can be "
        "watched, until the present; then with the clock. Ctrl-C ends it. Its files stay in a folder below runs/.",
        epilog=f"exit code: 0 after Ctrl-C; that of the flow if it ends by itself; {CONFIG_EXIT_CODE} if the "
        "settings are wrong",
    )
    parser.add_argument("--learn", type=float, default=6, metavar="HOURS", help="hours to learn from. Default: 6")
    parser.add_argument(
        "--watch", type=float, default=18, metavar="HOURS", help="hours to watch before the present. Default: 18"
    )
    parser.add_argument("--speed", type=float, default=60, metavar="TIMES", help="speed of watching. Default: 60")
    parser.add_argument("--rate", type=float, default=5, metavar="PER_SECOND", help="events a second. Default: 5")
    parser.add_argument("--seconds", type=float, metavar="NUMBER", help="end after this many seconds")
    parser.add_argument("--plain", action="store_true", help="print plain lines, as without a terminal")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="the folder for run folders")
    return parser


def _settings(args: argparse.Namespace, environ: Mapping[str, str], now: int) -> Loaded:
    """The settings of the environment with the demo's own over them; simulated incidents page nobody."""
    start = (now - round((args.learn + args.watch) * _HOUR * SECOND)) // (60 * SECOND) * 60
    ours: dict[str, tuple[object, str]] = {
        "source.kind": ("simulator", "the demo"),
        "source.simulator.live": (True, "the demo"),
        "source.simulator.start": (datetime.fromtimestamp(start, UTC).isoformat(), "--learn and --watch"),
        "source.simulator.history_h": (args.learn + args.watch + 1, "--learn and --watch"),
        "source.simulator.backfill_h": (args.learn, "--learn"),
        "source.simulator.incidents.calm_h": (args.learn, "--learn"),
        "source.simulator.speed": (args.speed, "--speed"),
        "source.simulator.rate": (args.rate, "--rate"),
        "source.batch_size": (1_000, "the demo"),  # so that the view can follow the hours to learn from
        "store.kind": ("sqlite", "the demo"),
        "alerts.terminal": (False, "the demo"),
        **{sink.setting: (False, "the demo") for sink in ALERTS.values() if sink.pages},
    }
    if "SENTINEL_METRICS__PORT" not in environ:
        ours["metrics.port"] = (_free_port(), "the demo")
    return load(environ, Path.cwd(), ours)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port


@contextmanager
def _flow(folder: Path, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The flow, started as in production, with its output in `flow.log`; stopped at the end as by a supervisor."""
    with (folder / "flow.log").open("wb") as words:
        flow = subprocess.Popen(
            flow_command(folder),
            env={**environ},
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            process_group=0,
        )
    try:
        yield flow
    finally:
        if flow.poll() is None:
            flow.send_signal(signal.SIGTERM)
            try:
                flow.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                flow.kill()
                flow.wait()


class _Ended(Exception):
    """The demo is over because of a signal."""


def _end(number: int, frame: FrameType | None) -> None:
    raise _Ended


def _phase(scene: Scene, simulated: SimulatorConfig) -> str:
    if scene.watermark is None:
        return "starting"
    learned = simulated.start_us + simulated.backfill_us
    if scene.watermark < learned - 60 * SECOND:
        share = (scene.watermark - simulated.start_us) / max(1, simulated.backfill_us)
        return f"learning the usual: {max(0, share):.0%}"
    if (lag_s(scene) or 0) > _PRESENT_S:
        return f"{simulated.speed:g} x real time"
    return "live"


def _looks(feed: Feed, simulator: Simulator, flow: subprocess.Popen[bytes], seconds: float | None) -> Iterator[Scene]:
    """A scene every half second, until time is up or the flow has ended."""
    began = time.monotonic()
    while flow.poll() is None and (seconds is None or time.monotonic() - began < seconds):
        scene = feed.look(wall_clock())
        scene.phase = _phase(scene, simulator.config)
        if scene.watermark is not None:
            scene.injected = simulator.labels(scene.watermark, scene.watermark + 1)
        yield scene
        time.sleep(_LOOK_S)


def _show(scenes: Iterator[Scene], console: Console) -> None:
    """Show the scenes on the terminal's alternate screen, which keeps the former content."""
    with Live(console=console, screen=True, auto_refresh=False, redirect_stdout=False, redirect_stderr=False) as live:
        for scene in scenes:
            live.update(frame(scene, console.width, console.height), refresh=True)


def _print(scenes: Iterator[Scene], feed: Feed, console: Console) -> None:
    """Print each alert as a line, and every few seconds a line of status."""
    said = float("-inf")
    for scene in scenes:
        for alert in feed.alerts.fresh:
            console.print(alert_line(alert, narrow=False), soft_wrap=True, highlight=False)
        if time.monotonic() - said >= _LINE_S:
            said = time.monotonic()
            console.print(status(scene), soft_wrap=True, highlight=False)


def _say_goodbye(scene: Scene | None, folder: Path, console: Console) -> None:
    if scene is not None and scene.events:
        console.print(
            f"{scene.events:,} events, {scene.episodes:,} episodes, {len(scene.open)} of them open; "
            f"{scene.late:,} late, {scene.dead:,} dead letters",
            soft_wrap=True,
            highlight=False,
        )
    console.print(f"python -m flows.report --run {folder}", soft_wrap=True, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    args = _parser().parse_args(argv)
    console = Console()
    try:
        loaded = _settings(args, os.environ, wall_clock())
    except ConfigError as error:
        print(f"flows.demo: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    settings = loaded.settings
    folder = new_folder(args.runs)
    environ = variables(loaded, folder)
    simulator = Simulator(settings.source.simulator)
    store = Path(environ.get("SENTINEL_STORE__SQLITE__PATH", settings.store.sqlite.path))
    alerts = Path(environ.get("SENTINEL_ALERTS__JSONL", settings.alerts.jsonl or folder / "alerts.jsonl"))
    address = f"http://{settings.metrics.host}:{settings.metrics.port}/metrics"
    feed = Feed(address, alerts, store, settings.time.pane_s, ",".join(settings.panes.dimension_sets[0]))
    write_status(folder, status="running", events=[])
    scene: Scene | None = None
    code: int | None = None

    before = {number: signal.signal(number, _end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with _flow(folder, {**os.environ, **environ}) as flow:
            try:
                scenes = _looks(feed, simulator, flow, args.seconds)
                if console.is_terminal and not args.plain and not console.is_dumb_terminal:
                    _show(scenes, console)
                else:
                    _print(scenes, feed, console)
                code = flow.poll()
            except _Ended:
                pass
            for number in before:
                signal.signal(number, signal.SIG_IGN)  # the demo is ending already
            scene = feed.look(wall_clock())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    write_status(folder, status="stopped" if code is None else "failed", exit_code=code)
    if code is not None:
        print(f"flows.demo: the flow has ended with code {code}; the end of {folder}/flow.log:", file=sys.stderr)
        for line in (folder / "flow.log").read_text(errors="replace").splitlines()[-8:]:
            print(f"  {line}", file=sys.stderr)
        return code or 1
    _say_goodbye(scene, folder, console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
