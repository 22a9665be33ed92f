"""`python -m flows.report`: what a run found, from its SQLite store."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console

from connectors.sqlite import APPLICATION, SCHEMA, read
from flows.report.model import Episode, Report, Transition
from flows.report.page import Page, render_page
from flows.report.terminal import render
from flows.report.values import chart, row_width, together, traffic
from operators.config import DetectConfig
from operators.errors import ConfigError
from operators.model import SECOND

PAGE_FILE: Final = "report.html"
CHARTS: Final = 100
"""Most charts of the page."""
STATUS_FILE: Final = "run.json"
UNWRITABLE_EXIT_CODE: Final = 73
"""The exit code where the page cannot be written (EX_CANTCREAT of sysexits.h); the report is printed all the same."""
BALANCE_FILE: Final = "balance.json"
RUNS: Final = Path("runs")
"""Where runs are looked for when none is named."""
QUERY: Final = (
    "SELECT at, severity, kind, metric, series, observed, expected FROM llm_alerts_readable "
    "WHERE status = 'firing' ORDER BY at"
)
_SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")
_SEVERITIES: Final = ("low", "medium", "high", "critical")


def find_store(run: Path) -> Path:
    """The SQLite store in a run's folder; ConfigError where there is none, or several."""
    if not run.is_dir():
        raise ConfigError(f"there is no run folder {run}: start a run first, or name one with --run")
    stores = sorted(p for p in run.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    if not stores:
        raise ConfigError(
            f"the folder {run} holds no SQLite store: name a run's folder with --run, or a file with --store"
        )
    if len(stores) > 1:
        names = ", ".join(p.name for p in stores)
        raise ConfigError(f"the folder {run} holds several SQLite stores ({names}): name one with --store")
    return stores[0]


def newest_run(runs: Path = RUNS) -> Path:
    """The folder of the run whose store was written last: `runs` itself, or one of the folders in it."""
    if not runs.is_dir():
        raise ConfigError(f"there is no folder {runs}: start a run first, or name its folder with --run")
    found = [
        (max(p.stat().st_mtime for p in stores), folder)
        for folder in [runs, *(p for p in sorted(runs.iterdir()) if p.is_dir())]
        if (stores := [p for p in folder.iterdir() if p.suffix in _SUFFIXES and p.is_file()])
    ]
    if not found:
        raise ConfigError(
            f"no run in the folder {runs} has a SQLite store yet: start a run, or name a file with --store"
        )
    return max(found, key=lambda f: f[0])[1]


def _checked(store: Path) -> None:
    """ConfigError where the file is not a store of ours."""
    if store.is_dir():
        raise ConfigError(f"{store} is a folder, not a SQLite store: name a run's folder with --run")
    if store.is_file() and not store.stat().st_size:
        raise ConfigError(f"the file {store} is empty: the run that made it has written nothing yet")
    (row,) = read(store, "PRAGMA application_id")
    if row["application_id"] != APPLICATION:
        raise ConfigError(f"the SQLite file {store} was made by another program: name a store with --store")
    (row,) = read(store, "PRAGMA user_version")
    if row["user_version"] != SCHEMA:
        raise ConfigError(
            f"the SQLite file {store} has schema {row['user_version']}, this program reads schema {SCHEMA}: "
            "use the program that made it"
        )


def _episode(rows: Sequence[Mapping[str, Any]]) -> Episode:
    """The episode of these transitions, which are in the order of their sequence."""
    first, last = rows[0], rows[-1]
    worst = max(rows, key=lambda r: (r["score"] if r["score"] is not None else -1.0, -r["sequence"]))
    severity = max((r["severity"] for r in rows), key=lambda s: _SEVERITIES.index(s) if s in _SEVERITIES else -1)
    dimensions = {d: first[d] for d in first["dimension_set"].split(",") if d in first}
    return Episode(
        first["episode_id"], last["group_id"], severity, first["kind"], first["metric"], first["unit"],
        first["dimension_set"], first["series"], dimensions,
        last["status"], first["since"], last["until"] if last["status"] == "resolved" else None, first["at"],
        worst["observed"], worst["expected"], worst["score"], len(rows),
        [Transition(**{f.name: row[f.name] for f in fields(Transition)}) for row in rows],
        orjson.loads(worst["detectors"]),
        orjson.loads(worst["evidence"]), orjson.loads(worst["contributors"]), worst["text"],
        orjson.loads(worst["factors"]), worst["learned_panes"], worst["learned_since"],
    )  # fmt: skip


def _severity(episode: Episode) -> int:
    """From 0 for low upwards; -1 for what is none of ours."""
    return _SEVERITIES.index(episode.severity) if episode.severity in _SEVERITIES else -1


def _balance(folder: Path) -> dict[str, int]:
    """Events that are in no pane: what the flow said at its end (the fields of `operators.decode.intake.Balance`).

    Where it was killed before, dead letters are counted in their file; empty where neither says anything.
    """
    try:
        said = orjson.loads((folder / BALANCE_FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        said = None
    said = said if isinstance(said, dict) else {}
    balance = {name: said[name] for name in ("late", "duplicate", "skipped") if isinstance(said.get(name), int)}
    if isinstance(said.get("dead"), dict):
        balance["dead letters"] = sum(n for n in said["dead"].values() if isinstance(n, int))
    elif (letters := folder / "dead_letters.jsonl").is_file():
        with letters.open("rb") as lines:
            balance["dead letters"] = sum(1 for _ in lines)
    return balance


def gather(store: Path, sort: str = "severity") -> Report:
    """Read the store; `sort` is `severity` (worst first, then newest) or `time` (newest first).

    Raises ConfigError where the file is missing, empty or another program's.
    """
    _checked(store)
    width_s = row_width(store)
    sets: list[dict[str, Any]] = read(
        store,
        "SELECT dimension_set, SUM(requests) AS events, COUNT(DISTINCT series) AS series, MIN(pane_start) AS first, "
        "MAX(pane_start) AS last FROM llm_panes WHERE width_s = ? GROUP BY dimension_set ORDER BY dimension_set",
        (width_s,),
    )
    rows: list[dict[str, Any]] = read(store, "SELECT * FROM llm_alerts ORDER BY episode_id, sequence, at")
    by_episode: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_episode.setdefault(row["episode_id"], []).append(row)
    episodes = [_episode(transitions) for transitions in by_episode.values()]
    episodes.sort(key=lambda e: (-e.since, e.episode_id))
    if sort == "severity":
        episodes.sort(key=lambda e: -_severity(e))
    names = {"store": store.name, "alerts": "alerts.jsonl", "dead letters": "dead_letters.jsonl", "run": STATUS_FILE}
    return Report(
        store=_shown(store),
        # Each event stands once in every dimension set that it has values for: the fullest set has them all.
        events=max((int(s["events"]) for s in sets), default=0),
        series={s["dimension_set"]: s["series"] for s in sets},
        fullest=max(sets, key=lambda s: int(s["events"]))["dimension_set"] if sets else None,
        first=min((s["first"] for s in sets), default=None),
        last=max((s["last"] + width_s * SECOND for s in sets), default=None),
        balance=_balance(store.parent),
        transitions=len(rows),
        episodes=episodes,
        files={what: _shown(store.parent / name) for what, name in names.items() if (store.parent / name).is_file()},
        command=f'sqlite3 -box {shlex.quote(_shown(store))} "{QUERY}"',
    )


def compose(store: Path, report: Report, most: int = CHARTS) -> Page:
    """What the page of the run shows: its episodes, worst first, then newest; the first `most` charts of them."""
    last = report.last if report.last is not None else max((e.since for e in report.episodes), default=0)
    groups = together(report.episodes, last)
    groups.sort(key=lambda group: min((-_severity(e), -e.since, e.episode_id) for e in group))
    width_s = row_width(store)
    detect = DetectConfig()
    charts = [chart(store, group, width_s, last, detect) for group in groups[:most]]
    overview = None
    if report.fullest is not None and report.first is not None and report.last is not None:
        overview = traffic(store, report.fullest, report.first, report.last)
    rest = [e for group in groups[most:] for e in group]
    return Page(report, store.parent.name or store.name, last, overview, charts, rest, _settings(store.parent))


def write_page(target: Path, page: Page) -> str | None:
    """Write the page, whole or not at all; returns the sentence that says why it could not be."""
    partial = target.with_name(f"{target.name}.tmp")
    try:
        partial.write_text(render_page(page), "utf-8")
        partial.replace(target)
    except OSError as e:
        return f"the page {_shown(target)} cannot be written: {e.strerror}; name another file with --html"
    return None


def _settings(folder: Path) -> list[tuple[str, str, str]] | None:
    """What was set for the run, as `flows.run` noted it; None where it did not."""
    try:
        said = orjson.loads((folder / STATUS_FILE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    settings = said.get("settings") if isinstance(said, dict) else None
    if not isinstance(settings, dict):
        return None
    return [(key, *map(str, v)) for key, v in settings.items() if isinstance(v, list) and len(v) == 2]


def _shown(path: Path) -> str:
    """The path from here where it lies below, else in full."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


class _Output(Console):
    """Standard output; a reader that goes away is an exception, as for everything else that prints."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m flows.report",
        description="What a run found: its traffic, one entry an episode, and where the rows are.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--run", type=Path, metavar="FOLDER", help=f"the run's folder; default: the newest in {RUNS}/")
    which.add_argument("--store", type=Path, metavar="FILE", help="the SQLite store itself")
    parser.add_argument(
        "--limit", type=int, default=20, metavar="N", help="most episodes to show, 0 for all; default: 20"
    )
    parser.add_argument("--sort", choices=("severity", "time"), default="severity", help="worst first, or newest first")
    page = parser.add_mutually_exclusive_group()
    page.add_argument(
        "--html", type=Path, metavar="FILE", help=f"where the page is written; default: {PAGE_FILE} beside the store"
    )
    page.add_argument("--no-html", action="store_true", help="write no page")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, with all episodes; no page unless --html is given"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code (78: there is no such store, or it is not one of ours)."""
    args = _parser().parse_args(argv)
    try:
        store = args.store if args.store is not None else find_store(args.run if args.run is not None else newest_run())
        report = gather(store, args.sort)
        target = args.html or (None if args.no_html or args.json else store.parent / PAGE_FILE)
        page = None if target is None else compose(store, report)
    except ConfigError as e:
        print(f"flows.report: {e}", file=sys.stderr)
        return 78
    failed = None
    if target is not None and page is not None:
        failed = write_page(target, page)
        report = report if failed else replace(report, page=_shown(target))
    try:
        if args.json:
            sys.stdout.buffer.write(orjson.dumps(asdict(report)) + b"\n")
        else:
            render(report, _Output(highlight=False), max(0, args.limit))
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as `head` does. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if failed:
        print(f"flows.report: {failed}", file=sys.stderr)
        return UNWRITABLE_EXIT_CODE
    return 0


if __name__ == "__main__":
    sys.exit(main())
