"""Rows of our tables in the client's terms; pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from greptimedb_ingester import Column, ColumnDataType, SemanticType

from connectors.base import Row
from connectors.tables import TABLES, Role, Table, Type
from operators.errors import DataError

_TYPES: Final = {
    Type.TEXT: ColumnDataType.STRING,
    Type.INT: ColumnDataType.INT64,
    Type.FLOAT: ColumnDataType.FLOAT64,
    Type.TIMESTAMP_US: ColumnDataType.TIMESTAMP_MICROSECOND,
    Type.BYTES: ColumnDataType.BINARY,
    Type.BOOL: ColumnDataType.BOOLEAN,
}
_ROLES: Final = {Role.KEY: SemanticType.TAG, Role.TIME: SemanticType.TIMESTAMP, Role.FIELD: SemanticType.FIELD}

Values = tuple[object, ...]


def columns(table: Table) -> list[Column]:
    """The table's columns: its key as tags, its time index as the timestamp; GreptimeDB replaces rows by these."""
    return [Column(c.name, _TYPES[c.type], _ROLES[c.role]) for c in table.columns]


COLUMNS: Final = {name: columns(table) for name, table in TABLES.items()}


def batches(items: Iterable[Row]) -> list[tuple[str, list[Values]]]:
    """(table, values of its rows, in order) for each table of the items. Raises `DataError` for an unknown table."""
    out: dict[str, list[Values]] = {}
    for item in items:
        if item.table not in COLUMNS:
            raise DataError("unknown_table", item.table)
        out.setdefault(item.table, []).append(item.values)
    return list(out.items())
