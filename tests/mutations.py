"""Good records with parts exchanged, for the laws of formats that translate foreign records."""

from __future__ import annotations

import copy
import json
from typing import Any, Final

from hypothesis import strategies as st

from operators.decode.base import MAX_SENT, Format, Reading, Unreadable
from operators.decode.config import DecodeConfig
from operators.decode.translate import TranslatingDecoder
from operators.model import Reason

FIELDS: Final = {
    "timestamp", "service", "model", "model_requested", "provider", "operation", "tenant", "region", "agent", "user",
    "key", "session_id", "latency_ms", "ttft_ms", "prompt_tokens", "completion_tokens", "cached_tokens",
    "cache_write_tokens", "reasoning_tokens", "cost_usd", "quality_score", "status", "error_type", "finish_reason",
    "streamed", "trace_id", "span_id", "event_id",
}  # fmt: skip

TRANSLATED: Final = ("provider", "error_type", "finish_reason")
"""Fields of one vocabulary, beside which stands what was sent."""

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -1, 1e308, 5e-324, "", "-", "0", "NaN", "1e99", "2026-11-30T06:00:00Z", 1796018400, "failure"]),
    st.text(max_size=12),
)
values = st.one_of(
    _scalars,
    st.recursive(
        _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner), max_leaves=8
    ),
    st.integers(1, 300).map(lambda n: json.loads("[" * n + "]" * n)),
)


@st.composite
def mutated(draw: st.DrawFn, records: list[Any]) -> bytes:
    """One of the records with up to five of its values, at any depth, exchanged or taken out; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    record = copy.deepcopy(draw(st.sampled_from(records)))
    for _ in range(draw(st.integers(1, 5))):
        record = _exchanged(draw, record)
    value = json.dumps(record).encode()
    cut = draw(st.integers(0, 4 * len(value)))
    return value[:cut] if cut < len(value) else value


def _exchanged(draw: st.DrawFn, record: Any) -> Any:
    inner = list(record) if isinstance(record, dict) else range(len(record)) if isinstance(record, list) else ()
    if not inner or draw(st.integers(0, 7)) == 0:
        return draw(values)
    key = draw(st.sampled_from(list(inner)))
    if isinstance(record, dict) and draw(st.integers(0, 7)) == 0:
        del record[key]
    else:
        record[key] = _exchanged(draw, record[key])
    return record


def check(of: Format, value: bytes) -> Reading | None:
    """The reading of a record, whatever it holds, if it is readable; fails where it does not keep the contract.

    As a decoder, each call is one event or one fault.
    """
    decoded = TranslatingDecoder(of).decode([value], DecodeConfig())
    reading = _reading(of, value)
    if reading is None:
        (fault,) = decoded.faults
        assert fault.reason in Reason.ALL and not len(decoded.events)
        return None
    for call in reading.calls:
        assert set(call.fields) <= FIELDS
        assert set(call.originals) <= set(TRANSLATED) & set(call.found)
        assert all(len(sent) <= MAX_SENT for sent in call.originals.values())
        assert None not in call.fields.values()
        assert set(call.found) <= set(call.fields)
        assert all(":" in key for key in call.keys)
    assert reading.repeats >= 0 and all(count > 0 for count in reading.passed_over.values())
    assert len(decoded.events) + len(decoded.faults) == len(reading.calls)
    assert _reading(of, value) == reading
    return reading


def _reading(of: Format, value: bytes) -> Reading | None:
    try:
        return of.read(value, DecodeConfig())
    except Unreadable:
        return None
