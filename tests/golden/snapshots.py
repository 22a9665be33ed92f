"""Golden snapshots: for each release the recovery store in the middle of a golden case, from which later ones resume.

`python -m tests.golden.snapshots` writes the store of this release to snapshots/, named by its version. The file of a
published release is never changed.
"""

from __future__ import annotations

import gzip
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Final

from bytewax.errors import BytewaxRuntimeError

from flows import __version__
from flows.recovery.rewind import forget_unfinished
from flows.settings.model import load
from flows.wiring import shape
from tests.golden import make
from tests.harness import MemoryTopic, World

FOLDER: Final = make.FOLDER / "snapshots"
CASE: Final = "latency_spike"
POLLS: Final = 5
"""The poll that fails: the snapshot holds the state learned before the incident, but not the incident."""


def world(recovery: Path) -> World:
    """The golden case over this recovery store."""
    settings = load({"SENTINEL_CONFIG": "settings.toml"}, make.FOLDER / CASE).settings
    topic = MemoryTopic({"p0": make.read(CASE)})
    return World(topic, shape(settings), decode=settings.decoding, recovery=recovery)


def run(world: World) -> None:
    """Run to the end of the topic. Raises the errors of the flow."""
    world.run(load({"SENTINEL_CONFIG": "settings.toml"}, make.FOLDER / CASE).settings.source.batch_size)


def unpacked(packed: Path, recovery: Path) -> None:
    """Unpack the one partition of a recovery store into the folder `recovery`."""
    (recovery / "part-0.sqlite3").write_bytes(gzip.decompress(packed.read_bytes()))


def main() -> None:
    """Run until the crash, delete superseded snapshots, and pack the rest."""
    with tempfile.TemporaryDirectory() as name:
        crashing = world(Path(name))
        crashing.topic.crash_after = [POLLS]
        try:
            run(crashing)
        except BytewaxRuntimeError:
            pass
        else:
            raise SystemExit("the run ended without the crash")
        forget_unfinished(Path(name))
        part = Path(name) / "part-0.sqlite3"
        with closing(sqlite3.connect(part, isolation_level=None)) as db:
            db.execute(
                "DELETE FROM snaps WHERE snap_epoch < (SELECT max(s.snap_epoch) FROM snaps s "
                "WHERE s.step_id = snaps.step_id AND s.state_key = snaps.state_key)"
            )
            db.execute("PRAGMA journal_mode = DELETE")
            db.execute("VACUUM")
        FOLDER.mkdir(exist_ok=True)
        packed = FOLDER / f"{__version__}.sqlite3.gz"
        packed.write_bytes(gzip.compress(part.read_bytes(), mtime=0))
        print(f"{packed.name}: {packed.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
