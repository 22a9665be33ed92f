"""A wall clock that a test sets while a process runs, as if the clock of the host were set."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

from tests.conftest import ROOT, leave_out

_SOURCE = ROOT / "tests" / "stepped_clock.c"


class SteppedClock:
    """The clock of the processes that are started with `environment`; the monotonic clock is that of the host."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            leave_out("no C compiler for a clock that can be set (make services)")
        self._offset = folder / "clock.offset"
        self._library = folder / "clock.so"
        self._offset.write_bytes(struct.pack("=q", 0))
        command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SOURCE), "-ldl"]
        subprocess.run(command, check=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "CLOCK_OFFSET_FILE": str(self._offset)}

    def set(self, seconds: int) -> None:
        """Set the clock this many seconds ahead of the host's."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("=q", seconds))
