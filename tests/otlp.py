"""OTLP records of plain spans, in both encodings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

AT: Final = 1_740_960_000_000_000_000
"""The start of a span that does not say when it starts, in nanoseconds."""


@dataclass
class Plain:
    """A span as a test writes it; ids are hexadecimal, times nanoseconds."""

    attributes: Mapping[str, Any]
    span_id: str = "00000000000000a1"
    parent_id: str = ""
    trace_id: str = "0" * 30 + "b1"
    name: str = "chat gpt-4o"
    kind: int = 3
    start: int = AT
    end: int = AT + 2_000_000_000
    status: int = 0
    message: str = ""
    events: Sequence[tuple[str, int, Mapping[str, Any]]] = ()
    scope: str = "openai"
    resource: Mapping[str, Any] = field(default_factory=lambda: {"service.name": "chat-api"})


def as_json(spans: Sequence[Plain]) -> dict[str, Any]:
    """The record of these spans as the Collector writes it in JSON, before it becomes text."""
    return {"resourceSpans": [_resource_spans(span) for span in spans]}


def _resource_spans(span: Plain) -> dict[str, Any]:
    told = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": str(span.start),
        "endTimeUnixNano": str(span.end),
        "attributes": json_pairs(span.attributes),
        "events": [
            {"name": name, "timeUnixNano": str(at), "attributes": json_pairs(attributes)}
            for name, at, attributes in span.events
        ],
        "status": {"code": span.status, "message": span.message} if span.status else {},
    }
    return {
        "resource": {"attributes": json_pairs(span.resource)},
        "scopeSpans": [{"scope": {"name": span.scope}, "spans": [told]}],
    }


def json_pairs(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Attributes in JSON."""
    return [{"key": name, "value": _json_value(value)} for name, value in attributes.items()]


def _json_value(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float() if not math.isfinite(value):  # as the Collector writes it
            return {"doubleValue": "NaN" if math.isnan(value) else "Infinity"}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list():
            return {"arrayValue": {"values": [_json_value(item) for item in value]}}
        case dict():
            return {"kvlistValue": {"values": json_pairs(value)}}
        case _:
            return {}


def json_text(spans: Sequence[Plain]) -> bytes:
    """The record of these spans in JSON."""
    return json.dumps(as_json(spans)).encode()


def as_proto(spans: Sequence[Plain]) -> bytes:
    """The record of these spans in protobuf; whole numbers beyond 64 bits become floats."""
    data = TracesData()
    for span in spans:
        resource_spans = data.resource_spans.add()
        _fill(resource_spans.resource.attributes, span.resource)
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name = span.scope
        told = scope_spans.spans.add(
            trace_id=bytes.fromhex(span.trace_id),
            span_id=bytes.fromhex(span.span_id),
            parent_span_id=bytes.fromhex(span.parent_id),
            name=span.name,
            kind=span.kind,
            start_time_unix_nano=span.start % (1 << 64),
            end_time_unix_nano=span.end % (1 << 64),
        )
        told.status.code = span.status  # type: ignore[assignment]
        told.status.message = span.message
        _fill(told.attributes, span.attributes)
        for name, at, attributes in span.events:
            _fill(told.events.add(name=name, time_unix_nano=at % (1 << 64)).attributes, attributes)
    return data.SerializeToString()


def _fill(pairs: Any, attributes: Mapping[str, Any]) -> None:
    for name, value in attributes.items():
        pairs.append(KeyValue(key=name, value=_proto_value(value)))


def _proto_value(value: Any) -> AnyValue:
    found = AnyValue()
    match value:
        case bool():
            found.bool_value = value
        case int() if -(1 << 63) <= value < 1 << 63:
            found.int_value = value
        case int() | float():
            found.double_value = float(value)
        case str():
            found.string_value = value.encode("utf-8", "replace").decode()
        case list():
            found.array_value.values.extend(map(_proto_value, value))
            found.array_value.SetInParent()
        case dict():
            _fill(found.kvlist_value.values, value)
            found.kvlist_value.SetInParent()
    return found
