"""Describes the tables of the store; every store makes its own schema from this description.

A row is a tuple of values in the order of its table's columns. The key columns and the time index together name a row;
writing it again replaces it. Text in the key is never null, since null equals nothing, not even itself.
"""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import Final, NamedTuple

from operators.detect.engine.expectations import BAND
from operators.metrics import MEASURES, METRICS
from operators.model import DIMENSIONS


class Type(Enum):
    """The type of a column; times are microseconds since 1970-01-01T00:00:00Z."""

    TEXT = "text"
    INT = "int"
    FLOAT = "float"
    TIMESTAMP_US = "timestamp_us"
    BYTES = "bytes"
    BOOL = "bool"


class Role(Enum):
    """The role of a column: part of the row's name (`KEY`, and the one `TIME`), or a value (`FIELD`)."""

    KEY = "key"
    TIME = "time"
    FIELD = "field"


class Column(NamedTuple):
    """One column; only fields may be null."""

    name: str
    type: Type
    role: Role = Role.FIELD
    null: bool = False


class Table:
    """A table: its name, and its columns in the order of every row's values."""

    def __init__(self, name: str, columns: tuple[Column, ...]) -> None:
        self.name = name
        self.columns = columns

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns that name a row, with the time index last."""
        keys = [c.name for c in self.columns if c.role is Role.KEY]
        return (*keys, *(c.name for c in self.columns if c.role is Role.TIME))

    @cached_property
    def index(self) -> dict[str, int]:
        """The place of each column in a row, by name."""
        return {c.name: i for i, c in enumerate(self.columns)}


QUANTILES: Final = ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
"""The quantiles of a pane row, each with the ending of its columns' names."""


def _metric_columns() -> tuple[Column, ...]:
    out: list[Column] = []
    for metric in METRICS:
        out.append(Column(f"{metric.name}_count", Type.INT))
        ends = ("sum", "min", "max", *(name for _, name in QUANTILES))
        out.extend(Column(f"{metric.name}_{end}", Type.FLOAT, null=True) for end in ends)
    return tuple(out)


PANES: Final = Table(
    "llm_panes",
    (
        Column("dimension_set", Type.TEXT, Role.KEY),
        Column("series", Type.TEXT, Role.KEY),
        Column("width_s", Type.INT, Role.KEY),
        Column("pane_start", Type.TIMESTAMP_US, Role.TIME),
        *(Column(name, Type.TEXT) for name in DIMENSIONS),
        Column("requests", Type.INT),
        Column("errors", Type.INT),
        Column("error_ratio", Type.FLOAT),
        *_metric_columns(),
        Column("sketch", Type.BYTES),
        Column("breakdown", Type.TEXT),
        Column("evidence", Type.TEXT),
    ),
)
"""One row for each (series, width, pane): the content of `operators.panes.table.PaneTable` in the metrics' units, null
where no event carried the metric. Dimensions outside the series' set are empty text, so every query must name its
`dimension_set`."""

EXPECTATIONS: Final = Table(
    "llm_expectations",
    (
        Column("dimension_set", Type.TEXT, Role.KEY),
        Column("series", Type.TEXT, Role.KEY),
        Column("pane_start", Type.TIMESTAMP_US, Role.TIME),
        *(Column(name, Type.TEXT) for name in DIMENSIONS),
        *(Column(f"{name}_{end}", Type.FLOAT, null=True) for name in MEASURES for end in BAND),
    ),
)
"""One row for each (series, minute) with requests, or for each pane where that is longer: the values that detection
expected, in the units of alerts, null without an expectation. It belongs to the row of `llm_panes` of that width with
the same `pane_start`."""

ALERTS: Final = Table(
    "llm_alerts",
    (
        Column("alert_id", Type.TEXT, Role.KEY),
        Column("at", Type.TIMESTAMP_US, Role.TIME),
        Column("episode_id", Type.TEXT),
        Column("group_id", Type.TEXT),
        Column("related", Type.TEXT),
        Column("sequence", Type.INT),
        Column("status", Type.TEXT),
        Column("severity", Type.TEXT),
        Column("kind", Type.TEXT),
        Column("dimension_set", Type.TEXT),
        Column("series", Type.TEXT),
        *(Column(name, Type.TEXT) for name in DIMENSIONS),
        Column("metric", Type.TEXT),
        Column("unit", Type.TEXT),
        Column("since", Type.TIMESTAMP_US),
        Column("until", Type.TIMESTAMP_US, null=True),
        Column("observed", Type.FLOAT, null=True),
        Column("expected", Type.FLOAT, null=True),
        Column("lower", Type.FLOAT, null=True),
        Column("upper", Type.FLOAT, null=True),
        Column("score", Type.FLOAT, null=True),
        Column("detectors", Type.TEXT),
        Column("learned_panes", Type.INT),
        Column("learned_since", Type.TIMESTAMP_US, null=True),
        Column("contributors", Type.TEXT),
        Column("factors", Type.TEXT),
        Column("evidence", Type.TEXT),
        Column("text", Type.TEXT),
        Column("links", Type.TEXT),
        Column("reason", Type.TEXT),
    ),
)
"""One row for each transition of an episode; lists and objects are JSON text."""

TABLES: Final = {table.name: table for table in (PANES, EXPECTATIONS, ALERTS)}
