"""Alerts as bytes, and their headers."""

from __future__ import annotations

import dataclasses
import json
from datetime import datetime

from hypothesis import given
from hypothesis import strategies as st

from operators.incidents.alert_json import headers, microseconds, rfc3339, to_json
from operators.model import Alert

ALERT = Alert(
    alert_id="a1",
    episode_id="e1",
    group_id="",
    related=(),
    sequence=1,
    status="updated",
    severity="high",
    kind="latency_spike",
    series={"service": "chat", "model": ""},
    metric="latency",
    unit="ms",
    at=1_741_065_520_000_000,
    since=1_741_065_500_000_000,
    until=None,
    observed=6100.0,
    expected=1200.0,
    lower=None,
    upper=1900.5,
    score=0.87,
    detectors=("zscore",),
    evidence=({"event_id": "x", "trace_id": "", "value": 9000.25},),
    text="é",
    contributors=({"dimension": "tenant", "share": 0.5},),
    factors=({"factor": "mix", "times": 2.0},),
    learned_panes=2100,
    learned_since=1_741_046_400_000_000,
)


def test_the_bytes_are_fixed() -> None:
    assert to_json(ALERT).decode() == (
        '{"schema":1,"alert_id":"a1","episode_id":"e1","group_id":"","related":[],"sequence":1,"status":"updated",'
        '"severity":"high","kind":"latency_spike","series":{"service":"chat","model":""},"metric":"latency","unit":"ms",'
        '"at":"2025-03-04T05:18:40.000Z","since":"2025-03-04T05:18:20.000Z","until":null,"observed":6100.0,'
        '"expected":1200.0,"lower":null,"upper":1900.5,"score":0.87,"detectors":["zscore"],'
        '"learned_panes":2100,"learned_since":"2025-03-04T00:00:00.000Z",'
        '"contributors":[{"dimension":"tenant","share":0.5}],"factors":[{"factor":"mix","times":2.0}],"evidence":[{"event_id":"x","trace_id":"","value":9000.25}],"text":"é","links":{},"reason":""}'
    )


def test_every_field_of_an_alert_is_written() -> None:
    assert set(json.loads(to_json(ALERT))) == {"schema", *(f.name for f in dataclasses.fields(Alert))}


floats = st.floats(allow_nan=False, allow_infinity=False)
times = st.integers(0, 4_102_444_800_000).map(lambda ms: ms * 1000)


@given(
    st.builds(
        dataclasses.replace,
        st.just(ALERT),
        at=times,
        since=times,
        until=st.none() | times,
        observed=floats,
        lower=st.none() | floats,
        series=st.dictionaries(st.sampled_from(["service", "model"]), st.text(st.characters(codec="utf-8"))),
        detectors=st.lists(st.text(max_size=3), max_size=2).map(tuple),
        reason=st.sampled_from(["", "quiet", "level_shift", "expired"]),
        related=st.lists(st.sampled_from(["g1", "g2"]), max_size=2).map(tuple),
        links=st.dictionaries(st.sampled_from(["run"]), st.just("https://example.org")),
    )
)
def test_every_field_stands_in_the_json(alert: Alert) -> None:
    row = json.loads(to_json(alert))
    assert row.pop("schema") == 1
    for name in (field.name for field in dataclasses.fields(Alert)):
        given, sent = getattr(alert, name), row.pop(name)
        if name in {"at", "since", "until", "learned_since"} and given is not None:
            sent = microseconds(sent)
        assert sent == (list(given) if isinstance(given, tuple) else given), name
    assert row == {}


@given(times)
def test_times_are_rfc_3339(time: int) -> None:
    text = rfc3339(time)
    assert microseconds(text) == time
    assert datetime.fromisoformat(text).utcoffset() is not None
    assert len(text) == 24
    assert rfc3339(time + 999) == text


def test_a_time_with_another_offset_is_read() -> None:
    assert microseconds("2025-03-04T06:18:40.000+01:00") == ALERT.at


def test_headers_are_those_of_cloud_events() -> None:
    assert headers(ALERT) == {
        "ce_specversion": "1.0",
        "ce_id": "a1",
        "ce_source": "llm-sentinel",
        "ce_type": "llm-sentinel.alert.updated",
        "ce_time": "2025-03-04T05:18:40.000Z",
        "content-type": "application/json",
    }
    assert headers(ALERT, replayed=True)["replayed"] == "true"
