"""`python -m flows.formats`: prints the reference of records, events, alerts and tables, made from the code."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, Union

import msgspec
import orjson

from connectors.tables import TABLES
from operators.decode.record import METRIC_FIELDS, MeasuredRecord
from operators.decode.registry import BINARY, FORMATS
from operators.decode.vocabulary import ERROR_TYPES
from operators.incidents.alert_json import SCHEMA, to_json
from operators.metrics import MEASURES, METRICS, Metric
from operators.model import Alert

_HEAD: Final = f"""# Formats

<!-- Made by `python -m flows.formats` (`make docs`) from the types; do not edit. -->

## Rule for change

- **Events.** Fields that are not named below are skipped, so senders may send more. A release may read a new field; it
  is never required. A field is not taken away or given another meaning within a major version.
- **Alerts** carry `schema`, now {SCHEMA}. A release may add fields, also within a major version: readers skip what they
  do not know. A field that goes, or gets another name, type or meaning, raises `schema`, and the
  [changelog](../CHANGELOG.md) says so.
- **Ids** are digests of what they name. They change only with `schema`, since readers know alerts by them.
"""

_RECORDS: Final[dict[str, str]] = {
    "native": "one [event](#events), a JSON object | nothing",
    "otlp_proto": "spans and log records of OpenTelemetry in protobuf, as the Collector's Kafka exporter writes them | "
    "spans and log records that are no call of a model; metrics; LiteLLM's answers from its cache; logfire's openings "
    "of streams",
    "otlp_json": "the same in JSON, also as SDKs and plain proto3 JSON write it: ids in base64, numbers as numbers, "
    "enums by name, snake case | the same",
    "litellm": "LiteLLM's standard logging payload, alone, in an array, or as `standard_logging_object` of what a "
    "callback is given; rows of its spend logs | answers from LiteLLM's cache; files, batches, vector stores, tools",
    "kong": "what Kong's logging plugins write: an object a request, or an array of them | requests without a model "
    "under `ai`; answers from its cache",
    "envoy": "the access log of the Envoy AI Gateway in JSON, with keys as Envoy's documents name them, or all of "
    "`io.envoy.ai_gateway` as an object; that of Higress with its `ai_log` | other paths, tools",
    "earlier": "the three shapes of the Rust LLM-Sentinel: nested, flat, and as it was documented; one, or an array | "
    "nothing",
    "mapped": "[own JSON](telemetry.md#own-json), by `source.mapping` | nothing",
    "auto": "each record in its own format, which is found out | what that format passes over",
}
"""What each format reads, and what it passes over."""

_READ: Final = """A record is a message of a topic, or a line of a file. It tells one call of a model, or many, and
each call becomes an event. What a record does not tell of it is unknown, never 0. What is no call is passed over and
counted apart (`sentinel_passed_over_total`). Prompts and completions are skipped. [Telemetry](telemetry.md) shows how
OpenTelemetry and own JSON are read, and how to see what becomes of a record."""

_AUTO: Final = f"""With `source.format = "auto"`, the default, each record is read by itself:

1. A record with the `timestamp` and the `service` of an event is native.
2. A record that is no JSON and begins with the byte 0x0A is `{BINARY}`.
3. Other JSON has the first of these formats whose names it has: {", ".join(f"`{n}`" for n in FORMATS if n != BINARY)}.
4. What is left is read by `source.mapping`, if there is one. Else it keeps the fault that it has as a native record.

`sentinel_records_by_format_total` counts what was found, and the log names it once. A topic can have a format and a
mapping of its own. It needs them if its records have a `timestamp` and a `service` and are not native:

