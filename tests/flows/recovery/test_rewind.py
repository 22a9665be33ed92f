"""Snapshots of an unfinished epoch are removed before the store is opened; all others stay."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from bytewax.recovery import init_db_dir

from flows.recovery.rewind import Share, forget_unfinished, resumed_from, shares
from operators.errors import ConfigError


def store(
    folder: Path, partitions: int, executions: list[tuple[int, int, int]], fronts: list[tuple[int, int, int]]
) -> None:
    """Make a store with a snapshot of each key in each of the epochs 1 to 9, its rows spread over the partitions."""
    folder.mkdir(exist_ok=True)
    init_db_dir(folder, partitions)  # type: ignore[no-untyped-call]
    for number in range(partitions):
        with closing(sqlite3.connect(folder / f"part-{number}.sqlite3")) as db, db:
            db.executemany(
                "INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (?, ?, ?)", executions[number::partitions]
            )
            db.executemany(
                "INSERT INTO fronts (ex_num, worker_index, worker_frontier) VALUES (?, ?, ?)",
                fronts[number::partitions],
            )
            db.executemany(
                "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES ('step', ?, ?, x'4b012e')",
                [(f"key-{number}", epoch) for epoch in range(1, 10)],
            )


def split(folder: Path, processes: int) -> list[Path]:
    """Give each process a folder of its own with its share of the partitions."""
    folders = [folder / str(process) for process in range(processes)]
    for number, file in enumerate(sorted(folder.glob("part-*.sqlite3"))):
        folders[number % processes].mkdir(exist_ok=True)
        file.rename(folders[number % processes] / file.name)
    return folders


def epochs(folder: Path) -> list[list[int]]:
    """The epochs of the remaining snapshots, by partition."""
    out = []
    for file in sorted(folder.glob("part-*.sqlite3")):
        with closing(sqlite3.connect(file)) as db:
            out.append([epoch for (epoch,) in db.execute("SELECT snap_epoch FROM snaps ORDER BY snap_epoch")])
    return out


@pytest.mark.parametrize(
    ("executions", "fronts", "resumed_from"),
    [
        ([(0, 1, 1)], [], 1),  # died in its first epoch
        ([(0, 1, 1)], [(0, 0, 8)], 8),
        ([(0, 1, 1), (1, 1, 5)], [(0, 0, 5)], 5),  # the second run died in its first epoch
        ([(0, 1, 1), (1, 1, 5)], [(0, 0, 5), (1, 0, 7)], 7),
        ([(0, 2, 1)], [(0, 0, 8), (0, 1, 7)], 7),  # the slower of two workers
        ([(0, 2, 1)], [(0, 0, 2)], 1),  # one of two workers has no progress yet
        ([(0, 2, 1), (1, 1, 6)], [(0, 0, 6), (0, 1, 6), (1, 0, 9)], 9),  # fewer workers than before
    ],
)
@pytest.mark.parametrize("partitions", [1, 2])
def test_only_finished_epochs_stay(
    tmp_path: Path,
    executions: list[tuple[int, int, int]],
    fronts: list[tuple[int, int, int]],
    resumed_from: int,
    partitions: int,
) -> None:
    store(tmp_path, partitions, executions, fronts)
    kept = list(range(1, resumed_from))
    assert forget_unfinished(tmp_path) == partitions * (9 - len(kept))
    assert epochs(tmp_path) == [kept] * partitions
    assert forget_unfinished(tmp_path) == 0


def test_a_new_store_is_left_alone(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    assert forget_unfinished(tmp_path) == 0


def test_part_of_a_store_tells_no_epoch(tmp_path: Path) -> None:
    store(tmp_path, 2, [(0, 2, 1)], [(0, 0, 3), (0, 1, 3)])
    (tmp_path / "part-1.sqlite3").unlink()
    with pytest.raises(ConfigError, match=r"each once; they hold 0 of 2 \(counted from 0\)"):
        forget_unfinished(tmp_path)
    assert epochs(tmp_path) == [list(range(1, 10))]


def test_the_fronts_of_a_run_whose_begin_is_not_known_hide_none(tmp_path: Path) -> None:
    """The start of run 2 belongs in another partition and was not stored before the crash, so run 1 counts."""
    store(tmp_path, 1, [(0, 1, 1), (1, 1, 4)], [(0, 0, 4), (1, 0, 7), (2, 0, 9)])
    assert resumed_from(shares(tmp_path)) == 7


@pytest.mark.parametrize(
    "told",
    [
        [Share(0, 2, (), ()), Share(0, 2, (), ())],  # two processes on copies of one volume
        [Share(0, 2, (), ()), Share(1, 3, (), ())],  # partitions of two stores
        [Share(0, 3, (), ()), Share(2, 3, (), ())],
        [Share(0, 1, (), ()), Share(1, 1, (), ())],
    ],
)
def test_partitions_that_are_not_one_store_are_refused(told: list[Share]) -> None:
    with pytest.raises(ConfigError, match="must hold all partitions of one store, each once"):
        resumed_from(told)


def test_a_partition_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "part-0.sqlite3").write_text("no database" * 100)
    with pytest.raises(ConfigError, match=r"part-0\.sqlite3 cannot be read .*restore it, or give -r a new folder"):
        forget_unfinished(tmp_path)
