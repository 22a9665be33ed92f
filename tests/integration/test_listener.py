"""The listener of a running flow with more slow clients than the process may have descriptors."""

from __future__ import annotations

import re
import socket
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from signal import SIGTERM

from tests.brokers import free_port
from tests.processes import Job, Process

CLIENTS = 1_500
DESCRIPTORS = 1_024


def scrape(port: int, timeout: float = 10) -> dict[str, float]:
    """The value of each sample, by its name with its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=timeout) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def first_scrape(port: int, process: Process) -> dict[str, float]:
    deadline = time.monotonic() + 100
    while True:
        assert process.alive() and time.monotonic() < deadline, process.said()
        try:
            return scrape(port)
        except OSError:
            time.sleep(0.1)


def records(samples: dict[str, float]) -> float:
    return sum(value for name, value in samples.items() if name.startswith("sentinel_records_total"))


def test_slow_clients_by_the_thousand_harm_neither_the_flow_nor_who_scrapes_it(tmp_path: Path) -> None:
    port = free_port()
    settings = {"source.kind": "simulator", "source.simulator.live": True, "metrics.port": port}
    job = Job(tmp_path, settings)
    with job.start(*job.recovered(1)) as process, ExitStack() as stack:
        first_scrape(port, process)
        process.limit_descriptors(DESCRIPTORS)
        clients: list[socket.socket] = []
        seen = []
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            for _ in range(CLIENTS - len(clients)):
                clients.append(client := stack.enter_context(socket.socket()))
                client.setblocking(False)
                client.connect_ex(("127.0.0.1", port))
                time.sleep(0.001)  # so that the flow accepts it
            for client in clients:
                try:
                    client.send(b"G")
                except OSError:  # not connected yet, or closed by the flow
                    continue
            assert process.alive(), process.said()
            try:
                seen.append(scrape(port, 2))
            except OSError:  # the listener closed this client in favour of others
                time.sleep(0.1)
        assert len(seen) > 3
        assert records(seen[-1]) > records(seen[0])
        assert max(samples["process_open_fds"] for samples in seen) < DESCRIPTORS / 3
        assert seen[-1]['sentinel_listener_closed_total{reason="crowded"}'] > DESCRIPTORS / 3
        process.send(SIGTERM)
        assert process.finish() == 0, process.said()
    assert re.search("stopping after a last snapshot", process.said())
