"""The reference of events and alerts is made from the types, and no field disappears without a new schema."""

from __future__ import annotations

import re

import msgspec

from flows.formats import _EVENT_NOTES, _RECORDS, formats
from operators.decode.record import MeasuredRecord
from operators.decode.registry import NAMES
from operators.incidents.alert_json import SCHEMA
from tests.conftest import ROOT

FIELDS_OF_SCHEMA_1 = {
    "schema", "alert_id", "episode_id", "group_id", "related", "sequence", "status", "severity", "kind", "series",
    "metric", "unit", "at", "since", "until", "observed", "expected", "lower", "upper", "score", "detectors",
    "contributors", "evidence", "text", "links", "reason",
}  # fmt: skip
FIELDS_OF_EVENTS = {
    "timestamp", "service", "event_id", "model", "provider", "operation", "tenant", "region", "latency_ms", "ttft_ms",
    "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_usd", "status", "error_type",
    "finish_reason", "quality_score", "trace_id", "span_id", "attributes",
}  # fmt: skip


def named(section: str) -> set[str]:
    (text,) = re.findall(rf"(?ms)^## {section}\n(.*?)(?=^## |\Z)", formats())
    return set(re.findall(r"(?m)^\| `(\w+)` \|", text))


def test_the_document_is_fresh() -> None:
    assert (ROOT / "docs" / "formats.md").read_text() == formats(), "the document is stale: run `make docs`"


def test_no_field_goes_without_another_schema() -> None:
    assert named("Alerts") >= FIELDS_OF_SCHEMA_1 or SCHEMA > 1
    assert named("Events") >= FIELDS_OF_EVENTS


def test_two_fields_of_events_are_required_and_no_more() -> None:
    fields = msgspec.structs.fields(MeasuredRecord)
    assert {f.name for f in fields if f.required} == {"timestamp", "service"}
    assert _EVENT_NOTES.keys() <= {f.name for f in fields}


def test_every_field_of_an_alert_is_explained() -> None:
    (table,) = re.findall(r"(?ms)^## Fields\n(.*?)(?=^## )", (ROOT / "docs" / "alerts.md").read_text())
    explained = {n for line in re.findall(r"(?m)^\| (`.*?) \|", table) for n in re.findall(r"`(\w+)`", line)}
    assert explained == named("Alerts")


def test_types_are_told_as_a_reader_of_json_knows_them() -> None:
    text = formats()
    for line in (
        "| `until` | time, RFC 3339 or null |",
        "| `related` | list of text |",
        "| `sequence` | number |",
        "| `prompt_tokens` | whole number from 0 to 1,000,000,000, or null |  | in tokens |",
    ):
        assert line in text


def test_every_format_of_records_is_explained() -> None:
    assert _RECORDS.keys() == set(NAMES)
