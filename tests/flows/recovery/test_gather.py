"""Processes that hold some partitions each meet before Bytewax starts, over real sockets and in spite of strangers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from flows.recovery.gather import GREETING_BYTES, LINE_BYTES, VERSION, Seal, Stopped, _awaited, check_token, gather
from flows.recovery.joining import join
from flows.recovery.rewind import Share
from flows.recovery.store import Place
from operators.errors import ConfigError
from tests.brokers import free_port
from tests.conftest import ROOT
from tests.flows.recovery.test_rewind import epochs, split, store
from tests.processes import Job

TIMELY = b"\xd9\xad\x18\x01w\xfb\xf1\xc2\x01\x00\x00\x00\x00\x00\x00\x00"
"""The first bytes that Bytewax sends to a process that it connects to."""


def share(process: int, partitions: int = 3) -> Share:
    return Share(process, partitions, ((7, 3, process),), ((7, process, 40 + process), (6, process, 9)))


ALL = [share(process) for process in range(3)]
TOKEN = "0123456789abcdef"


class Cluster:
    """Processes, each a thread, that meet at their own address on loopback."""

    def __init__(
        self, threads: ThreadPoolExecutor, processes: int = 3, host: str = "127.0.0.1", token: str | None = TOKEN
    ) -> None:
        self._threads = threads
        self.token = token
        self.port = free_port()
        self.addresses = [f"{host}:{self.port}", *("unused.invalid:1" for _ in range(processes - 1))]
        self.stop = threading.Event()

    def start(self, process: int, stop: threading.Event | None = None, token: str | None = None) -> Future[list[Share]]:
        stopping = (stop or self.stop).is_set
        return self._threads.submit(gather, self.addresses, process, [share(process)], stopping, token or self.token)

    def connect(self) -> socket.socket:
        """A connection to process 0, as soon as it listens."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self.port), 60)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


@pytest.fixture
def cluster(threads: ThreadPoolExecutor) -> Iterator[Cluster]:
    found = Cluster(threads)
    try:
        yield found
    finally:
        found.stop.set()


def sorted_shares(future: Future[list[Share]]) -> list[Share]:
    return sorted(future.result(60), key=lambda s: s.number)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_all_get_the_shares_of_all_and_the_address_is_free_then(threads: ThreadPoolExecutor, host: str) -> None:
    cluster = Cluster(threads, host=host)
    found = [cluster.start(process) for process in range(3)]
    assert [sorted_shares(f) for f in found] == [ALL] * 3
    with socket.create_server(("127.0.0.1", cluster.port)):
        pass  # as Bytewax does next


def test_nobody_goes_on_before_the_last_one_came(cluster: Cluster) -> None:
    early = [cluster.start(0), cluster.start(2)]
    with cluster.connect():
        time.sleep(0.5)
    assert not any(f.done() for f in early)
    late = cluster.start(1)
    assert [sorted_shares(f) for f in (*early, late)] == [ALL] * 3


def test_process_0_may_come_last(cluster: Cluster) -> None:
    early = [cluster.start(2), cluster.start(1)]
    time.sleep(0.3)
    assert [sorted_shares(f) for f in (*early, cluster.start(0))] == [ALL] * 3


def line(**changes: object) -> bytes:
    """A hello of process 1."""
    said = {"version": VERSION, "process": 1, "processes": 3, "nonce": "n", **changes}
    return json.dumps(said).encode() + b"\n"


def greet(other: socket.socket, token: str = TOKEN, process: int = 1) -> Seal:
    """Exchange the first lines of a process; returns the seal of its later lines."""
    other.sendall(line(process=process))
    answer = other.makefile("rb").readline().rstrip(b"\n")
    theirs = json.loads(answer.rpartition(b" ")[0])["nonce"]
    return Seal(token.encode(), process, 3, "n", theirs)


def ended(other: socket.socket) -> bool:
    with suppress(ConnectionResetError):
        return other.recv(1) == b""
    return True


@pytest.mark.parametrize(
    "said",
    [
        TIMELY, b"GET / HTTP/1.1\r\n\r\n", b"\n\n\n", b"{\n", b"{}\n", b"{" + b"[" * 500 + b"\n",
        b'{"version": 2}\n', b"{" + b" " * GREETING_BYTES, line(version=1), line(process=0), line(process=3),
        line(process="1"), line(process=True), line(processes=4), line(nonce=None), line(nonce=3),
        json.dumps({"version": 1, "process": 1, "processes": 3, "shares": [[1, 3, [], []]]}).encode() + b"\n",
    ],
    ids=range(17),
)  # fmt: skip
def test_a_stranger_is_sent_away(cluster: Cluster, said: bytes) -> None:
    hub = cluster.start(0)
    with cluster.connect() as other:
        other.sendall(said)
        assert ended(other)
    assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3


