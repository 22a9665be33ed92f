"""The embedded store: rows as upserts in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from connectors.base import Row, State
from connectors.config import SqliteConfig
from connectors.tables import TABLES, Column, Role, Table, Type
from operators.errors import ConfigError, DataError, FatalError, RetryableError

APPLICATION: Final = 0x4C4C4D53
"""The file's application_id, which distinguishes our files from those of other programs."""
SCHEMA: Final = 5
"""The file's user_version; goes up with every change of the tables."""
_BEFORE: Final = 4
"""The schema before, to whose tables the missing columns are added."""

PAGE_BYTES: Final = 16_384
"""The page size. Rows take one to three KiB, and would leave a third of each page of 4 KiB empty."""
CACHE_KIB: Final = 32_768
"""The page cache in memory. With many series, writes touch the whole index by key, which does not fit into 2 MiB."""

_TYPES: Final = {
    Type.TEXT: "TEXT",
    Type.INT: "INTEGER",
    Type.FLOAT: "REAL",
    Type.TIMESTAMP_US: "INTEGER",
    Type.BYTES: "BLOB",
    Type.BOOL: "INTEGER",
}
_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}
_OF_A_ROW: Final = {sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE}
_SENTENCES: Final = {
    sqlite3.SQLITE_BUSY: "it is locked by another program",
    sqlite3.SQLITE_LOCKED: "it is locked by another program",
    sqlite3.SQLITE_FULL: "the disk is full: make room",
    sqlite3.SQLITE_READONLY: "it cannot be written to: check the permissions of the file and of its folder",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it from a copy, or move it away and start again",
    sqlite3.SQLITE_NOTADB: "it is not a SQLite database: set another path",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its folder exists and may be written to",
    sqlite3.SQLITE_IOERR: "reading or writing failed: check the disk",
}


def _declared(column: Column, added: bool = False) -> str:
    """The column as SQL; one that is `added` to a table is 0 or "" in the rows that are there, or null."""
    default = "DEFAULT ''" if column.type is Type.TEXT else "DEFAULT 0"
    limits = "" if column.null else f" NOT NULL {default}" if added else " NOT NULL"
    return f'"{column.name}" {_TYPES[column.type]}{limits}'


def create_statements(table: Table) -> list[str]:
    """The statements that make the table, and its view `<table>_readable` with times as text and without blobs."""
    columns = list(map(_declared, table.columns))
    key = ", ".join(f'"{name}"' for name in table.key)
    shown = [
        f"""strftime('%Y-%m-%dT%H:%M:%fZ', "{c.name}" / 1000000.0, 'unixepoch') AS "{c.name}\""""
        if c.type is Type.TIMESTAMP_US
        else f'"{c.name}"'
        for c in table.columns
        if c.type is not Type.BYTES
    ]
    (time,) = (c.name for c in table.columns if c.role is Role.TIME)
    return [
        f'CREATE TABLE "{table.name}" ({", ".join(columns)}, PRIMARY KEY ({key})) STRICT',
        f'CREATE INDEX "{table.name}_{time}" ON "{table.name}" ("{time}")',
        f'CREATE VIEW "{table.name}_readable" AS SELECT {", ".join(shown)} FROM "{table.name}"',  # noqa: S608 - our names
    ]


def upsert_statement(table: Table) -> str:
    """The statement that inserts a row, or replaces every field of the row with the same key."""
    names = ", ".join(f'"{c.name}"' for c in table.columns)
    marks = ", ".join("?" * len(table.columns))
    key = ", ".join(f'"{name}"' for name in table.key)
    fields = ", ".join(f'"{c.name}" = excluded."{c.name}"' for c in table.columns if c.role is Role.FIELD)
    return f'INSERT INTO "{table.name}" ({names}) VALUES ({marks}) ON CONFLICT ({key}) DO UPDATE SET {fields}'  # noqa: S608


