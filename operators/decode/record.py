"""The fields of a native JSON event, as the fast path reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Final, cast

from msgspec import Meta, Raw, Struct, defstruct

from operators.metrics import METRICS, Metric

ABSENT: Final = Raw(b"")
"""The attributes of a record without any. Compared by identity."""

NAN: Final = float("nan")
"""A metric that is absent. JSON has no NaN, so no record can say it."""

METRIC_FIELDS: Final[dict[str, Metric]] = {metric.field: metric for metric in METRICS if metric.field}
"""The metric that each numeric field carries."""

TEXT_FIELDS: Final = (
    "event_id", "service", "model", "provider", "operation", "tenant", "region", "status", "error_type",
    "finish_reason", "trace_id", "span_id",
)  # fmt: skip


class Record(Struct, gc=False, kw_only=True):
    """One event as it was sent, without its metrics: null or absent text is None.

    Other fields are skipped without being built. `gc=False`: a record holds text and numbers only, never a cycle. The
    fields stand in the order in which senders write them, since the parser finds them fastest so.
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
    attributes: Raw = ABSENT


# Whole numbers are read as floats too: these are exact far beyond any limit, and 5.0 stays on the fast path.
MeasuredRecord: Final = cast(
    type[Record],
    defstruct(
        "MeasuredRecord",
        [(name, Annotated[float, Meta(ge=0, le=of.limit)] | None, NAN) for name, of in METRIC_FIELDS.items()],
        bases=(Record,),
        gc=False,
        kw_only=True,
    ),
)
"""The record with its metrics, a field each: an absent one is NaN, a null one None."""


def label_texts(records: Iterable[Record]) -> Iterator[tuple[str | None, ...]]:
    """The labels of each record in the order of `SENT_LABELS`, then its status."""
    return (
        (r.service, r.model, r.operation, r.provider, r.tenant, r.region, r.error_type, r.finish_reason, r.status)
        for r in records
    )
