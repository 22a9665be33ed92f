"""kill -9 at every moment that matters: once in each state of the files.

A process changes its files by system calls alone. So a first run, traced by ptrace(2), finds the calls before which the
folders differ from their state before the previous call. Each further run is killed at one of these. This needs Linux.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import signal
import subprocess
import sys
import traceback
import zlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import ParamSpec

from tests.conftest import ROOT

_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.ptrace.argtypes = [ctypes.c_ulong, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_LIBC.ptrace.restype = ctypes.c_long
_TRACEME, _SYSCALL, _SET_OPTIONS = 0, 24, 0x4200
_KILL_WITH_TRACER, _MARK_CALLS = 0x100000, 1  # PTRACE_O_EXITKILL, PTRACE_O_TRACESYSGOOD
_CALL = signal.SIGTRAP | 0x80

Work = Callable[[], object]
P = ParamSpec("P")

_ALONE = """
import importlib, pickle, sys
module, name, arguments = pickle.load(sys.stdin.buffer)
getattr(importlib.import_module(module), name).__wrapped__(**arguments)
"""


def alone(test: Callable[P, None]) -> Callable[P, None]:
    """Run the test in a process of its own without threads: a forked child could wait for their locks for ever.

    Coverage of that process is not measured, because measuring makes system calls.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
        told = pickle.dumps((test.__module__, test.__name__, kwargs))
        done = subprocess.run(
            [sys.executable, "-c", _ALONE], input=told, cwd=ROOT, env=environ, capture_output=True, check=False
        )
        assert done.returncode == 0, (done.stdout + done.stderr).decode()

    return run


def moments(work: Work, folders: Sequence[Path], *, names: bool = False) -> list[int]:
    """Do the work once; returns the numbers of the system calls, from 0, before which it has changed the folders.

    With `names` only new, removed and renamed files count. The shared memory of SQLite (`-shm`) is left out, because it
    is made anew after a crash.
    """
    found: list[int] = []
    before = _look(folders, names)
    for number, _ in enumerate(calls(work)):
        now = _look(folders, names)
        if now != before:
            found.append(number)
        before = now
    return found


def killed(work: Work, moment: int) -> bool:
    """Do the work up to that system call, then kill it; false if it ended before."""
    traced = calls(work)
    for number, pid in enumerate(traced):
        if number == moment:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            traced.close()
            return True
    return False


def forked(work: Work) -> int:
    """Do the work in a child, whose exit code is 0 if the work succeeds; returns its process id."""
    if (pid := os.fork()) == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, this child must not go on as its parent
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def calls(work: Work) -> Generator[int, None, None]:
    """Do the work in a child; yields its process id before each system call of its first thread.

    Raises `AssertionError` if the work fails.
    """

    def traced() -> None:
        _ptrace(_TRACEME, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()

    pid = forked(traced)
    os.waitpid(pid, 0)
    _ptrace(_SET_OPTIONS, pid, _KILL_WITH_TRACER | _MARK_CALLS)
    enters, passed_on = True, 0
    while True:
        _ptrace(_SYSCALL, pid, passed_on)
        _, status = os.waitpid(pid, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            assert status == 0, f"the work ended with {status}"
            return
        passed_on = 0
        if os.WSTOPSIG(status) != _CALL:
            passed_on = os.WSTOPSIG(status)
            continue
        if enters:
            yield pid
        enters = not enters


def _ptrace(request: int, pid: int, data: int = 0) -> None:
    if _LIBC.ptrace(request, pid, None, ctypes.c_void_p(data)) == -1:
        raise OSError(ctypes.get_errno(), "ptrace is not allowed here")


def _look(folders: Sequence[Path], names: bool) -> dict[str, int]:
    """A checksum of each file below the folders by its path, or 0 for folders and, with `names`, for all."""
    return {
        str(path): 0 if names or path.is_dir() else zlib.crc32(path.read_bytes())
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".sqlite3-shm"
    }
