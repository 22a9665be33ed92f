"""What a crash left of an epoch that was not finished is removed before Bytewax resumes.

Bytewax stores the snapshots of an epoch one by one, and then that the epoch is over. A process that dies in between is
resumed at the begin of that epoch, but the snapshots that were stored stay. The new run replaces only those of the keys
that its own epoch of that number touches, and its batches may be cut otherwise; a second crash would then resume the
others from a state that has seen events which their source has not given out yet.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from operators.errors import ConfigError

log = logging.getLogger(__name__)

BUSY_S: Final = 10
"""How long a peer that is just dying may hold a partition."""


def forget_unfinished(*folders: Path) -> int:
    """Delete the snapshots of the epoch that Bytewax will resume from; how many there were.

    For a process that has not yet joined its cluster: without it no run is under way whose snapshots these could be.
    Where only some of the partitions are in the folders the epoch is not known, and nothing is done. Raises
    `ConfigError` where a partition cannot be read.
    """
    files = [file for folder in folders for file in sorted(folder.glob("part-*.sqlite3"))]
    executions: list[tuple[int, int, int]] = []
    fronts: list[tuple[int, int, int]] = []
    count = 0
    for file in files:
        with closing(_opened(file)) as db:
            try:
                executions += db.execute("SELECT ex_num, worker_count, resume_epoch FROM exs")
                fronts += db.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts")
                ((count,),) = db.execute("SELECT max(part_count) FROM parts")
            except sqlite3.Error as error:
                raise _unreadable(file, error) from error
    if count != len(files) or not executions:
        return 0
    number, workers, begin = max(executions)
    reached = {worker: front for execution, worker, front in fronts if execution == number}
    epoch = min(max(begin, reached.get(worker, begin)) for worker in range(workers))
    return sum(_delete(file, epoch) for file in files)


def _opened(file: Path) -> sqlite3.Connection:
    try:
        return sqlite3.connect(f"{file.absolute().as_uri()}?mode=rw", uri=True, timeout=BUSY_S)
    except sqlite3.Error as error:
        raise _unreadable(file, error) from error


def _delete(file: Path, epoch: int) -> int:
    with closing(_opened(file)) as db:
        try:
            with db:
                deleted = db.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,)).rowcount
        except sqlite3.Error as error:
            raise _unreadable(file, error) from error
    if deleted:
        log.info("%s: removed %d snapshots of epoch %d, which was not finished", file.name, deleted, epoch)
    return deleted


def _unreadable(file: Path, error: sqlite3.Error) -> ConfigError:
    return ConfigError(f"the recovery partition {file} cannot be read ({error}); restore it, or give -r a new folder")
