"""kill -9 while a cluster starts: of one of two processes while they meet, and of the supervisor of two."""

from __future__ import annotations

import os
import re
import runpy
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from flows.cluster import __main__ as cluster
from tests.brokers import free_port
from tests.chaos.moments import alone, calls, forked, killed
from tests.flows.volume_flow import KEYS

MOMENTS = 1_000 if os.environ.get("LLMS_TEST_LONG") == "1" else 4
"""About this many of the moments are tried, spread over all."""
AFTER = 40
"""The last moment is this many system calls after Bytewax has started its threads, or the supervisor its processes."""
MOST_S = 60.0


class Pods:
    """Two processes of `volume_flow`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))

    def work(self, number: int, dies: str = "") -> Callable[[], None]:
        """The work of one of the processes; its output goes to a file."""

        def run() -> None:
            sys.stdout = sys.stderr = log = (self.folder / "log").open("a")
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            os.environ.update(SETTLED="1", DIES=dies)
            place = ["-r", str(self.folder / str(number)), "-i", str(number), "-a", self.addresses]
            sys.argv = ["bytewax.run", "tests.flows.volume_flow:flow()", "-s", "0", "-b", "0", *place]
            sys.modules.pop("tests.flows.volume_flow")
            runpy.run_module("bytewax.run", run_name="__main__")
            log.flush()

        return run

    def brought_back(self, running: dict[int, int]) -> None:
        """Start each process that has failed again, until both have ended well; `running` has the living ones."""
        deadline, done = time.monotonic() + MOST_S, set[int]()
        while len(done) < 2:
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            for number in sorted({0, 1} - set(running) - done):
                running[number] = forked(self.work(number))
            for number, pid in list(running.items()):
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    del running[number]
                    if status == 0:
                        done.add(number)
            time.sleep(0.02)

    def counted(self) -> dict[str, set[str]]:
        return counted(self.folder / "log")


def counted(log: Path) -> dict[str, set[str]]:
    """The printed counts by key; texts that two processes print at the same time can be on one line."""
    found: dict[str, set[str]] = {}
    for key, count in re.findall(r"(key-\d+) (\d+)", log.read_text()):
        found.setdefault(key, set()).add(count)
    return found


def spread(moments: range) -> range:
    return moments[:: max(1, len(moments) // MOMENTS)]


def met(work: Callable[[], None]) -> range:
    """The system calls of a start, from before the first socket to after Bytewax has taken over."""
    first = threads = None
    number = 0
    for number, pid in enumerate(calls(work)):
        process = Path(f"/proc/{pid}")
        if first is None and any(str(fd.readlink()).startswith("socket") for fd in (process / "fd").iterdir()):
            first = number
        if threads is None and len(list((process / "task").iterdir())) > 1:
            threads = number
    assert first is not None and threads is not None, "they did not meet"
    return range(first - 10, min(threads + AFTER, number))


@pytest.mark.timeout(2_000)
@pytest.mark.parametrize("victim", [0, 1])
@alone
def test_a_process_that_is_killed_while_they_meet(tmp_path: Path, victim: int) -> None:
    """An earlier run has left an epoch unfinished. In the end each key was counted exactly once."""
    folder, kept = tmp_path / "run", tmp_path / "kept"
    folder.mkdir()
    pods = Pods(folder)
    for pid in [forked(pods.work(number, "reading")) for number in range(2)]:
        os.waitpid(pid, 0)
    assert 0 < len(pods.counted()) < len(KEYS)
    shutil.copytree(folder, kept)

    other = forked(pods.work(1 - victim))
    found = met(pods.work(victim))
    os.waitpid(other, 0)
    kills = 0
    for moment in spread(found):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        other = forked(pods.work(1 - victim))
        kills += killed(pods.work(victim), moment)
        pods.brought_back({1 - victim: other})
        assert pods.counted() == {key: {"1"} for key in KEYS}
    assert kills > len(spread(found)) / 2


# --- the supervisor --------------------------------------------------------------------------------------------------


def supervised(folder: Path) -> Callable[[], None]:
    """The work of `flows.cluster` with two processes that share a folder."""

    def run() -> None:
        sys.stdout = sys.stderr = log = (folder / "log").open("a")
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        os.environ.update(SHARED="1", SENTINEL_CONFIG=str(folder / "settings.toml"))
        assert (
            cluster.main(["--workers", "2", "--flow", "tests.flows.volume_flow:flow()", "-r", str(folder / "r")]) == 0
        )

    return run


def members(folder: Path) -> list[int]:
    """All living processes of this test, by their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"{folder / 'r'}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.mark.timeout(2_000)
@alone
def test_a_supervisor_that_is_killed_while_it_starts_its_processes(tmp_path: Path) -> None:
    """No process outlives the supervisor, and the next supervisor goes on."""
    (tmp_path / "settings.toml").touch()
    run = supervised(tmp_path)
    first = last = number = 0
    for number, pid in enumerate(calls(run)):
        started = len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        first = first or (number if started else 0)
        last = last or (number if started == 2 else 0)
    found = range(first - 5, min(last + AFTER, number))
    kills = 0
    for moment in spread(found):
        shutil.rmtree(tmp_path / "r")
        (tmp_path / "log").unlink()
        kills += killed(run, moment)
        deadline = time.monotonic() + 20
        while left := members(tmp_path):
            assert time.monotonic() < deadline, f"{left} live on"
        _, status = os.waitpid(forked(run), 0)
        assert status == 0, (tmp_path / "log").read_text()
        assert counted(tmp_path / "log") == {key: {"1"} for key in KEYS}
    assert kills > len(spread(found)) / 2
