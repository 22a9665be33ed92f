"""The upkeep of a recovery store before a run: damaged states are refused, discarded keys are removed, others stay."""

from __future__ import annotations

import logging
import pickle
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.operators import StatefulLogic
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import TestingSink, TestingSource, cluster_main
from hypothesis import given
from hypothesis import strategies as st

from flows.recovery.rewind import forget_unfinished, resumed_from, shares
from flows.recovery.store import Place, claim
from flows.recovery.upkeep import check, check_states, purge
from operators.errors import ConfigError, FatalError
from operators.stored import Stored, restored, stored
from tests.conftest import ROOT
from tests.golden import snapshots

FLIPS = 3_000


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recovery folder of a run that died halfway."""
    folder = tmp_path_factory.mktemp("ran")
    world = snapshots.world(folder)
    world.topic.crash_after = [snapshots.POLLS]
    with pytest.raises(BytewaxRuntimeError):
        snapshots.run(world)
    forget_unfinished(folder)
    return folder


def states(folder: Path) -> list[tuple[int, str, bytes]]:
    """(rowid, step, pickled state) of each row of the store that holds a state."""
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as db:
        return list(db.execute("SELECT rowid, step_id, ser_change FROM snaps WHERE ser_change IS NOT NULL"))


def content(pickled: bytes) -> bytes:
    """The pickled state in a form that can be compared, since it holds arrays."""
    return pickle.dumps(restored(pickle.loads(pickled), "it"))


def damaged(pickled: bytes, bit: int) -> bytes:
    changed = bytearray(pickled)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_every_step_source_and_sink_is_checked(ran: Path) -> None:
    steps = {step for _, step, _ in states(ran)}
    assert steps == {f"sentinel.{name}" for name in ("telemetry", "merge", "rollup", "detect", "groups", "store")}
    for _, step, pickled in states(ran):
        check(pickled, "it")
        last = damaged(pickled, 8 * (len(pickled) - 5))  # in the state, before the bytes that close the pickle
        with pytest.raises(ConfigError, match=f"the state of a key of {step} in the recovery store is damaged"):
            check(last, f"a key of {step}")


def test_thousands_of_flipped_bits_are_refused_or_change_nothing(ran: Path) -> None:
    random, found = Random(7), states(ran)
    told = 0
    for _ in range(FLIPS):
        _, step, pickled = random.choice(found)
        changed = damaged(pickled, random.randrange(8 * len(pickled)))
        try:
            check(changed, "it")
            assert content(changed) == content(pickled), step
        except (ConfigError, FatalError):
            told += 1
    assert told > FLIPS * 0.95, "more flips pass than those in the heads of pickles, which hold version and length"


STATE = (3, ["ab", b"c"], {"k": 0.5}, None, tuple(range(300)))


def refused(pickled: bytes) -> bool:
    """Whether the check or the step refuses the state; if not, the state must be unchanged."""
    try:
        check(pickled, "it")
        assert restored(pickle.loads(pickled), "it") == STATE
    except (ConfigError, FatalError):
        return True
    return False


def test_each_single_flipped_bit_is_refused_or_changes_nothing() -> None:
    whole = pickle.dumps(stored(STATE))
    assert not refused(whole)
    spared = [bit for bit in range(8 * len(whole)) if not refused(damaged(whole, bit))]
    assert all(bit < 8 * 11 for bit in spared), "a flip passes beyond the head of the pickle, its version and length"


@given(st.data())
def test_any_damage_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    whole = pickle.dumps(stored(STATE))
    at = data.draw(st.integers(0, len(whole)))
    refused(whole[:at] + data.draw(st.binary(max_size=8)) + whole[data.draw(st.integers(at, len(whole))) :])


class Trap:
    """An object whose pickle calls a function when it is loaded."""

    def __reduce__(self) -> tuple[object, ...]:
        return pytest.fail, ("something was called",)


def test_nothing_is_called_that_a_damaged_pickle_names() -> None:
    with pytest.raises(ConfigError, match="is damaged"):
        check(pickle.dumps(Trap()), "it")


def test_a_flow_does_not_start_from_a_damaged_store(ran: Path, tmp_path: Path) -> None:
    found = [(rowid, step, pickled) for rowid, step, pickled in states(ran) if step == "sentinel.detect"]
    rowid, step, pickled = found[0]
    folder = tmp_path / "recovery"

    def take() -> None:
        held = claim(Place(folder, 0, 1), 2, 10, "memory", "shared")
        assert held is not None
        held.release()

    take()
    with closing(sqlite3.connect(ran / "part-0.sqlite3")) as db:
        db.execute("VACUUM INTO ?", (str(tmp_path / "copy"),))
    (tmp_path / "copy").replace(folder / "part-0.sqlite3")
    take()
    epoch = resumed_from(shares(folder))
    assert epoch is not None
    assert check_states(epoch, folder) == len(found) + sum(step != "sentinel.detect" for _, step, _ in states(ran))
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as db, db:
        db.execute("UPDATE snaps SET ser_change = ? WHERE rowid = ?", (damaged(pickled, 8 * 200), rowid))
    with pytest.raises(ConfigError, match=rf"key 000. of step {step} \(.*part-0.sqlite3\) .* is damaged .* new folder"):
        take()


# --- discarded keys ------------------------------------------------------------------------------------------------


class Sum(StatefulLogic[int, int, Stored]):
    """Adds up the values of a key; 0 discards the key."""

    def __init__(self, held: Stored | None) -> None:
        self._sum = 0 if held is None else restored(held, "it")[0]

    def on_item(self, value: int) -> tuple[list[int], bool]:
        assert isinstance(self._sum, int)
        self._sum += value
        return [self._sum], value == 0

    def snapshot(self) -> Stored:
        return stored((self._sum,))


def sums(folder: Path, items: list[Any], workers: int = 1, batch: int = 1) -> list[tuple[str, int]]:
    """The output of a run with an epoch for each batch, which resumes at the end of the previous run."""
    said: list[tuple[str, int]] = []
    flow = Dataflow("sums")
    source = TestingSource(items, batch)
    op.output("out", op.stateful("sum", op.input("in", flow, source), Sum), TestingSink(said))
    cluster_main(  # type: ignore[no-untyped-call]
        flow, [], 0, epoch_interval=timedelta(0), worker_count_per_proc=workers,
        recovery_config=RecoveryConfig(str(folder)),  # type: ignore[no-untyped-call]
    )  # fmt: skip
    return said


def rows(folder: Path) -> dict[str, set[str]]:
    """The files that hold rows of the step, by key."""
    found: dict[str, set[str]] = {}
    for file in sorted(folder.glob("part-*.sqlite3")):
        with closing(sqlite3.connect(file)) as db:
            for (key,) in db.execute("SELECT state_key FROM snaps WHERE step_id LIKE 'sums.sum%'"):
                found.setdefault(key, set()).add(file.name)
    return found


def keep(folder: Path) -> int:
    epoch = resumed_from(shares(folder))
    assert epoch is not None
    return purge(epoch, folder)


KEYS = [f"k{number}" for number in range(30)]


@pytest.mark.parametrize("partitions", [1, 3])
def test_discarded_keys_go_and_come_back_as_new(partitions: int, tmp_path: Path) -> None:
    init_db_dir(tmp_path, partitions)  # type: ignore[no-untyped-call]
    items: list[Any] = [(key, 1) for key in KEYS] + [(key, 0) for key in KEYS[10:]]
    sums(tmp_path, items, workers=2, batch=10)
    assert rows(tmp_path).keys() == set(KEYS)
    assert keep(tmp_path) == 20
    assert rows(tmp_path).keys() == set(KEYS[:10])
    assert keep(tmp_path) == 0
    items += [(key, 5) for key in KEYS]
    assert sorted(sums(tmp_path, items, workers=3, batch=10)) == sorted(
        [(key, 6 if key in KEYS[:10] else 5) for key in KEYS]
    )
    assert rows(tmp_path).keys() == set(KEYS)


def test_all_rows_of_a_key_stand_in_one_partition_for_any_number_of_workers(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 4)  # type: ignore[no-untyped-call]
    items: list[Any] = []
    files: dict[str, set[str]] = {}
    for workers in (1, 3, 2):
        items += [(key, 1) for key in KEYS]
        sums(tmp_path, items, workers, batch=10)
        for key, where in rows(tmp_path).items():
            files.setdefault(key, set()).update(where)
    assert all(len(where) == 1 for where in files.values())
    assert len(set().union(*files.values())) == 4


def test_a_key_that_comes_back_takes_the_place_of_its_discard(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    sums(tmp_path, [("a", 1), ("a", 0), *[("b", 1)] * 3, ("a", 1), *[("b", 1)] * 3, ("a", 0), *[("b", 1)] * 3])
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        assert list(db.execute("SELECT count(*) FROM snaps WHERE state_key = 'a'")) == [(1,)]


def snap(db: sqlite3.Connection, key: str, *epochs: int) -> None:
    """Write rows of a key: a state for each epoch, or its discard for a negative one."""
    db.executemany(
        "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES ('step', ?, ?, ?)",
        [(key, abs(epoch), pickle.dumps(stored((1,))) if epoch > 0 else None) for epoch in epochs],
    )


def test_only_keys_that_are_discarded_at_the_resumed_epoch_go(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db, db:
        snap(db, "lives", 3)
        snap(db, "came back", -2, 4)
        snap(db, "gone", -4)
        snap(db, "gone with what it was", 2, 3, -4)
        snap(db, "goes later", 4, -5)
        snap(db, "comes later", 2, -4, 5)
    assert purge(5, tmp_path) == 3
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        assert {key for (key,) in db.execute("SELECT state_key FROM snaps")} == {"lives", "came back", "goes later"}
        assert list(db.execute("SELECT part_index, commit_epoch FROM commits")) == [(0, 5)]


def test_a_crash_in_the_middle_of_a_purge_leaves_the_partition_as_it_was(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db, db:
        for number in range(5_000):
            snap(db, f"k{number}", 1, -2)
    code = (
        "import os, signal, sqlite3, sys; from pathlib import Path; from flows.recovery.partitions import opened\n"
        "from flows.recovery.upkeep import _PURGE\n"
        "with opened(Path(sys.argv[1])) as db:\n"
        "    db.execute('PRAGMA cache_size = 10'); db.execute(_PURGE, (3,)); os.kill(os.getpid(), signal.SIGKILL)"
    )
    died = subprocess.run([sys.executable, "-c", code, str(tmp_path / "part-0.sqlite3")], cwd=ROOT, check=False)
    assert died.returncode == -signal.SIGKILL
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        assert list(db.execute("SELECT count(*) FROM snaps")) == [(10_000,)]
    assert purge(3, tmp_path) == 5_000


def test_the_last_two_earlier_runs_are_kept(tmp_path: Path) -> None:
    init_db_dir(tmp_path, 1)  # type: ignore[no-untyped-call]
    items: list[Any] = []
    for _ in range(5):
        items += [("a", 1), ("a", 0)]
        sums(tmp_path, items, workers=2)
        before = resumed_from(shares(tmp_path))
        keep(tmp_path)
        assert resumed_from(shares(tmp_path)) == before
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        assert list(db.execute("SELECT ex_num FROM exs ORDER BY ex_num")) == [(3,), (4,)]
        assert {number for (number,) in db.execute("SELECT ex_num FROM fronts")} == {3, 4}


def test_a_store_of_fifty_thousand_discarded_keys_is_purged_when_it_is_claimed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An earlier release kept this number of discarded keys after thirty hours with 64 shards."""
    caplog.set_level(logging.INFO)

    def take() -> None:
        held = claim(Place(tmp_path, 0, 1), 2, 10, "memory", "shared")
        assert held is not None
        held.release()

    take()
    sums(tmp_path, [("a", 1), ("a", 1)])
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db, db:
        db.executemany(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES ('sums.rollup', ?, 1, NULL)",
            [(f"{number % 64:04d}/60/{29_452_320 + number // 64}",) for number in range(52_218)],
        )
    take()
    assert "52218 discarded keys removed" in caplog.text
    assert sums(tmp_path, [("a", 1), ("a", 1), ("a", 1)]) == [("a", 3)]
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        assert list(db.execute("SELECT count(*) FROM snaps WHERE ser_change IS NULL")) == [(0,)]
