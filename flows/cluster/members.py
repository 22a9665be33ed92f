"""The processes of one cluster: started together, stopped together, and none outlives its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Final

_LIBC: Final = ctypes.CDLL(None)
_PR_SET_PDEATHSIG: Final = 1  # of prctl(2)
_PLACES: Final = (
    "BYTEWAX_PROCESS_ID",
    "BYTEWAX_ADDRESSES",
    "BYTEWAX_HOSTFILE_PATH",
    "BYTEWAX_POD_NAME",
    "BYTEWAX_STATEFULSET_NAME",
)
"""Variables that would give Bytewax another place in the cluster."""


def free_addresses(count: int) -> list[str]:
    """`count` addresses on loopback that are free at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def ended_by(code: int) -> str:
    """The end of a process as the end of a sentence; `code` is its return code in `subprocess`."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def fall_with(parent: int) -> Callable[[], None]:
    """The function that a child calls before it becomes another program, so that the kernel kills it with `parent`."""

    def fall_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # the parent died before the call above
            os._exit(1)

    return fall_with_parent


class Members:
    """Processes of one flow that find each other at `addresses`; the caller must wait for all of them.

    On Linux the kernel kills them when the thread that made them ends, for whatever reason.
    """

    def __init__(
        self,
        flow: str,
        arguments: Sequence[str],
        addresses: Sequence[str],
        environments: Sequence[Mapping[str, str]],
    ) -> None:
        fall_with_parent = fall_with(os.getpid())
        place = ["-a", ";".join(addresses)] if len(addresses) > 1 else []
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for number, environment in enumerate(environments):
                command = [sys.executable, "-m", "bytewax.run", flow, *arguments, *place]
                self._processes.append(
                    subprocess.Popen(
                        [*command, "-i", str(number)] if place else command,
                        env={k: v for k, v in environment.items() if k not in _PLACES},
                        stdin=subprocess.DEVNULL,
                        process_group=0,  # so that Ctrl-C reaches them only through `stop`
                        preexec_fn=fall_with_parent,  # noqa: PLW1509 - no threads, and it only asks the kernel
                    )
                )
        except BaseException:
            self.kill()
            raise

    @property
    def pids(self) -> list[int]:
        """The process ids, by number of the process in the cluster."""
        return [p.pid for p in self._processes]

    def codes(self) -> list[int | None]:
        """For each process its exit code, or minus the number of the signal that ended it; None while it lives."""
        return [p.poll() for p in self._processes]

    def stop(self) -> None:
        """Ask all to end after a last snapshot."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill those that still live, and wait for them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
