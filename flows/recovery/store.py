"""Makes the recovery folder, locks it, and compares it with the flow that wants to use it, before Bytewax opens it.

Bytewax itself would silently use the folder of another flow, or share one with a second flow. A lock for each process
and a small manifest beside the partitions turn both into a refusal in one sentence.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Literal

from bytewax.recovery import init_db_dir

from flows.recovery.rewind import forget, resumed_from, shares
from flows.recovery.upkeep import keep_up
from operators.errors import ConfigError, FatalError

log = logging.getLogger(__name__)

VERSION = 1
MANIFEST: Final = "manifest.json"
PAGE_BYTES: Final = 65_536
"""The largest page size of SQLite. It writes and clears 119 MiB in 0.35 s, and in 0.9 s with its default of 4 KiB."""
SETUP_LOCK: Final = "setup.lock"
"""The file that is locked while the store is made, checked or moved."""
MOVING: Final = "moving"
"""The file that marks the folders while partitions move between them; it holds the number of folders."""
_MAKING = "making"  # the folder in which the partitions are made; it exists only meanwhile
_OURS: Final = re.compile(
    r"lost\+found|process-\d+\.lock|setup\.lock|making|moving|room-\d+\.tmp|manifest.*\.tmp|part-\d+\.sqlite3.*"
)
"""The names that a folder without a manifest may hold: those of a new file system, and leftovers of a killed start."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of this process in its cluster, as `bytewax.run` was told: folder, number, count, addresses."""

    folder: Path | None
    process: int
    processes: int
    addresses: tuple[str, ...] = ()


def place(argv: Sequence[str], environ: Mapping[str, str]) -> Place:
    """Read the place from the arguments and variables that `python -m bytewax.run` reads."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("-r", "--recovery-directory", default=environ.get("BYTEWAX_RECOVERY_DIRECTORY"))
    parser.add_argument("-i", "--process-id", type=int, default=environ.get("BYTEWAX_PROCESS_ID"))
    parser.add_argument("-a", "--addresses", default=environ.get("BYTEWAX_ADDRESSES"))
    known, _ = parser.parse_known_args(list(argv))
    process, addresses = known.process_id, known.addresses
    if process is None and "BYTEWAX_POD_NAME" in environ and "BYTEWAX_STATEFULSET_NAME" in environ:
        process = int(environ["BYTEWAX_POD_NAME"].removeprefix(environ["BYTEWAX_STATEFULSET_NAME"] + "-"))
    if addresses is None and process is not None and "BYTEWAX_HOSTFILE_PATH" in environ:
        addresses = ";".join(Path(environ["BYTEWAX_HOSTFILE_PATH"]).read_text().split())
    folder = Path(known.recovery_directory) if known.recovery_directory else None
    found = tuple(address for address in (addresses or "").split(";") if address)
    return Place(folder, process or 0, len(found) or 1, found)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The facts that must not change while a store lives: form, number of shards, pane width, source.

    `row_keys` holds the number of keys that the stored rows of each width take turns on
    (`operators.panes.shard.row_keys`). `topics` maps each topic that the flow reads or writes to its number of
    partitions at the first start.
    """

    shards: int
    pane_s: int
    source: str
    partitions: int
    learned: Mapping[str, str] = field(default_factory=dict)
    row_keys: Sequence[int] = ()
    topics: Mapping[str, int] = field(default_factory=dict)
    version: int = VERSION


class Held:
    """A lock on the folder; the process holds it while it lives."""

    def __init__(self, folder: Path, file: IO[str], row_keys: tuple[int, ...]) -> None:
        self._folder = folder
        self._file = file
        self.row_keys = row_keys
        """The `row_keys` of the manifest; empty where the store was made without them."""

    def check(self) -> None:
        """Raises `FatalError` after the folder was removed: Bytewax would write on into files without a name."""
        if not os.fstat(self._file.fileno()).st_nlink:
            raise FatalError(
                f"the recovery folder {self._folder} was removed while the flow ran: a run can only begin anew"
            )

    @property
    def topics(self) -> dict[str, int]:
        """The topics of the manifest, each with its number of partitions at the first start."""
        return topics_of(read_manifest(self._folder))

    def keep(self, topics: Mapping[str, int]) -> dict[str, int]:
        """Add the topics that the manifest lacks; returns all topics that it names afterwards."""
        with (self._folder / SETUP_LOCK).open("a+") as setup:
            fcntl.flock(setup, fcntl.LOCK_EX)
            found = read_manifest(self._folder)
            kept = {**topics, **topics_of(found)}
            if kept != topics_of(found):
                write_manifest(self._folder, {**found, "topics": kept})
            return kept

    def release(self) -> None:
        self._file.close()


