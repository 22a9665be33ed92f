"""OTLP in protobuf: which signal a record is, and what is left of a cut or broken one."""

from __future__ import annotations

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData

from operators.decode.base import Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.otlp.format import OTLP_PROTO
from operators.decode.otlp.proto import parse
from operators.decode.registry import DECODERS
from operators.model import Reason
from tests.otlp import AT, Plain, as_proto

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
SPANS = [Plain(CHAT, f"{i:016x}", start=AT + i) for i in range(1, 4)]


def metrics() -> bytes:
    data = MetricsData()
    metric = data.resource_metrics.add().scope_metrics.add().metrics.add(name="gen_ai.client.token.usage")
    metric.sum.data_points.add(as_int=5)
    return data.SerializeToString()


def logs(at: int = AT) -> bytes:
    data = LogsData()
    data.resource_logs.add().scope_logs.add().log_records.add(observed_time_unix_nano=at, event_name="gen_ai.choice")
    return data.SerializeToString()


def test_the_signal_of_a_record_is_found_out() -> None:
    assert [span.span_id for span in parse(as_proto(SPANS), ()).spans] == [f"{i:016x}" for i in range(1, 4)]
    assert parse(metrics(), ()).metrics == 1 and not parse(metrics(), ()).spans
    assert [(record.name, record.at) for record in parse(logs(), ()).logs] == [("gen_ai.choice", AT)]
    assert parse(b"", ()).spans == []
    assert OTLP_PROTO.read(metrics(), DecodeConfig()).passed_over == {"metric": 1}
    assert OTLP_PROTO.read(logs(), DecodeConfig()).passed_over == {"no_call": 1}


@pytest.mark.parametrize("value", [logs(at=0), as_proto([Plain(CHAT, "0" * 14)]), as_proto([Plain(CHAT, trace_id="")])])
def test_items_that_are_not_whole_make_no_record(value: bytes) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(value, ())
    assert caught.value.reason == Reason.NOT_OTLP


def test_a_record_that_is_cut_at_any_byte_is_one_dead_letter_and_no_half_batch() -> None:
    """Where each resource has spans of its own, a cut between two of them leaves a record that is whole."""
    whole = as_proto(SPANS)
    ends = {len(as_proto(SPANS[:count])): count for count in range(len(SPANS) + 1)}
    for place in range(len(whole) + 1):
        decoded = DECODERS["otlp_proto"].decode([whole[:place]], DecodeConfig())
        if place in ends:
            assert (len(decoded.events), decoded.faults) == (ends[place], [])
        else:
            assert [fault.reason for fault in decoded.faults] == [Reason.NOT_OTLP]
            assert not len(decoded.events)


def test_a_bit_that_flips_anywhere_raises_nothing() -> None:
    whole = as_proto(SPANS[:1])
    flipped = [
        whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
        for place in range(len(whole))
        for bit in range(8)
    ]
    decoded = DECODERS["otlp_proto"].decode(flipped, DecodeConfig())
    told = set(decoded.events.record.tolist()) | {fault.record for fault in decoded.faults}
    assert len(told) + sum(decoded.passed_over.values()) >= len(flipped) - 8, "one byte decides which field is meant"


def test_a_value_nested_beyond_all_measure_is_no_otlp() -> None:
    for depth, faults in ((30, []), (150, [Reason.NOT_OTLP])):
        inner = b"\x0a\x01x"
        for _ in range(depth):  # a value that is an array of one value
            inner = _field(5, _field(1, inner))
        span = _field(1, bytes(16)) + _field(2, bytes(8)) + _field(9, _field(2, inner))  # ids, and its only attribute
        decoded = DECODERS["otlp_proto"].decode([_field(1, _field(2, _field(2, span)))], DecodeConfig())
        assert [fault.reason for fault in decoded.faults] == faults
        assert decoded.passed_over == ({} if faults else {"no_call": 1})


def _field(number: int, message: bytes) -> bytes:
    """A message as this field of another one."""
    return bytes([number << 3 | 2]) + _length(message) + message


def _length(of: bytes) -> bytes:
    count, found = len(of), b""
    while count > 127:
        found += bytes([count & 127 | 128])
        count >>= 7
    return found + bytes([count])
