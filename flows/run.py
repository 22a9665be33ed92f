"""`python -m flows.run`: runs the main job in a folder of its own, or resumes a stopped one, then prints its report.

It only starts `python -m bytewax.run flows.main` with the store, the alert file and the recovery store in the folder,
and prints that command. Production starts Bytewax directly (`k8s/`).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from types import FrameType
from typing import Any, Final

from pydantic import SecretStr

from connectors.config import is_address
from connectors.files.folders import event_files
from flows.folder import BALANCE_FILE, FILES, RECOVERY, STATUS_FILE, STORE_FILE, new_folder, read_status, write_status
from flows.process.dead_letters import DATA_EXIT_CODE, nothing_usable
from flows.recovery.store import MANIFEST, Place
from flows.settings.layers import set_options
from flows.settings.model import CONFIG_EXIT_CODE, PREFIX, Loaded, Settings, load
from flows.settings.schema import as_json, dotted, setting_at, settings_of, show, values_of, values_of_table
from operators.decode.intake import Balance
from operators.errors import ConfigError, SentinelError
from operators.section import MASK

SNAPSHOT_S: Final = 5
"""How often the state is stored, in seconds; a resumed run repeats at most the work of this time."""


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a run: the files to read, the settings over the others, and the resulting settings."""

    events: list[str]
    sets: list[str]
    loaded: Loaded


def order(events: Sequence[str], sets: Sequence[str]) -> Order:
    """The order with its settings loaded. Raises `ConfigError` where a file is missing or a setting is wrong."""
    files = {"source.kind": ("files", "--events"), "source.files.paths": (events, "--events")} if events else {}
    loaded = load(os.environ, Path.cwd(), {**set_options(sets), **files})
    event_files([Path(e) for e in events])  # refuses what is missing before there is a folder of the run
    return Order(list(events), list(sets), loaded)


def resumed(folder: Path, more: Sequence[str] = ()) -> Order:
    """The order that the run in this folder resumes with, `more` set over it.

    Changes nothing, except that it removes an unfinished epoch, as the start of the flow does. Raises `SentinelError`
    where the run cannot be resumed.
    """
    status = read_status(folder)
    match status.get("status"):
        case None:
            raise ConfigError(f"its {STATUS_FILE} cannot be read")
        case "finished":
            raise ConfigError("it has finished")
    found = order(status.get("events", []), [*status.get("set", []), *more])
    if not (folder / RECOVERY / MANIFEST).exists():
        raise ConfigError("it ended before its recovery store was made")
    # These imports are slow, and only a resumed run needs them.
    from flows.process.start import claim
    from flows.wiring import reader

    settings = found.loaded.settings
    held = claim(settings, Place(folder / RECOVERY, 0, 1), reader(settings))
    assert held is not None
    held.release()
    return found


def newest_to_resume(runs: Path, more: Sequence[str] = ()) -> tuple[Path, Order, dict[str, str]]:
    """The newest run that can be resumed, its order, and for each newer run the reason why it cannot be resumed.

    Raises `ConfigError` with the reason of each run where none can be resumed.
    """
    refused: dict[str, str] = {}
    for folder in sorted((p for p in runs.glob("*") if p.name.isdigit()), key=lambda p: int(p.name), reverse=True):
        try:
            return folder, resumed(folder, more), refused
        except SentinelError as error:
            refused[str(folder)] = str(error)
    listed = "".join(f"\n  {folder}: {why}" for folder, why in refused.items())
    raise ConfigError(f"no run in {runs}/ can be resumed: start a new one{listed}")


def variables(loaded: Loaded, folder: Path) -> dict[str, str]:
    """The variables that point the flow at its folder and hand on the settings of the command line."""
    found = {variable(key): str(folder / name) for key, name in FILES.items() if loaded.origin(key).layer == "default"}
    for parts, _ in values_of(loaded.settings):
        setting = setting_at(Settings, parts)
        if setting is not None and loaded.origin(dotted(parts)).layer == "command":
            value: Any = reduce(_at, setting.key, loaded.settings)
            text = "" if value is None else json.dumps(value, default=_told)
            found[variable(dotted(setting.key))] = json.loads(text) if text.startswith('"') else text
    return found


def _at(node: Any, part: str) -> Any:
    return node[part] if isinstance(node, Mapping) else getattr(node, part)


def _told(value: object) -> object:
    """The value as the flow needs it: secrets are not masked."""
    return value.get_secret_value() if isinstance(value, SecretStr) else as_json(value)


def variable(key: str) -> str:
    """The name of the environment variable that sets this key."""
    return PREFIX + key.replace(".", "__").upper()


def changed(loaded: Loaded) -> dict[str, list[str]]:
    """The settings that are not at their default: key to [value, origin], secrets masked."""
    return {
        name: [show(setting_at(Settings, parts), value), str(loaded.origin(name))]
        for parts, value in values_of(loaded.settings)
        if loaded.origin(name := dotted(parts)).layer != "default"
    }


