"""A new metric needs only its entry: everything else, from decoding to alerts and references, follows from it.

The packages are copied, the copy gets one more entry, and a separate process runs the flow of production on events
with the new field.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.golden.make import Traffic, emitted, lines

END = ')\n"""The metrics of an event, in the order of every metric axis."""'
ENTRY = """\
    Metric(
        name="retrieval",
        title="Time to retrieve",
        field="retrieval_ms",
        unit="ms",
        scale=1_000,
        limit=3_600_000.0,
        worst="high",
        offset=1.0,
        direction="up",
        min_change=LeastChange(2.25, 1.75, 1.25),
        min_count=4,
        kind_up="retrieval_spike",
        kind_down="retrieval_drop",
        rank=8,
    ),
"""
SETTINGS = """
panes.dimension_sets = [["service"]]
recovery.shards = 1
detect.warm_up_panes = 12
detect.false_alarms_per_series_day = 2
"""
RUN = """
import json, sys
from pathlib import Path

from connectors.tables import TABLES
from flows.backtest.scoring import canonical
from flows.formats import formats
from flows.settings.model import load
from flows.settings.reference import reference
from flows.wiring import shape
from operators.incidents.findings import CAUSES
from operators.overrides import PRESETS
from tests.harness import MemoryTopic, World

settings = load({"SENTINEL_CONFIG": "settings.toml"}, Path.cwd()).settings
world = World(MemoryTopic({"p0": Path("events.jsonl").read_bytes().splitlines()}), shape(settings))
world.run(1_000)
rows = {
    name: [dict(zip((c.name for c in table.columns), row)) for row in world.store.rows[name].values()]
    for name, table in TABLES.items()
}
json.dump(
    {
        "alerts": [json.loads(line.value) for line in world.alerts.lines],
        "letters": [json.loads(line.value) for line in world.letters.lines],
        "rows": rows,
        "causes": CAUSES,
        "presets": {name: preset.get("metrics", {}).get("retrieval") for name, preset in PRESETS.items()},
        "labels": [canonical("retrieval"), canonical("retrieval_ms")],
        "formats": formats(),
        "reference": reference(),
    },
    sys.stdout,
    default=repr,
)
"""


def slow_retrieval(at: float, event: dict[str, Any]) -> None:
    """Retrieval takes about 40 ms, and six times as long from 300 s to 420 s; nothing else changes."""
    event["retrieval_ms"] = round(event.pop("completion_tokens") * (2.4 if 300 <= at < 420 else 0.4), 1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The output of a copy with one more metric for events that carry it."""
    tree = tmp_path_factory.mktemp("tree")
    for package in ("operators", "connectors", "flows"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__", "kernels"))
    # The kernels name no metric: a link spares compiling them again.
    (tree / "operators" / "kernels").symlink_to(ROOT / "operators" / "kernels")
    (tree / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "harness.py", tree / "tests")
    table = tree / "operators" / "metrics.py"
    assert table.read_text().count(END) == 1
    table.write_text(table.read_text().replace(END, ENTRY + END))

    events = emitted(Traffic("chat", 2, 8, 1, change=slow_retrieval))
    broken = {**events[0], "event_id": "", "retrieval_ms": -1}
    (tree / "events.jsonl").write_bytes(b"\n".join(lines([broken, *events])))
    (tree / "settings.toml").write_text(SETTINGS)
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_is_decoded_and_has_columns_in_the_store(told: dict[str, Any]) -> None:
    rows = [row for row in told["rows"]["llm_panes"] if row["width_s"] == 60]
    assert sum(row["retrieval_count"] for row in rows) == sum(row["requests"] for row in rows) > 200
    usual = [row["retrieval_p50"] for row in rows[:4]]
    assert all(30 < value < 50 for value in usual)
    assert any(row["retrieval_expected"] for row in told["rows"]["llm_expectations"])


def test_a_value_beyond_its_bounds_is_a_dead_letter(told: dict[str, Any]) -> None:
    (letter,) = told["letters"]
    assert letter["reason"] == "bad_number"
    assert letter["detail"] == "retrieval_ms: must be a number from 0 to 3600000, is -1"
    assert '"retrieval_ms":-1' in letter["payload"]


def test_it_is_judged_and_alerted_under_its_own_name(told: dict[str, Any]) -> None:
    assert {alert["metric"] for alert in told["alerts"]} == {"retrieval"}
    first, last = told["alerts"][0], told["alerts"][-1]
    assert (first["kind"], first["unit"], first["status"]) == ("retrieval_spike", "ms", "firing")
    assert first["text"].startswith("Time to retrieve of service chat is ")
    assert 200 < first["observed"] < 280 and 30 < first["expected"] < 50
    assert [row["kind"] for row in told["rows"]["llm_alerts"]] == ["retrieval_spike"] * len(told["alerts"])
    assert last["kind"] == "retrieval_spike"


def test_it_has_its_place_among_causes_presets_and_labels(told: dict[str, Any]) -> None:
    assert told["causes"].index("retrieval") == told["causes"].index("cost") + 1
    assert told["presets"] == {"quiet": {"min_change": 2.25}, "balanced": None, "sensitive": {"min_change": 1.25}}
    assert told["labels"] == ["retrieval_ms", "retrieval_ms"]


def test_it_stands_in_the_references(told: dict[str, Any]) -> None:
    assert "| `retrieval_ms` | number from 0 to 3,600,000, or null |  | in ms |" in told["formats"]
    assert (
        "| `retrieval` | Time to retrieve | ms | `retrieval_ms` | up | x2.25 / x1.75 / x1.25 "
        "| `retrieval_spike`, `retrieval_drop` |"
    ) in told["formats"]
    assert "| `detect.metrics.retrieval.min_change` | `1.75` |" in told["reference"]
    assert '| `detect.detectors.retrieval` | `["zscore"]` |' in told["reference"]


def test_without_its_entry_nothing_knows_it() -> None:
    """Otherwise the tests above could pass with a metric of production."""
    named = [p for p in (ROOT / "operators").rglob("*.py") if "retrieval" in p.read_text()]
    assert named == []
