"""What a crash left of an epoch that was not finished is removed before Bytewax resumes.

Bytewax stores the snapshots of an epoch one by one, and then that the epoch is over. A process that dies in between is
resumed at the begin of that epoch, but the snapshots that were stored stay. The new run replaces only those of the keys
that its own epoch of that number touches, and its batches may be cut otherwise; a second crash would then resume the
others from a state that has seen events which their source has not given out yet.

Which epoch that is only all partitions together tell: each row of what follows stands in one of them.
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
    """What one partition, by its number and of how many, tells of the last runs.

    An execution is (number, workers, the epoch it began with), a front is (execution, worker, the epoch it came to).
    """

    number: int
    partitions: int
    executions: tuple[tuple[int, int, int], ...]
    fronts: tuple[tuple[int, int, int], ...]


def shares(*folders: Path) -> list[Share]:
    """What the partitions in these folders tell; `ConfigError` where one cannot be read."""
    return [_share(file) for file in files(folders)]


def resumed_from(told: Sequence[Share]) -> int | None:
    """The epoch that Bytewax will resume from; None where there was no run yet.

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
    """Delete the snapshots of this epoch and of later ones in these folders; how many there were."""
    return sum(_delete(file, epoch) for file in files(folders))


def forget_unfinished(*folders: Path) -> int:
    """Delete the snapshots of the epoch that Bytewax will resume from; how many there were.

    For folders that together hold the whole store, and for a process that has not yet joined its cluster: without it no
    run is under way whose snapshots these could be. Raises `ConfigError` where a partition is missing or unreadable.
    """
    epoch = resumed_from(shares(*folders))
    return 0 if epoch is None else forget(epoch, *folders)


def _share(file: Path) -> Share:
    """Of the newest execution, and the fronts of the last two: they can be one ahead of what is known to have begun."""
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
