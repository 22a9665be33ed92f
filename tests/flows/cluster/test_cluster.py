"""The supervisor: its processes and its restarts; no process outlives it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM, SIGUSR1, Signals

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.cluster.launch import arguments_of, environments
from flows.cluster.members import ended_by, free_addresses
from flows.cluster.supervisor import Restarts, Stop
from flows.settings.model import ClusterConfig, Settings
from operators.errors import ConfigError
from tests.processes import Job, Process

FLOWS = "tests.flows.cluster_flow"


# --- limits and pauses of restarts -----------------------------------------------------------------------------------


@given(
    gaps=st.lists(st.floats(0, 50), max_size=60),
    restarts=st.integers(0, 8),
    window=st.floats(1, 100),
    first=st.floats(0, 5),
)
def test_no_window_has_more_restarts_than_the_limit(
    gaps: list[float], restarts: int, window: float, first: float
) -> None:
    config = ClusterConfig(restarts=restarts, window_s=window, backoff_first_s=first, backoff_most_s=20)
    counted, now, times = Restarts(config), 0.0, list[float]()
    for gap in gaps:
        now += gap
        of_late = sum(t > now - window for t in times)
        pause = counted.pause(now)
        assert (pause is None) == (of_late >= restarts)
        if pause is not None:
            whole = min(first * 2**of_late, 20)
            assert whole / 2 <= pause <= whole
            times.append(now)


def test_the_pause_doubles_and_is_forgotten_after_the_window() -> None:
    counted = Restarts(ClusterConfig(restarts=9, window_s=100, backoff_first_s=0.5, backoff_most_s=3))
    pauses = [counted.pause(now) for now in (0, 1, 2, 3, 4, 200)]
    for pause, whole in zip(pauses, (0.5, 1, 2, 3, 3, 0.5), strict=True):
        assert pause is not None
        assert whole / 2 <= pause <= whole
    assert str(counted) == "restart 1 of at most 9 within 100 s"


# --- arguments and environments of the processes ---------------------------------------------------------------------


def test_snapshots_are_asked_for_by_default() -> None:
    assert arguments_of(["-r", "state"], {}, 2) == (["-r", "state", "-s", "10", "-b", "0"], None)
    assert arguments_of(["-r", "x", "-s", "3", "-w", "2"], {}, 2) == (
        ["-r", "x", "-w", "2", "-s", "3", "-b", "0"],
        None,
    )
    environ = {"BYTEWAX_RECOVERY_DIRECTORY": "state", "BYTEWAX_SNAPSHOT_INTERVAL": "7"}
    assert arguments_of(["-a", "h:1;h:2"], environ, 2) == (["-s", "7", "-b", "0"], ["h:1", "h:2"])


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ([], "give it a recovery folder with -r"),
        (["-r", "state", "-i", "0"], "-i is not for a cluster"),
        (["-r", "state", "-a", "h:1"], "-a names 1 addresses for 2 processes"),
    ],
)
def test_arguments_that_make_no_cluster_are_refused(rest: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)):
        arguments_of(rest, {}, 2)


def test_each_process_has_a_port_and_a_balance_file_of_its_own() -> None:
    settings = Settings.model_validate({"metrics": {"port": 9464, "balance_file": "out/balance.json"}})
    first, second = environments(settings, {"HOME": "h"}, 2)
    token = first.pop("SENTINEL_RECOVERY__TOKEN")
    assert second["SENTINEL_RECOVERY__TOKEN"] == token
    assert re.fullmatch("[0-9a-f]{64}", token)
    assert first == {
        "HOME": "h", "SENTINEL_METRICS__PORT": "9464", "SENTINEL_METRICS__BALANCE_FILE": "out/balance-0.json",
    }  # fmt: skip
    assert second["SENTINEL_METRICS__PORT"] == "9465"
    again = environments(Settings(), {"HOME": "h"}, 1)[0]["SENTINEL_RECOVERY__TOKEN"]
    assert again != token
    own = Settings.model_validate({"recovery": {"token": "x" * 16}})
    assert environments(own, {"HOME": "h"}, 2) == [{"HOME": "h"}] * 2


def test_addresses_are_different_and_on_loopback() -> None:
    found = free_addresses(5)
    assert len(set(found)) == 5
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address in found)


def test_ends_are_named() -> None:
    assert [ended_by(c) for c in (0, 78, -9, -64)] == [
        "ended with code 0", "ended with code 78", "was ended by SIGKILL", "was ended by SIGRTMAX",
    ]  # fmt: skip
    assert ended_by(-200) == "was ended by signal 200"


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def handlers() -> Iterator[None]:
    """Restores the signal handlers after the test."""
    before = {number: signal.getsignal(number) for number in (SIGTERM, SIGINT, SIGHUP, SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("hang_up", "came"), [(signal.SIG_DFL, [SIGHUP, SIGTERM]), (signal.SIG_IGN, [SIGTERM])])
def test_a_terminal_that_closes_asks_for_an_end_once(hang_up: signal.Handlers, came: list[Signals]) -> None:
    signal.signal(SIGHUP, hang_up)
    stop = Stop()
    stop.install()
    for number in (SIGUSR1, SIGHUP, SIGHUP, SIGTERM):
        signal.raise_signal(number)
    assert stop.came == came


# --- real processes --------------------------------------------------------------------------------------------------


def started(folder: Path, workers: int, flow: str, **settings: object) -> Process:
    changes = {f"cluster.{name}": value for name, value in settings.items()}
    return Job(folder, {}).cluster(workers, "--flow", flow, "-r", str(folder / "state"), changes=changes)


def gone(pids: list[int], seconds: float = 20) -> bool:
    """Whether all of these processes end within so many seconds."""
    until = time.monotonic() + seconds
    while alive := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        states = [Path(f"/proc/{pid}/stat") for pid in alive]
        if all(not s.exists() or s.read_text().rpartition(") ")[2][0] == "Z" for s in states):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def test_after_too_many_restarts_it_gives_up_with_75(tmp_path: Path) -> None:
    with started(tmp_path, 2, f"{FLOWS}:ending(1)", restarts=1, backoff_first_s=0.01) as process:
        assert process.finish(60) == 75, process.said()
    said = process.said()
    assert said.count("started 2 processes") == 2
    assert "all 2 start again from the last snapshot in 0.0 s: restart 1 of at most 1 within 600 s" in said
    assert "given up after 1 restarts within 600 s (cluster.restarts, cluster.window_s)" in said


def test_a_wrong_set_up_is_passed_on_with_its_message_and_not_tried_again(tmp_path: Path) -> None:
    with started(tmp_path, 2, f"{FLOWS}:ending(78)") as process:
        assert process.finish(60) == 78, process.said()
    assert "llm-sentinel cannot start: for a reason" in process.said()
    assert process.said().count("started 2 processes") == 1
    with Job(tmp_path, {"recovery.layout": "own"}).cluster(2, "-r", str(tmp_path / "state")) as process:
        assert process.finish(60) == 78
    assert "the processes of one host share their folder" in process.said()


def test_when_one_dies_the_others_are_ended(tmp_path: Path) -> None:
    with started(tmp_path, 3, f"{FLOWS}:killed()", restarts=0) as process:
        assert process.finish(60) == 75, process.said()
    assert "process 1 of 3 was ended by SIGKILL" in process.said()
    assert len(pids := process.members()) == 3 and gone(pids)


@pytest.mark.parametrize("signals", [[SIGTERM, SIGINT], [SIGKILL]])
def test_no_process_outlives_the_supervisor(tmp_path: Path, signals: list[Signals]) -> None:
    """The processes ignore SIGTERM. A second signal kills them, and so does the death of the supervisor."""
    with started(tmp_path, 2, f"{FLOWS}:deaf()") as process:
        process.wait_for("at work", times=2)
        pids = process.children()
        for number in signals:
            process.send(number)
            if number == SIGTERM:
                process.wait_for("SIGTERM: all stop after a last snapshot")
        assert process.finish(20) == (-SIGKILL if SIGKILL in signals else 128 + SIGINT)
        assert len(pids) == 2 and gone(pids)


def test_a_stop_that_takes_too_long_leaves_no_snapshot(tmp_path: Path) -> None:
    with started(tmp_path, 2, f"{FLOWS}:deaf()", stop_s=0.2) as process:
        process.wait_for("at work", times=2)
        process.send(SIGUSR1)
        process.send(SIGTERM)
        assert process.finish(20) == 1
    assert "2 of 2 processes are killed" in process.said()
    assert "stopped without a last snapshot" in process.said()


def test_a_stop_during_the_pause_is_heard(tmp_path: Path) -> None:
    with started(tmp_path, 1, f"{FLOWS}:ending(1)", backoff_first_s=100, backoff_most_s=100) as process:
        process.wait_for("start again from the last snapshot in ")
        process.send(SIGTERM)
        assert process.finish(20) == 1
