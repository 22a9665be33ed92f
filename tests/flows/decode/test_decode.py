"""`flows.decode`: what it prints for payloads of each kind, and how it ends."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from flows.decode.__main__ import GONE_EXIT_CODE, main
from flows.process.dead_letters import DATA_EXIT_CODE
from flows.settings.model import CONFIG_EXIT_CODE
from tests.conftest import ROOT
from tests.otlp import Plain, as_proto, json_text

CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.prompt": "zebra"}
AGENT = Plain({"gen_ai.operation.name": "invoke_agent"}, "00000000000000ff")
SPANS = [AGENT, Plain(CHAT, "0000000000000001"), Plain(CHAT, "0000000000000001")]
NATIVE = {"timestamp": "2025-03-03T00:00:00Z", "service": "chat", "event_id": "e1", "latency_ms": 5}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without settings of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, content: bytes) -> str:
    Path(name).write_bytes(content)
    return name


def printed(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("batch.bin", as_proto(SPANS)),
        ("batch.json", json_text(SPANS)),
        ("batch.jsonl", json_text(SPANS[:2]) + b"\n\n" + json_text(SPANS[1:2])),
        ("batch.json.gz", gzip.compress(json_text(SPANS))),
        ("batch.bin.zst", zstandard.compress(as_proto(SPANS))),
    ],
)
def test_a_file_is_one_object_with_its_calls(name: str, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([write(name, content)]) == 0
    (found,) = printed(capfd)
    assert set(found) == {"file", "events", "duplicates", "passed_over", "dead_letters"}
    assert (found["file"], found["duplicates"], found["passed_over"], found["dead_letters"]) == (name, 1, 1, [])
    (event,) = found["events"]
    assert event["model"] == "gpt-4o" and event["latency_ms"] == 2_000 and event["timestamp"].startswith("2025-03-03T")
    assert "prompt_tokens" not in event, "what is not told is absent"
    assert "zebra" not in repr(found)


def test_native_records_are_printed_with_what_is_known_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    lines = [NATIVE, NATIVE, {**NATIVE, "event_id": "e2", "prompt": "zebra", "latency_ms": -1}]
    assert main([write("events.jsonl", "\n".join(map(json.dumps, lines)).encode())]) == 0
    (found,) = printed(capfd)
    assert [event["event_id"] for event in found["events"]] == ["e1"]
    assert (found["duplicates"], [letter["reason"] for letter in found["dead_letters"]]) == (1, ["bad_number"])
    assert "zebra" not in repr(found)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("garbage.json", b"oops", "not_json"),
        ("garbage.bin", b"\x00\xff\x12", "not_otlp"),
        ("cut.bin", as_proto(SPANS)[:-9], "not_otlp"),
        ("cut.json", json_text(SPANS)[:-9], "not_json"),
        ("empty.json", b"", "not_json"),
        ("other.json", b'{"hello": "zebra"}', "missing_field"),
    ],
)
def test_what_is_not_understood_is_a_dead_letter_and_ends_with_65(
    name: str, content: bytes, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([write(name, content)]) == DATA_EXIT_CODE
    (found,) = printed(capfd)
    assert (found["events"], [letter["reason"] for letter in found["dead_letters"]]) == ([], [reason])
    assert "zebra" not in repr(found)


def test_several_files_are_partitions_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    files = [write("a.json", json_text(SPANS[1:2])), write("b.json", json_text(SPANS[1:2])), write("c.json", b"oops")]
    assert main(files) == 0
    assert [(len(found["events"]), found["duplicates"]) for found in printed(capfd)] == [(1, 0), (1, 0), (0, 0)]


def test_the_format_and_the_limits_are_those_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    name = write("batch.json", json_text(SPANS))
    assert main(["--format", "native", name]) == DATA_EXIT_CODE
    assert main(["--set", "decode.max_record_bytes=256", name]) == DATA_EXIT_CODE
    assert main(["--set", "decode.dedupe_s=0", write("n.jsonl", (json.dumps(NATIVE) + "\n").encode() * 2)]) == 0
    native, large, twice = printed(capfd)
    assert native["dead_letters"][0]["reason"] == "missing_field"
    assert large["dead_letters"][0]["reason"] == "record_too_large"
    assert (len(twice["events"]), twice["duplicates"]) == (2, 0)


def test_the_table_says_where_each_field_was_found(capfd: pytest.CaptureFixture[str]) -> None:
    spans = [*SPANS, Plain(CHAT, "0000000000000002", end=1)]
    assert main(["--table", write("batch.json", json_text(spans))]) == 0
    shown = capfd.readouterr().out
    assert "batch.json  (1 x otlp_json)" in shown
    assert any("gpt-4o" in line and "gen_ai.request.model" in line for line in shown.splitlines())
    assert "dead letter: bad_number: latency_ms" in shown
    assert "1 calls; 1 told twice; 1 spans or logs that are no call; 1 dead letters" in shown
    assert "zebra" not in shown


def test_usage_under_an_unknown_name_is_told_and_can_be_named(capfd: pytest.CaptureFixture[str]) -> None:
    name = write("batch.json", json_text([Plain({**CHAT, "acme.usage.tokens": 5})]))
    assert main(["--table", name]) == 0
    assert "1 x acme.usage.tokens looks like usage" in " ".join(capfd.readouterr().out.split())
    named = 'decode.attributes={prompt_tokens=["acme.usage.tokens"]}'
    assert main(["--set", named, name]) == 0
    assert printed(capfd)[0]["events"][0]["prompt_tokens"] == 5


def test_text_that_privacy_hashes_or_drops_is_not_printed(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {**CHAT, "user.id": "bob", "tenant.id": "acme", "session.id": "s-1", "gen_ai.system": "OpenAI"}
    name = write("batch.json", json_text([Plain(told)]))
    assert main([name]) == 0
    monkeypatch.setenv("SENTINEL_PRIVACY__HASH_KEY", "0123456789abcdef")
    assert main(["--set", 'privacy.rules={tenant="hash",session_id="drop",provider="drop"}', name]) == 0
    plain, private = (one["events"][0] for one in printed(capfd))
    assert (plain["tenant"], plain["session_id"], "user" in plain) == ("acme", "s-1", False)
    assert len(private["user"]) == len(private["tenant"]) == 16
    assert "session_id" not in private
    assert plain["attributes"] == {"gen_ai.system": "OpenAI"}
    assert "OpenAI" not in str(private)


def test_attributes_of_a_native_record_are_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    told = {**NATIVE, "attributes": {"gen_ai.prompt": "zebra"}}
    assert main([write("n.json", json.dumps(told).encode())]) == 0
    assert "zebra" not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--set", 'decode.attributes={promt=["x"]}', "absent.json"],
            "decode.attributes.promt: no attribute tells this",
        ),
        (["--set", 'decode.attributes={model=["x#"]}', "absent.json"], "decode.attributes.model: 'x#' is no path"),
        (["--format", "mapped", "absent.json"], "the format mapped needs a mapping"),
        (["absent.json"], "absent.json cannot be read: No such file or directory"),
        (["."], "cannot be read: Is a directory"),
        (["broken.json.gz"], "broken.json.gz cannot be read"),
        (["--set", "decode.max_string=0", "broken.json.gz"], "decode.max_string"),
    ],
)
def test_what_cannot_be_read_ends_with_78(arguments: list[str], says: str, capfd: pytest.CaptureFixture[str]) -> None:
    write("broken.json.gz", gzip.compress(b"{}" * 500)[:-4])
    assert main(arguments) == CONFIG_EXIT_CODE
    assert says in capfd.readouterr().err


def test_a_reader_that_ends_early_ends_the_command_in_silence(tmp_path: Path) -> None:
    file = write("events.json", json.dumps(NATIVE).encode())
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "flows.decode", *[str(tmp_path / file)] * 3]
    done = subprocess.run(command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)
    assert (done.returncode, done.stderr) == (GONE_EXIT_CODE, b"")
