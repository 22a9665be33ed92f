"""The listener for Prometheus and probes, over real HTTP on loopback."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from connectors.listener import CONNECTIONS, HEAD_BYTES, Listener
from operators.errors import ConfigError


@pytest.fixture
def ready() -> threading.Event:
    return threading.Event()


@pytest.fixture
def listener(ready: threading.Event) -> Iterator[Listener]:
    registry = CollectorRegistry()
    Counter("things", "What there is.", registry=registry).inc(3)
    made = Listener("127.0.0.1", 0, registry, ready.is_set)
    yield made
    made.stop()


def ask(listener: Listener, path: str, method: str = "GET") -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", listener.server_port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        connection.close()


def test_metrics_are_served_in_the_format_of_prometheus(listener: Listener) -> None:
    status, kind, body = ask(listener, "/metrics?name[]=things")
    assert status == 200
    assert kind.startswith("text/plain; version=")
    assert "things_total 3.0" in body


def test_alive_at_once_and_ready_after_the_first_poll(listener: Listener, ready: threading.Event) -> None:
    assert ask(listener, "/health/live")[::2] == (200, "alive\n")
    assert ask(listener, "/health/ready")[::2] == (503, "the source has not been polled yet\n")
    ready.set()
    assert ask(listener, "/health/ready")[::2] == (200, "ready\n")


def test_a_flow_that_does_not_move_is_not_alive(ready: threading.Event) -> None:
    moving = threading.Event()
    made = Listener("127.0.0.1", 0, CollectorRegistry(), ready.is_set, moving.is_set)
    try:
        assert ask(made, "/health/live")[::2] == (503, "the flow has not moved for too long\n")
        moving.set()
        assert ask(made, "/health/live")[::2] == (200, "alive\n")
    finally:
        made.stop()


@pytest.mark.parametrize("path", ["/", "/metric", "/metrics/", "/health/../metrics"])
def test_nothing_else_is_there(listener: Listener, path: str) -> None:
    status, _, body = ask(listener, path)
    assert (status, body) == (404, "there are /metrics, /health/live and /health/ready\n")


def test_head_says_what_get_would_without_a_body(listener: Listener) -> None:
    assert ask(listener, "/health/live", "HEAD") == (200, "text/plain; charset=utf-8", "")
    assert ask(listener, "/health/ready", "HEAD")[0] == 503
    assert ask(listener, "/nothing", "HEAD")[0] == 404
    connection = http.client.HTTPConnection("127.0.0.1", listener.server_port, timeout=5)
    connection.request("HEAD", "/metrics")
    assert int(connection.getresponse().getheader("Content-Length", "0")) > 10
    connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_changed(listener: Listener, method: str) -> None:
    assert ask(listener, "/metrics", method)[0] == 501


def test_many_ask_at_once(listener: Listener) -> None:
    answers: list[int] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(listener, "/metrics")[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8


def test_a_client_that_says_nothing_holds_nobody_up(listener: Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.server_port), timeout=5):
        assert ask(listener, "/health/live")[0] == 200


class Watched:
    """A listener with this deadline, and the reasons why it closed clients."""

    def __init__(self, deadline_s: float = 60.0, registry: CollectorRegistry | None = None) -> None:
        self.closed: list[str] = []
        self._deadline_s, self._registry = deadline_s, registry or CollectorRegistry()

    def __enter__(self) -> Watched:
        self.listener = Listener(
            "127.0.0.1", 0, self._registry, lambda: True, closed=self.closed.append, deadline_s=self._deadline_s
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.stop()

    def client(self, sends: bytes = b"") -> socket.socket:
        made = socket.create_connection(("127.0.0.1", self.listener.server_port), timeout=20)
        made.sendall(sends)
        return made


def gone(client: socket.socket) -> bool:
    """Whether the other side closes the connection without an answer."""
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def test_the_whole_request_has_one_deadline_however_often_a_byte_comes() -> None:
    with Watched(deadline_s=0.5) as watched, watched.client(b"GET /metrics HTTP/1.1\r\n") as client:
        began = time.monotonic()
        client.settimeout(0.05)
        ended = False
        while not ended and time.monotonic() < began + 20:
            try:
                client.send(b"A")
                ended = client.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                ended = True
        assert ended
        assert watched.closed == ["slow"]


def test_a_client_that_does_not_read_has_the_same_deadline() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", "g", ["n"], registry=registry)
    for n in range(16):
        gauge.labels(f"{n:01000000}")
    with Watched(0.5, registry) as watched, watched.client(b"GET /metrics HTTP/1.1\r\n\r\n"):
        deadline = time.monotonic() + 30
        while not watched.closed and time.monotonic() < deadline:
            time.sleep(0.01)
        assert watched.closed == ["slow"]


def test_a_request_that_is_too_large_is_not_read_to_its_end() -> None:
    with Watched() as watched, watched.client(b"GET / HTTP/1.1\r\nA: " + b"a" * 2 * HEAD_BYTES) as client:
        assert gone(client)
        assert watched.closed == ["large"]


@pytest.mark.parametrize("line", [b"", b"GET", b"GET /metrics", b"GET /metrics HTTP/2.0", b"\xff\x00 / HTTP/1.1 x"])
def test_a_malformed_request_gets_an_error(line: bytes) -> None:
    with Watched() as watched, watched.client(line + b"\r\n\r\n") as client:
        assert client.recv(100).startswith(b"HTTP/1.0 400 Bad Request\r\n")


def test_the_oldest_client_gives_way_where_there_are_too_many() -> None:
    with Watched() as watched, ExitStack() as stack:
        clients = [stack.enter_context(watched.client(b"GET")) for _ in range(CONNECTIONS)]
        assert ask(watched.listener, "/metrics")[0] == 200
        assert gone(clients[0])
        assert watched.closed == ["crowded"]
        clients[1].sendall(b" /health/live HTTP/1.1\r\n\r\n")
        assert clients[1].recv(100).startswith(b"HTTP/1.0 200 OK\r\n")
        threads = {thread.name for thread in threading.enumerate() if thread.name == "metrics"}
        assert len(threads) == 1


def test_a_metric_that_fails_harms_nobody(listener: Listener) -> None:
    class Broken(Gauge):
        def collect(self) -> Iterator[object]:  # type: ignore[override]
            raise RuntimeError("broken")

    registry = CollectorRegistry(auto_describe=False)
    Broken("b", "b", registry=registry)
    with Watched(registry=registry) as watched:
        with watched.client(b"GET /metrics HTTP/1.1\r\n\r\n") as client:
            assert gone(client)
        assert ask(watched.listener, "/health/live")[0] == 200


def test_a_client_that_goes_away_leaves_no_line(listener: Listener, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", listener.server_port), timeout=5) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    assert ask(listener, "/health/live")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_port_that_is_taken_is_refused_with_what_to_do(listener: Listener) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 127.0.0.1:\d+ .*in use.*metrics.port"):
        Listener("127.0.0.1", listener.server_port, CollectorRegistry(), lambda: True)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on 192.0.2.1:0 .*metrics.host"):
        Listener("192.0.2.1", 0, CollectorRegistry(), lambda: True)


def test_a_host_that_has_no_address_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        Listener("no.such.host.invalid", 0, CollectorRegistry(), lambda: True)


def test_after_stop_nobody_answers() -> None:
    made = Listener("127.0.0.1", 0, CollectorRegistry(), lambda: True)
    made.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(made, "/health/live")
