"""`python -m flows.conventions`: prints the reference of the attributes that are read, made from their table."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Final

from operators.decode.conventions import FIRST_TOKEN, Row
from operators.decode.log_events import ENDS, EVENTS, Event
from operators.decode.resolve import ROWS
from operators.decode.span_roles import NO_ROLES, ROLES

_HEAD: Final = """# Conventions

<!-- Made by `python -m flows.conventions` (`make docs`) from the table; do not edit. -->

Under these attributes the formats `otlp_proto` and `otlp_json` find the fields of a call
([how](telemetry.md#opentelemetry)).

## Fields

Of a field the first attribute that tells something counts. `a#b.c` is the value at `b.c` in the attribute `a`, which is
a map, or text that holds JSON or the repr of a Python dict; the attribute `a.b.c` is read as the same. Beside an
attribute stands its unit, where that is not the field's own, and what its count lacks.

| field | attributes, in the order in which they are asked |
|---|---|"""

_MORE: Final = """
The other fields follow from the span: `timestamp` from its start, `latency_ms` from its start and end, `status` from
its status and its errors. Only log records tell `latency_ms` by an attribute. Errors are also told by exceptions among
the events of a span. Not all that is read is a field of [events](formats.md#events): {asides}.

The first one of these events of a span marks the first token: {first}.

## More attributes

Rows of your own are asked before those of the table. Times are milliseconds there, costs US dollars.

```toml
[decode.attributes]
prompt_tokens = ["acme.tokens.in", "acme.usage#input"]
tenant = ["acme.customer"]
```

Attributes of calls that look like usage and stand in no row are counted by name
(`sentinel_unknown_attributes_total`, [rule](runbook.md#sentinelunknownusage)).

## Roles

Many libraries say in an attribute what a span is. The first of these that a span has decides: it is a call by one of
the values that are named, and none by any other. Values that say nothing ({nothing}) leave it to the next attribute.
So do other values of `span.type`, which many use for other things, but for {no_calls}.
A `reranker` of OpenInference is a call only if the span names whose model it asks (`llm.system`, `llm.provider`).

| attribute | values of calls |
|---|---|"""

_EVENTS: Final = """
## Log records

These events of agents are calls if they name a model, whatever stands before the last dot of their names
(`claude_code.api_request`). Of the events `sse_event` only the last one of a call counts ({ends}).

| event | what it tells |
|---|---|"""

_TELLS: Final[dict[Event, str]] = {
    "answer": "a call",
    "failure": "a call that failed",
    "either": "a call if it tells tokens, one that failed if it tells an error, else nothing",
}

_ASIDES: Final[dict[str, str]] = {
    "total_tokens": "shows whether counts have their parts in them",
    "uncached_tokens": "shows whether prompt tokens have the cache in them",
    "response_id": "knows a call again",
    "call_id": "knows a call again",
    "request_id": "knows a call again that a log record tells",
    "message": "tells the kind of an error",
    "level": "tells that the call failed",
}
"""What fields are for that no event has."""

_BASES: Final = {
    "": "",
    "without_cache": "without the cached part",
    "parts": "without the parts beside it",
    "beside": "which the whole lacks",
}


def _told(row: Row) -> str:
    unit = {"": "", "usd": "", "time": "an instant"}.get(row.unit, row.unit)
    notes = [note for note in (unit, _BASES[row.basis]) if note]
    return f"`{row.place}`" + (f" ({', '.join(notes)})" if notes else "")


def _field_rows() -> Iterator[str]:
    order = {row.field: place for place, row in reversed([*enumerate(ROWS)])}
    for field, rows in groupby(sorted(ROWS, key=lambda row: order[row.field]), key=lambda row: row.field):
        yield f"| `{field}` | {', '.join(map(_told, rows))} |"


def _role_rows() -> Iterator[str]:
    for attribute, roles in ROLES.items():
        values = ", ".join(f"`{value}` ({operation})" for value, operation in roles.items() if operation)
        yield f"| `{attribute}` | {values or 'none'} |"


def conventions() -> str:
    """The reference of all conventions, in Markdown."""
    more = _MORE.format(
        asides="; ".join(f"`{name}` {what}" for name, what in _ASIDES.items()),
        first=", ".join(f"`{name}`" for name in sorted(FIRST_TOKEN)),
        no_calls=", ".join(f"`{value}`" for value, of in ROLES["span.type"].items() if not of),
        nothing=", ".join(f"`{value}`" for value in sorted(NO_ROLES) if value),
    )
    ends = _EVENTS.format(ends=", ".join(f"`event.kind` is `{kind}`" for kind in ENDS.values()))
    events = [f"| `{name}` | {_TELLS[told]} |" for name, told in EVENTS.items()]
    return "\n".join([_HEAD, *_field_rows(), more, *_role_rows(), ends, *events, ""])


if __name__ == "__main__":
    sys.stdout.write(conventions())
