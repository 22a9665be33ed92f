"""Rows, alerts and a clock for the tests of sinks."""

from __future__ import annotations

from collections.abc import Callable

import orjson

from connectors.base import Message, Row
from connectors.tables import ALERTS, EXPECTATIONS, PANES, TABLES, Role, Type
from operators.incidents.alert_json import rfc3339
from operators.model import SECOND

BEGAN = 1_767_225_600 * SECOND
"""2026-01-01T00:00:00Z in microseconds."""

_VALUES: dict[Type, object] = {
    Type.TEXT: "", Type.INT: 0, Type.FLOAT: 0.0, Type.TIMESTAMP_US: BEGAN, Type.BYTES: b"\x01\x00", Type.BOOL: False,
}  # fmt: skip


def pane_row(series: str = "service=a", pane: int = 0, **values: object) -> Row:
    """A row of `llm_panes`; fields may be given by name."""
    given = {
        "dimension_set": "service", "series": series, "width_s": 10, "pane_start": BEGAN + pane * 10 * SECOND,
        "breakdown": "[]", "evidence": "[]", **values,
    }  # fmt: skip
    return Row(PANES.name, tuple(given.get(c.name, None if c.null else _VALUES[c.type]) for c in PANES.columns))


def expectation_row(series: str = "service=a", minute: int = 0, **values: object) -> Row:
    """A row of `llm_expectations`; fields may be given by name."""
    given = {"dimension_set": "service", "series": series, "pane_start": BEGAN + minute * 60 * SECOND, **values}
    columns = EXPECTATIONS.columns
    return Row(EXPECTATIONS.name, tuple(given.get(c.name, None if c.null else _VALUES[c.type]) for c in columns))


def alert_store_row(alert_id: str, **values: object) -> Row:
    """A row of `llm_alerts`."""
    given = {"alert_id": alert_id, **values}
    return Row(ALERTS.name, tuple(given.get(c.name, None if c.null else _VALUES[c.type]) for c in ALERTS.columns))


def as_dict(row: Row) -> dict[str, object]:
    """The row's values by column."""
    return dict(zip((c.name for c in TABLES[row.table].columns), row.values, strict=True))


def key_of(row: Row) -> tuple[object, ...]:
    """The table of the row, and the values of its key."""
    columns = TABLES[row.table].columns
    return (row.table, *(v for c, v in zip(columns, row.values, strict=True) if c.role is not Role.FIELD))


def alert(number: int, **fields: object) -> Message:
    """The alert with this number; one follows another after ten seconds."""
    at = BEGAN + number * 10 * SECOND
    value = {
        "alert_id": f"alert-{number}", "status": "firing", "severity": "high", "series": {"service": "a"},
        "metric": "latency", "unit": "ms", "observed": 4200.5, "expected": 800.0, "text": "", "at": rfc3339(at),
        **fields,
    }  # fmt: skip
    return Message(f"alert-{number}", f"episode-{number}", {}, orjson.dumps(value), at)


class Clock:
    """A clock that advances only by sleeping; `on_sleep` is called after each sleep."""

    def __init__(self, on_sleep: Callable[[], None] | None = None) -> None:
        self.now = 0.0
        self.slept: list[float] = []
        self.on_sleep = on_sleep

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds
        self.slept.append(seconds)
        if self.on_sleep is not None:
            self.on_sleep()
