"""A process and all processes that it starts, as one contestant: CPU time, memory, and end."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.throughput import Measured

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
_LOOK_S = 0.05
_LINGER_S = 2.0  # its children may end after it


class _Session:
    """The resources that the processes of a session have used, including processes that have ended."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._cpu: dict[tuple[str, str], float] = {}
        self.peak_mib = 0.0

    def look(self) -> int:
        """Look at the processes; returns the number of live ones."""
        alive, memory = 0, 0.0
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            with suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
                if int(fields[3]) == self._leader:
                    alive += fields[0] != "Z"
                    self._cpu[folder.name, fields[19]] = (int(fields[11]) + int(fields[12])) / _TICKS
                    memory += int(fields[21]) * _PAGE_MIB
        self.peak_mib = max(self.peak_mib, memory)
        return alive

    @property
    def cpu_s(self) -> float:
        return sum(self._cpu.values())


def run(command: Sequence[str], environ: Mapping[str, str], folder: Path, limit_s: float) -> Measured:
    """Run the command in a session of its own until its end; returns the resources of all its processes.

    It looks every 0.05 s, so the last moment of a child may be missing if its parent does not wait for it. Memory is
    the largest sum of resident sets. Raises `SystemExit` if the command fails or takes longer than `limit_s`. No
    process of the command outlives this call.
    """
    log = folder / "log"
    begin = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=folder, env=dict(environ), stdout=out, stderr=out, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    session = _Session(process.pid)
    try:
        while True:
            session.look()
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            seconds = time.perf_counter() - begin
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            if seconds > limit_s:
                raise SystemExit(f"{shlex.join(command)} was not done within {limit_s:g} s:\n{_tail(log)}")
            time.sleep(_LOOK_S)
        if process.returncode:
            raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}:\n{_tail(log)}")
        ended = time.monotonic()
        while session.look() and time.monotonic() - ended < _LINGER_S:
            time.sleep(_LOOK_S)
        # The system's own figure is exact for the process and the children it waited for.
        return Measured(seconds, max(session.cpu_s, usage.ru_utime + usage.ru_stime), session.peak_mib)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-12:])
