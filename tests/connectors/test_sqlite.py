"""The SQLite store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from connectors.base import Row, WriterFactory
from connectors.config import SqliteConfig
from connectors.sqlite import (
    APPLICATION,
    PAGE_BYTES,
    SCHEMA,
    SqliteFactory,
    SqliteWriter,
    create_statements,
    read,
    upsert_statement,
)
from connectors.tables import TABLES, Table
from operators.errors import ConfigError, DataError, FatalError, RetryableError
from tests.connectors.samples import BEGAN, alert_store_row, as_dict, pane_row
from tests.contracts.systems import Maker, Rows, after, ordered


class SqliteSystem(Rows):
    def __init__(self, folder: Path) -> None:
        self.path = folder / "store.db"

    def factory(self) -> WriterFactory[Row]:
        return SqliteFactory(SqliteConfig(path=self.path, busy_timeout_s=0))

    def contents(self) -> list[object]:
        return ordered({name: read(self.path, f"SELECT * FROM {name}") for name in TABLES})

    def trouble(self, tries: int) -> Callable[[], None]:
        other = sqlite3.connect(self.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        return after(tries, other.close)


@contextmanager
def systems() -> Iterator[Maker]:
    """The systems for the laws of writers."""
    yield SqliteSystem


def open_writer(path: Path) -> SqliteWriter:
    return SqliteFactory(SqliteConfig(path=path, busy_timeout_s=0)).open("sqlite", None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def writer(path: Path) -> Iterator[SqliteWriter]:
    w = open_writer(path)
    yield w
    w.close()


def test_a_row_comes_back_as_it_was_written(path: Path, writer: SqliteWriter) -> None:
    rows = [pane_row(latency_p50=1.5, latency_count=3, sketch=b"\x01\xff"), alert_store_row("a", text="it is slow")]
    writer.write(rows)
    assert read(path, "SELECT * FROM llm_panes") == [as_dict(rows[0])]
    assert read(path, "SELECT * FROM llm_alerts WHERE alert_id = ?", ["a"]) == [as_dict(rows[1])]


def test_a_row_of_the_same_key_is_replaced_whole(path: Path, writer: SqliteWriter) -> None:
    writer.write([pane_row(requests=1, latency_p50=1.0), pane_row(requests=2), pane_row("service=b")])
    found = read(path, "SELECT series, requests, latency_p50 FROM llm_panes ORDER BY series")
    assert found == [
        {"series": "service=a", "requests": 2, "latency_p50": None},
        {"series": "service=b", "requests": 0, "latency_p50": None},
    ]


def test_the_readable_view_has_times_as_text_and_no_blobs(path: Path, writer: SqliteWriter) -> None:
    writer.write([pane_row(pane=1), alert_store_row("a", at=BEGAN + 1_500_000)])
    (pane,) = read(path, "SELECT * FROM llm_panes_readable")
    assert pane["pane_start"] == "2026-01-01T00:00:10.000Z"
    assert "sketch" not in pane
    (alert,) = read(path, "SELECT * FROM llm_alerts_readable")
    assert (alert["at"], alert["until"]) == ("2026-01-01T00:00:01.500Z", None)


def test_it_is_durable_and_readable_while_written(path: Path, writer: SqliteWriter) -> None:
    (mode,) = read(path, "PRAGMA journal_mode")
    assert mode == {"journal_mode": "wal"}
    assert read(path, "PRAGMA page_size") == [{"page_size": PAGE_BYTES}]
    writer.write([pane_row()])
    assert read(path, "SELECT count(*) AS n FROM llm_panes") == [{"n": 1}]


def test_a_locked_file_can_be_tried_again(path: Path, writer: SqliteWriter) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(RetryableError, match="is locked by another program"):
        writer.write([pane_row()])
    other.execute("ROLLBACK")
    other.close()
    writer.write([pane_row()])
    assert len(read(path, "SELECT 1 FROM llm_panes")) == 1


@pytest.mark.parametrize(
    "row",
    [
        pane_row(service=None),
        pane_row(requests="many"),
        pane_row(requests=2**70),
        pane_row(requests=object()),
        pane_row(breakdown="\ud800"),
        pane_row(error_ratio=float("nan")),  # SQLite stores it as null
    ],
)
def test_a_bad_row_is_a_data_error_and_leaves_nothing_behind(path: Path, writer: SqliteWriter, row: object) -> None:
    assert isinstance(row, type(pane_row()))
    with pytest.raises(DataError, match="bad_row"):
        writer.write([pane_row("service=good"), row])
    assert read(path, "SELECT * FROM llm_panes") == []
    writer.write([pane_row("service=good")])
    assert len(read(path, "SELECT 1 FROM llm_panes")) == 1


def test_rows_of_no_table_or_another_length_are_data_errors(writer: SqliteWriter) -> None:
    row = pane_row()
    with pytest.raises(DataError, match="unknown_table"):
        writer.write([type(row)("other", row.values)])
    with pytest.raises(DataError, match="bad_row"):
        writer.write([type(row)(row.table, row.values[:-1])])


def test_a_full_disk_can_be_tried_again(path: Path, writer: SqliteWriter) -> None:
    rows = [pane_row(f"service={i}", sketch=b"x" * 5000) for i in range(50)]
    (pages,) = writer._db.execute("PRAGMA page_count").fetchone()
    writer._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RetryableError, match="the disk is full: make room"):
        writer.write(rows)
    assert read(path, "SELECT * FROM llm_panes") == []
    writer._db.execute("PRAGMA max_page_count = 1000000")
    writer.write(rows)
    assert len(read(path, "SELECT 1 FROM llm_panes")) == 50


def test_a_file_that_may_not_be_written_is_fatal(path: Path, writer: SqliteWriter) -> None:
    writer._db.execute("PRAGMA query_only = ON")
    with pytest.raises(FatalError, match="cannot be written to: check the permissions"):
        writer.write([pane_row()])


def test_a_damaged_file_is_fatal(path: Path) -> None:
    w = open_writer(path)
    w.write([pane_row(f"service={i}", sketch=b"x" * 2000) for i in range(200)])
    w.close()
    data = bytearray(path.read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 8192 - 4096)
    path.write_bytes(data)
    with pytest.raises(FatalError, match="it is damaged: restore it from a copy"):
        open_writer(path)


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"nonsense" * 1000)
    with pytest.raises(ConfigError, match="it is not a SQLite database"):
        open_writer(path)


def test_a_database_of_another_program_is_refused(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE theirs (x)")
    db.close()
    with pytest.raises(ConfigError, match="belongs to another program: set another path"):
        open_writer(path)


@pytest.mark.parametrize("version", [SCHEMA - 2, SCHEMA + 1])
def test_a_database_of_another_schema_is_refused(path: Path, version: int) -> None:
    open_writer(path).close()
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION,)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(ConfigError, match=f"has schema {version}, this program writes schema {SCHEMA}"):
        open_writer(path)


def _is_new(column: str) -> bool:
    """Whether the column came with schema 5."""
    return column == "agent" or column.startswith("cache_write_tokens_")


def test_a_database_of_the_schema_before_gets_the_missing_columns_and_keeps_its_rows(path: Path) -> None:
    db = sqlite3.connect(path)
    before = [Table(t.name, tuple(c for c in t.columns if not _is_new(c.name))) for t in TABLES.values()]
    rows = [pane_row(latency_count=3), alert_store_row("a", text="it is slow")]
    for table in before:
        for statement in create_statements(table):
            db.execute(statement)
    for row in rows:
        (table,) = (t for t in before if t.name == row.table)
        held = [value for c, value in zip(TABLES[row.table].columns, row.values, strict=True) if not _is_new(c.name)]
        db.execute(upsert_statement(table), held)
    db.execute(f"PRAGMA application_id = {APPLICATION}")
    db.execute("PRAGMA user_version = 4")
    db.commit()
    db.close()
    open_writer(path).close()
    writer = open_writer(path)
    for row in rows:
        (found,) = read(path, f"SELECT * FROM {row.table}")
        names = [name for name in found if _is_new(name)]
        added = {name: "" if name == "agent" else 0 if name.endswith("_count") else None for name in names}
        assert found == as_dict(row) | added
        assert "agent" in read(path, f"SELECT * FROM {row.table}_readable")[0]
    writer.write([pane_row(latency_count=4, agent="planner", cache_write_tokens_count=2)])
    writer.close()
    (found,) = read(path, "SELECT agent, latency_count, cache_write_tokens_count FROM llm_panes")
    assert tuple(found.values()) == ("planner", 4, 2)
    assert read(path, "PRAGMA user_version") == [{"user_version": SCHEMA}]


def test_a_path_without_a_folder_or_on_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no folder"):
        open_writer(tmp_path / "none" / "store.db")
    with pytest.raises((ConfigError, FatalError), match="cannot be opened"):
        open_writer(tmp_path)


def test_opening_while_another_program_holds_the_lock_can_be_tried_again(path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(RetryableError):
        open_writer(path)
    other.close()
    open_writer(path).close()


def test_opening_again_keeps_the_rows(path: Path) -> None:
    for _ in range(2):
        w = open_writer(path)
        w.write([pane_row()])
        assert w.snapshot() is None
        w.close()
    assert len(read(path, "SELECT 1 FROM llm_panes")) == 1


def test_reading_says_what_is_wrong(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no SQLite store"):
        read(path, "SELECT 1")
    open_writer(path).close()
    with pytest.raises(ConfigError, match="no such table"):
        read(path, "SELECT * FROM missing")
    with pytest.raises(ConfigError, match="readonly"):
        read(path, "DELETE FROM llm_panes")
