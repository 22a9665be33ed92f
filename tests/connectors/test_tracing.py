"""Traces: the spans that reach a collector, and the effect of a collector that fails."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from connectors.config import TracesConfig
from connectors.reliable import NullObserver
from connectors.tracing import Seldom, TracedSinks, Traces
from operators.errors import ConfigError
from tests.brokers import free_port
from tests.connectors.otlp_server import Collector, collector, plain
from tests.processes import Job

NOW = 1_767_225_600_000_000_000


@pytest.fixture
def there() -> Iterator[Collector]:
    with collector() as found:
        yield found


def traces(endpoint: str, **changes: object) -> Traces:
    config = TracesConfig.model_validate({"endpoint": endpoint, "timeout_s": 1, **changes})
    return Traces(config, "1.2.3", "0a1b2c3d", 2, lambda: NOW)


def test_a_write_is_a_span_with_its_duration(there: Collector) -> None:
    made = traces(there.endpoint, token=SecretStr("secret"))
    sinks = TracedSinks(made, NullObserver())
    sinks.retried("sqlite")
    sinks.retried("sqlite")
    sinks.rejected("sqlite", "bad_row")
    sinks.written("sqlite", 40, 0.25)
    sinks.written("sqlite", 2, 0.5)
    made.close()
    first, second = there.spans()
    assert (first.name, first.end_time_unix_nano, first.end_time_unix_nano - first.start_time_unix_nano) == (
        "write", NOW, 250_000_000,
    )  # fmt: skip
    assert plain(first.attributes) == {"sentinel.sink": "sqlite", "sentinel.items": 40, "sentinel.retries": 2}
    assert plain(second.attributes)["sentinel.retries"] == 0
    assert first.trace_id != second.trace_id
    assert {h["authorization"] for h in there.headers} == {"Bearer secret"}
    named = {"service.name": "llm-sentinel", "service.version": "1.2.3", "service.instance.id": "0a1b2c3d"}
    assert named.items() <= there.resource().items()
    assert there.resource()["sentinel.process"] == 2


def test_the_first_and_then_every_nth_poll_is_a_span(there: Collector) -> None:
    made = traces(there.endpoint, batches=0.1)
    for number in range(25):
        made.polled("t/0", 0.01, number)
    made.polled("t/1", 0.01, 7)
    made.close()
    told = [plain(span.attributes) for span in there.spans()]
    assert [(a["sentinel.partition"], a["sentinel.records"]) for a in told] == [
        ("t/0", 0), ("t/0", 10), ("t/0", 20), ("t/1", 7),
    ]  # fmt: skip


def test_polls_can_be_left_out(there: Collector) -> None:
    made = traces(there.endpoint, batches=0)
    made.polled("t/0", 0.01, 5)
    made.close()
    assert there.spans() == []


@pytest.mark.parametrize("fault", ["refuses", "hangs", "is away"])
def test_a_collector_that_fails_holds_nothing_up(there: Collector, fault: str) -> None:
    """Nothing raises, and closing waits for the timeout, not for the whole queue."""
    there.status = 503
    if fault == "hangs":
        there.held.set()
    endpoint = f"http://127.0.0.1:{free_port()}/v1/traces" if fault == "is away" else there.endpoint
    made = traces(endpoint)
    began = time.monotonic()
    for _ in range(5_000):
        made.wrote("sqlite", 0.1, 1, 0)
    made.close()
    assert time.monotonic() - began < 15
    assert there.spans() == []


def test_a_fault_that_lasts_is_said_once_a_minute() -> None:
    now = [0.0]
    seldom = Seldom(60, lambda: now[0])
    record = logging.LogRecord("x", logging.ERROR, "", 0, "", (), None)
    said = []
    for now[0] in (0, 2, 59, 60, 61, 200):
        said.append(seldom.filter(record))
    assert said == [True, False, False, True, False, True]


def test_without_the_packages_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"opentelemetry\.sdk\.trace is not installed.*pip install 'llm-sentinel\[ot"):
        traces("http://localhost:4318/v1/traces")


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://localhost", "http://me:secret@localhost:4318/v1/traces"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(endpoint: str) -> None:
    with pytest.raises(ValidationError) as raised:
        TracesConfig.model_validate({"endpoint": endpoint})
    assert "secret" not in str(raised.value)


def test_a_flow_tells_its_polls_and_writes(there: Collector, tmp_path: Path) -> None:
    simulated = {"source.simulator.hours": 0.5, "source.batch_size": 1000}
    job = Job(tmp_path, {**simulated, "traces.endpoint": there.endpoint, "traces.batches": 0.5})
    said = job.run(*job.recovered(1))
    assert "opentelemetry" not in said
    names = {span.name for span in there.spans()}
    assert names == {"poll", "write"}
    sinks = {plain(s.attributes)["sentinel.sink"] for s in there.spans() if s.name == "write"}
    assert "sqlite" in sinks
    assert all(s.end_time_unix_nano >= s.start_time_unix_nano for s in there.spans())
    polled = [plain(s.attributes) for s in there.spans() if s.name == "poll"]
    assert {a["sentinel.partition"] for a in polled} <= {"simulator/000", "simulator/001"}
