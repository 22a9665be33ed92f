"""The fields of a native JSON event, as the fast path reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final

from msgspec import Meta, Raw, Struct

from operators.model import METRIC_INDEX, METRICS

ABSENT: Final = Raw(b"")
"""The attributes of a record without any. Compared by identity."""

NAN: Final = float("nan")
"""A metric that is absent. JSON has no NaN, so no record can say it."""

METRIC_FIELDS: Final[dict[str, str]] = {
    "latency_ms": "latency",
    "ttft_ms": "ttft",
    "prompt_tokens": "prompt_tokens",
    "completion_tokens": "completion_tokens",
    "cached_tokens": "cached_tokens",
    "reasoning_tokens": "reasoning_tokens",
    "cost_usd": "cost",
    "quality_score": "quality",
}
"""The metric that each numeric field carries."""

TOKEN_FIELDS: Final = tuple(name for name in METRIC_FIELDS if name.endswith("_tokens"))
TEXT_FIELDS: Final = (
    "event_id", "service", "model", "provider", "operation", "tenant", "region", "status", "error_type",
    "finish_reason", "trace_id", "span_id",
)  # fmt: skip


def limit(field: str) -> float:
    """The largest accepted value of a numeric field."""
    return METRICS[METRIC_INDEX[METRIC_FIELDS[field]]].limit


# Tokens are read as floats too: exact far beyond their limit, and senders that write 5.0 stay on the fast path.
_Ms = Annotated[float, Meta(ge=0, le=limit("latency_ms"))]
_Tokens = Annotated[float, Meta(ge=0, le=limit("prompt_tokens"))]
_Cost = Annotated[float, Meta(ge=0, le=limit("cost_usd"))]
_Score = Annotated[float, Meta(ge=0, le=limit("quality_score"))]


class Record(Struct, gc=False, kw_only=True):
    """One event as it was sent: null or absent text is None, an absent metric NaN, a null one None.

    Other fields are skipped without being built. `gc=False`: a record holds text and numbers only, never a cycle. The
    fields stand in the order in which senders write them: so the parser finds them fastest.
    """

    event_id: str | None = None
    timestamp: str | int | float
    service: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    provider: str | None = None
    operation: str | None = None
    tenant: str | None = None
    region: str | None = None
    latency_ms: _Ms | None = NAN
    ttft_ms: _Ms | None = NAN
    prompt_tokens: _Tokens | None = NAN
    completion_tokens: _Tokens | None = NAN
    cached_tokens: _Tokens | None = NAN
    reasoning_tokens: _Tokens | None = NAN
    cost_usd: _Cost | None = NAN
    status: str | None = None
    error_type: str | None = None
    finish_reason: str | None = None
    quality_score: _Score | None = NAN
    trace_id: str | None = None
    span_id: str | None = None
    attributes: Raw = ABSENT


def label_texts(records: Iterable[Record]) -> Iterator[tuple[str | None, ...]]:
    """The labels of each record in the order of `SENT_LABELS`, then its status."""
    return (
        (r.service, r.model, r.operation, r.provider, r.tenant, r.region, r.error_type, r.finish_reason, r.status)
        for r in records
    )
