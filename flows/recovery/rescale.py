"""Moves the recovery partitions of stopped pods to where another number of pods wants them.

With `recovery.layout = "own"` pod i of N holds the partitions j with j mod N = i. Bytewax reads any partition anywhere,
but all of them must be there, each once.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

from flows.recovery.rewind import forget_unfinished
from flows.recovery.store import (
    MANIFEST,
    MOVING,
    SETUP_LOCK,
    own_parts,
    part_name,
    read_manifest,
    refuse_foreign,
    topics_of,
    write_manifest,
)
from operators.errors import ConfigError


def rescale(folders: Sequence[Path], pods: int) -> list[str]:
    """Give each of the first `pods` folders its partitions; returns a line for each move.

    `folders` are the recovery folders of all volumes, old and new, in the order of the pods. May be run again after a
    crash. Raises `ConfigError`, before anything is moved, where a flow runs on one of them, a partition is missing or
    they are not of one store; `OSError` where the move broke off. No pod starts on any of the folders from the first
    change until the last: what stands twice for a while must stay the same.
    """
    if not 0 < pods <= len(folders):
        raise ConfigError(f"there are {len(folders)} folders for {pods} pods: name one for each, old and new")
    for folder in folders:
        if not folder.parent.is_dir():
            raise ConfigError(f"{folder.parent} is not there: mount the volume of each pod, old and new")
    with ExitStack() as stack:
        for folder in folders:
            refuse_foreign(folder)
            folder.mkdir(exist_ok=True)
            try:
                _lock(stack, folder / SETUP_LOCK)  # first: a pod that starts from here on waits for it
                for path in folder.glob("process-*.lock"):
                    _lock(stack, path)
            except BlockingIOError:
                raise ConfigError(f"a flow runs on {folder}: stop all of its pods first") from None
        _check_begun(folders)
        manifests = {folder: read_manifest(folder) for folder in folders if (folder / MANIFEST).exists()}
        if not manifests:
            raise ConfigError(f"none of the folders holds a {MANIFEST}: they are no recovery folders of this program")
        first, manifest = next(iter(manifests.items()))
        for folder, other in manifests.items():
            if {**other, **_LEFT_OUT} != {**manifest, **_LEFT_OUT}:
                raise ConfigError(f"{first} and {folder} are not of one recovery store: their {MANIFEST} differ")
        partitions = int(manifest["partitions"])
        if partitions < pods:
            raise ConfigError(
                f"the recovery store has {partitions} partitions, which is too few for {pods} pods "
                "(recovery.partitions is fixed when the store is made)"
            )
        return _moved(folders, pods, partitions, {**manifest, "topics": _topics(manifests.values())})


_LEFT_OUT: Final[dict[str, Any]] = {"row_keys": (), "topics": {}}
"""What manifests of one store may differ in: rows do not depend on their keys, of topics the least number counts."""


def _topics(manifests: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many partitions each topic had at the first start: the least, for a new pod may have come after it grew."""
    least: dict[str, int] = {}
    for topics in map(topics_of, manifests):
        least.update({topic: min(number, least.get(topic, number)) for topic, number in topics.items()})
    return least


def _lock(stack: ExitStack, path: Path) -> None:
    fcntl.flock(stack.enter_context(path.open("a+")), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _check_begun(folders: Sequence[Path]) -> None:
    """Refuse to finish a move with fewer folders than it began with: the others may hold a copy that must go."""
    told = [path.read_text() for folder in folders if (path := folder / MOVING).exists()]
    begun = max((int(text) for text in told if text.isdecimal()), default=0)
    if begun > len(folders):
        raise ConfigError(f"a move between {begun} folders was begun and not finished: name all of them")


def _moved(folders: Sequence[Path], pods: int, partitions: int, manifest: Mapping[str, Any]) -> list[str]:
    holders = {j: _holders(folders, part_name(j)) for j in range(partitions)}
    if missing := [part_name(j) for j, found in holders.items() if not found]:
        raise ConfigError(f"no folder holds {', '.join(missing)}: name the folders of all pods")
    targets = {j: folders[number] for number in range(pods) for j in own_parts(number, pods, partitions)}
    told = []
    for folder in folders:
        (folder / MOVING).write_text(str(len(folders)))
        _settle_names(folder)
    for number in range(pods):
        write_manifest(folders[number], manifest)
    for j, found in holders.items():
        if targets[j] not in found:
            _copied(found[0] / part_name(j), targets[j] / part_name(j))
            told.append(f"{part_name(j)}: {found[0]} -> {targets[j]}")
        _settle_names(targets[j])
        for folder in folders:
            if folder != targets[j]:
                (folder / part_name(j)).unlink(missing_ok=True)
    forget_unfinished(*folders)
    for folder in folders:
        for left in folder.glob("*.tmp"):  # of a move that broke off
            left.unlink()
        _settle_names(folder)
    for folder in folders:
        (folder / MOVING).unlink()
    return told


def _holders(folders: Sequence[Path], name: str) -> list[Path]:
    """The folders that hold this partition: more than one where they hold the same, as a crash of a move leaves it.

    A new pod that was started too early has made empty ones, which count only where there is no other.
    """
    found = [folder for folder in folders if (folder / name).exists()]
    used = [folder for folder in found if _settled(folder / name)]
    if not all(filecmp.cmp(used[0] / name, folder / name, shallow=False) for folder in used[1:]):
        raise ConfigError(f"{name} is in {' and in '.join(map(str, used))}, and not the same: remove the wrong one")
    return used or found[:1]


def _settled(path: Path) -> bool:
    """Bring what stands in the journal into the file, which then is all there is; whether a flow has ever used it."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            tables = ("exs", "fronts", "commits", "snaps")
            return any(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in tables)  # noqa: S608
    except sqlite3.Error as error:
        raise ConfigError(f"the recovery partition {path} cannot be read ({error}); restore it") from error


def _copied(source: Path, target: Path) -> None:
    """A copy that is whole or not there; volumes are file systems of their own."""
    temporary = target.with_name(f"{target.name}.tmp")
    shutil.copyfile(source, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(target)


def _settle_names(folder: Path) -> None:
    """Bring the names in the folder, and its own, to the disk: until then a power failure can undo the copy."""
    for path in (folder, folder.parent):
        names = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(names)
        finally:
            os.close(names)