@pytest.mark.parametrize(
    "shares", [None, [[1, 3, [], [[1, 2]]]], [[1, 3.5, [], []]], "x" * LINE_BYTES], ids=["none", "two", "float", "long"]
)
def test_shares_of_another_form_are_refused(cluster: Cluster, shares: object) -> None:
    hub = cluster.start(0)
    with cluster.connect() as other, suppress(BrokenPipeError, ConnectionResetError):
        other.sendall(greet(other).sign("shares", shares=shares))
        assert ended(other)
    assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3


FORGED = [[1, 3, [[9, 3, 900]], [[9, 0, 900]]]]


def forgeries(seal: Seal) -> list[bytes]:
    """Lines of a process that does not know the token, some of them altered from lines that it has heard."""
    right = seal.sign("shares", shares=FORGED)
    body, _, signature = right.rpartition(b" ")
    return [
        body + b"\n",
        body + b" " + b"0" * 64 + b"\n",
        body.replace(b"900", b"901") + b" " + signature,
        body + b" " + signature[:-2] + b"\n",
        seal.sign("hub", shares=FORGED),
        seal.sign("all", shares=FORGED),
        Seal(b"another token 16", 1, 3, "n", "x").sign("shares", shares=FORGED),
        Seal(b"", 1, 3, "n", "x").sign("shares", shares=FORGED),
        Seal(TOKEN.encode(), 2, 3, "n", "x").sign("shares", shares=FORGED),
    ]


@pytest.mark.parametrize("number", range(9))
def test_a_forged_line_changes_nothing(cluster: Cluster, number: int, caplog: pytest.LogCaptureFixture) -> None:
    """A forged line has no effect before or after the real process comes."""
    hub = cluster.start(0)
    with cluster.connect() as other:
        other.sendall(forgeries(greet(other))[number])
        assert ended(other)
    one = cluster.start(1)
    time.sleep(0.1)
    with cluster.connect() as other:
        other.sendall(forgeries(greet(other))[number])
        assert ended(other)
    assert [sorted_shares(f) for f in (one, cluster.start(2), hub)] == [ALL] * 3
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == [
        "a connection from 127.0.0.1 is refused: it has another recovery.token, or none"
    ]
    assert TOKEN not in caplog.text


def test_a_line_heard_before_is_worth_nothing_on_another_connection(cluster: Cluster) -> None:
    """A stranger repeats the hello and the signed shares of a member."""
    hub = cluster.start(0)
    with cluster.connect() as right:
        said = greet(right).sign("shares", shares=[[1, 3, [], []]])
        right.sendall(said)
        assert right.recv(1) == b"\n"
        with cluster.connect() as other:
            greet(other)
            other.sendall(said)
            assert ended(other)
        assert right.recv(1) == b"\n", "the connection of the member is given up"
    assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3


def test_a_process_0_without_the_token_is_told_nothing_and_not_believed(cluster: Cluster) -> None:
    """A stranger at the address of process 0 does not learn the shares and cannot have snapshots removed."""
    with socket.create_server(("127.0.0.1", cluster.port)) as listener:
        waiting = cluster.start(1)
        for token in (b"another token 16", b""):
            peer, _ = listener.accept()
            with peer:
                hello = json.loads(peer.makefile().readline())
                seal = Seal(token, 1, 3, hello["nonce"], "theirs")
                peer.sendall(seal.sign("hub", nonce="theirs"))
                assert peer.recv(100) == b"", "the stranger gets shares"
    assert not waiting.done()
    assert [sorted_shares(f) for f in (cluster.start(0), cluster.start(2), waiting)] == [ALL] * 3


def test_an_answer_of_process_0_is_for_one_connection(cluster: Cluster) -> None:
    hub = cluster.start(0)
    with cluster.connect() as other:
        greet(other)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        heard = Seal(TOKEN.encode(), 1, 3, "n", "theirs").sign("hub", nonce="theirs")  # to the nonce "n"
        aside = Cluster(cluster._threads)
        aside.addresses = [f"127.0.0.1:{listener.getsockname()[1]}", *aside.addresses[1:]]
        waiting = aside.start(1)
        peer, _ = listener.accept()
        with peer:
            peer.makefile().readline()
            peer.sendall(heard)
            assert peer.recv(100) == b""
        aside.stop.set()
        with pytest.raises(Stopped):
            waiting.result(60)
    assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3