def claim(
    where: Place,
    shards: int,
    pane_s: int,
    source: str,
    layout: Literal["shared", "own"],
    learned: Mapping[str, str] | None = None,
    relearn: bool = False,
    partitions: int | None = None,
    row_keys: Sequence[int] = (),
) -> Held | None:
    """Make or check the recovery folder and lock it; returns None where the flow runs without one.

    `partitions` is the number of partitions of a new store, that of the processes where None. With layout `shared` all
    processes use this folder. With layout `own` it is this process's own volume and holds exactly its share,
    `own_parts`. A folder that holds all partitions loses the leftovers of an unfinished epoch. `learned` describes, by
    setting, the form of the state of detection. `row_keys` serves a new store, or one of a release that had none.

    Raises `ConfigError` where the folder is in use, or belongs to another flow or release, and where the state of
    detection has another form, unless `relearn` is set.
    """
    if where.folder is None:
        return None
    if where.process >= where.processes:
        raise ConfigError(
            f"this is process {where.process}, counted from 0, of {where.processes}: there are fewer addresses than "
            "processes; give each one its address (in Kubernetes: a line of `addresses` for each replica)"
        )
    folder = where.folder
    refuse_foreign(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f"process-{where.process}.lock").open("a+")  # held while the process lives
    except OSError as error:
        raise ConfigError(f"the recovery folder {folder} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / SETUP_LOCK).open("a+") as setup:
            fcntl.flock(setup, fcntl.LOCK_EX)
            wanted = Manifest(shards, pane_s, source, partitions or where.processes, learned or {}, tuple(row_keys))
            fixed = _make_or_compare(folder, where, wanted, layout, relearn, partitions)
            if layout == "shared" or where.processes == 1:
                _settle(folder, where)
    except BlockingIOError:
        lock.close()
        raise ConfigError(
            f"the recovery folder {folder} is in use by another flow; stop that one first, or give -r another folder"
        ) from None
    except BaseException:
        lock.close()
        raise
    return Held(folder, lock, fixed)


def _settle(folder: Path, where: Place) -> None:
    """Bring all partitions to the epoch that Bytewax resumes from; process 0 does the work that is done once."""
    epoch = resumed_from(shares(folder))
    if epoch is not None:
        forget(epoch, folder)
        if where.process == 0:
            keep_up(epoch, folder)


def refuse_foreign(folder: Path) -> None:
    """Raises `ConfigError` where a folder that is not empty is no recovery folder; nothing is written there."""
    if not folder.is_dir():
        return
    if (folder / MANIFEST).exists():
        read_manifest(folder)
        return
    try:
        others = sorted(path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name))
    except OSError as error:
        raise ConfigError(f"the recovery folder {folder} cannot be used: {error.strerror}") from error
    if others:
        raise ConfigError(
            f"the folder {folder} is not empty and no recovery folder of this program (it holds {others[0]}"
            f"{f' and {len(others) - 1} others' if others[1:] else ''}); give -r a new or empty folder"
        )


def _make_or_compare(
    folder: Path,
    where: Place,
    wanted: Manifest,
    layout: Literal["shared", "own"],
    relearn: bool,
    asked: int | None,
) -> tuple[int, ...]:
    """Returns the `row_keys` of the store."""
    if (folder / MOVING).exists():
        raise ConfigError(
            f"the recovery folder {folder} is one of those between which python -m flows.rescale has begun to move "
            "partitions, and has not finished: run that again first"
        )
    _clear(folder)
    path = folder / MANIFEST
    present = sorted(folder.glob("part-*.sqlite3"))
    if not path.exists():
        if present:
            raise ConfigError(
                f"the recovery folder {folder} was not made by this program (it has partitions but no manifest.json); "
                "give -r a new or empty folder"
            )
        _make(folder, where, wanted, layout)
        return tuple(wanted.row_keys)
    found = read_manifest(folder)
    partitions = int(found["partitions"])
    names = {"shards": "recovery.shards", "pane_s": "time.pane_s", "source": "the source"}
    for part, name in names.items():
        if found.get(part) != getattr(wanted, part):
            raise ConfigError(
                f"the recovery folder {folder} was made with {name} = {found.get(part)!r}, now it is "
                f"{getattr(wanted, part)!r}; set it back, or give -r a new folder to start over"
            )
    if asked is not None and asked != partitions:
        raise ConfigError(
            f"the recovery folder {folder} was made with recovery.partitions = {partitions}, now it is {asked}; "
            "set it back, or give -r a new folder to start over"
        )
    learned = found.get("learned", {})
    changed = [name for name, now in wanted.learned.items() if learned.get(name) != now]
    if changed and not relearn:
        raise ConfigError(
            "what detection has learned cannot be used: "
            + "; ".join(f"{n} was {learned.get(n)}, now it is {wanted.learned[n]}" for n in changed)
            + f" (the recovery folder is {folder}). Set it back, or set recovery.relearn = true to learn anew"
        )
    if layout == "shared" and [p.name for p in present] != sorted(
        f"part-{number}.sqlite3" for number in range(partitions)
    ):
        raise ConfigError(
            f"the recovery folder {folder} must hold all of its {partitions} partitions, it holds "
            f"{', '.join(p.name for p in present) or 'none'}; bring them together, or give -r a new folder"
        )
    if layout == "own":
        _check_share(folder, where, partitions, {p.name for p in present})
    row_keys = tuple(found["row_keys"]) or tuple(wanted.row_keys)
    if wanted.row_keys and len(row_keys) != len(wanted.row_keys):
        raise ConfigError(f"{path} cannot be read (row_keys = {row_keys}); restore it, or give -r a new folder")
    if changed:
        log.warning("detection learns anew: %s changed", ", ".join(changed))
    if changed or list(row_keys) != found["row_keys"]:
        kept = dict(wanted.learned) if changed else learned
        write_manifest(folder, {**found, "learned": kept, "row_keys": row_keys})
    return row_keys


