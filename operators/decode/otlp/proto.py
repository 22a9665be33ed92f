"""OTLP in protobuf: `ExportTraceServiceRequest` and its likes for logs and metrics, one a record.

Nothing in a record says which of the three it is: each has its resources in field 1, and unknown fields are allowed. So
a record is of the first kind as which it can be read and whose items are whole: spans have ids of 16 and 8 bytes,
metrics a printable name (a span's id stands in its place) and data, log records a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from operators.decode.base import Unreadable
from operators.decode.otlp.signals import MAX_DEPTH, MAX_SPANS, Attributes, Event, LogRecord, Signals, Span
from operators.model import Reason


def parse(value: bytes, wanted: Collection[str]) -> Signals:
    """The content of a record, with the attributes that are wanted; raises `Unreadable`."""
    found = _traces(value, wanted)
    if found is None:
        found = _metrics(value)
    if found is None:
        found = _logs(value, wanted)
    if found is None:
        raise Unreadable(Reason.NOT_OTLP, "holds neither spans nor log records nor metrics of OTLP, or was cut")
    return found


def _traces(value: bytes, wanted: Collection[str]) -> Signals | None:
    try:
        data = TracesData.FromString(value)
    except DecodeError:
        return None
    if value and not data.resource_spans:
        return None
    found = Signals()
    for of_resource in data.resource_spans:
        resource = _attributes(of_resource.resource.attributes, wanted)
        for of_scope in of_resource.scope_spans:
            scope = of_scope.scope.name
            _bounded(len(found.spans) + len(of_scope.spans))
            for span in of_scope.spans:
                if len(span.trace_id) != 16 or len(span.span_id) != 8:
                    return None
                found.spans.append(
                    Span(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        scope,
                        span.kind,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code,
                        span.status.message,
                        _attributes(span.attributes, wanted),
                        [Event(e.name, e.time_unix_nano, _attributes(e.attributes, wanted)) for e in span.events],
                        resource,
                    )
                )
    return found


def _metrics(value: bytes) -> Signals | None:
    try:
        data = MetricsData.FromString(value)
    except DecodeError:
        return None
    metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics]
    if not metrics or not all(m.name and m.name.isprintable() and m.WhichOneof("data") for m in metrics):
        return None
    return Signals(metrics=len(metrics))


def _logs(value: bytes, wanted: Collection[str]) -> Signals | None:
    try:
        data = LogsData.FromString(value)
    except DecodeError:
        return None
    found = Signals()
    for of_resource in data.resource_logs:
        resource = _attributes(of_resource.resource.attributes, wanted)
        for of_scope in of_resource.scope_logs:
            _bounded(len(found.logs) + len(of_scope.log_records))
            for record in of_scope.log_records:
                at = record.time_unix_nano or record.observed_time_unix_nano
                if not at:
                    return None
                attributes = _attributes(record.attributes, wanted)
                found.logs.append(
                    LogRecord(
                        record.trace_id.hex(),
                        record.span_id.hex(),
                        record.event_name or str(attributes.get("event.name") or ""),
                        of_scope.scope.name,
                        at,
                        attributes,
                        resource,
                    )
                )
    return found if found.logs else None


def _bounded(items: int) -> None:
    if items > MAX_SPANS:
        raise Unreadable(Reason.TOO_MANY_CALLS, f"has more than {MAX_SPANS} spans or log records")


def _attributes(pairs: Iterable[KeyValue], wanted: Collection[str]) -> Attributes:
    return {pair.key: plain(pair.value, MAX_DEPTH) for pair in pairs if pair.key in wanted}


def plain(value: AnyValue, depth: int) -> Any:
    """An attribute's value as a plain one; None if it is none, or lies too deep."""
    if depth == 0:
        return None
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return value.double_value
        case "array_value":
            return [plain(item, depth - 1) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: plain(pair.value, depth - 1) for pair in value.kvlist_value.values}
        case _:  # bytes, which no convention uses, or nothing
            return None
