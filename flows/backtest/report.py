"""The folder of a backtest's report: the store, the alerts, the changed settings, and the page with the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson

from connectors.sqlite import read
from flows.backtest.replay import Replayed, write_whole
from flows.backtest.scoring import Incident, Outcome, Score
from flows.backtest.view import NAMES, shown
from flows.folder import ALERTS_FILE, BALANCE_FILE, STATUS_FILE, STORE_FILE
from flows.report.markup import PAGE_FILE, write_page
from flows.report.model import Episode
from flows.report.page import compose
from flows.report.read import gather
from flows.report.values import Chart, Label, chart, row_width
from flows.run import changed
from flows.settings.model import Loaded
from operators import series as names
from operators.errors import ConfigError
from operators.metrics import MEASURES
from operators.model import SECOND

MISSED: Final = 50
"""The most missed incidents that get a chart."""
_SAID: Final = ("recall", "recall_exact", "precision", "f1", "false_per_series_day", "median_delay_abrupt_s")
_OURS: Final = {of.in_labels: of.name for of in reversed(MEASURES.values())}
"""The name of a metric in labels, to its name in series; if several have one name in labels, the first."""


def new_folder(path: Path) -> Path:
    """Make the folder. Raises `ConfigError` where it cannot be made, or already holds the store of a run."""
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--report: the folder {path} cannot be made: {error.strerror}") from None
    if (path / STORE_FILE).exists():
        raise ConfigError(f"--report: the folder {path} holds the store of a run already: name another one")
    return path


def remove_store(folder: Path) -> None:
    """Remove the store that this backtest made, because it did not come to its end."""
    for path in folder.glob(f"{STORE_FILE}*"):
        path.unlink(missing_ok=True)


def write(folder: Path, loaded: Loaded, result: Replayed, score: Score | None) -> None:
    """Write the files beside the store, then the page. Raises `ConfigError` where a file cannot be written."""
    write_whole(folder / ALERTS_FILE, result.alerts)
    status = {"status": "finished", "settings": changed(loaded)}
    write_whole(folder / STATUS_FILE, [orjson.dumps(status, option=orjson.OPT_INDENT_2)])
    write_whole(folder / BALANCE_FILE, [orjson.dumps(asdict(result.balance))])
    store = folder / STORE_FILE
    page = compose(store, gather(store))
    if score is not None:
        series = _series(store)
        missed = [o.incident for o in score.outcomes if not o.found]
        charts = (_missed(store, i, _of(i, series), page.last, loaded) for i in missed[:MISSED])
        page = replace(
            page,
            facts=[(NAMES[name], shown(name, score.figures[name])) for name in _SAID],
            labels=[_label(o, _of(o.incident, series)) for o in score.outcomes],
            charts=[*(c for c in charts if c is not None), *page.charts],
        )
    if failed := write_page(folder / PAGE_FILE, page):
        raise ConfigError(failed)


def _series(store: Path) -> dict[str, dict[str, str]]:
    """The dimensions of every stored series, by the text of the series."""
    rows: list[dict[str, Any]] = read(store, "SELECT DISTINCT series FROM llm_panes ORDER BY series")
    return {row["series"]: names.parse(row["series"]) for row in rows}


def _of(incident: Incident, series: dict[str, dict[str, str]]) -> list[str]:
    """The series that hold the incident's whole entity."""
    return [s for s, found in series.items() if all(found.get(k) == v for k, v in incident.entity.items())]


def _where(incident: Incident) -> str:
    return " ".join(f"{k}={v}" for k, v in incident.entity.items())


def _label(outcome: Outcome, series: Sequence[str]) -> Label:
    incident = outcome.incident
    said = "missed" if outcome.delay_s is None else f"found after {outcome.delay_s:,.0f} s"
    text = f"{incident.id}, {incident.kind} of {_where(incident)}: {said}"
    return Label(since=incident.start, until=incident.end, text=text, series=frozenset(series))


def _missed(store: Path, incident: Incident, series: Sequence[str], last: int, loaded: Loaded) -> Chart | None:
    """The chart of a missed incident, on the one of its series with the most requests; None if none is stored."""
    if not series:
        return None
    marks = ",".join("?" * len(series))
    rows: list[dict[str, Any]] = read(
        store,
        "SELECT dimension_set, series FROM llm_panes WHERE width_s = ? AND pane_start >= ? AND pane_start < ? "  # noqa: S608 - only marks
        f"AND series IN ({marks}) GROUP BY dimension_set, series ORDER BY SUM(requests) DESC, series LIMIT 1",
        (row_width(store), incident.start - 7_200 * SECOND, incident.end, *series),
    )
    if not rows:
        return None
    metric = _OURS.get(incident.metric, incident.metric)
    unit = MEASURES[metric].unit if metric in MEASURES else "1"
    text = f"{incident.id}: a known incident, {incident.kind} of {_where(incident)}, that no episode shows."
    stands_for = Episode(
        episode_id=f"missed-{incident.id}", group_id="", severity="missed", kind=incident.kind, metric=metric,
        unit=unit, dimension_set=rows[0]["dimension_set"], series=rows[0]["series"],
        dimensions=names.parse(rows[0]["series"]), status="resolved", since=incident.start, until=incident.end,
        at=incident.start, observed=None, expected=None, score=None, transitions=0, steps=[], detectors=[],
        evidence=[], contributors=[], text=text,
    )  # fmt: skip
    found = chart(store, [stands_for], row_width(store), last, loaded.settings.detect)
    if found.curve is not None:
        during = [
            v
            for t, v in zip(found.curve.time, found.curve.value, strict=True)
            if v is not None and incident.start <= t < incident.end
        ]
        usual = found.curve.usual
        observed, expected = median(during) if during else None, None if usual is None else usual.middle
        found.episodes = [replace(stands_for, observed=observed, expected=expected)]
    return found
