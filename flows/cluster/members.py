"""The processes of one cluster: started together, told to stop together, and none outlives whoever started them."""

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
"""Variables by which Bytewax would be told another place in the cluster."""


def free_addresses(count: int) -> list[str]:
    """So many addresses on loopback that nobody listens on at the moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def ended_by(code: int) -> str:
    """How a process with this code of `subprocess` ended, as the end of a sentence."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def fall_with(parent: int) -> Callable[[], None]:
    """What a child of this process calls before it is another program, so that the kernel kills it with its parent."""

    def fall_with_parent() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that was said
            os._exit(1)

    return fall_with_parent


class Members:
    """Processes of one flow that find each other at `addresses`; whoever makes this must wait for all of them.

    The kernel kills them when the thread that made them ends, however that comes about: Linux alone does so.
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
                        process_group=0,  # Ctrl-C reaches them through `stop` alone
                        preexec_fn=fall_with_parent,  # noqa: PLW1509 - no threads, and it only asks the kernel
                    )
                )
        except BaseException:
            self.kill()
            raise

    @property
    def pids(self) -> list[int]:
        """Of each process, by its number."""
        return [p.pid for p in self._processes]

    def codes(self) -> list[int | None]:
        """Of each process: its exit code, minus the number of the signal that ended it, or None while it lives."""
        return [p.poll() for p in self._processes]

    def stop(self) -> None:
        """Ask all for a last snapshot and an end."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End those that still live, at once, and wait for them."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
