"""Reads a report from the folder of a run: from the SQLite store, and from the files that the flow left beside it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

import orjson

from connectors.sqlite import APPLICATION, SCHEMA, read
from flows.folder import ALERTS_FILE, BALANCE_FILE, DEAD_LETTERS_FILE, STATUS_FILE
from flows.report.model import Episode, Report, Transition, rank
from flows.report.values import row_width
from operators.errors import ConfigError
from operators.model import SECOND

RUNS: Final = Path("runs")
"""The folder in which runs are looked for if none is named."""
QUERY: Final = (
    "SELECT at, severity, kind, metric, series, observed, expected FROM llm_alerts_readable "
    "WHERE status = 'firing' ORDER BY at"
)
_SUFFIXES: Final = (".db", ".sqlite", ".sqlite3")


def find_store(run: Path) -> Path:
    """The SQLite store in a run's folder. Raises `ConfigError` where there is none, or several."""
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


def gather(store: Path, sort: str = "severity") -> Report:
    """Read the store; `sort` is `severity` (worst first, then newest) or `time` (newest first).

    Raises `ConfigError` where the file is missing, empty or another program's.
    """
    _check(store)
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
        episodes.sort(key=lambda e: rank(e.severity))
    names = {"store": store.name, "alerts": ALERTS_FILE, "dead letters": DEAD_LETTERS_FILE, "run": STATUS_FILE}
    return Report(
        store=short_path(store),
        # A dimension set counts each event that has values for it once: the fullest set counts them all.
        events=max((int(s["events"]) for s in sets), default=0),
        series={s["dimension_set"]: s["series"] for s in sets},
        fullest=max(sets, key=lambda s: int(s["events"]))["dimension_set"] if sets else None,
        first=min((s["first"] for s in sets), default=None),
        last=max((s["last"] + width_s * SECOND for s in sets), default=None),
        balance=_balance(store.parent),
        transitions=len(rows),
        episodes=episodes,
        files={
            what: short_path(store.parent / name) for what, name in names.items() if (store.parent / name).is_file()
        },
        command=f'sqlite3 -box {shlex.quote(short_path(store))} "{QUERY}"',
    )


def changed_settings(folder: Path) -> list[tuple[str, str, str]] | None:
    """The changed settings of the run (key, value, origin), as `flows.run` noted them; None if it did not."""
    settings = _told(folder / STATUS_FILE).get("settings")
    if not isinstance(settings, dict):
        return None
    return [(key, *map(str, v)) for key, v in settings.items() if isinstance(v, list) and len(v) == 2]


def short_path(path: Path) -> str:
    """The path relative to the working directory if it lies below it, else the absolute path."""
    whole = path.absolute()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)


def _check(store: Path) -> None:
    """Raises `ConfigError` where the file is not one of our stores."""
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
    """The episode of these transitions, which must be in the order of their sequence."""
    first, last = rows[0], rows[-1]
    worst = max(rows, key=lambda r: (r["score"] if r["score"] is not None else -1.0, -r["sequence"]))
    severity = min((r["severity"] for r in rows), key=rank)
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


def _balance(folder: Path) -> dict[str, int]:
    """The numbers of events that are in no pane, as the flow wrote them at its end (`operators.decode.intake.Balance`).

    If the flow was killed before its end, dead letters are counted in their file; empty if there is neither.
    """
    told = _told(folder / BALANCE_FILE)
    balance = {name: told[name] for name in ("late", "duplicate", "skipped") if isinstance(told.get(name), int)}
    if isinstance(told.get("dead"), dict):
        balance["dead letters"] = sum(n for n in told["dead"].values() if isinstance(n, int))
    elif (letters := folder / "dead_letters.jsonl").is_file():
        with letters.open("rb") as lines:
            balance["dead letters"] = sum(1 for _ in lines)
    return balance


def _told(file: Path) -> dict[str, Any]:
    """The JSON object in the file; empty if it cannot be read."""
    try:
        found = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}
