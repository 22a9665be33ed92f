"""The input of the benchmarks: valid telemetry of a given number of series, at a given pace; and curves of figures."""

from __future__ import annotations

import time
from xml.etree import ElementTree

from benchmarks.events import Events, paced
from benchmarks.plot import curves
from operators.decode.config import DecodeConfig
from operators.decode.registry import decoder

SVG = "{http://www.w3.org/2000/svg}"


def test_every_record_can_be_used_and_belongs_to_one_of_the_series() -> None:
    events = Events(40)
    values = [events.record(1_700_000_000_123 + i) for i in range(200)]
    found = decoder("native").decode(values, DecodeConfig())
    assert len(found.events) == 200 and found.faults == []
    assert len({v.split(b'"event_id"')[0] for v in values}) == 200
    assert len({tuple(v.split(b'"tenant"')[0].split(b",")[2:4]) for v in values}) == 40


def test_the_pace_is_kept_and_caught_up_with() -> None:
    sent = 0
    for number, due in enumerate(paced(1_000, 0.5)):
        sent += due
        if number == 2:
            time.sleep(0.2)
    assert 300 < sent <= 520


def test_curves_have_a_point_for_each_value_and_the_largest_at_the_top() -> None:
    picture = ElementTree.fromstring(curves("Memory & lag", "seconds", {"memory": [1.0, 4.0, 2.0], "lag": [0.0, 0.0]}))
    first, second = (line.attrib["points"].split() for line in picture.iter(f"{SVG}polyline"))
    heights = [float(point.split(",")[1]) for point in first]
    assert len(first) == 3 and len(second) == 2
    assert min(heights) == heights[1] and heights[0] - heights[1] == 1.5 * (heights[2] - heights[1])