class SqliteWriter:
    """Writes each chunk in one transaction, durable when `write` returns."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._upserts = {name: upsert_statement(table) for name, table in TABLES.items()}
        if not path.parent.is_dir():
            raise ConfigError(f"the SQLite store {path} has no folder {path.parent}: make it, or set another path")
        try:
            self._db = sqlite3.connect(path, timeout=busy_timeout_s, isolation_level=None)
        except sqlite3.Error as e:
            self._fail(e)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise
        self._inode = _inode(path)

    def _prepare(self) -> None:
        try:
            # WAL lets readers read while we write. FULL, because a row must survive a power cut if its epoch does.
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            (objects,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if objects and application != APPLICATION:
                raise ConfigError(f"the SQLite file {self._path} belongs to another program: set another path")
            if objects and version == _BEFORE:
                self._widen()
            elif objects and version != SCHEMA:
                raise ConfigError(
                    f"the SQLite file {self._path} has schema {version}, this program writes schema {SCHEMA}: "
                    "set another path, or use the program that made it"
                )
            self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # works on a new file only, and before the next line
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            if not objects:
                self._create()
        except sqlite3.Error as e:
            if e.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN):
                raise ConfigError(self._sentence(e)) from e
            self._fail(e)

    def _create(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            # Another process may have made the tables between the first check and the lock.
            (objects,) = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not objects:
                for table in TABLES.values():
                    for statement in create_statements(table):
                        self._db.execute(statement)
                self._db.execute(f"PRAGMA application_id = {APPLICATION}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _widen(self) -> None:
        """Add the columns that came after the schema before, in one transaction; rows keep their values."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            for table in TABLES.values() if version == _BEFORE else ():
                there = {name for _, name, *_ in self._db.execute(f'PRAGMA table_info("{table.name}")')}
                for column in (c for c in table.columns if c.name not in there):
                    self._db.execute(f'ALTER TABLE "{table.name}" ADD COLUMN {_declared(column, added=True)}')
                *_, view = create_statements(table)
                self._db.execute(f'DROP VIEW "{table.name}_readable"')
                self._db.execute(view)
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def write(self, items: Sequence[Row]) -> None:
        """Upsert the rows; if this raises, none of them is there."""
        if self._inode != _inode(self._path):
            raise FatalError(f"the SQLite store {self._path} was removed while it was written: start again")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for table, rows in _runs(items):
                self._db.executemany(self._upserts[table], rows)
            self._db.execute("COMMIT")
        except KeyError as e:
            self._roll_back()
            raise DataError("unknown_table", str(e)) from e
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError, OverflowError, UnicodeEncodeError) as e:
            self._roll_back()  # a value that SQLite has no type for, or a row of another length
            raise DataError("bad_row", str(e)) from e
        except sqlite3.Error as e:
            self._roll_back()
            self._fail(e)

    def snapshot(self) -> State | None:
        """Nothing: an upsert does no harm twice."""
        return None

    def close(self) -> None:
        """Close the file, which also merges its write-ahead log."""
        self._db.close()

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _sentence(self, e: sqlite3.Error) -> str:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        return f"the SQLite store {self._path}: {_SENTENCES.get(code, str(e))}"

    def _fail(self, e: sqlite3.Error) -> NoReturn:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _PASSING:
            raise RetryableError(self._sentence(e)) from e
        if code in _OF_A_ROW:
            raise DataError("bad_row", str(e)) from e
        raise FatalError(self._sentence(e)) from e


def _inode(path: Path) -> int | None:
    """The number that distinguishes the file from another one with the same path; None if there is no file."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _runs(items: Iterable[Row]) -> list[tuple[str, list[tuple[object, ...]]]]:
    """Runs of neighbouring rows of one table, so that the order within a key is kept."""
    out: list[tuple[str, list[tuple[object, ...]]]] = []
    for item in items:
        if not out or out[-1][0] != item.table:
            out.append((item.table, []))
        out[-1][1].append(item.values)
    return out


class SqliteFactory:
    """The embedded store as a sink of rows: one partition, since SQLite has one writer."""

    name = "sqlite"

    def __init__(self, config: SqliteConfig) -> None:
        self._config = config

    def partitions(self) -> list[str]:
        """The one partition."""
        return ["sqlite"]

    def route(self, key: str) -> int:
        """Every key goes to the one partition."""
        return 0

    def open(self, partition: str, resume: State | None) -> SqliteWriter:
        """Open the file, or make it. Raises `ConfigError` where it is another program's, or has another schema."""
        return SqliteWriter(self._config.path, self._config.busy_timeout_s)

    def ask(self) -> str:
        """Open the file, or make it, and close it."""
        self.open("sqlite", None).close()
        return "the file can be opened"


def read(path: Path, query: str, parameters: Sequence[object] = ()) -> list[dict[str, object]]:
    """The result of a query as dicts; the file is opened read-only. Raises `ConfigError` where it is not there.

    Each table has a view `<table>_readable` with times as RFC 3339 text and without blobs.
    """
    if not path.is_file():
        raise ConfigError(f"there is no SQLite store {path}: run the flow first, or set another path")
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query, parameters)]
    except sqlite3.Error as e:
        raise ConfigError(f"the SQLite store {path} cannot be read: {e}") from e
    finally:
        db.close()
