"""kill -9 before every change of a file: the move of recovery partitions, and the making of a recovery store."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from flows.recovery.rescale import rescale
from flows.recovery.rewind import forget_unfinished
from flows.recovery.store import PAGE_BYTES, own_parts, part_name
from operators.errors import ConfigError
from tests.chaos.moments import alone, killed, moments
from tests.flows.recovery.test_store import Layout, parts, take

PARTITIONS = 3
LAST = 7
"""The epoch in which the flow died; the snapshots that it stored in that epoch must be forgotten."""


def live(file: Path, epoch: int) -> None:
    """Write the rows of a flow that is killed in this epoch; some of them are in the write-ahead log alone."""
    if (pid := os.fork()) == 0:
        with closing(sqlite3.connect(file)) as db:
            with db:
                rows = [(f"key-{file.stem}", number) for number in (epoch - 1, epoch)]
                db.executemany("INSERT INTO snaps VALUES ('', 'step', ?, ?, zeroblob(9000))", rows)
                if file.name == part_name(0):
                    db.execute("INSERT INTO exs (ex_num, worker_count, resume_epoch) VALUES (?, 1, ?)", (epoch, epoch))
            os._exit(0)
    os.waitpid(pid, 0)


class Volumes:
    """The volumes of pods; the first `before` of them hold the store of a killed flow."""

    def __init__(self, folder: Path, count: int, before: int) -> None:
        self.folders = [folder / "volumes" / str(number) for number in range(count)]
        self._folder = folder
        for number, volume in enumerate(self.folders):
            volume.mkdir(parents=True)
            if number < before:
                take(volume, number, before, "own", partitions=PARTITIONS).release()
        self._live(LAST)

    def _live(self, epoch: int) -> None:
        for volume in self.folders:
            for file in sorted(volume.glob("part-*.sqlite3")):
                live(file, epoch)

    def keep(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        shutil.copytree(self._folder / "volumes", self._folder / name)

    def restore(self, name: str) -> None:
        shutil.rmtree(self._folder / "volumes")
        shutil.copytree(self._folder / name, self._folder / "volumes")

    def start(self, pods: int) -> bool:
        """Start this many pods; if all can start, they run for an epoch and are killed. Returns whether all could."""
        with ExitStack() as stack:
            for number in range(pods):
                try:
                    held = take(self.folders[number], number, pods, "own", partitions=PARTITIONS)
                except ConfigError:
                    return False
                stack.callback(held.release)
            forget_unfinished(*self.folders[:pods])
            self._live(LAST + 1)
            return True

    def hold(self, pods: int, last: int) -> None:
        """Assert that each pod holds its partitions with all finished epochs before `last`, and nothing else."""
        for number, volume in enumerate(self.folders):
            wanted = [part_name(j) for j in own_parts(number, pods, PARTITIONS)] if number < pods else []
            assert parts(volume) == wanted
            for name in wanted:
                with closing(sqlite3.connect(volume / name)) as db:
                    epochs = [epoch for (epoch,) in db.execute("SELECT snap_epoch FROM snaps ORDER BY snap_epoch")]
                assert epochs == list(range(LAST - 1, last))
            others = {path.name for path in volume.iterdir()} - set(wanted)
            assert {name for name in others if not name.endswith(".lock")} <= {"manifest.json"}


@pytest.mark.parametrize(("before", "to", "other"), [(2, 3, 1), (3, 2, 3)])
@alone
def test_a_move_of_partitions_that_is_killed_at_any_moment(tmp_path: Path, before: int, to: int, other: int) -> None:
    """A move that is run again, to the same number of pods or to another, completes. Pods that start before that are
    refused unless the whole store is in its place, so that the copies of a partition stay equal.
    """
    volumes = Volumes(tmp_path, 3, before)
    volumes.keep("begin")
    found = moments(lambda: rescale(volumes.folders, to), volumes.folders)
    assert len(found) >= 15, "this shows little"
    refused = Counter[int]()
    for moment in found:
        volumes.restore("begin")
        assert killed(lambda: rescale(volumes.folders, to), moment), f"it ended before call {moment}"
        volumes.keep("killed")
        for then in (to, other):
            rescale(volumes.folders, then)
            volumes.hold(then, LAST)
            volumes.restore("killed")
        for pods in (before, to):
            started = volumes.start(pods)
            refused[pods] += not started
            rescale(volumes.folders, to)
            volumes.hold(to, LAST + started)
            volumes.restore("killed")
    assert 5 < refused[before] < len(found), "pods can go on if nothing was moved"
    assert 5 < refused[to] <= len(found)


@pytest.mark.parametrize("layout", ["shared", "own"])
@alone
def test_the_making_of_a_store_that_is_killed_at_any_moment(tmp_path: Path, layout: Layout) -> None:
    """The next process makes the store: the same one, or another one if they share the folder.

    Only the names of files count as changes, because nobody reads a file before it has its final name.
    """
    folder = tmp_path / "recovery"

    def make() -> None:
        take(folder, 0, 2, layout, partitions=2).release()

    make()  # the first call also imports modules, which makes other system calls
    shutil.rmtree(folder)
    found = moments(make, [tmp_path], names=True)
    assert len(found) >= 15, "this shows little"
    for moment in found:
        shutil.rmtree(folder)
        assert killed(make, moment), f"it ended before call {moment}"
        take(folder, int(layout == "shared"), 2, layout, partitions=2).release()
        wanted = [0, 1] if layout == "shared" else [0]
        assert parts(folder) == [part_name(j) for j in wanted]
        for name in parts(folder):
            with closing(sqlite3.connect(folder / name)) as db:
                assert db.execute("SELECT part_count FROM parts").fetchall() == [(2,)]
                assert db.execute("PRAGMA page_size").fetchall() == [(PAGE_BYTES,)]
        make()