def test_two_clusters_at_one_address_do_not_mix(cluster: Cluster) -> None:
    """A process of another cluster waits, and nobody takes its shares."""
    hub, stop = cluster.start(0), threading.Event()
    strange = cluster.start(1, stop, token="the token of others")
    time.sleep(0.5)
    assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3
    assert not strange.done()
    stop.set()
    with pytest.raises(Stopped):
        strange.result(60)


@pytest.mark.parametrize("host", ["pod-0.pods.svc", "10.0.0.1", "0.0.0.0", "[::]", "[fd00::1]", "localhost.example"])
def test_an_address_that_others_can_reach_needs_a_token(host: str) -> None:
    with pytest.raises(ConfigError, match=r"recovery.token is not set: .*SENTINEL_RECOVERY__TOKEN"):
        check_token([f"{host}:2101", "b:1"], None)
    with pytest.raises(ConfigError, match=r"recovery.token is not set"):
        gather([f"{host}:2101", "b:1"], 0, [], lambda: False)
    check_token([f"{host}:2101", "b:1"], TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_on_loopback_a_token_may_be_left_out(host: str) -> None:
    check_token([f"{host}:2101", "b:1"], None)


def test_without_a_token_they_meet_on_loopback(threads: ThreadPoolExecutor) -> None:
    cluster = Cluster(threads, token=None)
    assert [sorted_shares(cluster_) for cluster_ in [cluster.start(n) for n in range(3)]] == [ALL] * 3


def test_a_silent_client_does_not_hold_the_others_up(cluster: Cluster) -> None:
    hub = cluster.start(0)
    with cluster.connect() as silent:
        assert silent.recv(1) == b""
        assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3


def test_one_that_died_while_it_waited_is_waited_for_again(cluster: Cluster) -> None:
    hub = cluster.start(0)
    with cluster.connect() as died:
        died.sendall(greet(died).sign("shares", shares=[[1, 3, [], []]]))
        assert died.recv(1) == b"\n", "it is not told to wait"
    time.sleep(0.5)
    other = cluster.start(2)
    time.sleep(0.5)
    assert not hub.done() and not other.done()
    assert [sorted_shares(f) for f in (cluster.start(1), other, hub)] == [ALL] * 3


def test_one_that_came_back_before_its_end_was_noticed_counts_once(cluster: Cluster) -> None:
    hub = cluster.start(0)
    with cluster.connect() as hanging:
        hanging.sendall(greet(hanging).sign("shares", shares=[[1, 3, [], []]]))
        assert hanging.recv(1) == b"\n"
        again = cluster.start(1)
        assert set(hanging.makefile()) <= {"\n"}, "the old connection gets more than empty lines before it is closed"
        assert [sorted_shares(f) for f in (again, cluster.start(2), hub)] == [ALL] * 3


@pytest.mark.parametrize("answer", [b"", TIMELY, b"\n\n", b"\n{}\n", line()], ids=str)
def test_a_false_answer_is_not_believed(cluster: Cluster, answer: bytes) -> None:
    """Answers of a Bytewax that waits for its peers, of a process 0 that dies, of a stranger, and its own hello."""
    with socket.create_server(("127.0.0.1", cluster.port)) as listener:
        other = cluster.start(1)
        peer, _ = listener.accept()
        with peer:
            assert json.loads(peer.makefile().readline())["process"] == 1
            peer.sendall(answer)
    assert [sorted_shares(f) for f in (cluster.start(0), cluster.start(2), other)] == [ALL] * 3


def test_a_taken_address_is_used_once_it_is_free(cluster: Cluster) -> None:
    with socket.create_server(("127.0.0.1", cluster.port)):
        found = [cluster.start(0)]
        time.sleep(0.5)
        assert not found[0].done()
    found += [cluster.start(1), cluster.start(2)]
    assert [sorted_shares(f) for f in found] == [ALL] * 3


@pytest.mark.parametrize("process", [0, 1])
def test_a_stop_ends_the_wait(cluster: Cluster, process: int) -> None:
    waiting = cluster.start(process)
    time.sleep(0.3)
    cluster.stop.set()
    with pytest.raises(Stopped):
        waiting.result(60)


def test_a_stop_of_one_does_not_end_the_others(cluster: Cluster) -> None:
    stop = threading.Event()
    hub, stopped = cluster.start(0), cluster.start(2, stop)
    time.sleep(0.5)
    stop.set()
    with pytest.raises(Stopped):
        stopped.result(60)
    assert [sorted_shares(f) for f in (cluster.start(1), cluster.start(2), hub)] == [ALL] * 3


def test_silence_ends_a_connection_and_empty_lines_keep_it() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        speaking = threading.Timer(0.4, theirs.sendall, [b"\n"])
        speaking.start()
        before = time.monotonic()
        with pytest.raises(TimeoutError):
            _awaited(ours, 100, lambda: None, 0.8)
        assert time.monotonic() - before >= 1.2
        speaking.join()


@pytest.mark.parametrize("address", ["", "host", ":1", "host:", "host:x", "host:65536"])
@pytest.mark.parametrize("process", [0, 1])
def test_an_address_without_host_or_port_is_refused(address: str, process: int) -> None:
    with pytest.raises(ConfigError, match="is not host:port"):
        gather([address, "b:1"], process, [], lambda: False)


# --- snapshots that are removed --------------------------------------------------------------------------------------


def joined(threads: ThreadPoolExecutor, folders: list[Path]) -> list[Future[None]]:
    addresses = tuple(f"127.0.0.1:{free_port()}" for _ in folders)
    connected = threading.Event()
    connected.set()
    return [
        threads.submit(join, Place(folder, number, len(folders), addresses), folder, connected)
        for number, folder in enumerate(folders)
    ]


def test_an_epoch_that_only_the_other_one_knows_to_be_unfinished_is_forgotten(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    """Volume 0 holds the start of the run, volume 1 the progress of its workers; both hold later snapshots."""
    store(tmp_path, 2, [(3, 2, 2)], [(2, 0, 1), (3, 0, 7), (2, 1, 9), (3, 1, 6)])
    folders = split(tmp_path, 2)
    for future in joined(threads, folders):
        future.result(60)
    assert [epochs(folder) for folder in folders] == [[list(range(1, 6))]] * 2


def test_volumes_that_are_not_one_store_are_refused_by_all_and_left_alone(
    tmp_path: Path, threads: ThreadPoolExecutor
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        store(folder, 2, [(0, 2, 1)], [(0, 0, 3), (0, 1, 3)])
        (folder / "part-1.sqlite3").unlink()
    for future in joined(threads, folders):
        with pytest.raises(ConfigError, match="each once; they hold 0 of 2, 0 of 2"):
            future.result(60)
    assert [epochs(folder) for folder in folders] == [[list(range(1, 10))]] * 2


def test_a_stranger_has_no_snapshot_forgotten(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    """The stranger sends a line that an earlier release believed, and one of this release with a wrong token."""
    store(tmp_path, 2, [(3, 2, 2)], [(2, 0, 1), (3, 0, 9), (2, 1, 9), (3, 1, 9)])
    folders = split(tmp_path, 2)
    kept = [epochs(folder) for folder in folders]
    addresses = (f"127.0.0.1:{free_port()}", "unused.invalid:1")
    connected = threading.Event()
    connected.set()
    hub = threads.submit(join, Place(folders[0], 0, 2, addresses), folders[0], connected, TOKEN)
    forged = [[1, 2, [[9, 2, 1]], [[9, 0, 1], [9, 1, 1]]]]
    old = json.dumps({"version": 1, "process": 1, "processes": 2, "shares": forged}).encode() + b"\n"
    host, port = addresses[0].split(":")
    for attempt in range(2):
        deadline = time.monotonic() + 60
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection((host, int(port)), 60) as other:
                if attempt == 0:
                    other.sendall(old)
                else:
                    other.sendall(line(processes=2))
                    theirs = json.loads(other.makefile("rb").readline().rpartition(b" ")[0])["nonce"]
                    other.sendall(Seal(b"not the token of them", 1, 2, "n", theirs).sign("shares", shares=forged))
                assert ended(other)
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert not hub.done()
    assert [epochs(folder) for folder in folders] == kept
    threads.submit(join, Place(folders[1], 1, 2, addresses), folders[1], connected, TOKEN).result(60)
    hub.result(60)
    assert [epochs(folder) for folder in folders] == [[list(range(1, 9))]] * 2


# --- real processes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("process", "number", "code"), [(0, signal.SIGTERM, 143), (1, signal.SIGINT, 130)])
def test_a_process_that_waits_alone_is_alive_and_can_be_stopped(
    tmp_path: Path, process: int, number: signal.Signals, code: int
) -> None:
    port = free_port()
    job = Job(tmp_path, {"source.kind": "simulator", "recovery.layout": "own", "metrics.port": port})
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    with job.start(*job.recovered(), "-i", str(process), "-a", addresses) as alone:
        deadline = time.monotonic() + 60
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), 60) as probe:
                    probe.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
                    assert probe.recv(100).startswith(b"HTTP/1.0 200")
                    break
            except ConnectionRefusedError:
                assert alone.alive() and time.monotonic() < deadline, alone.said()
                time.sleep(0.02)
        time.sleep(0.5)
        alone.send(number)
        assert alone.finish() == code, alone.said()
        assert f"{number.name}: stopped before the start, while waiting for the others" in alone.said()
        assert "Traceback" not in alone.said()


def test_processes_with_one_token_meet_past_a_stranger(tmp_path: Path) -> None:
    """Real processes have the token in their environment, and none of them sends it."""
    shared = {
        "source.kind": "simulator",
        "source.simulator.hours": 0.5,
        "recovery.layout": "own",
        "recovery.token": TOKEN,
    }
    jobs = [Job(tmp_path / str(number), {**shared, "log.level": "debug"}) for number in range(2)]
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    places = [(*job.recovered(1), "-i", str(n), "-a", ";".join(addresses)) for n, job in enumerate(jobs)]
    with jobs[0].start(*places[0]) as first:
        deadline = time.monotonic() + 60
        while True:
            with (
                suppress(ConnectionRefusedError),
                socket.create_connection(("127.0.0.1", int(addresses[0].split(":")[1])), 60) as other,
            ):
                other.sendall(json.dumps({"version": 1, "process": 1, "processes": 2, "shares": []}).encode() + b"\n")
                assert ended(other)
                break
            assert first.alive() and time.monotonic() < deadline, first.said()
            time.sleep(0.05)
        with jobs[1].start(*places[1]) as second:
            assert (first.finish(), second.finish()) == (0, 0), first.said() + second.said()
            said = first.said() + second.said()
    assert "a connection from 127.0.0.1 is refused" in said
    assert TOKEN not in said


def test_a_start_that_others_could_reach_is_refused_without_a_token(tmp_path: Path) -> None:
    job = Job(tmp_path, {"source.kind": "simulator", "recovery.layout": "own"})
    with job.start(*job.recovered(), "-i", "0", "-a", "pod-0.pods.svc:2101;pod-1.pods.svc:2101") as alone:
        assert alone.finish(60) == 78
        said = alone.said()
    assert "llm-sentinel cannot start: process 0 listens on pod-0.pods.svc:2101" in said
    assert "Traceback" not in said
    assert not (tmp_path / "recovery").exists()


@pytest.mark.parametrize(("connected", "code", "said"), [(False, 1, "not all processes were connected"), (True, 0, "")])
def test_a_process_whose_others_do_not_connect_ends(connected: bool, code: int, said: str) -> None:
    program = (
        "import threading, time; from flows.recovery.joining import end_unless; connected = threading.Event(); "
        f"end_unless(connected, 0.3); connected.set() if {connected} else None; time.sleep(1 if {connected} else 60)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert said in done.stderr


def counted(folder: Path, settled: bool, dies: str) -> list[str]:
    """Run `volume_flow` in two processes until it dies or ends; returns the lines with its counts."""
    addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(2))
    pods = [
        subprocess.Popen(
            [sys.executable, "-m", "bytewax.run", "tests.flows.volume_flow:flow()", "-s", "0", "-b", "0",
             "-r", folder / str(number), "-i", str(number), "-a", addresses],
            cwd=ROOT, env={**os.environ, "SETTLED": str(int(settled)), "DIES": dies}, stdout=subprocess.PIPE, text=True,
        )
        for number in range(2)
    ]  # fmt: skip
    with ExitStack() as stack:
        for pod in pods:
            stack.enter_context(pod)
            stack.callback(pod.kill)
        said = [line for pod in pods for line in pod.communicate(timeout=100)[0].splitlines()]
    codes = [pod.returncode for pod in pods]
    assert codes == [0, 0] if not dies else -signal.SIGKILL in codes, codes
    return [line for line in said if line.startswith("key-")]


@pytest.mark.parametrize("settled", [True, False])
def test_two_deaths_within_one_epoch_change_nothing(tmp_path: Path, settled: bool) -> None:
    """Unless `settled`, the second run resumes some keys from the unfinished epoch in which the first one died."""
    counted(tmp_path, settled, "storing")
    assert any(of > [[]] for of in (epochs(tmp_path / "0"), epochs(tmp_path / "1"))), (
        "it died before it stored anything"
    )
    counted(tmp_path, settled, "reading")
    last = counted(tmp_path, settled, "")
    assert {line.split()[1] for line in last} == ({"1"} if settled else {"1", "2"})
