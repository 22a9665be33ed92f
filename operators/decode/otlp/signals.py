"""What an OTLP record holds, apart from its encoding: spans, log records, and metrics by their number.

Only attributes that a table of conventions asks for are kept, so that prompts and completions are not even built.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MAX_SPANS: Final = 20_000
"""Most spans and log records of one OTLP record; a Collector's batch has at most 8,192 unless it is told otherwise."""

MAX_DEPTH: Final = 16
"""Deepest level of an attribute's value that is read; what lies deeper is unknown."""

CLIENT: Final = 3
SERVER: Final = 2
ERROR: Final = 2

Attributes = dict[str, Any]
"""Attributes by name; values are text, numbers, booleans, lists and dicts of these, and None."""


@dataclass(slots=True)
class Event:
    """An event of a span; `at` in nanoseconds."""

    name: str
    at: int
    attributes: Attributes


@dataclass(slots=True)
class Span:
    """One span. Ids are lower-case hexadecimal, "" where absent; times are nanoseconds; `kind`, `status` are codes."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    scope: str
    kind: int
    start: int
    end: int
    status: int
    message: str
    attributes: Attributes
    events: list[Event]
    resource: Attributes


@dataclass(slots=True)
class LogRecord:
    """One log record; `at` is its time, or that at which it was observed, in nanoseconds."""

    trace_id: str
    span_id: str
    name: str
    scope: str
    at: int
    attributes: Attributes
    resource: Attributes


@dataclass(slots=True)
class Signals:
    """The content of one record."""

    spans: list[Span] = field(default_factory=list)
    logs: list[LogRecord] = field(default_factory=list)
    metrics: int = 0
