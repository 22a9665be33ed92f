"""The data that travels through the flow: events as columns, dead letters, alerts.

Times are integers: microseconds since 1970-01-01T00:00:00Z. Values inside panes are fixed-point integers
(`operators.metrics.Metric.scale` units to one unit of the metric), since only integer addition is exact in any order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SECOND: Final = 1_000_000
"""Microseconds in a second."""

MISSING: Final = -1
"""The value of a metric that an event does not carry; every true value is >= 0."""

NO_ARRIVAL: Final = -1
"""The arrival of a record without one, in a system that gives arrivals of others."""

DIMENSIONS: Final[tuple[str, ...]] = ("service", "model", "operation", "provider", "tenant", "region", "agent")
"""The labels that can key a series."""

LABELS: Final[tuple[str, ...]] = (
    "service", "model", "operation", "provider", "tenant", "region", "error_type", "finish_reason", "model_version",
    "agent",
)  # fmt: skip
"""The labels that a pane can be broken down by: the dimensions, and three that are never part of a series' key.

`model_version` is the model as it was sent if `operators.enrich.renames` gave it another name, else "". Snapshots hold
labels by their place here, so a new one stands last.
"""

EVALUATION: Final = "evaluation"
"""The operation of an event that is no request: it tells the quality of one that was counted before."""

SENT_LABELS: Final[tuple[str, ...]] = tuple(label for label in LABELS if label != "model_version")
"""The labels that an event is sent with."""

TextField = Literal[
    "event_id", "service", "model", "model_requested", "provider", "operation", "tenant", "region", "agent", "status",
    "error_type", "finish_reason", "trace_id", "span_id", "session_id", "user", "key",
]  # fmt: skip
TEXT_FIELDS: Final[tuple[TextField, ...]] = get_args(TextField)
"""The fields of a native event that are text."""


@dataclass(slots=True)
class Events:
    """Decoded events as columns, all of length n, in the order of their records.

    `values` is [metric, n] of fixed-point integers, `MISSING` where the event has none. `combo` indexes `combos`, the
    distinct label tuples (in the order of `LABELS`, "" where absent). `event_id` and `trace_id` are "" where absent.
    `keys` [n, k, 2] are 128-bit hashes by which the same call is known again, two zeros for none; `call` is the place
    of the call in its record.
    `caller` holds `caller_text` of each event; it is empty if no event has any.
    """

    record: Ints  # index of the record in the decoded chunk
    start: Ints
    end: Ints
    values: Ints
    error: Bools
    combo: NDArray[np.int32]
    combos: list[tuple[str, ...]]
    event_id: list[str]
    trace_id: list[str]
    caller: list[str] = field(default_factory=list)
    keys: NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 0, 2), np.uint64))
    call: Ints = field(default_factory=lambda: np.empty(0, np.int64))

    def __len__(self) -> int:
        return len(self.start)


def caller_text(user: str, key: str, session_id: str) -> str:
    """Who made a request, as one text, "" if nothing is known; `user` and `key` are hashes, which hold no space."""
    return f"{user} {key} {session_id}" if user or key or session_id else ""


def caller_fields(text: str) -> dict[str, str]:
    """The fields that `caller_text` was given, without those that are ""."""
    values = text.split(" ", 2) if text else ()
    return {name: value for name, value in zip(("user", "key", "session_id"), values, strict=False) if value}


class Reason:
    """The reasons for dead letters: one stable code for each cause, fit for a metric label."""

    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    NOT_OTLP = "not_otlp"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    BAD_NUMBER = "bad_number"  # negative, non-finite or absurd
    BAD_TIME = "bad_time"
    FUTURE_TIME = "future_time"
    RECORD_TOO_LARGE = "record_too_large"
    STRING_TOO_LONG = "string_too_long"
    TOO_MANY_ATTRIBUTES = "too_many_attributes"
    TOO_MANY_CALLS = "too_many_calls"

    ALL: Final = (
        NOT_UTF8, NOT_JSON, NOT_AN_OBJECT, NOT_OTLP, MISSING_FIELD, WRONG_TYPE, BAD_NUMBER, BAD_TIME,
        FUTURE_TIME, RECORD_TOO_LARGE, STRING_TOO_LONG, TOO_MANY_ATTRIBUTES, TOO_MANY_CALLS,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used: its origin, the reason, and the part of it that may be shown.

    `origin` is the topic or file, `partition` and `offset` its place there, `call` the place of a call in the record, 0
    for the first and for the whole record. `payload` is truncated and holds only the
    values that `operators.decode.redact` allows; it is never the raw record. `log` tells the topic from an earlier or
    later one of the same name; "" if the system has no such id.
    """

    origin: str
    partition: int
    offset: int
    reason: str
    detail: str
    payload: str
    log: str = ""
    call: int = 0

    @property
    def id(self) -> str:
        """The id: the same for one record or call over any number of runs, and another one for any other."""
        place = f"{self.origin}/{self.partition}/{self.offset}" + (f"#{self.call}" if self.call else "")
        return f"{place}@{self.log}" if self.log else place


Severity = Literal["low", "medium", "high", "critical"]
SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""All severities, the mildest first."""
Status = Literal["firing", "updated", "resolved"]


@dataclass(frozen=True, slots=True)
class Alert:
    """One transition of an episode, as it stands on the alert topic (`docs/alerts.md` describes each field).

    Times are microseconds; `connectors` and `operators.incidents.alert_json` write them as RFC 3339 UTC.
    """

    alert_id: str
    episode_id: str
    group_id: str
    related: tuple[str, ...]
    sequence: int
    status: Status
    severity: Severity
    kind: str
    series: dict[str, str]
    metric: str
    unit: str
    at: int
    since: int
    until: int | None
    observed: float
    expected: float
    lower: float | None
    upper: float | None
    score: float
    detectors: tuple[str, ...]
    contributors: tuple[dict[str, str | float], ...] = ()
    evidence: tuple[dict[str, str | float], ...] = ()
    text: str = ""
    links: dict[str, str] = field(default_factory=dict)
    reason: Literal["", "quiet", "level_shift", "expired"] = ""  # why it resolved
    factors: tuple[dict[str, str | float], ...] = ()
    learned_panes: int = 0  # panes with data that the expected value was learned from
    learned_since: int | None = None
