"""`python -m tests.chaos.pods --pods 2 -r FOLDER ...`: processes with a volume each, which come back one by one.

Like pods of a StatefulSet: a process that ends is started again until all have ended well together. Exit code 78 of one
ends all. After SIGTERM all end, and none is started again. Volume i is FOLDER/i. The output names the started processes
as that of `flows.cluster` does.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from flows.cluster.launch import environments
from flows.cluster.members import fall_with
from flows.settings.model import CONFIG_EXIT_CODE, load

PORTS = range(20_000, 30_000)
"""Ports that the kernel does not give to clients, so that the address of a pod stays free while it is away."""
PAUSE_S = 0.2


def addresses(count: int) -> list[str]:
    found: list[str] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(f"127.0.0.1:{port}")
    return found


class Pods:
    """The processes, by number."""

    def __init__(self, count: int, volumes: Path, arguments: Sequence[str]) -> None:
        self._own = environments(load(os.environ, Path.cwd()).settings, os.environ, count)
        self._volumes = volumes
        self._arguments = [*arguments, "-a", ";".join(addresses(count))]
        self._stopped = False
        self._pods = [self._started(number) for number in range(count)]
        print(f"started {count} processes: {', '.join(str(p.pid) for p in self._pods)}", flush=True)

    def _started(self, number: int) -> subprocess.Popen[bytes]:
        place = ["-i", str(number), "-r", str(self._volumes / str(number))]
        return subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", "flows.main", *self._arguments, *place],
            env=self._own[number],
            stdin=subprocess.DEVNULL,
            preexec_fn=fall_with(os.getpid()),  # noqa: PLW1509 - no threads, and it only asks the kernel
        )

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._stopped = True
        for pod in self._pods:
            pod.send_signal(signal.SIGTERM)

    def run(self) -> int:
        """The exit code: 0 if all ended well together, 78 if one is misconfigured, 1 if one did not stop well."""
        while True:
            time.sleep(PAUSE_S)
            codes = [pod.poll() for pod in self._pods]
            if CONFIG_EXIT_CODE in codes:
                return CONFIG_EXIT_CODE
            if all(code == 0 for code in codes) or (self._stopped and None not in codes):
                return int(any(codes))
            if self._stopped or not any(codes):
                continue
            for number, code in enumerate(codes):
                if code is not None:
                    self._pods[number] = self._started(number)
                    print(f"process {number} ended with {code}, started again: {self._pods[number].pid}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", type=int, required=True)
    parser.add_argument("-r", type=Path, required=True)
    args, rest = parser.parse_known_args()
    args.r.mkdir(exist_ok=True)
    pods = Pods(args.pods, args.r, rest)
    signal.signal(signal.SIGTERM, pods.stop)
    return pods.run()


if __name__ == "__main__":
    sys.exit(main())
