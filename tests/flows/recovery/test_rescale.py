"""Partitions move to the volumes of another number of pods; doubtful moves are refused before anything moves."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flows.recovery.rescale import rescale
from flows.recovery.store import Place, claim
from flows.rescale import main
from operators.errors import ConfigError
from tests.flows.recovery.test_store import parts, take


def use(file: Path, epoch: int) -> None:
    """Write a snapshot into a partition, as a flow does."""
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("INSERT INTO snaps VALUES ('', 'step', 'key', ?, x'4b012e')", (epoch,))


@pytest.fixture
def volumes(tmp_path: Path) -> list[Path]:
    """The volumes of four pods; the first two hold a store of five partitions."""
    found = [tmp_path / str(number) for number in range(4)]
    for number in range(2):
        take(found[number], number, 2, "own", partitions=5).release()
        for file in found[number].glob("part-*"):
            use(file, 1)
    return found


def held(volumes: list[Path]) -> list[list[int]]:
    return [[int(name.split("-")[1].split(".")[0]) for name in parts(volume)] for volume in volumes]


def test_up_and_down_again(volumes: list[Path]) -> None:
    assert held(volumes) == [[0, 2, 4], [1, 3], [], []]
    moved = rescale(volumes, 4)
    assert held(volumes) == [[0, 4], [1], [2], [3]]
    assert moved == [f"part-2.sqlite3: {volumes[0]} -> {volumes[2]}", f"part-3.sqlite3: {volumes[1]} -> {volumes[3]}"]
    for number in range(4):
        take(volumes[number], number, 4, "own", partitions=5).release()
    assert rescale(volumes, 4) == []
    rescale(volumes, 1)
    assert held(volumes) == [[0, 1, 2, 3, 4], [], [], []]
    take(volumes[0], 0, 1, "own").release()
    rescale(volumes, 2)
    assert held(volumes) == [[0, 2, 4], [1, 3], [], []]


def test_a_pod_that_has_not_been_started_since_an_upgrade_is_of_the_same_store(volumes: list[Path]) -> None:
    take(volumes[0], 0, 2, "own", partitions=5, row_keys=(12, 3)).release()
    rescale(volumes, 3)
    assert held(volumes) == [[0, 3], [1, 4], [2], []]


def test_it_goes_on_after_a_crash_that_left_a_copy(volumes: list[Path]) -> None:
    volumes[2].mkdir()
    shutil.copy(volumes[0] / "part-2.sqlite3", volumes[2])
    rescale(volumes[:3], 3)
    assert held(volumes) == [[0, 3], [1, 4], [2], []]


def test_the_store_of_a_pod_that_came_too_early_gives_way(volumes: list[Path]) -> None:
    take(volumes[2], 2, 3, "own", partitions=5).release()
    real = (volumes[0] / "part-2.sqlite3").read_bytes()
    assert rescale(volumes[:3], 3) != []
    assert held(volumes) == [[0, 3], [1, 4], [2], []]
    assert (volumes[2] / "part-2.sqlite3").read_bytes() == real
    take(volumes[3], 3, 4, "own", partitions=5).release()
    rescale(volumes, 2)
    assert held(volumes) == [[0, 2, 4], [1, 3], [], []]


def test_the_partition_counts_that_a_new_pod_found_give_way(volumes: list[Path]) -> None:
    for volume, topics in zip(volumes, ({"alerts": 1}, {"alerts": 1}, {"alerts": 3, "other": 2}), strict=False):
        held = take(volume, volumes.index(volume), 3 if volume == volumes[2] else 2, "own", partitions=5)
        held.keep(topics)
        held.release()
    rescale(volumes[:3], 3)
    for number in range(3):
        held = take(volumes[number], number, 3, "own", partitions=5)
        assert held.topics == {"alerts": 1, "other": 2}
        held.release()


def test_a_running_flow_is_not_touched(volumes: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    running = take(volumes[1], 1, 2, "own")
    assert main(["--to", "1", *map(str, volumes[:2])]) == 78
    assert f"a flow runs on {volumes[1]}: stop all of its pods first" in capsys.readouterr().err
    running.release()
    assert main(["--to", "1", *map(str, volumes[:2])]) == 0
    assert "part-1.sqlite3: " in capsys.readouterr().out
    assert main(["--to", "1", *map(str, volumes[:2])]) == 0
    assert "nothing had to be moved" in capsys.readouterr().out


def test_a_new_pod_that_is_making_its_store_is_not_touched(volumes: list[Path]) -> None:
    volumes[2].mkdir()
    with (volumes[2] / "setup.lock").open("a+") as setup:
        fcntl.flock(setup, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=f"a flow runs on {volumes[2]}"):
            rescale(volumes[:3], 3)
    assert held(volumes) == [[0, 2, 4], [1, 3], [], []]
    assert rescale(volumes[:3], 3) != []


def test_the_reason_of_a_broken_move_is_told_in_a_sentence(
    volumes: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    (volumes[0] / "part-3.sqlite3.tmp").mkdir()
    assert main(["--to", "1", *map(str, volumes[:2])]) == 1
    said = capsys.readouterr().err
    assert "Is a directory" in said and said.count("\n") == 1
    assert held(volumes) == [[0, 1, 2, 4], [3], [], []]
    (volumes[0] / "part-3.sqlite3.tmp").rmdir()
    assert main(["--to", "1", *map(str, volumes[:2])]) == 0
    assert held(volumes) == [[0, 1, 2, 3, 4], [], [], []]


def test_a_doubtful_move_is_refused(volumes: list[Path], tmp_path: Path) -> None:
    def refused(folders: list[Path], pods: int) -> str:
        with pytest.raises(ConfigError) as error:
            rescale(folders, pods)
        return str(error.value)

    assert "there are 2 folders for 3 pods" in refused(volumes[:2], 3)
    assert "no folder holds part-1.sqlite3, part-3.sqlite3" in refused([volumes[0], volumes[2]], 2)
    assert "5 partitions, which is too few for 6 pods" in refused([*volumes, tmp_path / "4", tmp_path / "5"], 6)
    mistyped = tmp_path / "volume" / "2"
    assert f"{mistyped.parent} is not there: mount the volume" in refused([*volumes[:2], mistyped], 3)
    assert held(volumes) == [[0, 2, 4], [1, 3], [], []] and not mistyped.parent.exists()
    assert "holds a manifest.json" in refused([tmp_path / "a", tmp_path / "b"], 2)
    other = claim(Place(tmp_path / "x", 0, 1), 8, 10, "other", "own")
    assert other is not None
    other.release()
    assert "are not of one recovery store" in refused([volumes[0], tmp_path / "x"], 1)
    volumes[3].mkdir(exist_ok=True)
    shutil.copy(volumes[0] / "part-4.sqlite3", volumes[3])
    use(volumes[3] / "part-4.sqlite3", 2)
    assert "and not the same: remove the wrong one" in refused(volumes, 3)
    (volumes[3] / "part-4.sqlite3").unlink()
    (volumes[1] / "part-3.sqlite3").write_bytes(b"no database" * 1000)
    assert "part-3.sqlite3 cannot be read" in refused(volumes[:3], 3)


def test_a_folder_of_something_else_is_refused_and_left_alone(volumes: list[Path], tmp_path: Path) -> None:
    (foreign := tmp_path / "etc").mkdir()
    (foreign / "passwd").touch()
    with pytest.raises(ConfigError, match="is not empty and no recovery folder of this program"):
        rescale([*volumes[:2], foreign], 3)
    assert [p.name for p in foreign.iterdir()] == ["passwd"]
    assert held(volumes) == [[0, 2, 4], [1, 3], [], []]
