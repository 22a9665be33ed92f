"""Plain series, one value a point, through the metric detectors: how they fare on public benchmarks.

A point is a pane of the series' own interval that holds one observation: there is nothing to add up, so the floors that
fit LLM traffic (least deviations, least numbers of requests) are off, and what is set in event time for panes of
`time.pane_s` (horizons, half life, quiet before an episode resolves) keeps its number of panes. Everything else is the
code of a shard. A score depends on the points before it and on its own alone.
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
"""The metric that a plain value takes the place of: it is judged as it is, not by its logarithm."""
OUTPUT: Final = ("timestamp", "value", "anomaly_score")
_SERIES: Final = "service=series"
_FIRST: Final = 16
"""Points that tell the interval: later ones must not change what was said before them."""
_NEVER: Final = 10**9
"""Seconds, some 30 years: a plain series is not forgotten in its gaps."""
_LEAST: Final = 1e-9
_QUIET: Final = 50
_QUIET_SHARE: Final = 0.06
_AS_HIGH: Final = 0.65
_SUFFIXES: Final = (".csv", ".csv.gz")


@dataclass(frozen=True, slots=True)
class Series:
    """A series as its file has it: timestamps and values as text; times in microseconds, nan for missing values."""

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
        """[n] the pane of each point: that of its time, and one after the point before it at least."""
        offset = np.arange(len(self.time))
        return np.maximum.accumulate(self.time // (self.interval_s * SECOND) - offset) + offset


def find(path: Path) -> dict[Path, Path]:
    """The files of series there are, by the path that their scores are written to below a folder.

    A folder is searched through; of a folder in the form of the NAB corpus only `data` is. ConfigError where there is
    nothing.
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
    """The series of a file with the columns `timestamp` and `value`; ConfigError names the line that is none.

    Times without an offset are UTC.
    """
    timestamps, texts, times, values = [], [], [], []
    line = 1
    try:
        rows = _rows(path)
        header = [name.strip() for name in next(rows, [])]
        if "timestamp" not in header or "value" not in header:
            raise ConfigError(f"the file of a series {path} has no columns timestamp and value in its first line")
        at, of = header.index("timestamp"), header.index("value")
        for line, row in enumerate(rows, 2):  # noqa: B007 - for what is said below
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
    """The monitor of a shard with one series, whose values come as they are; keeps the score of each pane."""

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
                    # All that a series may raise by chance is this one cell's; the boundary is counted for three.
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
        """[n] the score of each point, in 0..1; `panes` ascend, values are finite."""
        self._scores = []
        breaks = np.flatnonzero(np.diff(panes) > 1) + 1
        for part in np.split(np.arange(len(panes)), breaks):  # whole runs at once; gaps are passed over
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
        """One observation a row: the value itself, not that of a sketch."""
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
    """[n] the scores, each anomaly told once: 0 where one nearly as high was told not long before.

    As an episode raises one alert, not one for each of its panes. Not long before is the last 50 points, or 6 % of the
    points so far where that is more; nearly as high is 0.65 of the level, `s / (1 - s)`: scores crowd towards 1.
    """
    out = np.zeros(len(found))
    recent: list[tuple[int, float]] = []  # (point, level) of what was told
    for i, score in enumerate(found.tolist()):
        oldest = i - max(_QUIET, int(_QUIET_SHARE * i))
        recent = [r for r in recent if r[0] >= oldest]
        level = score / max(1.0 - score, _LEAST)
        if level > 0.0 and all(before < _AS_HIGH * level for _, before in recent):
            out[i] = score
            recent.append((i, level))
    return out


def scores(series: Series, settings: Settings) -> Floats:
    """[n] the score of each point by itself, in 0..1 with the boundary at 0.5; 0 where a value is missing."""
    known = np.flatnonzero(~np.isnan(series.value))
    out = np.zeros(len(series.value))
    # Differences from the first value: series that lie far from zero lose no digits.
    values = series.value[known] - (series.value[known[0]] if len(known) else 0.0)
    out[known] = Plain(settings, series.interval_s).judge(series.panes()[known], values)
    return out


def write(path: Path, series: Series, found: Sequence[float] | Floats) -> None:
    """Write `timestamp,value,anomaly_score`, a row a point, text as it was read; makes the folder."""
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
    """Where the scores of a series go: below `out`; of a single file to `out` itself, unless that is a folder."""
    return out if alone and not out.is_dir() else out / name
