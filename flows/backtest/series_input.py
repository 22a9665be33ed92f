"""Plain series, one value a point, through the metric detectors, to measure them on public benchmarks.

A point is a pane of the series' own interval that holds one observation. The floors that fit LLM traffic (least
deviations, least numbers of requests) are therefore off, and the settings in event time for panes of `time.pane_s`
(horizons, half life, quiet before an episode resolves) keep their number of panes. Everything else is the code of a
shard. A score depends only on its point and the points before it.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from flows.settings.model import Settings
from operators.config import MetricConfig
from operators.decode.times import BadTime, parse_time
from operators.detect.context.mix import Parts
from operators.detect.engine.monitor import ShardMonitor
from operators.detect.engine.row_values import RowValues
from operators.errors import ConfigError
from operators.incidents.findings import Finding
from operators.kernels.detect import SCORE, Floats
from operators.metrics import METRICS
from operators.model import SECOND, Ints
from operators.panes.fold import EMPTY
from operators.panes.table import Closed, PaneTable

METRIC: Final = "quality"
"""The metric that plain values stand for, because it is judged by its value and not by its logarithm."""
OUTPUT: Final = ("timestamp", "value", "anomaly_score")
_SERIES: Final = "service=series"
_FIRST: Final = 16
"""Number of first points that give the interval; later points must not change earlier scores."""
_NEVER: Final = 10**9
"""The expiry of a series in seconds, some 30 years, so that a plain series is not forgotten in its gaps."""
_LEAST: Final = 1e-9
_QUIET: Final = 50
_QUIET_SHARE: Final = 0.06
_AS_HIGH: Final = 0.65
_SUFFIXES: Final = (".csv", ".csv.gz")


@dataclass(frozen=True, slots=True)
class Series:
    """A series from a file: `timestamps` and `texts` as in the file, times in microseconds, nan for missing values."""

    timestamps: list[str]
    texts: list[str]
    time: Ints
    value: Floats

    @property
    def interval_s(self) -> int:
        """The median step between the first points, in whole seconds, at least one."""
        steps = np.diff(self.time[:_FIRST])
        steps = np.sort(steps[steps > 0])
        return max(1, round(int(steps[len(steps) // 2]) / SECOND)) if len(steps) else 1

    def panes(self) -> Ints:
        """[n] the pane of each point: that of its time, or the one after the previous point's pane if that is later."""
        offset = np.arange(len(self.time))
        return np.maximum.accumulate(self.time // (self.interval_s * SECOND) - offset) + offset


def find(path: Path) -> dict[Path, Path]:
    """The files of series, by the path of their scores below the output folder.

    A folder is searched recursively; of a folder in the form of the NAB corpus only `data`. Raises `ConfigError` where
    there is nothing.
    """
    if path.is_file():
        return {_plain_name(Path(path.name)): path}
    if not path.exists():
        raise ConfigError(f"there is no file or folder of series {path}")
    if (path / "data").is_dir() and (path / "labels").is_dir():
        path /= "data"
    files = sorted(p for p in path.rglob("*") if p.name.endswith(_SUFFIXES) and p.is_file())
    if not files:
        raise ConfigError(f"the folder {path} holds no series: give one with .csv or .csv.gz files")
    return {_plain_name(p.relative_to(path)): p for p in files}


def _plain_name(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz"))


def read(path: Path) -> Series:
    """The series of a file with the columns `timestamp` and `value`; times without an offset are UTC.

    Raises `ConfigError` that names the bad line.
    """
    timestamps, texts, times, values = [], [], [], []
    line = 1
    try:
        rows = _rows(path)
        header = [name.strip() for name in next(rows, [])]
        if "timestamp" not in header or "value" not in header:
            raise ConfigError(f"the file of a series {path} has no columns timestamp and value in its first line")
        at, of = header.index("timestamp"), header.index("value")
        for line, row in enumerate(rows, 2):  # noqa: B007 - for the error below
            if not row:
                continue
            timestamps.append(row[at])
            texts.append(row[of])
            times.append(_time(row[at]))
            values.append(float(row[of]) if row[of].strip() else math.nan)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(
            f"the file of a series {path} cannot be read: {getattr(error, 'strerror', None) or 'it is damaged'}"
        ) from None
    except (ValueError, IndexError, csv.Error) as error:
        raise ConfigError(f"the file of a series {path}: line {line} is no timestamp and value ({error})") from None
    value = np.array(values, np.float64)
    return Series(timestamps, texts, np.array(times, np.int64), np.where(np.isfinite(value), value, np.nan))


def _rows(path: Path) -> Iterator[list[str]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
    with (
        gzip.open(path, "rt", encoding="utf-8-sig", newline="")
        if packed
        else path.open(encoding="utf-8-sig", newline="") as file
    ):
        yield from csv.reader(file)


def _time(text: str) -> int:
    try:
        return parse_time(text.strip())
    except BadTime:
        found = datetime.fromisoformat(text.strip())
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * SECOND)


class Plain(ShardMonitor):
    """The monitor of a shard with one series of plain values; keeps the score of each pane."""

    def __init__(self, settings: Settings, interval_s: int) -> None:
        times = interval_s / settings.time.pane_s
        detect = settings.detect
        metrics = {m.name: detect.metrics[m.name].model_copy(update={"watch": False}) for m in METRICS}
        metrics[METRIC] = detect.metrics[METRIC].model_copy(update=_AS_IT_IS)
        # Copies are not validated: intervals and horizons may lie beyond what makes sense for live traffic.
        super().__init__(
            detect.model_copy(
                update={
                    "metrics": metrics,
                    "horizons_s": tuple(round(h * times) for h in detect.horizons_s),
                    "half_life_s": detect.half_life_s * times,
                    # This cell may raise all false alarms of the series, but the boundary shares them among three.
                    "false_alarms_per_series_day": 3 * detect.false_alarms_per_series_day,
                    "limits": (),
                    "overrides": (),
                    "mix_by": "",
                }
            ),
            settings.episodes.model_copy(update={"resolve_s": round(settings.episodes.resolve_s * times)}),
            settings.time.model_copy(update={"pane_s": interval_s}),
            _NEVER,
        )
        self._values: Floats = np.zeros(0)
        self._scores: list[float] = []

    def judge(self, panes: Ints, values: Floats) -> Floats:
        """[n] the score of each point, in 0..1; `panes` must ascend, values be finite."""
        self._scores = []
        breaks = np.flatnonzero(np.diff(panes) > 1) + 1
        for part in np.split(np.arange(len(panes)), breaks):  # each run without gaps at once
            if len(part):
                self._values = values[part]
                n = len(part)
                rows = np.zeros((n, EMPTY.count.shape[1]), np.int64)
                table = replace(
                    EMPTY, series=[_SERIES], row_series=np.zeros(n, np.int32), pane=panes[part],
                    requests=np.ones(n, np.int64), errors=np.zeros(n, np.int64),
                    count=rows, total=rows, least=rows, most=rows,
                )  # fmt: skip
                low, high = int(panes[part[0]]), int(panes[part[-1]]) + 1
                self.take(Closed(low, high, high, table))
        scored: Floats = np.clip(np.array(self._scores), 0.0, 1.0)
        return scored

    def _row_values(self, table: PaneTable) -> RowValues:
        """One observation a row: the plain value instead of the values of a sketch."""
        n, values = len(table.pane), self._values
        stats = np.zeros((n, self.watch.columns))
        stats[:, 0] = stats[:, 2] = 1.0
        stats[:, 3] = values
        column = values[:, np.newaxis]
        return RowValues(stats, np.square(column), column, np.arange(n + 1), values, np.ones(n, np.int64))

    def _step(
        self, table: PaneTable, first: int, pane: int, slots: Ints, rows: RowValues, parts: Parts | None
    ) -> list[Finding]:
        found = super()._step(table, first, pane, slots, rows, parts)
        self._scores.append(float(self._best[0, 0, SCORE]))
        return found


_AS_IT_IS: Final = MetricConfig(watch=True, direction="both", in_logs=False, min_change=_LEAST, min_count=1).model_dump(
    exclude_unset=True
)


def told(found: Floats) -> Floats:
    """[n] the scores, with each anomaly told once: a score is 0 if one nearly as high was told shortly before.

    So an anomaly counts once, as an episode raises one alert and not one for each pane. Shortly before: within the
    last 50 points, or 6 % of the points so far if that is more. Nearly as high: 0.65 of the level `s / (1 - s)`, since
    scores crowd towards 1.
    """
    out = np.zeros(len(found))
    recent: list[tuple[int, float]] = []  # (point, level) of the told scores
    for i, score in enumerate(found.tolist()):
        oldest = i - max(_QUIET, int(_QUIET_SHARE * i))
        recent = [r for r in recent if r[0] >= oldest]
        level = score / max(1.0 - score, _LEAST)
        if level > 0.0 and all(before < _AS_HIGH * level for _, before in recent):
            out[i] = score
            recent.append((i, level))
    return out


def scores(series: Series, settings: Settings) -> Floats:
    """[n] the score of each single point, in 0..1 with the boundary at 0.5; 0 if the value is missing."""
    known = np.flatnonzero(~np.isnan(series.value))
    out = np.zeros(len(series.value))
    # Differences from the first value, so that series far from zero lose no digits.
    values = series.value[known] - (series.value[known[0]] if len(known) else 0.0)
    out[known] = Plain(settings, series.interval_s).judge(series.panes()[known], values)
    return out


def write(path: Path, series: Series, found: Sequence[float] | Floats) -> None:
    """Write `timestamp,value,anomaly_score`, a row for each point, with the text as read; makes the folder."""
    partial = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as file:
            out = csv.writer(file, lineterminator="\n")
            out.writerow(OUTPUT)
            out.writerows((t, v, f"{s:.9g}") for t, v, s in zip(series.timestamps, series.texts, found, strict=True))
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"the scores {path} cannot be written: {error.strerror}") from None


def target(out: Path, name: Path, *, alone: bool) -> Path:
    """The file for the scores of a series: below `out`; for a single series `out` itself, unless that is a folder."""
    return out if alone and not out.is_dir() else out / name
