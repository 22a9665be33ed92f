"""An alert as bytes, and the headers that travel with it.

The value is one JSON object with the fields of `operators.model.Alert`, `schema` first; times are RFC 3339 UTC in
milliseconds. The headers are those of CloudEvents 1.0 in Kafka's binary mode. `docs/alerts.md` describes every field.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import orjson

from operators.model import Alert

SCHEMA: Final = 1
SOURCE: Final = "llm-sentinel"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS: Final = (
    "alert_id", "episode_id", "group_id", "related", "sequence", "status", "severity", "kind", "series", "metric",
    "unit", "at", "since", "until", "observed", "expected", "lower", "upper", "score", "detectors",
    "learned_panes", "learned_since", "contributors", "factors", "evidence", "text", "links", "reason",
)  # fmt: skip
_TIMES: Final = frozenset({"at", "since", "until", "learned_since"})


def rfc3339(microseconds: int) -> str:
    """`2025-03-04T05:18:20.000Z`; digits beyond milliseconds are cut off."""
    ms = microseconds // 1000
    return (_EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def microseconds(text: str) -> int:
    """Read a time that `rfc3339` wrote, or any RFC 3339 time with an offset. Raises `ValueError` on other text."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return (time - _EPOCH) // timedelta(microseconds=1)


def to_json(alert: Alert) -> bytes:
    """The alert as it stands on the topic: the same bytes for the same alert."""
    row: dict[str, object] = {"schema": SCHEMA}
    for name in _FIELDS:
        value = getattr(alert, name)
        row[name] = rfc3339(value) if name in _TIMES and value is not None else value
    return orjson.dumps(row)


def headers(alert: Alert, replayed: bool = False) -> dict[str, str]:
    """CloudEvents 1.0, binary mode: the attributes as Kafka headers; `replayed: true` marks an alert that is old."""
    mark = {"replayed": "true"} if replayed else {}
    return {
        "ce_specversion": "1.0",
        "ce_id": alert.alert_id,
        "ce_source": SOURCE,
        "ce_type": f"{SOURCE}.alert.{alert.status}",
        "ce_time": rfc3339(alert.at),
        "content-type": "application/json",
        **mark,
    }
