"""The fields of a native JSON event, as the fast path reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, cast

from msgspec import Meta, Raw, Struct, defstruct
from msgspec.structs import fields

from operators.metrics import METRICS, Metric

ABSENT: Final = Raw(b"")
"""The attributes of a record without any. Compared by identity."""

NAN: Final = float("nan")
"""A metric that is absent. JSON has no NaN, so no record can say it."""

METRIC_FIELDS: Final[dict[str, Metric]] = {metric.field: metric for metric in METRICS if metric.field}
"""The metric that each numeric field carries."""


class Record(Struct, gc=False, kw_only=True):
    """One event as it was sent, without its metrics: null or absent text is None.

    Other fields are skipped without being built. `gc=False`: a record holds text and numbers only, never a cycle.
    """

    event_id: str | None = None
    timestamp: str | int | float
    service: Annotated[str, Meta(min_length=1)]
    model: str | None = None
    provider: str | None = None
    operation: str | None = None
    tenant: str | None = None
    region: str | None = None
    status: str | None = None
    error_type: str | None = None
    finish_reason: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    agent: str | None = None
    model_requested: str | None = None
    session_id: str | None = None
    user: str | None = None
    key: str | None = None
    streamed: bool | None = None
    attributes: Raw = ABSENT


def _in_order() -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each field in the order in which most senders write them: the parser likes it best."""
    for of in fields(Record):
        if of.name == "trace_id":
            # Whole numbers are read as floats too: these are exact far beyond any limit, and 5.0 stays fast.
            for name, metric in METRIC_FIELDS.items():
                yield name, Annotated[float, Meta(ge=0, le=metric.limit)] | None, NAN
        yield of.name, of.type, of.default


MeasuredRecord: Final = cast(type[Record], defstruct("MeasuredRecord", _in_order(), gc=False, kw_only=True))
"""The record with its metrics, a field each: an absent one is NaN, a null one None."""


def label_texts(records: Iterable[Record]) -> Iterator[tuple[str | None, ...]]:
    """The labels of each record in the order of `SENT_LABELS`, then the model that was asked for and the status."""
    return (
        (
            r.service, r.model, r.operation, r.provider, r.tenant, r.region, r.error_type, r.finish_reason, r.agent,
            r.model_requested, r.status,
        )
        for r in records
    )  # fmt: skip
