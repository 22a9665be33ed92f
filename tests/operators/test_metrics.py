"""The entries of the table of metrics differ in every name, and causes come before their effects."""

from __future__ import annotations

from collections import Counter

import pytest

from operators.metrics import MEASURES, METRICS, Measure, Metric

measures = pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)


def test_no_two_entries_share_a_name_a_field_a_kind_or_a_rank() -> None:
    assert len(MEASURES) == len(METRICS) + 2
    kinds = [kind for m in MEASURES.values() for kind in (m.kind_up, m.kind_down) if kind]
    fields = [m.field for m in METRICS if m.field]
    ranks = [m.rank for m in MEASURES.values()]
    for names in (kinds, fields, ranks):
        assert [name for name, times in Counter(names).items() if times > 1] == []


def test_a_name_in_labels_means_one_metric() -> None:
    meant: dict[str, set[str]] = {}
    for measure in MEASURES.values():
        for name in (measure.name, measure.field, *measure.aliases):
            if name:
                meant.setdefault(name, set()).add(measure.name)
    assert {name: of for name, of in meant.items() if len(of) > 1} == {}
    assert {m.in_labels for m in MEASURES.values()} <= meant.keys() | {"request_count", "error_rate"}


@measures
def test_a_measure_follows_causes_that_rank_before_it(measure: Measure) -> None:
    assert all(MEASURES[name].rank < measure.rank for name in measure.follows)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_least_change_is_a_change_and_the_presets_are_in_order(metric: Metric) -> None:
    quiet, balanced, sensitive = metric.min_change
    assert quiet > balanced > sensitive > (1 if metric.in_logs else 0)
    assert metric.kind_up and metric.kind_down
    assert metric.limit * metric.scale < 2**53
