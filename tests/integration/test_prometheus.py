"""A real Prometheus scrapes a running flow and evaluates the rules on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from signal import SIGTERM
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from operators.observe.instruments import COST_OBJECTIVE, HEARTBEAT, INSTRUMENTS, PROCESS
from tests.brokers import free_port
from tests.conftest import leave_out
from tests.observability.test_rules import FILES, RULES
from tests.processes import Job, Process
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Process]]:
    """A flow on live simulated traffic after twelve minutes of history: the port of its metrics and its process."""
    port = free_port()
    settings = {
        "source.simulator.live": True,
        "source.simulator.history_h": 0.2,
        "source.simulator.backfill_h": 0.2,
        "source.simulator.rate": 20,
        "metrics.port": port,
    }
    job = Job(tmp_path_factory.mktemp("flow"), settings)
    with job.start(*job.recovered()) as process:
        wait_until(lambda: "sentinel_judged_delay_seconds_count 0.0" not in text(port), process.said)
        yield port, process
        process.send(SIGTERM)
        assert process.finish() == 0, process.said()


@pytest.fixture(scope="module")
def prometheus(flow: tuple[int, Process], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus that scrapes the flow each second; its address."""
    found = shutil.which("prometheus")
    if found is None:
        leave_out("prometheus is not installed (make services)")
    assert found is not None
    folder, port = tmp_path_factory.mktemp("prometheus"), free_port()
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in FILES],
        "scrape_configs": [
            {"job_name": "llm-sentinel", "static_configs": [{"targets": [f"127.0.0.1:{flow[0]}"]}]},
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    options = [
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen([found, *options], stdout=log, stderr=log) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def text(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            read: str = answer.read().decode()
            return read
    except (urllib.error.URLError, ConnectionError):
        return "sentinel_judged_delay_seconds_count 0.0"


def asked(address: str, path: str, **parameters: str) -> Any:
    """The answer of the API; None while it does not answer."""
    try:
        url = f"{address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.loads(answer.read())["data"]
    except (urllib.error.URLError, ConnectionError):
        return None


def test_a_running_flow_offers_every_metric_and_no_other(flow: tuple[int, Process]) -> None:
    families = {family.name: family for family in text_string_to_metric_families(text(flow[0]))}
    offered = {f"{name}_total" if family.type == "counter" else name for name, family in families.items()}
    always = [i for i in INSTRUMENTS if i not in (COST_OBJECTIVE, HEARTBEAT)]  # these two are off by default
    named = {i.exposed for i in always}
    assert offered == named | set(PROCESS)
    assert {families[i.name].documentation for i in always} <= {i.help for i in INSTRUMENTS}
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text(flow[0]), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout


def test_prometheus_reads_it_and_its_rules_hold(flow: tuple[int, Process], prometheus: str) -> None:
    def value(query: str) -> float | None:
        result = (asked(prometheus, "query", query=query) or {"result": []})["result"]
        return float(result[0]["value"][1]) if result else None

    process = flow[1]
    wait_until(lambda: bool(value("rate(sentinel_records_total[15s])")), process.said)
    wait_until(lambda: value("service:sentinel_error_burn:rate5m") is not None, process.said)
    assert value("count(up == 1)") == 1
    assert value("sentinel_build_info") == 1
    assert value("sum(sentinel_events_total) > 1000") is not None
    assert value("max(abs(sentinel_balance_difference))") == 0
    assert value("sum(sentinel_snapshot_bytes_count)") is not None
    assert value('sum(sentinel_sink_items_total{sink="sqlite"}) > 100') is not None
    assert value("max(time() - sentinel_watermark_timestamp_seconds) < 60") is not None

    def healthy() -> bool:
        groups = (asked(prometheus, "rules") or {"groups": []})["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return len(rules) == len(RULES) and all(rule["health"] == "ok" for rule in rules)

    wait_until(healthy, process.said)
    firing = [a["labels"]["alertname"] for a in asked(prometheus, "alerts")["alerts"] if a["state"] == "firing"]
    assert [name for name in firing if not name.endswith("Burn")] == []