def part_name(number: int) -> str:
    """The file of a partition, as Bytewax names it."""
    return f"part-{number}.sqlite3"


def own_parts(process: int, processes: int, partitions: int) -> list[int]:
    """The numbers of the partitions on the volume of this process."""
    return list(range(process, partitions, processes))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the store; raises `ConfigError` where it is unreadable or of another release."""
    path = folder / MANIFEST
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        version = found["version"]
        found["partitions"] = int(found.get("partitions", 0))
        found["row_keys"] = list(map(_positive, found.get("row_keys", [])))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read ({error}); restore it, or give -r a new folder") from error
    if version != VERSION:
        raise ConfigError(
            f"the recovery folder {folder} has version {version!r}, this release reads {VERSION}; "
            "run the release that made it, or give -r a new folder"
        )
    return found


def _positive(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError(f"{value!r} is no number of keys")
    return value


def topics_of(manifest: Mapping[str, Any]) -> dict[str, int]:
    """The number of partitions of each topic at the first start; empty for a store of an earlier release."""
    return {str(topic): int(number) for topic, number in manifest.get("topics", {}).items()}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest atomically; the caller holds the setup lock."""
    temporary = folder / f"{MANIFEST}.tmp"
    with temporary.open("w") as file:
        file.write(json.dumps(manifest, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / MANIFEST)


def _share(folder: Path, where: Place, partitions: int) -> list[int]:
    if partitions < where.processes:
        raise ConfigError(
            f"the recovery store of {folder} has {partitions} partitions, too few for {where.processes} processes with "
            "a volume each; start fewer, or give every process a new folder and set recovery.partitions"
        )
    return own_parts(where.process, where.processes, partitions)


def _check_share(folder: Path, where: Place, partitions: int, present: set[str]) -> None:
    wanted = [part_name(number) for number in _share(folder, where, partitions)]
    if present != set(wanted):
        raise ConfigError(
            f"the recovery folder {folder} of process {where.process} of {where.processes} must hold exactly "
            f"{', '.join(wanted)}, it holds {', '.join(sorted(present)) or 'none'}; mount the volume that belongs to "
            "this process, or after a change of their number move the partitions with python -m flows.rescale"
        )


def _make(folder: Path, where: Place, wanted: Manifest, layout: Literal["shared", "own"]) -> None:
    """Make the partitions and then the manifest; after a crash in between the next start makes all of them anew."""
    making = folder / _MAKING
    making.mkdir()
    init_db_dir(making, wanted.partitions)  # type: ignore[no-untyped-call]
    for file in making.glob("part-*.sqlite3"):
        _enlarge_pages(file)
    numbers = range(wanted.partitions) if layout == "shared" else _share(folder, where, wanted.partitions)
    for number in numbers:
        for file in sorted(making.glob(f"part-{number}.sqlite3*")):
            file.replace(folder / file.name)
    temporary = making / MANIFEST
    temporary.write_text(json.dumps(asdict(wanted), indent=1) + "\n")
    temporary.replace(folder / MANIFEST)
    shutil.rmtree(making)
    log.info("made a recovery store in %s", folder)


def _enlarge_pages(file: Path) -> None:
    """Give an empty partition large pages.

    Snapshots are large values that replace each other, and SQLite links and frees the pages of a value one by one.
    """
    try:
        with closing(sqlite3.connect(file, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode = DELETE")  # pages keep their size in the mode that Bytewax sets
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("VACUUM")
            db.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as error:
        raise ConfigError(f"the recovery store {file} cannot be made: {error}; check the disk") from error


def _clear(folder: Path) -> None:
    """Remove the leftovers of a crash inside `_make`: no flow has ever used them."""
    if (folder / _MAKING).is_dir():
        if not (folder / MANIFEST).exists():
            for file in folder.glob("part-*.sqlite3*"):
                file.unlink()
        shutil.rmtree(folder / _MAKING)
