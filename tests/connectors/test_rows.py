"""Pane tables and alerts as rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import orjson
import pytest

from connectors.base import Row
from connectors.rows import alert_row, expectation_rows, pane_rows
from connectors.tables import ALERTS, EXPECTATIONS, PANES, TABLES, Role, Type
from operators.detect.engine.expectations import Expected
from operators.metrics import METRICS
from operators.model import DIMENSIONS, LABELS, MISSING, SECOND, Alert, Events, caller_text
from operators.panes import sketch
from operators.panes.fold import EMPTY, fold_events
from operators.panes.table import PaneTable
from tests.connectors.samples import BEGAN, as_dict

SETS = (("service", "model"), ("tenant",))


def events(*given: dict[str, object]) -> Events:
    """Events that start a second apart; keys are metrics (values in their units), labels, `error` and `event_id`."""
    n = len(given)
    values = np.full((len(METRICS), n), MISSING, np.int64)
    for m, metric in enumerate(METRICS):
        for i, event in enumerate(given):
            if metric.name in event:
                values[m, i] = round(float(str(event[metric.name])) * metric.scale)
    start = BEGAN + np.arange(n) * SECOND
    combos = [tuple(str(event.get(name, "")) for name in LABELS) for event in given]
    return Events(
        np.arange(n),
        start,
        start + np.maximum(values[0], 0),
        values,
        np.array([bool(event.get("error")) for event in given]),
        np.arange(n, dtype=np.int32),
        combos,
        [str(event.get("event_id", f"event-{i}")) for i, event in enumerate(given)],
        [f"trace-{i}" for i in range(n)],
        [str(event.get("caller", "")) for event in given],
    )


def table(*given: dict[str, object]) -> PaneTable:
    return fold_events(events(*given), np.ones(len(given), bool), SETS, 10 * SECOND, 2, 50)


def rows(*given: dict[str, object]) -> list[dict[str, object]]:
    return [as_dict(row) for row in pane_rows(table(*given), 10)]


def test_no_panes_no_rows() -> None:
    assert pane_rows(EMPTY, 10) == []


def test_a_row_holds_the_aggregates_in_the_metrics_units() -> None:
    calls: list[dict[str, object]] = [
        {"service": "chat", "model": "m", "tenant": "t", "latency": 100 * (i + 1), "cost": 0.5, "error": i == 0}
        for i in range(4)
    ]
    service, tenant = rows(*calls)
    assert service["dimension_set"] == "service,model"
    assert service["series"] == "service=chat,model=m"
    assert (service["width_s"], service["pane_start"]) == (10, BEGAN)
    assert [service[d] for d in DIMENSIONS] == ["chat", "m", "", "", "", "", ""]
    assert (service["requests"], service["errors"], service["error_ratio"]) == (4, 1, 0.25)
    assert (service["latency_count"], service["latency_sum"]) == (4, 1000.0)
    assert (service["latency_min"], service["latency_max"]) == (100.0, 400.0)
    assert service["latency_p50"] == pytest.approx(200, rel=0.02)
    assert service["latency_p95"] == service["latency_p99"] == pytest.approx(400, rel=0.02)
    assert (service["cost_sum"], service["cost_max"]) == (2.0, 0.5)
    assert tenant["series"] == "tenant=t"
    assert [tenant[d] for d in DIMENSIONS] == ["", "", "", "", "t", "", ""]


def test_a_metric_that_no_event_carries_is_null_and_its_count_is_0() -> None:
    first, second = (r for r in rows({"service": "a", "latency": 5}, {"service": "b", "ttft": 7}))
    ends = ("sum", "min", "max", "p50", "p95", "p99")
    assert (first["ttft_count"], [first[f"ttft_{e}"] for e in ends]) == (0, [None] * 6)
    assert (second["latency_count"], [second[f"latency_{e}"] for e in ends]) == (0, [None] * 6)
    assert (first["latency_max"], second["ttft_max"]) == (5.0, 7.0)
    assert (first["quality_count"], first["quality_sum"]) == (0, None)


def test_the_sketch_column_can_be_read_back() -> None:
    t = table(*({"service": "a", "latency": i, "cost": i} for i in range(1, 60)))
    for row, given in enumerate(pane_rows(t, 10)):
        data = as_dict(given)["sketch"]
        assert isinstance(data, bytes)
        start, bucket, count = sketch.decode(data)
        low, high = t.sketch_start[row * len(METRICS)], t.sketch_start[(row + 1) * len(METRICS)]
        assert np.array_equal(bucket, t.sketch_bucket[low:high])
        assert np.array_equal(count, t.sketch_count[low:high])
        assert len(start) == len(METRICS) + 1


def test_breakdown_and_evidence_are_json() -> None:
    (row,) = (
        r
        for r in rows(
            {"service": "a", "region": "eu", "latency": 10, "event_id": "slow"},
            {"service": "a", "region": "us", "ttft": 3, "error": True},
        )
        if r["series"] == "service=a,model="
    )
    breakdown = orjson.loads(str(row["breakdown"]))
    assert {"label": "region", "value": "eu", "requests": 1, "errors": 0, "latency": [1, 10.0]} in breakdown
    assert {"label": "region", "value": "us", "requests": 1, "errors": 1, "ttft": [1, 3.0]} in breakdown
    evidence = {e["event_id"]: e for e in orjson.loads(str(row["evidence"]))}
    assert evidence["slow"] == {
        "event_id": "slow", "trace_id": "trace-0", "start": BEGAN, "error": False, "latency": 10.0,
    }  # fmt: skip
    assert evidence["event-1"]["ttft"] == 3.0
    assert evidence["event-1"]["error"] is True


def test_the_caller_of_a_request_is_in_its_evidence() -> None:
    found = [
        orjson.loads(str(row["evidence"]))
        for row in rows({"service": "a", "latency": 10, "caller": caller_text("u1", "", "s 1")}, {"service": "a"})
    ]
    (first, *_), *_ = found
    assert (first["user"], first["session_id"], "key" in first) == ("u1", "s 1", False)
    assert all("user" not in e for one in found for e in one if e["event_id"] == "event-1")


def test_names_that_utf_8_cannot_hold_are_written_with_question_marks() -> None:
    row = next(r for r in rows({"service": "a", "region": "\ud800", "latency": 1, "event_id": "\udfff"}))
    assert {"label": "region", "value": "?"}.items() <= orjson.loads(str(row["breakdown"]))[0].items()
    assert orjson.loads(str(row["evidence"]))[0]["event_id"] == "?"


def test_panes_without_breakdown_and_evidence_hold_empty_lists() -> None:
    one = fold_events(events({"service": "a"}), np.ones(1, bool), SETS, 10 * SECOND, 0, 0)
    (row,) = (as_dict(r) for r in pane_rows(one, 60))
    assert (row["breakdown"], row["evidence"], row["width_s"]) == ("[]", "[]", 60)


EXPECTED = Expected(
    BEGAN, ("latency", "requests"), ("service=chat,model=m", "tenant=t"),
    np.array([[[800.0, 400.0, 1600.0], [60.0, 0.0, 200.0]], [[math.nan] * 3, [6.0, 1.0, 20.0]]]),
)  # fmt: skip


def test_expected_values_are_a_row_for_each_series_or_null() -> None:
    chat, tenant = (as_dict(row) for row in expectation_rows(EXPECTED))
    assert (chat["dimension_set"], chat["series"], chat["pane_start"]) == (
        "service,model", "service=chat,model=m", BEGAN,
    )  # fmt: skip
    assert [chat[d] for d in DIMENSIONS] == ["chat", "m", "", "", "", "", ""]
    assert [tenant[d] for d in DIMENSIONS] == ["", "", "", "", "t", "", ""]
    ends = ("expected", "lower", "upper")
    assert [chat[f"latency_{e}"] for e in ends] == [800.0, 400.0, 1600.0]
    assert [chat[f"requests_{e}"] for e in ends] == [60.0, 0.0, 200.0]
    assert [tenant[f"latency_{e}"] for e in ends] == [None] * 3
    assert [tenant[f"requests_{e}"] for e in ends] == [6.0, 1.0, 20.0]
    assert [row["error_ratio_upper"] for row in (chat, tenant)] == [None, None]


ALERT = Alert(
    "e1-0", "e1", "g1", ("e2",), 0, "firing", "high", "latency", {"service": "chat,api", "model": "m"}, "latency", "ms",
    BEGAN, BEGAN - SECOND, None, 4200.0, 800.0, 1.0, math.inf, 0.9, ("zscore",),
    ({"dimension": "model", "share": 0.9},), ({"event_id": "x", "value": math.nan},), "slow", {"dashboard": "https://example.org"},
)  # fmt: skip


def test_an_alert_is_a_row_with_nested_fields_as_json() -> None:
    row = as_dict(alert_row(ALERT))
    assert (row["alert_id"], row["at"], row["since"], row["until"]) == ("e1-0", BEGAN, BEGAN - SECOND, None)
    assert (row["dimension_set"], row["series"]) == ("service,model", "service=chat%2Capi,model=m")
    assert [row[d] for d in DIMENSIONS] == ["chat,api", "m", "", "", "", "", ""]
    assert (row["observed"], row["upper"]) == (4200.0, None)
    assert orjson.loads(str(row["related"])) == ["e2"]
    assert orjson.loads(str(row["detectors"])) == ["zscore"]
    assert orjson.loads(str(row["contributors"])) == [{"dimension": "model", "share": 0.9}]
    assert orjson.loads(str(row["evidence"])) == [{"event_id": "x", "value": None}]
    assert orjson.loads(str(row["links"])) == {"dashboard": "https://example.org"}
    assert as_dict(alert_row(replace(ALERT, until=BEGAN)))["until"] == BEGAN
    assert (row["learned_panes"], row["learned_since"], row["factors"]) == (0, None, "[]")
    told = as_dict(alert_row(replace(ALERT, learned_panes=9, learned_since=BEGAN, factors=({"factor": "mix"},))))
    assert (told["learned_panes"], told["learned_since"], told["factors"]) == (9, BEGAN, '[{"factor":"mix"}]')


PYTHON = {Type.TEXT: str, Type.INT: int, Type.FLOAT: float, Type.TIMESTAMP_US: int, Type.BYTES: bytes, Type.BOOL: bool}


def test_every_value_has_its_columns_type_and_only_nullable_ones_are_null() -> None:
    made: list[Row] = [*pane_rows(table({"service": "a", "latency": 1}, {"tenant": "t", "quality": 0.5}), 10)]
    for row in [*made, *expectation_rows(EXPECTED), alert_row(ALERT)]:
        for column, value in zip(TABLES[row.table].columns, row.values, strict=True):
            assert (value is None and column.null) or type(value) is PYTHON[column.type], column


def test_each_table_has_one_time_index_and_different_columns() -> None:
    for t in TABLES.values():
        assert [c.role for c in t.columns].count(Role.TIME) == 1
        assert len(t.index) == len(t.columns)
        assert not any(c.null for c in t.columns if c.role is not Role.FIELD)
    assert PANES.key == ("dimension_set", "series", "width_s", "pane_start")
    assert EXPECTATIONS.key == ("dimension_set", "series", "pane_start")
    assert ALERTS.key == ("alert_id", "at")
    assert PANES.columns[PANES.index["latency_p99"]].type is Type.FLOAT
