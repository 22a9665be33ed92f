"""The GreptimeDB writer, against a small server of the protocol, and a real one if LLMS_TEST_GREPTIME names it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from greptimedb_ingester import ColumnDataType, SemanticType
from pydantic import SecretStr, ValidationError

from connectors.base import Row, WriterFactory
from connectors.config import GreptimeConfig, ReliabilityConfig
from connectors.greptime.encoding import batches, columns
from connectors.greptime.writer import GreptimeFactory, GreptimeWriter
from connectors.reliable import ReliableSink
from connectors.tables import ALERTS, PANES
from operators.errors import ConfigError, DataError, FatalError, RetryableError
from tests.connectors.greptime_server import GreptimeServer
from tests.connectors.samples import Clock, alert_store_row, as_dict, pane_row
from tests.contracts.systems import Maker, Rows, after, ordered


class GreptimeSystem(Rows):
    def __init__(self, server: GreptimeServer) -> None:
        self.server = server
        server.tables.clear()

    def factory(self) -> WriterFactory[Row]:
        return GreptimeFactory(GreptimeConfig(endpoint=self.server.endpoint, timeout_s=2, partitions=1))

    def contents(self) -> list[object]:
        return ordered({name: list(rows.values()) for name, rows in self.server.tables.items()})

    def trouble(self, tries: int) -> Callable[[], None]:
        self.server.fail(grpc.StatusCode.UNAVAILABLE, 1_000_000)
        return after(tries, lambda: self.server.fail(grpc.StatusCode.UNAVAILABLE, 0))


@contextmanager
def systems() -> Iterator[Maker]:
    """The systems for the laws of writers."""
    server = GreptimeServer()
    try:
        yield lambda folder: GreptimeSystem(server)
    finally:
        server.stop()


STATUS = grpc.StatusCode


@pytest.fixture
def server() -> Iterator[GreptimeServer]:
    s = GreptimeServer()
    yield s
    s.stop()


@pytest.fixture
def writer(server: GreptimeServer) -> GreptimeWriter:
    return open_writer(server)


def config(server: GreptimeServer, **settings: object) -> GreptimeConfig:
    return GreptimeConfig.model_validate({"endpoint": server.endpoint, "timeout_s": 2, **settings})


def open_writer(server: GreptimeServer, **settings: object) -> GreptimeWriter:
    return GreptimeFactory(config(server, **settings)).open("greptime/00", None)


def found(server: GreptimeServer, table: str = PANES.name) -> list[dict[str, object]]:
    rows = server.tables.get(table, {})
    return [rows[key] for key in sorted(rows, key=repr)]


def test_a_row_arrives_as_it_was_written(server: GreptimeServer, writer: GreptimeWriter) -> None:
    rows = [
        pane_row(latency_p50=1.5, latency_count=3, sketch=b"\x01\xff", service="é"),
        alert_store_row("a", score=0.5),
    ]
    writer.write(rows)
    assert found(server) == [as_dict(rows[0])]
    assert found(server, ALERTS.name) == [as_dict(rows[1])]
    assert server.databases == {"public"}
    assert writer.snapshot() is None
    writer.close()


def test_keys_are_tags_and_the_time_is_the_timestamp() -> None:
    kinds = {c.name: (c.semantic_type, c.data_type) for c in columns(PANES)}
    assert {n for n, (kind, _) in kinds.items() if kind == SemanticType.TAG} == {"dimension_set", "series", "width_s"}
    assert kinds["pane_start"] == (SemanticType.TIMESTAMP, ColumnDataType.TIMESTAMP_MICROSECOND)
    assert kinds["service"] == (SemanticType.FIELD, ColumnDataType.STRING)
    assert kinds["sketch"] == (SemanticType.FIELD, ColumnDataType.BINARY)


def test_rows_go_by_table_in_order_and_unknown_tables_are_data_errors() -> None:
    rows = [pane_row("a"), alert_store_row("x"), pane_row("b")]
    assert batches(rows) == [(PANES.name, [rows[0].values, rows[2].values]), (ALERTS.name, [rows[1].values])]
    with pytest.raises(DataError, match="unknown_table"):
        batches([Row("other", ())])


def test_a_row_of_the_same_key_is_replaced(server: GreptimeServer, writer: GreptimeWriter) -> None:
    writer.write([pane_row(requests=1), pane_row(requests=2), pane_row("service=b")])
    writer.write([pane_row(requests=3)])
    assert [(r["series"], r["requests"]) for r in found(server)] == [("service=a", 3), ("service=b", 0)]


@pytest.mark.parametrize("code", [STATUS.UNAVAILABLE, STATUS.INTERNAL, STATUS.RESOURCE_EXHAUSTED])
def test_a_failing_server_can_be_tried_again(server: GreptimeServer, writer: GreptimeWriter, code: STATUS) -> None:
    server.fail(code, 3)
    with pytest.raises(RetryableError, match=server.endpoint):
        writer.write([pane_row("a"), pane_row("b")])
    writer.write([pane_row("a"), pane_row("b")])
    assert len(found(server)) == 2


def test_a_server_that_is_away_and_comes_back(server: GreptimeServer) -> None:
    writer = open_writer(server, connect_timeout_s=0.5)
    writer.write([pane_row("a")])
    server.stop()
    with pytest.raises(RetryableError):
        writer.write([pane_row("b")])
    server.restart()
    clock = Clock(lambda: None)
    sink = ReliableSink(GreptimeFactory(config(server)), ReliabilityConfig(), clock=clock)
    part = sink.build_part("store", "greptime/00", None)
    part.write_batch([pane_row("b")])
    part.snapshot()
    assert len(found(server)) == 2


def test_a_server_that_does_not_answer_in_time_can_be_tried_again(server: GreptimeServer) -> None:
    server.delay_s = 0.5
    writer = open_writer(server, timeout_s=0.1)
    with pytest.raises(RetryableError):
        writer.write([pane_row()])


@pytest.mark.parametrize(
    "row",
    [
        pane_row(requests="many"),
        pane_row(latency_p50=float("nan")),
        pane_row(latency_p50=float("inf")),
        pane_row(requests=2**70),
        pane_row(pane_start=None),
        Row(PANES.name, pane_row().values[:-1]),
    ],
)
def test_a_row_that_cannot_be_sent_is_a_data_error(server: GreptimeServer, writer: GreptimeWriter, row: Row) -> None:
    with pytest.raises(DataError, match="bad_row"):
        writer.write([pane_row("good"), row])
    assert found(server) == []


@pytest.mark.parametrize("known", [False, True])
def test_a_refused_row_is_distinguished_from_a_failing_server(server: GreptimeServer, known: bool) -> None:
    server.refuse = {("series", "bad")}
    clock, rejected = Clock(), []
    sink = ReliableSink(
        GreptimeFactory(config(server)),
        ReliabilityConfig(),
        clock=clock,
        rejected=lambda sink, item, error: rejected.append((item, error.reason)),
    )
    part = sink.build_part("store", "greptime/00", None)
    if known:
        part.write_batch([pane_row("before")])
        part.snapshot()
    bad = pane_row("bad")
    part.write_batch([pane_row("a"), pane_row("b"), bad, pane_row("c")])
    part.snapshot()
    assert rejected == [(bad, "refused")]
    assert {r["series"] for r in found(server)} - {"before"} == {"a", "b", "c"}


def test_a_server_that_fails_between_good_answers_refuses_nothing(server: GreptimeServer) -> None:
    writer = open_writer(server)
    writer.write([pane_row("a")])
    server.fail(STATUS.UNAVAILABLE, 1)
    with pytest.raises(RetryableError):
        writer.write([pane_row("b")])
    server.fail(STATUS.UNAVAILABLE, 2)
    with pytest.raises(RetryableError):
        writer.write([pane_row("c")])
    writer.write([pane_row("c")])
    assert {r["series"] for r in found(server)} == {"a", "b", "c"}


def test_a_server_that_is_slow_between_quick_answers_refuses_nothing(server: GreptimeServer) -> None:
    writer = open_writer(server, timeout_s=0.2)
    writer.write([pane_row("a")])
    server.delays = [0.5, 0, 0, 0.5, 0, 0.5]  # slow at the inserts that a server refusing the row would fail
    with pytest.raises(RetryableError, match="Timeout"):
        writer.write([pane_row("b")])


def test_a_lone_row_is_not_called_bad_before_the_server_took_any(
    server: GreptimeServer, writer: GreptimeWriter
) -> None:
    server.refuse = {("series", "bad")}
    with pytest.raises(RetryableError):
        writer.write([pane_row("bad")])


def test_user_password_and_database_are_used_and_never_shown(server: GreptimeServer) -> None:
    server.basic = ("writer", "s3cret-word")
    good = config(server, username="writer", password="s3cret-word", database="llm")
    assert "s3cret-word" not in repr(good) + str(good) + good.model_dump_json()
    GreptimeFactory(good).open("greptime/00", None).write([pane_row()])
    assert server.databases == {"llm"}

    wrong = good.model_copy(update={"password": SecretStr("wr0ng-word")})
    sink = ReliableSink(GreptimeFactory(wrong), ReliabilityConfig(budget_s=1), clock=Clock())
    part = sink.build_part("store", "greptime/00", None)
    part.write_batch([pane_row("x"), pane_row("y")])
    with pytest.raises(FatalError, match="authentication") as e:
        part.snapshot()
    assert "wr0ng-word" not in str(e.value)


def test_certificates_that_are_not_there_are_refused(server: GreptimeServer, tmp_path: Path) -> None:
    none = tmp_path / "none.pem"
    c = config(server, tls_ca=none, tls_cert=none, tls_key=none)
    with pytest.raises(ConfigError, match="the GreptimeDB client refuses its settings"):
        GreptimeFactory(c).open("greptime/00", None)


@pytest.mark.parametrize(
    "settings",
    [
        {"username": "a"},
        {"password": "b"},
        {"tls_ca": "ca.pem"},
        {"tls_cert": "c.pem", "tls_key": "k.pem"},
        {"endpoint": "http://host:4001"},
        {"endpoint": "host"},
        {"partitions": 0},
        {"timeout_s": 0},
        {"tiemout_s": 1},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        GreptimeConfig.model_validate(settings)


def test_all_keys_of_a_shard_go_one_way_and_all_partitions_are_used() -> None:
    factory = GreptimeFactory(GreptimeConfig(partitions=4))
    assert factory.partitions() == ["greptime/00", "greptime/01", "greptime/02", "greptime/03"]
    routes = {f"{shard:04d}": {factory.route(f"{shard:04d}/{w}/7") for w in (10, 60, 3600)} for shard in range(64)}
    assert all(len(r) == 1 for r in routes.values())
    assert {r for ways in routes.values() for r in ways} == {0, 1, 2, 3}
    assert [factory.route(k) for k in ("0000", "0001", "episode-1")] == [
        GreptimeFactory(GreptimeConfig()).route(k) for k in ("0000/a", "0001/b", "episode-1")
    ]


REAL = os.environ.get("LLMS_TEST_GREPTIME")


@pytest.mark.parametrize("real", [None, *([REAL] if REAL else [])])
def test_the_same_rows_twice_are_taken_by_every_greptimedb(server: GreptimeServer, real: str | None) -> None:
    writer = GreptimeFactory(GreptimeConfig(endpoint=real or server.endpoint)).open("greptime/00", None)
    run = uuid.uuid4().hex
    rows = [pane_row(f"service={run}", pane=n, latency_p50=float(n), sketch=b"\x01") for n in range(3)]
    writer.write([*rows, alert_store_row(run)])
    writer.write([*rows, alert_store_row(run)])
    with pytest.raises(DataError):
        writer.write([pane_row(requests="many")])
    assert len(found(server)) == (0 if real else 3)