def masked(loaded: Loaded, ours: Mapping[str, str]) -> dict[str, str]:
    """The same variables, with secrets in tables masked."""
    found = dict(ours)
    for setting in settings_of(Settings):
        name = variable(dotted(setting.key))
        if values_of_table(setting.field.annotation) is not None and name in found:
            shown = show(setting, reduce(_at, setting.key, loaded.settings))
            found[name] = shown if MASK in shown else found[name]
    return found


def flow_command(folder: Path) -> list[str]:
    """The command that starts the flow with its recovery store in this folder."""
    store = str(folder / RECOVERY)
    return [sys.executable, "-m", "bytewax.run", "flows.main", "-r", store, "-s", str(SNAPSHOT_S), "-b", "0"]


def run(folder: Path, environ: Mapping[str, str], ours: Mapping[str, str], shown: Mapping[str, str]) -> int:
    """Run the flow to its end and return its exit code: 128 plus the signal's number if a signal ended it.

    `ours` are variables over those of `environ`; the printed command has them as in `shown`. SIGINT and SIGTERM are
    handed on to the flow, which then stores its state, so the run can be resumed.
    """
    command = flow_command(folder)
    words = [f"{name}={shlex.quote(shown)}" for name, shown in shown.items()]
    print(" \\\n  ".join([*words, shlex.join(["python", *command[1:]])]), file=sys.stderr, flush=True)
    caught: list[int] = []
    flow: subprocess.Popen[bytes] | None = None

    def hand_on(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if flow is not None:
            flow.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # In a process group of its own the flow gets Ctrl-C only once, from the handler.
        flow = subprocess.Popen(command, env={**environ, **ours}, process_group=0)
        for number in tuple(caught):  # signals that came before the flow was started
            flow.send_signal(number)
        code = flow.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if caught:
        return 128 + caught[0]
    return 128 - code if code < 0 else code


def balance_of(folder: Path, loaded: Loaded) -> Balance:
    """The balance that the flow has left; one without records where it cannot be read."""
    path = loaded.settings.metrics.balance_file or folder / BALANCE_FILE
    try:
        return Balance(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return Balance()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llm-sentinel run",
        description="Run the main job in a new folder below runs/, then show its report. Settings come from "
        "sentinel.toml and SENTINEL_ variables, as everywhere (`llm-sentinel check`).",
        epilog=f"exit code: that of the job; {DATA_EXIT_CODE} if nothing was usable; "
        f"{CONFIG_EXIT_CODE} if the settings are wrong",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--events", nargs="+", default=[], metavar="PATH", help="read these files, and those in these folders"
    )
    which.add_argument("--resume", action="store_true", help="go on with the newest run that can be resumed")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="one setting over the others; may be repeated",
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="FOLDER", help="the folder for run folders")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    args = _parser().parse_args(argv)
    try:
        if args.resume:
            order([], args.set)  # a wrong --set would fail in every run: say it once
            folder, found, refused = newest_to_resume(args.runs, args.set)
            for newer, why in refused.items():
                print(f"flows.run: {newer} cannot be resumed: {why}", file=sys.stderr)
            print(f"flows.run: going on with {folder}", file=sys.stderr)
        else:
            if any(map(is_address, args.events)):
                raise ConfigError("--events takes the paths of files; the topics of [kafka] are read without it")
            found = order([str(Path(e).resolve()) for e in args.events], args.set)
            folder = new_folder(args.runs)
    except ConfigError as error:
        print(f"flows.run: {error}", file=sys.stderr)
        return CONFIG_EXIT_CODE
    loaded = found.loaded
    write_status(folder, status="running", events=found.events, set=found.sets, settings=changed(loaded))
    ours = variables(loaded, folder)
    code = run(folder, os.environ, ours, masked(loaded, ours))
    if code == 0 and (unusable := nothing_usable(balance_of(folder, loaded))) is not None:
        write_status(folder, status="finished", exit_code=DATA_EXIT_CODE)
        print(f"flows.run: {unusable}", file=sys.stderr)
        return DATA_EXIT_CODE
    write_status(folder, status="finished" if code == 0 else "stopped" if code > 128 else "failed", exit_code=code)
    if code:
        more = "; `make run RESUME=1` goes on with it" if (folder / RECOVERY / MANIFEST).exists() else ""
        print(f"flows.run: the run in {folder} ended with code {code}{more}", file=sys.stderr)
        return code
    if loaded.settings.store.kind != "sqlite" or loaded.origin("store.sqlite.path").layer != "default":
        return 0
    if not (folder / STORE_FILE).exists():
        print("flows.run: no event came, so there is nothing to report", file=sys.stderr)
        return 0
    return subprocess.run([sys.executable, "-m", "flows.report", "--run", str(folder)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
