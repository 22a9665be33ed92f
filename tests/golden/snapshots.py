"""Golden snapshots: the recovery store of each release in the middle of a golden case, for later ones to go on from.

`python -m tests.golden.snapshots` makes that of this release anew, in snapshots/ by version; once a release is out, its
file stays as it is.
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
"""The poll that fails: what was learned before the incident is in the snapshot, the incident is not."""


def world(recovery: Path) -> World:
    """The golden case over this recovery store."""
    settings = load({"SENTINEL_CONFIG": "settings.toml"}, make.FOLDER / CASE).settings
    topic = MemoryTopic({"p0": make.read(CASE)})
    return World(topic, shape(settings), decode=settings.decode, recovery=recovery)


def run(world: World) -> None:
    """To the end of the topic, or to what it fails of."""
    world.run(load({"SENTINEL_CONFIG": "settings.toml"}, make.FOLDER / CASE).settings.source.batch_size)


def unpacked(packed: Path, recovery: Path) -> None:
    """The one partition of a recovery store."""
    (recovery / "part-0.sqlite3").write_bytes(gzip.decompress(packed.read_bytes()))


def main() -> None:
    """Run until the crash, leave out what is superseded, and pack the rest."""
    with tempfile.TemporaryDirectory() as name:
        crashing = world(Path(name))
        crashing.topic.crash_after = [POLLS]
        try:
            run(crashing)
        except BytewaxRuntimeError:
            pass
        else:
            raise SystemExit("it came to its end")
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
