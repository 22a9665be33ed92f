"""Log records that tell a call, or the quality of one; all others are passed over.

- `gen_ai.client.inference.operation.details` tells a whole call, and so do the events of agents, see `log_events`. An
  agent that has events of its own writes the details beside them, at the request too: these are passed over then.
- The time of such a record is the end of the call. Its start is known where the record says how long the call took.
- A record may be written in any span around the call: the id of the response or request knows the call again, if it
  tells one. Without one the span of the details is the call's, and an agent's event is known by what it tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from operators.decode import vocabulary
from operators.decode.base import Call
from operators.decode.log_events import ENDS, EVENTS
from operators.decode.otlp.calls import EVALUATION_EVENT, Told, is_fine, tell
from operators.decode.otlp.roles import CALLS, operation
from operators.decode.otlp.signals import ERROR, LogRecord, Span
from operators.decode.resolve import Conventions
from operators.decode.seen import response_keys
from operators.decode.values import is_number, number, text
from operators.model import EVALUATION

DETAILS: Final = "gen_ai.client.inference.operation.details"
"""The log record that tells a whole call, but not how long it took."""

_TIME_OF_LOG: Final = "time of the log record"
_OF_EVALUATIONS: Final = (
    "timestamp", "service", "model", "provider", "operation", "tenant", "region", "agent", "session_id", "user",
    "trace_id", "span_id", "quality_score",
)  # fmt: skip
_MS: Final = 1_000_000  # nanoseconds
_DAY: Final = 86_400_000  # milliseconds
_MODELS: Final = frozenset({"model", "model_requested"})
_COUNTS: Final = frozenset({"prompt_tokens", "completion_tokens"})


def calls_of_logs(records: Sequence[LogRecord], known: Conventions) -> Iterator[Call]:
    """The calls and evaluations that these records tell."""
    agents = {record.scope for record in records if record.scope and _event(record)}
    for record in records:
        call = None
        if record.name == EVALUATION_EVENT:
            call = _evaluation(record, known)
        elif record.name == DETAILS and record.scope not in agents:
            call = _details(record, known)
        elif event := _event(record):
            call = _of_agent(record, event, known)
        if call is not None:
            yield call


def _event(record: LogRecord) -> str:
    """The name of an agent's event without the agent's own, "" if it is none.

    It may stand as an attribute only: the name of the record is then the place in the code that wrote it.
    """
    names = (str(name or "").rpartition(".")[2] for name in (record.name, record.attributes.get("event.name")))
    return next((name for name in names if name in EVENTS), "")


def _details(record: LogRecord, known: Conventions) -> Call | None:
    of = operation(_span_of(record, 0, failed=False))
    if not of:
        return None
    told = _tell(record, of, known, bool(record.attributes.get("error.type")))
    return _known_by_id(told) if told.response_id else told.call()


def _of_agent(record: LogRecord, event: str, known: Conventions) -> Call | None:
    """The call that an agent's event tells; None if it tells none."""
    read = known.read(record.attributes)
    endpoint = text(record.attributes.get("endpoint"))
    ended = event not in ENDS or record.attributes.get("event.kind") == ENDS[event]
    if not ended or not _MODELS & read.keys() or not _of_a_model(endpoint):
        return None
    told = EVENTS[event]
    errors = [found for name in ("error_type", "message") for found in read.get(name, ()) if not is_fine(found.value)]
    if told == "either" and not errors and not _COUNTS & read.keys():
        return None
    call = _tell(record, "chat", known, told == "failure" or bool(errors), timed=event not in ENDS)
    call.forget("span_id")
    call.response_id = call.response_id or next((str(found.value) for found in read.get("request_id", ())), "")
    if call.response_id:
        return _known_by_id(call)
    which = [call.fields.get(name) for name in ("session_id", "model", "prompt_tokens", "completion_tokens")]
    which.append(text(record.attributes.get("event.sequence")))
    return Call(call.fields, call.found, (f"log:{event}/{record.at}/{which}",), call.originals)


def _known_by_id(told: Told) -> Call:
    keys = response_keys(told.response_id, told.span.end)
    return Call(told.fields, told.found, tuple(keys), told.originals)


def _of_a_model(endpoint: Any) -> bool:
    """Whether a request to this endpoint, where it is told, asks a model."""
    return endpoint in (None, "", "unknown") or vocabulary.operation(str(endpoint)) in CALLS


def _tell(record: LogRecord, of: str, known: Conventions, failed: bool, timed: bool = True) -> Told:
    """The call of this record, which ended when it was written."""
    read = known.read(record.attributes).get("latency_ms", ()) if timed else ()
    lasted = next(((value, found.row.place) for found in read if _is_time(value := number(found.value))), (0, ""))
    told = tell(_span_of(record, round(lasted[0] * _MS), failed), of, known)
    if lasted[1]:
        told.found["latency_ms"] = lasted[1]
        told.found["timestamp"] = f"{_TIME_OF_LOG} - {lasted[1]}"
    else:
        told.forget("latency_ms")
        told.found["timestamp"] = _TIME_OF_LOG
    return told


def _is_time(value: Any) -> bool:
    return is_number(value) and 0 < value <= _DAY


def _evaluation(record: LogRecord, known: Conventions) -> Call | None:
    """A quality that was judged later: an event that is no request; None without a score."""
    told = _tell(record, EVALUATION, known, failed=False, timed=False)
    fields: dict[str, Any] = {name: told.fields[name] for name in _OF_EVALUATIONS if name in told.fields}
    if not is_number(fields.get("quality_score")):
        return None
    found: dict[str, str] = {name: told.found[name] for name in fields} | {"timestamp": _TIME_OF_LOG}
    name = record.attributes.get("gen_ai.evaluation.name")
    key = f"evaluation:{record.trace_id}/{record.span_id}/{told.response_id}/{name}/{record.at}"
    return Call(fields, found, (key,))


def _span_of(record: LogRecord, lasted: int, failed: bool) -> Span:
    return Span(
        record.trace_id, record.span_id, "", record.name, record.scope, 0, record.at - lasted, record.at,
        ERROR if failed else 0, "", record.attributes, [], record.resource,
    )  # fmt: skip
