"""Plain series through the detectors: a row for each point, causal scores in 0..1, with any values and gaps."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from flows.backtest import __main__ as backtest
from flows.backtest import replay
from flows.backtest.series_input import Series, find, read, scores, told, write
from flows.settings.model import Settings
from operators.errors import ConfigError

BEGAN = datetime(2014, 4, 1, tzinfo=UTC)
SETTINGS: Settings = replay.settings_of(None, ["detect.warm_up_panes=20"], {}, Path("/")).settings


def lines(values: list[str], minutes: int = 5, drop: frozenset[int] = frozenset()) -> str:
    rows = [
        f"{BEGAN + timedelta(minutes=minutes * i):%Y-%m-%d %H:%M:%S},{value}"
        for i, value in enumerate(values)
        if i not in drop
    ]
    return "\n".join(["timestamp,value", *rows]) + "\n"


def step(n: int = 400, at: int = 300, level: float = 40.0, seed: int = 1) -> list[str]:
    noise = np.random.default_rng(seed).normal(0, 1, n)
    return [f"{v:.6f}" for v in noise + np.where(np.arange(n) >= at, level, 0.0) - 5.0]


def series(folder: Path, text: str) -> Series:
    (folder / "s.csv").write_text(text)
    return read(folder / "s.csv")


def test_a_point_is_a_pane_of_the_files_own_interval(tmp_path: Path) -> None:
    s = series(tmp_path, lines(step(40), drop=frozenset({20, 21})))
    assert s.interval_s == 300
    assert set(np.diff(s.panes()).tolist()) == {1, 3}
    assert series(tmp_path, lines(step(40), minutes=60)).interval_s == 3_600


def test_points_that_go_back_in_time_still_have_panes_of_their_own(tmp_path: Path) -> None:
    rows = lines(step(40)).splitlines()
    s = series(tmp_path, "\n".join([*rows[:30], *rows[25:30], *rows[30:]]) + "\n")
    assert (np.diff(s.panes()) >= 1).all()
    assert len(scores(s, SETTINGS)) == 45


def test_a_step_scores_above_the_boundary_and_earlier_points_below(tmp_path: Path) -> None:
    found = scores(series(tmp_path, lines(step())), SETTINGS)
    assert found.shape == (400,) and (found >= 0).all() and (found <= 1).all()
    assert (found[:300] >= 0.5).sum() <= 3  # one in a hundred, by chance
    assert found[300:303].max() > max(0.8, found[:300].max())


@pytest.mark.parametrize("level", [-4_000.0, 3e-7, 2e12])
def test_values_of_any_size_and_sign_are_judged(level: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0, abs(level) / 100, 400)
    values = [f"{v:.6e}" for v in noise + level + np.where(np.arange(400) >= 300, level, 0.0)]
    found = scores(series(tmp_path, lines(values)), SETTINGS)
    assert (found[:300] >= 0.5).sum() <= 3  # one in a hundred, by chance
    assert found[300:303].max() > max(0.8, found[:300].max())


@pytest.mark.parametrize("cut", [10, 150, 302, 350])
def test_a_score_depends_only_on_its_point_and_earlier_ones(cut: int, tmp_path: Path) -> None:
    values = step()
    whole = scores(series(tmp_path, lines(values)), SETTINGS)
    part = scores(series(tmp_path, lines(values[:cut])), SETTINGS)
    other = scores(series(tmp_path, lines([*values[:cut], *(str(1e6 * i) for i in range(50))])), SETTINGS)
    assert part.tolist() == whole[:cut].tolist() == other[:cut].tolist()


def test_an_anomaly_is_told_once() -> None:
    found = np.zeros(2_000)
    found[100:180] = 0.6  # longer than the quiet time, so that it is told twice
    found[190], found[195], found[200] = 0.9, 0.99, 0.99  # much higher levels, although scores crowd towards 1
    found[1_500], found[1_550], found[1_600] = 0.6, 0.6, 0.6  # 6 % of the points so far are at least 90 points
    once = told(found)
    assert {i: once[i] for i in np.flatnonzero(once).tolist()} == {
        100: 0.6, 151: 0.6, 190: 0.9, 195: 0.99, 1_500: 0.6, 1_600: 0.6,
    }  # fmt: skip
    assert told(found[:160]).tolist() == once[:160].tolist()


def test_missing_values_score_nothing_and_change_nothing_before(tmp_path: Path) -> None:
    values = step()
    holes = [v if i not in (50, 301, 350) else ("", "nan", "inf")[i % 3] for i, v in enumerate(values)]
    found = scores(series(tmp_path, lines(holes)), SETTINGS)
    assert found[[50, 301, 350]].tolist() == [0, 0, 0]
    assert found[302:305].max() > 0.5


def test_empty_and_constant_series_are_no_error(tmp_path: Path) -> None:
    assert len(scores(series(tmp_path, "timestamp,value\n"), SETTINGS)) == 0
    assert (scores(series(tmp_path, lines(["7"] * 200)), SETTINGS) < 0.5).all()


def test_scores_have_a_row_for_each_point_as_read(tmp_path: Path) -> None:
    s = series(tmp_path, lines(["1.50", "", "3"]))
    write(tmp_path / "a" / "b.csv", s, [0.0, 0.25, 1 / 3])
    rows = list(csv.reader((tmp_path / "a" / "b.csv").read_text().splitlines()))
    assert rows[0] == ["timestamp", "value", "anomaly_score"]
    assert rows[1] == ["2014-04-01 00:00:00", "1.50", "0"]
    assert [r[1:] for r in rows[2:]] == [["", "0.25"], ["3", "0.333333333"]]


@pytest.mark.parametrize(
    "at", ["1396310400", "2014-04-01T00:00:00Z", "2014-04-01T02:00:00+02:00", "2014-04-01 00:00:00"]
)
def test_times_are_read_in_the_usual_forms(at: str, tmp_path: Path) -> None:
    s = series(tmp_path, f"id,value,timestamp\n7,1.5,{at}\n\n")
    assert s.time.tolist() == [int(BEGAN.timestamp()) * 1_000_000]
    assert s.value.tolist() == [1.5] and s.interval_s == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("time,value\n", "no columns"),
        ("", "no columns"),
        ("timestamp,value\n2014-04-01 00:00:00,1\nsoon,2\n", "line 3"),
        ("timestamp,value\n2014-04-01 00:00:00,much\n", "line 2"),
        ("timestamp,value\n2014-04-01 00:00:00\n", "line 2"),
    ],
)
def test_foreign_files_are_refused_in_one_sentence(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        series(tmp_path, text)


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(lines(step(300)).encode())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="damaged"):
        read(tmp_path / "cut.csv.gz")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="no timestamp and value"):
        read(tmp_path / "binary.csv")
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none.csv")


def test_a_folder_is_searched_and_the_corpus_form_is_known(tmp_path: Path) -> None:
    for name in ("data/a/x.csv", "data/b/y.csv.gz", "labels/z.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(map(str, find(tmp_path))) == ["a/x.csv", "b/y.csv"]
    assert sorted(map(str, find(tmp_path / "data" / "b"))) == ["y.csv"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no series"):
        find(tmp_path / "empty")


def test_the_command_writes_scores_that_the_benchmarks_scorer_reads(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus = shared / "data" / "nab"
    windows = json.loads((corpus / "labels" / "combined_windows.json").read_text())
    name = next(n for n in sorted(windows) if n.startswith("realAdExchange"))
    (tmp_path / "files.json").write_text(json.dumps({name: windows[name]}))
    folder = corpus / "data" / "realAdExchange"
    assert backtest.main(["--series", str(folder), "--scores", "out/realAdExchange", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)["series"]
    assert len(said) == len(list(folder.iterdir()))
    command = [sys.executable, str(shared / "tools" / "nab_score.py"), "--nab", str(corpus), "--results", "out"]
    result = subprocess.run([*command, "--files", "files.json", "--json"], capture_output=True, check=True)
    assert set(json.loads(result.stdout)) == {"standard", "reward_low_FP_rate", "reward_low_FN_rate"}
    one = next(folder.iterdir())
    assert backtest.main(["--series", str(one), "--scores", "one.csv"]) == 0
    assert "points every" in capfd.readouterr().out
    of_folder = tmp_path / "out" / "realAdExchange" / one.name.removesuffix(".gz")
    assert (tmp_path / "one.csv").read_bytes() == of_folder.read_bytes()


def test_scores_that_cannot_be_written_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("s.csv").write_text(lines(step(30)))
    Path("file").touch()
    assert backtest.main(["--series", "s.csv", "--scores", "file/s.csv"]) == 78
    assert "cannot be written" in capfd.readouterr().err