```toml
[source]
kind = "kafka"

[source.topics."llm.otlp.spans"]
format = "otlp_proto"

[source.topics."gateway.log"]
format = "kong"

[kafka]
topics = ["llm.telemetry", "llm.otlp.spans", "gateway.log"]
```
"""

_EVENTS: Final = """An event is one JSON object a record. A wrong field makes it a dead letter
([bad input](bad-input.md)). Text may be an integer or a boolean too: it is taken as it is written."""

_TABLES: Final = """The store has these tables. Times are microseconds since 1970; values are in the metrics' units, or
null. Rows of several dimension sets stand in one table, so every query names its `dimension_set`. In `llm_expectations`
`requests` (a minute) and `error_ratio` are metrics too: [the meaning of its values](detection.md#what-is-expected)."""

_UNWATCHED: Final = ", ".join(f"`{metric.name}`" for metric in METRICS if not metric.watch)
_METRICS: Final = f"""What is judged of a series, and what alerts say of it. A metric without a field follows from
others. Only deviations in the given direction are anomalies, and none is smaller than the least change: a factor (x),
or a difference in the unit, by the presets quiet / balanced / sensitive. `requests` and `error_ratio` have settings of
their own, [`detect.traffic`](configuration.md#detecttraffic) and [`detect.errors`](configuration.md#detecterrors).
Not watched unless `detect.metrics` says so: {_UNWATCHED}."""

_EVENT_NOTES: Final[dict[str, str]] = {
    "timestamp": "RFC 3339, or seconds, milli-, micro- or nanoseconds since 1970, told apart by their size; "
    "the start of the call (`time.timestamp_is`)",
    "service": "not empty",
    "operation": "`evaluation` is no request: it tells the quality of a call that was counted before",
    "event_id": "known again within `decode.dedupe_s`; in the evidence of alerts",
    "model": '"unknown" where absent; see [prices and models](enrich.md)',
    "cost_usd": "filled in from [prices](enrich.md#cost) where absent",
    "status": "a word (`error`, `timeout`, `cancelled`, ...) or an HTTP status from 400 on makes the event an error; "
    "others do not",
    "error_type": "makes the event an error; where only `status` tells of one, it is the kind that `status` names: "
    f"{', '.join(ERROR_TYPES)}",
    "trace_id": "in the evidence of alerts",
    "agent": "the agent or the step of a workflow that made the call",
    "model_requested": "the model that was asked for; `model` where that is absent",
    "session_id": "in the evidence of alerts",
    "user": "the end user; in the evidence of alerts as a [keyed hash](security.md#privacy), or dropped",
    "key": "the id or alias of the API key; as `user`",
    "streamed": "without a stream (`false`) `ttft_ms` is not used, since it would be the latency",
    "cached_tokens": "the part of `prompt_tokens` that was read from the provider's cache",
    "cache_write_tokens": "the part of `prompt_tokens` that was written to the provider's cache",
    "attributes": "at most `decode.max_attributes`; not looked at",
}


def _words(kind: Any) -> str:
    """The name of a type in terms of JSON."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _words(inside[0])
    if origin in (Union, types.UnionType):
        names = list(dict.fromkeys(_words(part) for part in inside))
        if "null" in names:
            names = [n for n in names if n != "null"] + ["null"]
        return " or ".join(names)
    if origin is Literal:
        return ", ".join(f'`"{value}"`' for value in inside)
    if origin is tuple:
        return f"list of {_words(inside[0])}"
    if origin is dict:
        return f"object of {_words(inside[1])}"
    of_type = {str: "text", bool: "boolean", int: "number", float: "number", type(None): "null", msgspec.Raw: "object"}
    return of_type[kind]


def _event_rows() -> Iterator[str]:
    for field in msgspec.structs.fields(MeasuredRecord):
        kind, note = _words(field.type), _EVENT_NOTES.get(field.name, "")
        if field.name in METRIC_FIELDS:
            metric = METRIC_FIELDS[field.name]
            kind = f"{'whole number' if metric.whole else 'number'} from 0 to {metric.limit:,.0f}, or null"
            note = "; ".join(part for part in (f"in {metric.unit}" if metric.unit != "1" else "", note) if part)
        yield f"| `{field.name}` | {kind} | {'yes' if field.required else ''} | {note} |"


def _metric_rows() -> Iterator[str]:
    for measure in MEASURES.values():
        judged = ["", "", ""]
        if isinstance(measure, Metric):
            sign = "x" if measure.in_logs else ""
            changes = " / ".join(f"{sign}{change:g}" for change in measure.min_change)
            judged = [f"`{measure.field}`" if measure.field else "", measure.direction, changes]
        kinds = _listed(kind for kind in (measure.kind_up, measure.kind_down) if kind)
        yield f"| `{measure.name}` | {measure.title} | {measure.unit} | {' | '.join(judged)} | {kinds} |"


def _alert_rows() -> Iterator[str]:
    yield f"| `schema` | number: {SCHEMA} |"
    hints = typing.get_type_hints(Alert)
    nothing: dict[str, Any] = {field.name: 0 for field in dataclasses.fields(Alert)}
    times = {name for name, value in orjson.loads(to_json(Alert(**nothing))).items() if isinstance(value, str)}
    for field in dataclasses.fields(Alert):
        kind = _words(hints[field.name])
        yield f"| `{field.name}` | {kind.replace('number', 'time, RFC 3339') if field.name in times else kind} |"


def _table_rows() -> Iterator[str]:
    for table in TABLES.values():
        others = [_of_metrics(c.name) for c in table.columns if c.name not in table.key]
        yield f"| `{table.name}` | {_listed(table.key)} | {_listed(dict.fromkeys(others))} |"


def _of_metrics(column: str) -> str:
    """The name of a column, with `<metric>` in place of the metric if each metric has such a column."""
    names = (name for name in MEASURES if column.startswith(f"{name}_"))
    return next((f"<metric>{column.removeprefix(name)}" for name in names), column)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def formats() -> str:
    """The reference of all formats, in Markdown."""
    return "\n".join(
        [
            _HEAD,
            "## Records",
            "",
            _READ,
            "",
            "| `source.format` | reads | passes over |",
            "|---|---|---|",
            *(f"| `{name}` | {what} |" for name, what in _RECORDS.items()),
            "",
            _AUTO,
            "## Events",
            "",
            _EVENTS,
            "",
            "| field | type | required | |",
            "|---|---|---|---|",
            *_event_rows(),
            "",
            "## Alerts",
            "",
            "An alert is one JSON object a record; every field is always there. [Alerts](alerts.md) has the meanings.",
            "",
            "| field | type |",
            "|---|---|",
            *_alert_rows(),
            "",
            "## Metrics",
            "",
            _METRICS,
            "",
            "| metric | what it is | unit | field | direction | least change | kinds |",
            "|---|---|---|---|---|---|---|",
            *_metric_rows(),
            "",
            "## Tables",
            "",
            _TABLES,
            "",
            "| table | one row a | columns |",
            "|---|---|---|",
            *_table_rows(),
            "",
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(formats())
