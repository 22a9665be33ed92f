"""The command that writes simulated traffic."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orjson
import pytest

from connectors.simulator import Simulator, SimulatorConfig
from flows.simulate import main
from operators.decode.times import parse_times
from tests.brokers import Broker, free_port, read_all

ROOT = Path(__file__).parents[2]


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "flows.simulate", *args]


def test_plain_and_packed_files_hold_what_the_source_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, packed, again = tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz", tmp_path / "c.jsonl.gz"
    labels = tmp_path / "labels.jsonl"
    for out in (plain, packed, again):
        assert main(["--out", str(out), "--labels", str(labels), "--hours", "1", "--rate", "1", "--seed", "3"]) == 0
    config = SimulatorConfig(hours=1, rate=1, seed=3, partitions=1)
    expected = Simulator(config).open("simulator/000", None).poll(1 << 20).values
    assert plain.read_bytes() == b"".join(v + b"\n" for v in expected)
    assert gzip.decompress(packed.read_bytes()) == plain.read_bytes()
    assert packed.read_bytes() == again.read_bytes()
    assert [orjson.loads(line) for line in labels.read_bytes().splitlines()] == Simulator(config).labels()
    assert f"{len(expected):,} requests to {plain}; 10 incidents" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl.gz", "c.jsonl.gz", "labels.jsonl"]


@pytest.mark.parametrize(
    ("option", "value"), [("--rate", "0"), ("--hours", "soon"), ("--seed", "-1"), ("--start", "noon")]
)
def test_a_wrong_option_is_named(option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "x"), f"{option}={value}"]) == 78
    error = capsys.readouterr().err
    assert option in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "missing" / "x.jsonl"
    assert main(["--out", str(out), "--hours", "0.1"]) == 1
    assert capsys.readouterr().err == f"flows.simulate: cannot write {out}: No such file or directory\n"


def test_a_device_is_written_to_directly() -> None:
    assert main(["--out", os.devnull, "--hours", "0.1"]) == 0
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "5"], "--history and --speed go with --live"),
        (["--live", "--hours", "2"], "--hours: a live simulation goes on until Ctrl-C"),
        (["--live", "--history", "-1"], "--history: Input should be greater than or equal to 0"),
        (["--kinds", "error_burst,flood"], "--kinds: Input should be"),
        (["--per-day", "x"], "--per-day: "),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "x"), *options]) == 78
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_the_kinds_and_number_of_incidents_can_be_chosen(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    chosen = ["--kinds", "error_burst,traffic_drop", "--per-day", "12", "--calm-h", "2", "--hours", "8"]
    assert main(["--out", os.devnull, "--rate", "0.1", "--labels", str(labels), *chosen]) == 0
    found = [orjson.loads(line) for line in labels.read_bytes().splitlines()]
    assert len(found) == 3
    assert {label["type"] for label in found} == {"error_burst", "traffic_drop"}


def stop_when(file: Path, size: int, process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    deadline = time.monotonic() + 30
    while (not file.exists() or file.stat().st_size < size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_live_events_are_of_now_and_stay_after_ctrl_c(number: signal.Signals, tmp_path: Path) -> None:
    out, labels = tmp_path / "live.jsonl", tmp_path / "labels.jsonl"
    options = ["--live", "--rate", "300", "--out", str(out), "--labels", str(labels)]
    began = time.time()
    with subprocess.Popen(command(*options), cwd=ROOT, stderr=subprocess.PIPE) as process:
        stop_when(out, 50_000, process, number)
        assert process.wait(30) == 0
        assert process.stderr is not None
        said = process.stderr.read().decode()
    events = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert said.startswith(f"{len(events):,} requests to {out}; ")
    starts, good = parse_times([e["timestamp"] for e in events])
    ends = starts / 1e6 + np.array([e["latency_ms"] for e in events]) / 1e3
    assert good.all() and len(events) > 50
    assert (began - 1 <= ends).all() and (ends <= time.time()).all() and (np.diff(ends) > -1e-5).all()
    assert labels.exists()


def test_to_kafka(tansu: Broker, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_KAFKA__PARTITIONS", "2")
    monkeypatch.setenv("SENTINEL_KAFKA__OPTIONS", '{"client.id": "simulated"}')
    assert main(["--kafka", tansu.address, "--topic", "sim.fixed", "--hours", "0.2", "--rate", "2"]) == 0
    expected = Simulator(SimulatorConfig(hours=0.2, rate=2, partitions=1)).open("simulator/000", None).poll(1 << 20)
    found = read_all(tansu, "sim.fixed")
    said = capsys.readouterr().err
    assert f"{len(expected.values):,} requests to Kafka" in said and " requests, " in said
    assert sorted(m.value() or b"" for m in found) == sorted(expected.values)
    assert {m.partition() for m in found} == {0, 1}
    assert expected.arrivals is not None
    assert sorted(m.timestamp()[1] for m in found) == (np.sort(expected.arrivals) // 1000).tolist()


def test_live_to_kafka_delivers_all_before_it_ends(tansu: Broker) -> None:
    options = ["--kafka", tansu.address, "--topic", "sim.live", "--live", "--rate", "400"]
    with subprocess.Popen(command(*options), cwd=ROOT, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b" requests" in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        said = process.stderr.read().decode()
    assert "Traceback" not in said
    assert f"{len(read_all(tansu, 'sim.live')):,} requests to Kafka" in said


def test_brokers_that_are_away_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SENTINEL_KAFKA__START_BUDGET_S", "0.3")
    address = f"127.0.0.1:{free_port()}"
    assert main(["--kafka", address, "--hours", "0.1"]) == 1
    error = capsys.readouterr().err
    assert address in error and "Traceback" not in error


def test_help_shows_every_option_with_its_default() -> None:
    done = subprocess.run(command("--help"), cwd=ROOT, capture_output=True, text=True, check=True)
    for word in (
        "--out",
        "--labels",
        "--hours",
        "--rate",
        "--seed",
        "--start",
        "--no-incidents",
        "--kafka",
        "--live",
        "--kinds",
        "Default: 36",
        "Default: 3",
    ):
        assert word in done.stdout


def test_a_reader_that_goes_away_ends_it_quietly() -> None:
    with subprocess.Popen(command("--out", "-"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert orjson.loads(process.stdout.readline())["event_id"].startswith("sim7-0-")
        process.stdout.close()
        assert process.wait(30) == 141
        assert process.stderr.read() == b""


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    with subprocess.Popen(command("--out", str(out), "--rate", "500"), cwd=ROOT, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while not (tmp_path / "x.jsonl.partial").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b"flows.simulate: stopped; nothing was left behind\n"
    assert not list(tmp_path.iterdir())
