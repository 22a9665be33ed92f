"""docs/telemetry.md and docs/formats.md: their settings load, and their records become what they say."""

from __future__ import annotations

import re
from pathlib import Path

import orjson
import pytest

from flows.decode.__main__ import main
from flows.decode.payload import decode_file
from flows.settings.model import Settings, load
from tests.conftest import ROOT


def blocks(document: str, language: str) -> list[str]:
    """The blocks of code of a document in this language."""
    text = (ROOT / "docs" / document).read_text()
    found: list[tuple[str, str]] = re.findall(r"(?ms)^```(\w*)\n(.*?)^```$", text)
    return [code for of, code in found if of == language]


def settings(toml: str, folder: Path) -> Settings:
    (folder / "sentinel.toml").write_text(toml)
    return load({}, folder).settings


def test_own_json_becomes_the_events_that_are_named(tmp_path: Path) -> None:
    (toml,) = blocks("telemetry.md", "toml")
    own, _ = blocks("telemetry.md", "json")
    (tmp_path / "own.json").write_text(own)
    of = settings(toml, tmp_path)
    outcome = decode_file(tmp_path / "own.json", of.source.format, of.source.mapping, of.decoding)
    assert outcome.events == [
        {
            "timestamp": "2026-01-05T12:00:00.000Z", "service": "tutor", "model": "m-large", "latency_ms": 1840,
            "prompt_tokens": 812, "status": "ok",
        },
        {"timestamp": "2026-01-05T12:00:05.000Z", "service": "tutor", "status": "error", "latency_ms": 1500},
    ]  # fmt: skip
    assert (outcome.formats, outcome.dead_letters) == ({"mapped": 1}, [])


def test_the_command_prints_the_table_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, span = blocks("telemetry.md", "json")
    (shown,) = blocks("telemetry.md", "")
    (tmp_path / "span.json").write_text(span)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["--table", "span.json"]) == 0
    printed = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in printed if line] == [line for line in shown.splitlines() if line]


def test_a_topic_has_the_format_that_is_set(tmp_path: Path) -> None:
    (toml,) = blocks("formats.md", "toml")
    source = settings(toml, tmp_path).source
    read = {topic: source.read_as(topic)[0] for topic in ("llm.telemetry", "llm.otlp.spans", "gateway.log")}
    assert read == {"llm.telemetry": "auto", "llm.otlp.spans": "otlp_proto", "gateway.log": "kong"}


def test_attributes_of_ones_own_are_asked_first(tmp_path: Path) -> None:
    (toml,) = blocks("conventions.md", "toml")
    of = settings(toml, tmp_path)
    told = {"acme.tokens.in": 5, "gen_ai.usage.input_tokens": 812, "acme.customer": "blue", "gen_ai.request.model": "m"}
    span = {
        "traceId": "1" * 32,
        "spanId": "2" * 16,
        "kind": 3,
        "startTimeUnixNano": 1767614400250000000,
        "attributes": [
            {"key": name, "value": {"intValue": value} if isinstance(value, int) else {"stringValue": value}}
            for name, value in told.items()
        ],
    }
    path = tmp_path / "span.json"
    path.write_bytes(orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}))
    (event,) = decode_file(path, of.source.format, None, of.decoding).events
    assert (event["prompt_tokens"], event["tenant"]) == (5, "blue")
