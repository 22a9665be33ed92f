"""The rules of Prometheus: each fires when it should, is quiet when it should, and names its section of the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from connectors.kafka.config import KafkaConfig
from tests.conftest import ROOT, leave_out

FOLDER = ROOT / "observability" / "prometheus"
FILES = sorted(FOLDER.glob("*.rules.yaml"))
RULES: list[dict[str, Any]] = [
    rule for path in FILES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}

BUILD = 'sentinel_build_info{job="j",instance="a"}'
RECORDS = 'sentinel_records_total{job="j",instance="a",partition="t/0"}'
LAG = 'sentinel_consumer_lag_records{job="j",instance="a",partition="t/0"}'
MARK = 'sentinel_watermark_timestamp_seconds{job="j",instance="a",partition="t/0"}'
MARK_1 = MARK.replace("t/0", "t/1").replace('"a"', '"b"')
WAITED = 'sentinel_partition_waited_for{job="j",instance="a",partition="t/0"}'
WAITED_1 = WAITED.replace("t/0", "t/1").replace('"a"', '"b"')
PARTITIONS = 'sentinel_source_partitions{job="j",instance="a"}'
ON_TIME = 'sentinel_events_total{job="j",instance="a",partition="t/0",outcome="on_time"}'
DEAD = 'sentinel_dead_letters_total{job="j",instance="a",partition="t/0",reason="not_json"}'
SKIPPED = 'sentinel_records_skipped_total{job="j",instance="a",partition="t/0"}'
REPLACED = 'sentinel_source_logs_replaced_total{job="j",instance="a",partition="t/0"}'
UNREAD = 'sentinel_source_partitions_unread{job="j",instance="a",topic="t"}'
DIFFERENCE = 'sentinel_balance_difference{job="j",instance="a",partition="t/0"}'
RETRIES = 'sentinel_sink_retries_total{job="j",instance="a",sink="sqlite"}'
POLLS_AGAIN = 'sentinel_source_retries_total{job="j",instance="a"}'
REJECTED = 'sentinel_sink_rejected_total{job="j",instance="a",sink="sqlite",reason="bad_row"}'
DROPPED = 'sentinel_sink_dropped_total{job="j",instance="a",sink="terminal",reason="full"}'
SERIES = 'sentinel_series{job="j",instance="a",shard="0"}'
LIMIT = 'sentinel_series_limit{job="j",instance="a"}'
FOLDED = 'sentinel_series_overflow_requests_total{job="j",instance="a",shard="0"}'
LOADS = 'sentinel_price_file_loads_total{job="j",instance="a",good="false"}'
START = 'process_start_time_seconds{job="j",instance="a"}'
BEAT = 'sentinel_heartbeat_timestamp_seconds{job="j",instance="a"}'
UNKNOWN = 'sentinel_unknown_attributes_total{job="j",instance="a",name="acme.tokens"}'
TOLD = 'sentinel_events_told_total{job="j",instance="a",metric="cost"}'
OK = 'sentinel_requests_total{job="j",instance="a",service="chat",outcome="ok"}'
ERROR = 'sentinel_requests_total{job="j",instance="a",service="chat",outcome="error"}'
SHARE = 'sentinel_objective_error_ratio{job="j",instance="a"}'
COST = 'sentinel_cost_usd_total{job="j",instance="a",service="chat"}'
BUDGET = 'sentinel_objective_cost_usd{job="j",instance="a"}'

Series = dict[str, str]
"""Values a minute apart, as promtool writes them: `0+60x90` begins at 0 and rises by 60 for 90 minutes."""


def durations(name: str, labels: str, most: str) -> Series:
    """A histogram with all durations in the bucket that ends at `most`, in seconds."""
    bounds = ["1", "10", "60", "300", "+Inf"]
    return {
        f'{name}_bucket{{job="j",instance="a",{labels}le="{bound}"}}': "0+60x90"
        if float(bound) >= float(most)
        else "0x90"
        for bound in bounds
    }


JUDGED, WRITES = "sentinel_judged_delay_seconds", "sentinel_sink_write_seconds"
NOW, HALF_AN_HOUR_OLD = "-20+60x90", "-1800+60x90"

CASES: dict[str, tuple[list[Series], list[Series]]] = {
    "SentinelAbsent": ([{RECORDS: "0+60x90"}], [{BUILD: "1x90"}]),
    "SentinelRestarting": (
        [{START: "1x70 2x5 3x5 4x9", BUILD: "1x90"}],
        [{START: "1x70 2x20", BUILD: "1x90"}, {START: "1x70 2x5 3x5 4x9"}],
    ),
    "SentinelNoInput": ([{RECORDS: "0+60x60 3600x30"}], [{RECORDS: "0+60x90"}, {RECORDS: "0+60x80 4800x10"}]),
    "SentinelSourceFailing": (
        [{POLLS_AGAIN: "0+6x90"}],
        [{POLLS_AGAIN: "6x90"}, *({POLLS_AGAIN: f"0x{n} 3x90"} for n in (82, 84, 86))],
    ),
    "SentinelLagHigh": (
        [{LAG: "50000x90", RECORDS: "0+60x90"}],
        [{LAG: "50000x90", RECORDS: "0+60000x90"}, {LAG: "9000x90", RECORDS: "0+60x90"}],
    ),
    "SentinelWatermarkBehind": (
        [{MARK: HALF_AN_HOUR_OLD, RECORDS: "0+60x90"}],
        [{MARK: NOW, RECORDS: "0+60x90"}, {MARK: HALF_AN_HOUR_OLD, RECORDS: "60x90"}],
    ),
    "SentinelWatermarkStuck": (
        [{MARK: "0+60x60 3600x30", RECORDS: "0+60x90"}],
        [{MARK: "0+60x90", RECORDS: "0+60x90"}, {MARK: "0+60x60 3600x30", RECORDS: "0+60x60 3600x30"}],
    ),
    "SentinelPartitionStuck": (
        [
            {MARK: "0+60x90", MARK_1: "0+60x60 3600x30", WAITED: "1x90", WAITED_1: "1x90"},
            # The first partition waits once it is max_ahead_s ahead; from then on both stand still.
            {MARK: "0+60x30 1800x60", MARK_1: "0+60x20 1200x70", WAITED: "1x90", WAITED_1: "1x90"},
            {MARK: "0+60x90", WAITED: "1x90", PARTITIONS: "2x90"},
        ],
        [
            {MARK: "0+60x90", MARK_1: "0+60x90", WAITED: "1x90", WAITED_1: "1x90", PARTITIONS: "2x90"},
            {MARK: "0+60x90", MARK_1: "0+60x60 3600x30", WAITED: "1x90", WAITED_1: "1x60 0x30", PARTITIONS: "2x90"},
            {MARK: "0+60x90", MARK_1: "0+60x86 5160x4", WAITED: "1x90", WAITED_1: "1x90", PARTITIONS: "2x90"},
            {MARK: "0+60x60 3600x30", MARK_1: "0+60x60 3600x30", WAITED: "1x90", WAITED_1: "1x90"},
            {MARK: "0+60x90", MARK_1: "0+6x90", WAITED: "1x90", WAITED_1: "1x90"},
            {MARK: "0+60x60 3600x30", WAITED: "1x90", PARTITIONS: "1x90"},
            {MARK: "_x87 5000x3", WAITED: "_x87 1x3", PARTITIONS: "_x87 2x3"},
        ],
    ),
    "SentinelJudgedLate": ([durations(JUDGED, "", "300")], [durations(JUDGED, "", "60")]),
    "SentinelDeadLettersRising": (
        [{DEAD: "0+6x90", ON_TIME: "0+100x90"}],
        [{DEAD: "0+1x90", ON_TIME: "0+1000x90"}, {DEAD: "0+6x60 360x30", ON_TIME: "0+100x90"}],
    ),
    "SentinelUnknownUsage": ([{UNKNOWN: "0x80 3x10"}, {UNKNOWN: "_x70 3+3x20"}], [{UNKNOWN: "3x90"}]),
    "SentinelFieldVanished": (
        [{TOLD: "0+50x60 3000x30", ON_TIME: "0+100x90"}],
        [
            {TOLD: "0+50x90", ON_TIME: "0+100x90"},
            {TOLD: "0+50x60 3000x30", ON_TIME: "0+100x60 6000x30"},
            {TOLD: "0x90", ON_TIME: "0+100x90"},
        ],
    ),
    "SentinelRecordsLost": (
        [{SKIPPED: "0x80 5x10"}, {REPLACED: "0x80 1x10"}, {REPLACED: "_x80 1x10"}],
        [{SKIPPED: "5x90"}, {REPLACED: "1x90"}],
    ),
    "SentinelPartitionsUnread": ([{UNREAD: "0x80 2x10"}], [{UNREAD: "0x90"}, {UNREAD: "2x80 0x10"}]),
    "SentinelBalanceBroken": ([{DIFFERENCE: "0x80 1x10"}, {DIFFERENCE: "-1x90"}], [{DIFFERENCE: "0x90"}]),
    "SentinelSinkFailing": (
        [{RETRIES: "0+6x90"}],
        [{RETRIES: "6x90"}, *({RETRIES: f"0x{n} 3x90"} for n in (82, 84, 86))],
    ),
    "SentinelSinkRejects": ([{REJECTED: "0x80 2x10"}, {REJECTED: "_x80 2x10"}], [{REJECTED: "2x90"}]),
    "SentinelSinkDrops": ([{DROPPED: "0x80 2x10"}, {DROPPED: "_x80 2x10"}], [{DROPPED: "2x90"}]),
    "SentinelSinkSlow": (
        [durations(WRITES, 'sink="sqlite",', "60")],
        [durations(WRITES, 'sink="sqlite",', "1")],
    ),
    "SentinelSeriesCapReached": (
        [{FOLDED: "0+1x90"}, {SERIES: "100x90", LIMIT: "100x90"}],
        [{FOLDED: "50x90", SERIES: "99x90", LIMIT: "100x90"}],
    ),
    "SentinelPricesUnusable": ([{LOADS: "0x80 1x10"}, {LOADS: "_x80 1x10"}], [{LOADS: "1x90"}]),
    "SentinelHeartbeatGone": (
        [{BEAT: "0+60x80 4800x10"}],
        [{BEAT: "0+60x90"}, {BEAT: "_x85 5200x10"}, {BUILD: "1x90"}],
    ),
    "SentinelErrorBudgetFastBurn": (
        [{OK: "0+80x90", ERROR: "0+20x90", SHARE: "0.01x90"}],
        [
            {OK: "0+95x90", ERROR: "0+5x90", SHARE: "0.01x90"},
            {OK: "0+80x90", ERROR: "0+20x90", SHARE: "0.05x90"},
            {OK: "0+80x90", ERROR: "0+20x80 1600x10", SHARE: "0.01x90"},
            {OK: "0+8x5 40x85", ERROR: "0x85 2x5", SHARE: "0.01x90"},
            {OK: "0+80x90", ERROR: "0+20x90"},
        ],
    ),
    "SentinelErrorBudgetSlowBurn": (
        [{OK: "0+92x90", ERROR: "0+8x90", SHARE: "0.01x90"}],
        [{OK: "0+96x90", ERROR: "0+4x90", SHARE: "0.01x90"}, {OK: "0+92x90", ERROR: "0+8x50 400x40", SHARE: "0.01x90"}],
    ),
    "SentinelCostBudgetFastBurn": (
        [{COST: "0+1x90", BUDGET: "1000x90", MARK: NOW}],
        [
            {COST: "0+0.2x90", BUDGET: "1000x90", MARK: NOW},
            {COST: "0+1x80 80x10", BUDGET: "1000x90", MARK: NOW},
            {COST: "0+1x90", MARK: NOW},
            {COST: "0+1x90", BUDGET: "1000x90", MARK: HALF_AN_HOUR_OLD},
        ],
    ),
    "SentinelCostBudgetSlowBurn": (
        [{COST: "0+0.6x90", BUDGET: "1000x90", MARK: NOW}],  # the rule looks back six hours; there are one and a half
        [
            {COST: "0+0.1x90", BUDGET: "1000x90", MARK: NOW},
            {COST: "0+0.8x55 44x35", BUDGET: "1000x90", MARK: NOW},
            {COST: "0+0.6x90", BUDGET: "1000x90", MARK: HALF_AN_HOUR_OLD},
        ],
    ),
}
"""For each alert the series on which it must fire at minute 88, and those on which it must be quiet."""


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        leave_out("promtool is not installed (make services)")
    assert found is not None
    return found


def test_prometheus_takes_the_files(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "rules", *FILES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_when_it_should_and_is_quiet_when_it_should(promtool: str, name: str, tmp_path: Path) -> None:
    query = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
    cases = [(series, fires) for fires, many in zip((1, 0), CASES[name], strict=True) for series in many]
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": s, "values": values} for s, values in series.items()],
            "promql_expr_test": [
                {"expr": query, "eval_time": "88m", "exp_samples": [{"labels": "{}", "value": fires}]},
            ],
        }
        for series, fires in cases
    ]
    needed = [rule for rule in RULES if rule.get("record", "nothing") in ALERTS[name]["expr"]]  # only these, for speed
    needed.append(ALERTS[name])
    rules, file = tmp_path / "rules.yaml", tmp_path / "test.yaml"
    rules.write_text(yaml.safe_dump({"groups": [{"name": "one", "rules": needed}]}))
    file.write_text(yaml.safe_dump({"rule_files": [str(rules)], "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", file], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_slowest_heartbeat_is_well_within_its_rule() -> None:
    limit = float(ALERTS["SentinelHeartbeatGone"]["expr"].rpartition(">")[2])
    KafkaConfig(heartbeat_s=limit / 4)
    with pytest.raises(ValidationError):
        KafkaConfig(heartbeat_s=limit / 4 + 1)


def test_what_is_critical_silences_its_own_warning() -> None:
    config = yaml.safe_load((FOLDER.parent / "alertmanager" / "alertmanager.yml").read_text())
    pairs = {}
    for rule in config["inhibit_rules"]:
        (by,), (silenced,) = (
            re.findall(r'alertname="(\w+)"', " ".join(rule[matchers]))
            for matchers in ("source_matchers", "target_matchers")
        )
        assert [ALERTS[name]["labels"]["severity"] for name in (by, silenced)] == ["critical", "warning"]
        assert rule["equal"] == ["job", "service"]
        pairs[by] = silenced
    assert pairs == {name: name.replace("Fast", "Slow") for name in ALERTS if "FastBurn" in name}


def test_every_alert_has_cases_of_both_kinds() -> None:
    assert set(CASES) == set(ALERTS)
    assert all(fires and quiet for fires, quiet in CASES.values())


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_how_bad_it_is_what_is_wrong_and_where_help_stands(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    runbook, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert (runbook, anchor) == ("docs/runbook.md", name.lower())


def test_the_runbook_has_a_section_for_every_alert_and_for_nothing_else() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    sections = re.findall(r"(?m)^### (Sentinel\w+)\n((?:(?!^#).*\n)*)", text)
    assert sorted(name for name, _ in sections) == sorted(ALERTS)
    for name, section in sections:
        for part in ("**Means:**", "**Look at:**", "**Do:**"):
            assert part in section, f"{name}: {part}"
