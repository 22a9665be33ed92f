"""What Bytewax is about to load from the recovery partitions is looked at first: what is damaged is refused.

Bytewax would unpickle it unseen, and stop in the middle of its start with a trace of calls, or not at all.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Final

from flows.partitions import files, opened
from operators.stored import refuse, verify

LOADED: Final = (
    "SELECT step_id, state_key, max(snap_epoch), ser_change FROM snaps WHERE snap_epoch < ? GROUP BY step_id, state_key"
)
"""The newest snapshot of each key before the epoch that Bytewax resumes from."""


def check_states(epoch: int, *folders: Path) -> int:
    """Check every state that a run from this epoch on loads out of these folders; how many there are.

    Raises `ConfigError`, which names the step and the key, at the first one that is damaged.
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
    """Look at a state as Bytewax has pickled it, without making any object but builtins of it.

    Raises `ConfigError` where it is damaged, be it in the state or in what Bytewax has put around it.
    """
    try:
        held: object = _Builtins(io.BytesIO(pickled)).load()
    except Exception:  # noqa: BLE001 - a damaged pickle can raise anything
        refuse(owner)
    verify(held, owner)


class _Builtins(pickle.Unpickler):
    """Reads builtins, of which the states are made as they stand here, and no name of any module."""

    def find_class(self, module: str, name: str, /) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not a builtin")
