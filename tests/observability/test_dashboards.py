"""The dashboards: they are up to date, and their data sources can answer every query.

SQL runs in DataFusion, the engine inside GreptimeDB, over rows that the flow has written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from datafusion import SessionContext

from connectors.tables import TABLES, Role, Table, Type
from flows.settings.model import load
from flows.wiring import shape
from observability.grafana import make
from operators.config import DetectConfig, PanesConfig
from operators.metrics import METRICS
from tests.conftest import ROOT, leave_out
from tests.golden import make as golden
from tests.harness import MemoryTopic, World

GRAFANA = ROOT / "observability" / "grafana"
BOARDS: dict[str, dict[str, Any]] = {name: json.loads(make.text(name)) for name in make.BOARDS}
TYPES = {
    Type.TEXT: pa.string(),
    Type.INT: pa.int64(),
    Type.FLOAT: pa.float64(),
    Type.TIMESTAMP_US: pa.timestamp("us"),
    Type.BYTES: pa.binary(),
    Type.BOOL: pa.bool_(),
}
FROM, TO = "2025-12-31T00:00:00Z", "2025-12-31T02:00:00Z"


def targets(source: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(board, panel, query) of every panel on this data source."""
    for name, board in BOARDS.items():
        for panel in board["panels"]:
            if panel["datasource"]["uid"] == source:
                for target in panel["targets"]:
                    yield name, panel["title"], target


SQL = [(b, title, t["rawSql"], t["format"]) for b, title, t in targets("greptimedb")]
VARIABLES = [
    (name, v["name"], v["query"])
    for name, board in BOARDS.items()
    for v in board["templating"].get("list", [])
    if v["type"] == "query"
]
PROMQL = sorted({t["expr"] for _, _, t in targets("prometheus")})


@pytest.fixture(scope="module")
def store() -> SessionContext:
    """The tables as in GreptimeDB, with the rows that the flow writes of a golden case that ends inside an incident."""
    settings = load({"SENTINEL_CONFIG": "settings.toml"}, golden.FOLDER / "still_on_at_the_end").settings
    metrics = {m.name: {"watch": True, "min_count": 4} for m in METRICS}
    detect = DetectConfig.model_validate({**settings.detect.model_dump(), "metrics": metrics, "warm_up_panes": 6})
    made = shape(settings.model_copy(update={"panes": PanesConfig(), "detect": detect}))
    more = {"tenant": "acme", "operation": "chat", "ttft_ms": 80, "prompt_tokens": 300, "cached_tokens": 9}
    more |= {"cache_write_tokens": 5, "reasoning_tokens": 4, "cost_usd": 0.002, "quality_score": 0.9, "trace_id": "t"}
    events = [{**json.loads(line), **more} for line in golden.read("still_on_at_the_end")]
    for event in events:
        if int(event["timestamp"][17:19]) >= 30:  # latency is judged only in panes without output tokens
            del event["completion_tokens"]
    records = [json.dumps(event).encode() for event in events]
    world = World(MemoryTopic({"p0": records}), made)
    world.run(50)
    context = SessionContext()
    for table in TABLES.values():
        rows = list(world.store.rows[table.name].values())
        assert rows
        context.from_arrow(arrow(table, rows), table.name)
    return context


def arrow(table: Table, rows: list[tuple[Any, ...]]) -> pa.Table:
    schema = pa.schema(
        [pa.field(c.name, TYPES[c.type], nullable=c.null and c.role is Role.FIELD) for c in table.columns]
    )
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), schema, strict=True)]
    return pa.Table.from_arrays(columns, schema=schema)


def filled(sql: str, **chosen: str | list[str]) -> str:
    """The query with macros and variables filled in as by Grafana: many values quoted, one as it is, quotes doubled."""
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN '{FROM}' AND '{TO}'", sql)
    for name, value in chosen.items():
        text = (
            ",".join("'" + v.replace("'", "''") + "'" for v in value)
            if isinstance(value, list)
            else value.replace("'", "''")
        )
        sql = re.sub(rf"\$\{{{name}:raw\}}|\${name}\b", lambda _, text=text: text, sql)  # type: ignore[misc]
    assert "$" not in sql
    return sql


