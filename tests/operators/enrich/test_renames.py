"""Families of models."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.enrich.renames import Renames
from operators.model import LABELS
from tests.operators.pane_events import Call, calls, columns

MODEL, VERSION = LABELS.index("model"), LABELS.index("model_version")


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("swift-4o-2024-08-06", "swift-4o"),
        ("swift-3-5-large-20241022", "swift-3-5-large"),
        ("swift-large@20250514", "swift-large"),
        ("swift-large@2025-05-14", "swift-large"),
        ("swift-latest", "swift"),
        ("swift:latest", "swift"),
        ("swift@latest", "swift"),
        ("swift", "swift"),
        ("swift-1.5-pro-002", "swift-1.5-pro-002"),
        ("swift-4-0613", "swift-4-0613"),
        ("swift-2024-13-01", "swift-2024-13-01"),
        ("swift-20241301", "swift-20241301"),
        ("swift-2024-0513", "swift-2024-0513"),
        ("swift-20241022-v2:0", "swift-20241022-v2:0"),
        ("swift-20241022-2024-08-06", "swift-20241022"),
        ("-2024-08-06", "-2024-08-06"),
        ("-latest", "-latest"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_dated_versions(model: str, family: str) -> None:
    assert Renames({}, dated=True).family(model) == family
    assert Renames({}, dated=False).family(model) == model


def test_own_rules_come_first_and_the_most_specific_of_them() -> None:
    rules = Renames({"*": "rest", "swift-*": "swift", "swift-4*": "swift-4", "sw*": "late"}, dated=True)
    assert [rules.family(m) for m in ("swift-4-2024-08-06", "swift-3", "swan", "north-20240101")] == [
        "swift-4", "swift", "late", "rest",
    ]  # fmt: skip
    assert Renames({"a?": "first", "?b": "second"}, dated=True).family("ab") == "first"


def test_the_name_that_was_sent_stays_as_the_version() -> None:
    events = columns([])
    events.combos = [tuple({"model": "swift-2024-08-06", "model_version": ""}.get(x, x) for x in LABELS)]
    Renames({}, dated=True).apply(events)
    (labels,) = events.combos
    assert labels[MODEL] == "swift"
    assert labels[VERSION] == "swift-2024-08-06"
    assert [x for i, x in enumerate(labels) if i not in (MODEL, VERSION)] == [
        x for i, x in enumerate(LABELS) if i not in (MODEL, VERSION)
    ]


@given(calls, st.dictionaries(st.sampled_from(["a", "b*", "*", "?"]), st.sampled_from(["x", "a"])))
def test_different_labels_stay_different(drawn: list[Call], families: dict[str, str]) -> None:
    events = columns([replace(c, labels=(*c.labels[:VERSION], "", *c.labels[VERSION + 1 :])) for c in drawn])
    before = list(events.combos)
    Renames(families, dated=True).apply(events)
    assert len(set(events.combos)) == len(before)
    assert [labels[VERSION] or labels[MODEL] for labels in events.combos] == [labels[MODEL] for labels in before]
