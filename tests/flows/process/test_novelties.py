"""What the log says once of formats and of unknown attributes."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from flows.process.novelties import MOST, Novelties
from operators.decode.intake import Batch
from tests.operators.pane_events import columns

NONE = np.zeros(0, np.bool_)


def batch(partition: str, formats: dict[str, int], unknown: dict[str, int]) -> Batch:
    return Batch(partition, (partition,), None, columns([]), NONE, NONE, [], formats=formats, unknown=unknown)


def test_each_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    novelties = Novelties()
    for _ in range(3):
        novelties.see(batch("t/0", {"otlp_proto": 3, "native": 2}, {"acme.tokens": 1}))
        novelties.see(batch("t/1", {"native": 2}, {"acme.tokens": 1}))
    assert [record.getMessage() for record in caplog.records] == [
        "records of the format native come, first in source partition t/0",
        "records of the format otlp_proto come, first in source partition t/0",
        (
            "calls carry acme.tokens, which looks like usage and which no convention reads: if it tells a field, name "
            "it in decode.attributes"
        ),
    ]


def test_a_flood_of_names_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    Novelties().see(batch("t/0", {}, {f"a{i}.tokens": 1 for i in range(MOST + 5)}))
    assert len(caplog.records) == MOST