def answers(store: SessionContext, sql: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = store.sql(sql).to_pylist()
    return rows


@pytest.fixture(scope="module")
def chosen(store: SessionContext) -> dict[str, str | list[str]]:
    """A choice of all variables: the series and the metric of an alert."""
    (alert,) = answers(store, "SELECT dimension_set, series, metric FROM llm_alerts ORDER BY at LIMIT 1")
    return {
        "service": ["chat", "it's"],
        "one": "chat",
        "severity": ["low", "medium", "high", "critical"],
        "set": alert["dimension_set"],
        "series": alert["series"],
        "metric": alert["metric"],
        "width": "60",
    }


@pytest.mark.parametrize(("board", "title", "sql", "form"), SQL, ids=[f"{b}: {t}" for b, t, *_ in SQL])
def test_a_panels_query_returns_rows_of_what_the_flow_writes(
    store: SessionContext, chosen: dict[str, str | list[str]], board: str, title: str, sql: str, form: str
) -> None:
    rows = answers(store, filled(sql, **chosen))
    assert rows
    if form == "time_series":
        times = [row["time"] for row in rows]
        assert times == sorted(times), "Grafana needs times in order"
        names = set(rows[0]) - {"time", "metric"}
        assert names
        for name in names:
            values = [row[name] for row in rows if row[name] is not None]
            assert values, f"{name} is empty"
            assert all(isinstance(value, int | float) for value in values)


@pytest.mark.parametrize("metric", [m.name for m in METRICS])
def test_every_metric_can_be_chosen_in_depth(
    store: SessionContext, chosen: dict[str, str | list[str]], metric: str
) -> None:
    for board, title, sql, _ in SQL:
        if board == "series" and ":raw" in sql:
            rows = answers(store, filled(sql, **{**chosen, "metric": metric}))
            assert any(v is not None for row in rows for k, v in row.items() if k != "time"), title


@pytest.mark.parametrize("width", ["10", "60", "3600"])
def test_every_width_can_be_chosen(store: SessionContext, chosen: dict[str, str | list[str]], width: str) -> None:
    for _, title, sql, _ in SQL:
        if "$width" in sql:
            assert answers(store, filled(sql, **{**chosen, "width": width})), title


@pytest.mark.parametrize(("board", "name", "sql"), VARIABLES, ids=[f"{b}: {n}" for b, n, _ in VARIABLES])
def test_a_variable_offers_what_is_stored(
    store: SessionContext, chosen: dict[str, str | list[str]], board: str, name: str, sql: str
) -> None:
    (column, *others), *rows = (list(row.values()) for row in answers(store, filled(sql, **chosen)))
    assert not others
    wanted = chosen[name]
    assert (wanted[0] if isinstance(wanted, list) else wanted) in {column, *(row[0] for row in rows)}


def test_every_query_names_its_dimension_set() -> None:
    """One table holds the rows of several sets: without the name requests are counted more than once."""
    sqls = [*(sql for _, _, sql, _ in SQL), *(sql for *_, sql in VARIABLES)]
    panes, bands = ([sql for sql in sqls if f"FROM {table}" in sql] for table in ("llm_panes", "llm_expectations"))
    assert panes and bands
    of_one = [sql for sql in [*panes, *bands] if "DISTINCT dimension_set" not in sql]
    assert [sql for sql in of_one if "dimension_set = '" not in sql] == []
    assert [sql for sql in panes if "width_s = " not in sql] == []
    assert [sql for sql in sqls if "$__timeFilter" not in sql] == []


def test_what_is_open_is_shown_as_open(store: SessionContext, chosen: dict[str, str | list[str]]) -> None:
    (sql,) = (sql for _, title, sql, _ in SQL if title == "Open now")
    last = answers(store, "SELECT episode_id, max(at) FROM llm_alerts WHERE status <> 'resolved' GROUP BY episode_id")
    assert len(answers(store, filled(sql, **chosen))) == len(last) == 1


def test_prometheus_can_read_every_expression(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        leave_out("promtool is not installed (make services)")
    assert promtool is not None
    rules = [{"record": f"x:{i}", "expr": expr.replace("$__rate_interval", "5m")} for i, expr in enumerate(PROMQL)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_the_dashboards_are_fresh_and_there_are_no_others() -> None:
    found = {path.stem: path.read_text() for path in (GRAFANA / "dashboards").glob("*.json")}
    assert found == {name: make.text(name) for name in make.BOARDS}, "run `make dashboards`"


def test_what_a_dashboard_names_is_provisioned() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "sentinel.yaml").read_text())["datasources"]
    types = {source["uid"]: source["type"] for source in sources}
    for board in BOARDS.values():
        named = [p["datasource"] for p in board["panels"]]
        named += [v["datasource"] for v in board["templating"].get("list", []) if v["type"] == "query"]
        assert named
        assert all(types[source["uid"]] == source["type"] for source in named)
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "sentinel.yaml").read_text())["providers"]
    assert provider["type"] == "file" and provider["options"]["path"]
    assert len({board["uid"] for board in BOARDS.values()}) == len(BOARDS)
