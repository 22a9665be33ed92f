"""The states of a short run in its recovery store: a bit that is flipped anywhere is refused, or changes nothing."""

from __future__ import annotations

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from bytewax.errors import BytewaxRuntimeError
from hypothesis import given
from hypothesis import strategies as st

from flows.recovery import Place, claim
from flows.rewind import forget_unfinished, resumed_from, shares
from flows.upkeep import check, check_states
from operators.errors import ConfigError, FatalError
from operators.stored import restored, stored
from tests.golden import snapshots

FLIPS = 3_000


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recovery folder of a run that died in the middle."""
    folder = tmp_path_factory.mktemp("ran")
    world = snapshots.world(folder)
    world.topic.crash_after = [snapshots.POLLS]
    with pytest.raises(BytewaxRuntimeError):
        snapshots.run(world)
    forget_unfinished(folder)
    return folder


def states(folder: Path) -> list[tuple[int, str, bytes]]:
    """(rowid, step, state) of what the store holds."""
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as db:
        return list(db.execute("SELECT rowid, step_id, ser_change FROM snaps WHERE ser_change IS NOT NULL"))


def content(pickled: bytes) -> bytes:
    """The state in there, comparable: it holds arrays."""
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
        last = damaged(pickled, 8 * (len(pickled) - 5))  # of the state, before what closes the pickle
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
    assert told > FLIPS * 0.95, "but in the heads of the pickles, which tell their version and length"


STATE = (3, ["ab", b"c"], {"k": 0.5}, None, tuple(range(300)))


def refused(pickled: bytes) -> bool:
    """Whether the check refuses it, or the step that it is given to; otherwise it must be the very state."""
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
    assert all(bit < 8 * 11 for bit in spared), "but in the head of the pickle, which tells its version and length"


@given(st.data())
def test_whatever_damage_is_refused_or_changes_nothing(data: st.DataObject) -> None:
    whole = pickle.dumps(stored(STATE))
    at = data.draw(st.integers(0, len(whole)))
    refused(whole[:at] + data.draw(st.binary(max_size=8)) + whole[data.draw(st.integers(at, len(whole))) :])


class Trap:
    """Made anew of a pickle it would call something."""

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
