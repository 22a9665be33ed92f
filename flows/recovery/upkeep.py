"""Checks the recovery partitions before Bytewax loads them, and removes rows that nobody needs any more.

Bytewax would unpickle a damaged state unchecked, and end in the middle of its start with a traceback, or not at all.

It keeps one row for ever for each discarded key, which says that the key is gone. Each start loads that row, and each
epoch looks at it again. Without the row the key has never existed, which comes to the same: it begins anew if it comes
back. All rows of a key stand in one partition, which Bytewax finds by a hash of step and key.
"""

from __future__ import annotations

import io
import logging
import pickle
import time
from pathlib import Path
from typing import Any, Final

from flows.recovery.partitions import files, opened
from operators.stored import refuse, verify

log = logging.getLogger(__name__)

LOADED: Final = (
    "SELECT step_id, state_key, max(snap_epoch), ser_change FROM snaps WHERE snap_epoch < ? GROUP BY step_id, state_key"
)
"""The newest snapshot of each key before the epoch that Bytewax resumes from."""


_DISCARDED: Final = f"SELECT step_id, state_key FROM (SELECT *, ser_change IS NULL AS gone FROM ({LOADED})) WHERE gone"  # noqa: S608
_PURGE: Final = f"DELETE FROM snaps WHERE (step_id, state_key) IN ({_DISCARDED})"  # noqa: S608
_RUNS: Final = 2
"""The number of runs whose rows are kept: `flows.recovery.rewind` looks at no more."""


def keep_up(epoch: int, *folders: Path) -> None:
    """Make these partitions ready for a run that resumes from this epoch; raises `ConfigError` for a damaged one."""
    began = time.monotonic()
    discarded = purge(epoch, *folders)
    states = check_states(epoch, *folders)
    log.info(
        "the recovery store: %d states are whole, %d discarded keys removed, in %.1f s",
        states, discarded, time.monotonic() - began,
    )  # fmt: skip


def purge(epoch: int, *folders: Path) -> int:
    """Remove all rows of the keys that are discarded at this epoch; returns the number of keys.

    The rows about runs before the last two go too. A partition is purged whole or not at all. Bytewax then refuses to
    resume it from an earlier epoch, whose rows may be gone: partitions copied at different times would need that.
    """
    count = 0
    for file in files(folders):
        with opened(file) as db:
            ((discarded,),) = db.execute(f"SELECT count(*) FROM ({_DISCARDED})", (epoch,))  # noqa: S608
            if discarded:
                db.execute(_PURGE, (epoch,))
                db.execute(
                    "INSERT INTO commits (part_index, commit_epoch) SELECT part_index, ? FROM parts WHERE true "
                    "ON CONFLICT (part_index) DO UPDATE SET commit_epoch = max(commit_epoch, excluded.commit_epoch)",
                    (epoch,),
                )
            for table in ("fronts", "exs"):
                db.execute(f"DELETE FROM {table} WHERE ex_num <= (SELECT max(ex_num) FROM exs) - ?", (_RUNS,))  # noqa: S608
            count += discarded
    return count


def check_states(epoch: int, *folders: Path) -> int:
    """Check every state that a run from this epoch on loads from these folders; returns their number.

    Raises `ConfigError`, which names the step and the key, at the first damaged state.
    """
    count = 0
    for file in files(folders):
        with opened(file) as db:
            for step, key, _, pickled in db.execute(LOADED, (epoch,)):
                if pickled is not None:
                    check(pickled, f"key {key} of step {step} ({file})")
                    count += 1
    return count


def check(pickled: bytes, owner: str) -> None:
    """Check a state as Bytewax has pickled it, making no objects but builtins.

    Raises `ConfigError` where the state or the pickle around it is damaged.
    """
    try:
        held: object = _Builtins(io.BytesIO(pickled)).load()
    except Exception:  # noqa: BLE001 - a damaged pickle can raise anything
        refuse(owner)
    verify(held, owner)


class _Builtins(pickle.Unpickler):
    """Reads builtins, of which stored states are made, and no name of any module."""

    def find_class(self, module: str, name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not a builtin")
