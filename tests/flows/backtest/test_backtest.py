"""A backtest gives the alerts of production with any batches and workers, and touches nothing of a deployment."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flows import wiring
from flows.backtest import __main__ as backtest
from flows.backtest import replay, scoring
from flows.backtest.compare import compare
from operators.errors import ConfigError
from operators.incidents.alert_json import microseconds, rfc3339
from operators.incidents.findings import SLOWNESS
from operators.model import SECOND
from tests.brokers import Broker, create_topic, produce
from tests.conftest import ROOT
from tests.events import write_events
from tests.flows.test_laws import START, dealt, spoil, traffic
from tests.harness import MemoryTopic, World
from tests.otlp import AT, Plain, json_text

CONFIG = """
[detect]
warm_up_panes = 12
false_alarms_per_series_day = 4
metrics.ttft.min_count = 3
metrics.cost.min_count = 3
[episodes]
resolve_s = 60
[recovery]
shards = 3
"""

SPAN = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}

SLOWNESS_UNSEEN = CONFIG.replace(
    "metrics.ttft.min_count = 3", "\n".join(f"metrics.{name}.watch = false" for name in sorted(SLOWNESS))
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with events in two files, settings and labels; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("SENTINEL_")]:
        monkeypatch.delenv(name)
    for name, records in dealt(spoil(traffic(1), 1), 2, 1).items():
        Path(f"{name}.jsonl").write_bytes(b"\n".join(records) + b"\n")
    Path("sentinel.toml").write_text(CONFIG + "[detect.metrics.latency]\nmin_count = 3\n")
    labels = [
        label("A1", "latency_spike", {"service": "chat"}, "latency_ms", 360, 480),
        label("A2", "error_burst", {"service": "search"}, "error_rate", 504, 604),
        label("A3", "cost_surge", {"tenant": "t1"}, "cost_usd", 200, 260),
    ]
    Path("labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    return tmp_path


def label(name: str, kind: str, entity: dict[str, str], metric: str, start: int, end: int) -> dict[str, Any]:
    times = {"start": time(START + start), "end": time(START + end)}
    return {"anomaly_id": name, "type": kind, "entity": entity, "metric": metric, **times}


def time(seconds: float) -> str:
    return rfc3339(round(seconds * SECOND))


EVENTS = ["p0.jsonl", "p1.jsonl"]


def on_the_topic() -> bytes:
    """The alerts that the whole flow with a store sends."""
    partitions = {name: Path(name).read_bytes().splitlines() for name in EVENTS}
    settings = replay.settings_of(None, [], {}, Path.cwd()).settings
    world = World(MemoryTopic(partitions), wiring.shape(settings))
    world.run(500)
    return b"".join(alert.value + b"\n" for alert in world.alerts.lines)


@pytest.mark.parametrize(("batch", "workers"), [(20_000, 1), (37, 1), (211, 3)])
def test_the_alerts_are_those_on_the_topic(batch: int, workers: int, folder: Path) -> None:
    options = ["--set", f"source.batch_size={batch}", "--workers", str(workers), "--alerts", "out.jsonl"]
    assert backtest.main([*EVENTS, *options]) == 0
    found = Path("out.jsonl").read_bytes()
    assert found.count(b'"firing"') >= 2
    assert found == on_the_topic()


@pytest.mark.parametrize("names", [EVENTS, EVENTS[::-1], ["."]])
def test_files_may_be_named_in_any_order_and_their_overlap_is_told(
    names: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("labels.jsonl").unlink()
    assert backtest.main([*names, "--alerts", "out.txt"]) == 0
    assert Path("out.txt").read_bytes() == on_the_topic()
    assert re.search(r"files overlap in time: p\d.jsonl ends .*, after p\d.jsonl begins", capsys.readouterr().err)


def test_files_of_all_forms_give_what_one_file_of_json_lines_gives(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They follow one another in time, in another order than by name."""
    records = traffic(1)
    records.sort(key=lambda record: json.loads(record)["timestamp"])
    names = ["4.jsonl.gz", "3.csv", "2.parquet", "1.csv.zst", "0.jsonl.zst"]
    part = -(-len(records) // len(names))
    Path("mixed").mkdir()
    for i, name in enumerate(names):
        write_events(Path("mixed", name), records[i * part : (i + 1) * part])
    one = write_events(Path("one.jsonl"), records)
    assert backtest.main([str(one), "--alerts", "one.txt", "--report", "one"]) == 0
    assert backtest.main(["mixed/", "--alerts", "mixed.txt", "--report", "many"]) == 0
    assert Path("mixed.txt").read_bytes() == Path("one.txt").read_bytes() != b""
    assert rows_of(Path("many")) == rows_of(Path("one")) != []
    said = capsys.readouterr().err
    assert "5 files of events, with those in mixed" in said
    assert "overlap" not in said


def test_records_of_other_formats_are_read_as_in_production(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The Collector's file of spans, and JSON that a mapping reads, give the alerts of the same native records."""
    records = [json.loads(record) for record in traffic(1)]
    own = [{"at": r.pop("timestamp"), "app": r.pop("service"), "of": r} for r in records]
    Path("own.json").write_text("".join(json.dumps(r) + "\n" for r in own))
    spans = [
        Plain(SPAN, f"{n:016x}", trace_id=f"{n:032x}", start=AT + n * 10**9, end=AT + n * 10**9) for n in range(30)
    ]
    Path("spans.json").write_bytes(b"".join(json_text([span]) + b"\n" for span in spans))
    rest = "".join(f'{name} = "of.{name}"\n' for name in sorted(set().union(*(r["of"] for r in own))))
    Path("own.toml").write_text(f'{CONFIG}[source.mapping]\ntimestamp = "at"\nservice = "app"\n{rest}')
    native = write_events(Path("native.jsonl"), traffic(1))
    assert backtest.main(["own.json", "--config", "own.toml", "--alerts", "own.txt"]) == 0
    assert backtest.main([str(native), "--config", "own.toml", "--alerts", "native.txt"]) == 0
    assert Path("own.txt").read_bytes() == Path("native.txt").read_bytes() != b""
    capsys.readouterr()
    assert backtest.main(["spans.json", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["balance"]["on_time"] == 30


def rows_of(folder: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "sentinel.db")) as store:
        columns = "dimension_set, series, width_s, pane_start, requests, errors, latency_sum, latency_count, sketch"
        return store.execute(f"SELECT {columns} FROM llm_panes ORDER BY 1, 2, 3, 4").fetchall()


def test_nothing_of_the_deployment_is_touched(folder: Path) -> None:
    Path("sentinel.toml").write_text(
        CONFIG
        + """
[source]
kind = "kafka"
[kafka]
brokers = "127.0.0.1:1"
start_budget_s = 1
[store]
kind = "sqlite"
sqlite.path = "production.db"
[alerts]
jsonl = "production.jsonl"
kafka = true
[dead_letters]
jsonl = "letters.jsonl"
[sinks]
rejected_file = "rejected.jsonl"
[metrics]
balance_file = "balance.json"
"""
    )
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert backtest.main(EVENTS) == 0
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_figures_are_printed_as_tables_and_as_json(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert backtest.main([*EVENTS, "--labels", "labels.jsonl", "--alerts", "out.jsonl", "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    expected = scoring.score(
        scoring.episodes(scoring.read_lines(Path("out.jsonl"), "alerts")),
        scoring.incidents(Path("labels.jsonl")),
        scoring.Extent(microseconds(said["first"]), microseconds(said["last"]), said["series"]),
    )
    assert said["figures"] == expected.figures
    assert [i["found"] for i in said["incidents"]] == [True, True, False]
    assert said["series"] == 6 + 6  # pairs of service and model, and tenants, for any watched dimension sets
    assert said["balance"]["dead"]
    assert said["alerts"] == len(Path("out.jsonl").read_bytes().splitlines())
    assert backtest.main([*EVENTS, "--labels", "labels.jsonl"]) == 0
    text = capfd.readouterr().out
    assert "recall, exact" in text and "A3" in text and "latency_spike" in text
    assert backtest.main(EVENTS) == 0
    assert "Episodes: " in capfd.readouterr().out


def test_the_least_severity_leaves_episodes_out(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    counts = []
    for severity in ("low", "critical"):
        backtest.main([*EVENTS, "--json", "--min-severity", severity])
        counts.append(len(json.loads(capfd.readouterr().out)["episodes"]))
    assert counts[0] > counts[1]


def test_the_report_has_the_labels_drawn_in(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert backtest.main([*EVENTS, "--labels", "labels.jsonl", "--report", "out"]) == 0
    page = Path("out/report.html").read_text()
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "A1, latency_spike of service=chat: found after" in page
    assert "A3, cost_surge of tenant=t1: missed" in page and "missed-A3" in page
    assert "recall, exact" in page and "detect.warm_up_panes" in page
    assert Path("out/alerts.jsonl").read_bytes() == on_the_topic()
    assert backtest.main([*EVENTS, "--report", "out"]) == 78
    assert "holds the store of a run already" in capfd.readouterr().err


def test_two_configurations_are_compared(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("a.toml").write_text(CONFIG + "[detect.metrics.latency]\nmin_count = 3\n")
    Path("b.toml").write_text(SLOWNESS_UNSEEN)
    options = ["--compare", "a.toml", "b.toml", "--labels", "labels.jsonl"]
    assert backtest.main([*EVENTS, *options, "--json"]) == 0
    said = json.loads(capfd.readouterr().out)
    assert {e["metric"] for e in said["only_a"]} <= SLOWNESS and said["only_a"] and not said["only_b"]
    assert len(said["both"]) + len(said["only_a"]) == len(said["a"]["episodes"])
    assert said["a"]["figures"]["recall"] > said["b"]["figures"]["recall"]
    assert backtest.main([*EVENTS, *options]) == 0
    text = capfd.readouterr().out
    assert "Only with a.toml" in text and "Only with b.toml: 0" in text and "recall" in text
    assert backtest.main([*EVENTS, *options[:3]]) == 0
    assert "Only with a.toml" in capfd.readouterr().out


def test_episodes_are_paired_if_series_and_metric_are_equal_and_times_touch() -> None:
    def episode(name: str, since: int, until: int | None, metric: str = "latency") -> scoring.PredictedEpisode:
        return scoring.PredictedEpisode(
            name, {"service": "a"}, {metric}, 1, since, since, until, "latency_spike", metric
        )

    a = [episode("a1", 0, 10), episode("a2", 20, 30), episode("a3", 100, None), episode("a4", 0, 10, "cost")]
    b = [episode("b1", 5, 25), episode("b2", 500, 600), episode("b3", 31, 40)]
    found = compare(a, b)
    assert [(x.id, y.id) for x, y in found.both] == [("a1", "b1"), ("a3", "b2")]
    assert [[e.id for e in side] for side in found.only] == [["a2", "a4"], ["b3"]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no events"),
        (["none.jsonl"], "does not exist"),
        (["foreign.txt"], "not JSON lines"),
        (["empty"], "the folder empty holds no event file"),
        (["p0.jsonl", "p0.jsonl"], "named twice"),
        (["p0.jsonl", "--config", "none.toml"], "not a file"),
        (["p0.jsonl", "--labels", "foreign.csv"], "not JSON lines"),
        (["p0.jsonl", "--labels", "none.jsonl"], "cannot be read"),
        (["p0.jsonl", "--set", "detect.warm_up_pane=3"], "did you mean detect.warm_up_panes"),
        (["p0.jsonl", "--set", "detect.warm_up_panes"], "KEY=VALUE"),
        (["p0.jsonl", "--set", "store.kind=none"], "decides this itself"),
        (["p0.jsonl", "--alerts", "none/out.jsonl"], "has no folder"),
        (["p0.jsonl", "--report", "none/out"], "cannot be made"),
        (["p0.jsonl", "--scores", "out"], "go with --series"),
        (["p0.jsonl", "--workers", "0"], "--workers 0"),
        (["p0.jsonl", "--series", "x.csv"], "--series takes no events"),
        (["--series", "x.csv", "--labels", "labels.jsonl"], "--series takes no --labels"),
        (["--series", "none.csv"], "no file or folder of series"),
        (["p0.jsonl", "--compare", "sentinel.toml", "sentinel.toml", "--report", "out"], "leave --config"),
        (["p0.jsonl", "kafka://127.0.0.1:1/topic"], "a topic is read alone"),
        (["kafka://127.0.0.1:1"], "names no brokers and topic"),
        (["kafka://user:secret@127.0.0.1:1/topic"], "no user or password"),
        (["kafka://127.0.0.1:1/topic?from=monday"], "no offset and no time"),
        (["kafka://127.0.0.1:1/topic?until=3"], "there is no until"),
    ],
)  # fmt: skip
def test_a_wrong_set_up_is_one_sentence_and_code_78(
    arguments: list[str], said: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("foreign.csv").write_text("timestamp,value\n")
    Path("foreign.txt").write_text("value\n")
    Path("empty").mkdir()
    assert backtest.main(arguments) == 78
    err = capfd.readouterr().err
    assert said in err and "Traceback" not in err and "secret" not in err
    assert err.startswith("flows.backtest: ")


def test_a_failure_on_the_way_is_one_sentence_and_code_1(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = gzip.compress(Path("p0.jsonl").read_bytes())
    Path("cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    assert backtest.main(["cut.jsonl.gz", "--alerts", "out.jsonl"]) == 1
    assert "is cut short" in capfd.readouterr().err
    assert not Path("out.jsonl").exists()


def test_a_failure_leaves_no_store_behind(folder: Path) -> None:
    Path("cut.jsonl.gz").write_bytes(gzip.compress(Path("p0.jsonl").read_bytes())[:-20])
    assert backtest.main(["cut.jsonl.gz", "--report", "out"]) == 1
    assert not list(Path("out").iterdir())


def test_an_alert_file_that_cannot_be_written_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("out.jsonl").mkdir()
    assert backtest.main([*EVENTS, "--alerts", "out.jsonl"]) == 78
    assert "cannot be written" in capfd.readouterr().err
    assert not list(Path().glob("*.tmp"))


def test_a_request_to_stop_is_obeyed(folder: Path) -> None:
    settings = replay.settings_of(None, [], {}, folder).settings
    stop = threading.Event()
    stop.set()
    with pytest.raises(replay.Interrupted):
        replay.replay(settings, replay.reader(settings, EVENTS), stop=stop)


def test_ctrl_c_ends_it_and_writes_nothing(folder: Path) -> None:
    events = Path("long.jsonl")
    records = traffic(3, minutes=300)
    events.write_bytes(b"\n".join(records) + b"\n")
    command = [sys.executable, "-m", "flows.backtest", "long.jsonl", "--alerts", "out.jsonl"]
    command += ["--set", "source.batch_size=50"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert process.stderr is not None
    assert b"events" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"stopped before the end" in err and b"Traceback" not in err and not out
    assert not Path("out.jsonl").exists()


def test_values_of_set_are_those_of_a_settings_file() -> None:
    found = replay.choices(["a.b=1.5", "c = [1, 2]", "d=plain text", "e='quoted'", "f=true"])
    assert {k: v for k, (v, _) in found.items()} == {
        "a.b": 1.5, "c": [1, 2], "d": "plain text", "e": "quoted", "f": True,
    }  # fmt: skip


def test_a_topic_gives_the_alerts_of_its_records(folder: Path, tansu: Broker) -> None:
    create_topic(tansu, "backtest", 2)
    for partition, name in enumerate(EVENTS):
        produce(tansu, "backtest", Path(name).read_bytes().splitlines(), partition)
    address = f"kafka://{tansu.address}/backtest"
    assert backtest.main([address, "--alerts", "all.jsonl"]) == 0
    assert Path("all.jsonl").read_bytes() == on_the_topic()
    assert backtest.main([f"{address}?to=300", "--alerts", "part.jsonl"]) == 0
    part = Path("part.jsonl").read_bytes()
    assert len(part) < len(on_the_topic())


def test_a_topic_is_read_from_settings_of_the_deployment(folder: Path) -> None:
    settings = replay.settings_of(None, ["kafka.start_budget_s=1"], {}, folder).settings
    source = replay.reader(settings, ["kafka://127.0.0.1:1/topic?from=3"])
    with pytest.raises(Exception, match=r"127\.0\.0\.1:1") as told:
        source.partitions()
    assert not isinstance(told.value, ConfigError)
