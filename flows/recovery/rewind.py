"""Removes the leftovers of an unfinished epoch before Bytewax resumes.

Bytewax stores the snapshots of an epoch one by one, and at last a row that says that the epoch is over. A process that
dies in between is resumed at the beginning of that epoch, but the snapshots that it stored stay. The new run replaces
only the snapshots of keys that its own epoch of that number touches, and its batches may be cut otherwise. A second
crash would then resume the other keys from a state that has seen events which their source has not given out yet.

The number of that epoch follows only from all partitions together, since each row about runs stands in one of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.recovery.partitions import files, opened
from operators.errors import ConfigError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Share:
    """The rows about the last runs in one partition; `number` is its own, `partitions` their count.

    An execution is (number, workers, first epoch), a front is (execution, worker, epoch that it reached).
    """

    number: int
    partitions: int
    executions: tuple[tuple[int, int, int], ...]
    fronts: tuple[tuple[int, int, int], ...]


def shares(*folders: Path) -> list[Share]:
    """The share of each partition in these folders; raises `ConfigError` where one is unreadable."""
    return [_share(file) for file in files(folders)]


def resumed_from(told: Sequence[Share]) -> int | None:
    """The epoch that Bytewax will resume from; None before the first run.

    Raises `ConfigError` unless these are all partitions of one store, each once.
    """
    held = sorted(share.number for share in told)
    if any(share.partitions != len(told) for share in told) or held != list(range(len(told))):
        found = ", ".join(f"{number} of {count}" for number, count in sorted((s.number, s.partitions) for s in told))
        raise ConfigError(
            "the recovery folders of all processes must hold all partitions of one store, each once; they hold "
            f"{found} (counted from 0): give each process its own volume, or new folders to all"
        )
    executions = [execution for share in told for execution in share.executions]
    if not executions:
        return None
    number, workers, begin = max(executions)
    reached = {w: front for share in told for execution, w, front in share.fronts if execution == number}
    return min(max(begin, reached.get(worker, begin)) for worker in range(workers))


def forget(epoch: int, *folders: Path) -> int:
    """Delete the snapshots of this epoch and of later ones in these folders; returns their number."""
    return sum(_delete(file, epoch) for file in files(folders))


def forget_unfinished(*folders: Path) -> int:
    """Delete the snapshots of the epoch that Bytewax will resume from; returns their number.

    The folders together must hold the whole store, and this process must not have joined its cluster: without it no
    run is under way that could own these snapshots. Raises `ConfigError` where a partition is missing or unreadable.
    """
    epoch = resumed_from(shares(*folders))
    return 0 if epoch is None else forget(epoch, *folders)


def _share(file: Path) -> Share:
    """The newest execution and the fronts of the last two: a front can be one execution ahead of the known ones."""
    with opened(file) as db:
        ((number, partitions),) = db.execute("SELECT part_index, part_count FROM parts")
        executions = db.execute("SELECT ex_num, worker_count, resume_epoch FROM exs ORDER BY ex_num DESC LIMIT 1")
        fronts = db.execute(
            "SELECT ex_num, worker_index, worker_frontier FROM fronts "
            "WHERE ex_num >= (SELECT max(ex_num) FROM fronts) - 1"
        )
        return Share(number, partitions, tuple(executions), tuple(fronts))


def _delete(file: Path, epoch: int) -> int:
    with opened(file) as db:
        deleted = db.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (epoch,)).rowcount
    if deleted:
        log.info("%s: removed %d snapshots of epoch %d, which was not finished", file.name, deleted, epoch)
    return deleted
