"""`python -m flows.check --connect`."""

from __future__ import annotations

import gzip
import os
import uuid
from pathlib import Path

import pytest

from connectors.config import JsonlConfig
from connectors.jsonl import JsonlFactory
from flows.check.__main__ import main
from tests.brokers import Broker, create_topic
from tests.connectors.greptime_server import GreptimeServer
from tests.operators.enrich.test_pricing import ONE

HERE = """
[store.sqlite]
path = "sentinel.db"
[alerts]
jsonl = "alerts.jsonl"
[dead_letters]
jsonl = "letters.jsonl"
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("SENTINEL_"):
            monkeypatch.delenv(name)


def connect(settings: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    Path("sentinel.toml").write_text(settings)
    code = main(["--connect"])
    return code, [line for line in capsys.readouterr().out.splitlines() if line.startswith(("ok  ", "failed"))]


def test_all_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    Path("prices.toml").write_text(ONE)
    code, lines = connect('[enrich]\nprices = "prices.toml"\n' + HERE, capsys)
    assert code == 0
    assert lines == [
        "ok      source, simulator: 2 partitions",
        "ok      store, sqlite: the file can be opened",
        "ok      alerts, terminal: 1 partition",
        "ok      alerts, jsonl: the file can be written",
        "ok      dead letters, jsonl: the file can be written",
        "ok      price file: 1 prices",
    ]


def test_a_running_flow_is_not_disturbed(capsys: pytest.CaptureFixture[str]) -> None:
    writer = JsonlFactory(JsonlConfig(path=Path("alerts.jsonl"))).open("jsonl", None)
    torn = b'{"alert_id": "half'
    with Path("alerts.jsonl").open("ab") as file:
        file.write(torn)
    assert connect(HERE, capsys)[0] == 0
    assert Path("alerts.jsonl").read_bytes() == torn
    writer.close()


def test_each_wrong_setting_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    Path("events.jsonl.gz").write_bytes(gzip.compress(b"[1]\n"))
    settings = HERE.replace('"', '"nowhere/', 1).replace('"alerts', '"nowhere/alerts')
    code, lines = connect(
        settings + '[source]\nkind = "files"\nfiles = {paths = ["events.jsonl.gz"]}\n[enrich]\nprices = "none.toml"\n',
        capsys,
    )
    assert code == 78
    assert [line[:6] for line in lines] == ["failed", "failed", "ok    ", "failed", "ok    ", "failed"]
    assert "one JSON array" in lines[0]
    assert "has no folder nowhere" in lines[1]
    assert "has no folder nowhere" in lines[3]
    assert "(enrich.prices) cannot be read" in lines[5]


def test_a_store_that_is_away(capsys: pytest.CaptureFixture[str]) -> None:
    server = GreptimeServer()
    settings = f'{HERE}[store]\nkind = "greptime"\n[store.greptime]\nendpoint = "{server.endpoint}"\n'
    settings = settings.replace('[store.sqlite]\npath = "sentinel.db"\n', "")
    code, lines = connect(settings, capsys)
    assert (code, lines[1]) == (0, "ok      store, greptime: the server answers")
    server.stop()
    code, lines = connect(settings, capsys)
    assert code == 1
    assert lines[1].startswith(f"failed  store, greptime: GreptimeDB at {server.endpoint} does not answer")
    assert all(line.startswith("ok") for line in [lines[0], *lines[2:]])


KAFKA = """
[store]
kind = "none"
[source]
kind = "kafka"
[alerts]
jsonl = ""
terminal = false
kafka = true
[dead_letters]
jsonl = ""
"""


def test_brokers_that_are_away(capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = connect(f'{KAFKA}[kafka]\nbrokers = "127.0.0.1:1"\nstart_budget_s = 0.3\n', capsys)
    assert code == 1
    assert [line.partition(":")[0] for line in lines] == [
        "failed  source, kafka",
        "failed  alerts, kafka",
        "failed  heartbeats, kafka",
    ]
    assert all("Is Kafka running at 127.0.0.1:1 (kafka.brokers), and is that the port" in line for line in lines)


def test_topics(tansu: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    broker, topic, alerts, beats = tansu, *(f"{kind}-{uuid.uuid4().hex}" for kind in "tab")
    create_topic(broker, topic, 3)
    settings = f'{KAFKA}[kafka]\nbrokers = "{broker.address}"\ntopics = ["{topic}"]\nalert_topic = "{alerts}"\n'
    settings += f'heartbeat_topic = "{beats}"\n'
    code, lines = connect(settings + "create_topics = false\n", capsys)
    assert code == 78
    assert lines[0] == "ok      source, kafka: 3 partitions"
    assert f"topic {alerts} does not exist" in lines[1]
    assert f"topic {beats} does not exist" in lines[2]
    code, lines = connect(settings, capsys)
    assert (code, lines[1:]) == (0, ["ok      alerts, kafka: 1 partition", "ok      heartbeats, kafka: 1 partition"])
    code, lines = connect(settings + "heartbeat_s = 0\n", capsys)
    assert (code, len(lines)) == (0, 2)
