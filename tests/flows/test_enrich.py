"""Costs and families through the real dataflow."""

from __future__ import annotations

import tempfile
import tomllib
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.tables import PANES
from operators.config import EnrichConfig, GroupsConfig
from operators.enrich import pricing
from operators.enrich.enricher import Enricher
from operators.incidents.findings import SLOWNESS
from operators.metrics import METRIC_INDEX
from tests.flows.test_laws import LAW, SHAPE, START, dealt, spoil, traffic, world
from tests.harness import World

PRICES = pricing.read(
    tomllib.loads(
        "".join(
            f'[[price]]\nmodel = "{model}"\nvalid_from = {day}\nprompt = {prompt}\ncompletion = 7.123456\n'
            for model, day, prompt in (("m0*", "2025-01-01", 2.5), ("m0*", "2025-12-31", 0.15), ("*", "2099-01-01", 1))
        ),
        parse_float=Decimal,
    )
)


def enricher() -> Enricher:
    return Enricher(EnrichConfig(), lambda: PRICES)


def changed(records: list[bytes], change: Any) -> list[bytes]:
    out = []
    for record in records:
        event = orjson.loads(record)
        change(event)
        out.append(orjson.dumps(event))
    return out


def without_cost(event: dict[str, Any]) -> None:
    if int(event["event_id"][1:]) % 5:
        del event["cost_usd"]


@settings(LAW, max_examples=4)
@given(seed=st.integers(0, 3), size=st.sampled_from([23, 60, 333]), workers=st.integers(1, 2), crash=st.integers(1, 12))
def test_costs_are_the_same_for_any_batches_workers_and_crashes(seed: int, size: int, workers: int, crash: int) -> None:
    records = dealt(spoil(changed(traffic(seed, minutes=6), without_cost), seed), 2, seed)
    one = world(records, enrich=enricher())
    one.run(5_000)
    with tempfile.TemporaryDirectory() as folder:
        other = world(records, enrich=enricher(), recovery=Path(folder))
        other.topic.crash_after = [crash] if crash * size < 500 else []
        other.run_through(size, (workers,))
    assert one.outcome() == other.outcome()
    unpriced = sum(b.unpriced for b in one.balances.values())
    judged = sum(b.on_time + b.late for b in one.balances.values())
    assert 0.3 < unpriced / judged < 0.5  # m1, half of the events, has no price yet; four fifths of them have no cost


def dated(event: dict[str, Any]) -> None:
    """Give the model a version; both models get a new one half a minute before the incident."""
    version = "2025-11-01" if event["timestamp"] < START + 330 else "2025-12-30"
    event["model"] = f"{event['model']}-{version}"


@pytest.mark.parametrize("families", [True, False])
def test_a_new_version_of_a_model_goes_on_with_the_warm_series(families: bool) -> None:
    """The incident comes when the new version is half a minute old, so only a warm series can show it."""
    records = dealt(changed(traffic(1), dated), 2, 1)
    shape = replace(SHAPE, groups=GroupsConfig(settle_s=30, members=True))  # alerts for each series, not only the lead
    w = world(records, shape, enrich=Enricher(EnrichConfig(dated_versions=families)))
    w.run(200)
    found = [orjson.loads(line.value) for line in w.alerts.lines]
    slow = {
        a["series"]["model"]
        for a in found
        if a["status"] == "firing" and a["metric"] in SLOWNESS and a["series"].get("service") == "chat"
    }
    assert slow == ({"m0", "m1"} if families else set())


def test_the_version_stays_in_the_breakdown() -> None:
    w = world(dealt(changed(traffic(1), dated), 1, 1))
    w.run(500)
    versions = counted(w)
    assert set(versions) == {f"m{m}-{v}" for m in (0, 1) for v in ("2025-11-01", "2025-12-30")}
    assert sum(versions.values()) == sum(map(len, w.topic.records.values()))


def counted(w: World) -> dict[str, int]:
    """Requests by version, over all panes of the series with a model."""
    columns = [c.name for c in PANES.columns]
    out: dict[str, int] = {}
    for row in w.store.rows[PANES.name].values():
        value = dict(zip(columns, row, strict=True))
        if value["dimension_set"] == "service,model,operation" and value["width_s"] == 10:
            for entry in orjson.loads(value["breakdown"]):
                if entry["label"] == "model_version":
                    out[entry["value"]] = out.get(entry["value"], 0) + entry["requests"]
    return out


def test_own_families_join_models() -> None:
    shape = replace(SHAPE, panes=SHAPE.panes.model_copy(update={"dimension_sets": (("model",),)}))
    w = world(dealt(traffic(1), 1, 1), shape, enrich=Enricher(EnrichConfig(families={"m?": "all"})))
    w.run(500)
    place = [c.name for c in PANES.columns].index("model")
    assert {row[place] for row in w.store.rows[PANES.name].values()} == {"all"}


def test_nothing_is_priced_twice() -> None:
    records = [orjson.dumps({"timestamp": START, "service": "s", "model": "m0", "prompt_tokens": 10, "cost_usd": 0.5})]
    w = world({"p0": records}, enrich=enricher())
    w.run(10)
    columns = [c.name for c in PANES.columns]
    assert METRIC_INDEX["cost"] == 7
    (total,) = {row[columns.index("cost_sum")] for row in w.store.rows[PANES.name].values()}
    assert np.isclose(total, 0.5)
