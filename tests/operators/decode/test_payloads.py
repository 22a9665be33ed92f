"""Recorded payloads of real libraries, judged by what was true of the calls behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

KNOWN = {
    **{
        f"{source}/responses_api_stream.{kind}": {"ttft_ms"}
        for source in ("openinference", "otel_genai")
        for kind in ("bin", "json")
    },
    "from_docs/kong_kafka_log.jsonl": {"ttft_ms"},
}
"""Files with a wrong field, and which. Two libraries take the first event of a stream of the Responses API, which tells
that the response was created, for its first token; nothing in the payload says so. The expectation of Kong's line does
not say that its call was streamed; the line does, and tells its time to the first token."""


@pytest.fixture(scope="module")
def scored(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """The figures of the scorer and its lines about wrong files, for what `flows.decode` prints."""
    payloads, scorer = shared / "data" / "payloads", shared / "tools" / "score_payloads.py"
    files = sorted(
        p for p in payloads.glob("*/*") if p.suffix in (".bin", ".json", ".jsonl") and "expect" not in p.name
    )
    decoded = tmp_path_factory.mktemp("decoded") / "decoded.jsonl"
    with decoded.open("wb") as out:
        command: list[str | Path] = [sys.executable, "-m", "flows.decode", "--json", *files]
        subprocess.run(command, cwd=ROOT, stdout=out, timeout=200, check=True)
    return (json.loads(_run(scorer, payloads, decoded, "--json")), _run(scorer, payloads, decoded))


def _run(*command: Path | str) -> str:
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_call_is_found_once(scored: tuple[dict[str, Any], str]) -> None:
    figures, lines = scored
    assert figures["calls"] > 500
    assert figures["found"] == figures["calls"], lines
    assert figures["too_many"] == 0, lines


def test_no_count_of_tokens_is_wrong_and_nearly_all_files_are_right(scored: tuple[dict[str, Any], str]) -> None:
    figures, lines = scored
    assert not [field for field in figures["wrong_fields"] if "tokens" in field], lines
    assert figures["files_right"] >= 0.97 * figures["files"], lines


def test_the_files_that_are_not_right_are_known(scored: tuple[dict[str, Any], str]) -> None:
    _, lines = scored
    told = (
        line.split(": ", 1) for line in lines.splitlines() if line.partition(": ")[0].endswith(("bin", "json", "jsonl"))
    )
    wrong = {name: {part.partition(":")[0] for part in problems.split("; ")} for name, problems in told}
    assert {name: fields for name, fields in wrong.items() if KNOWN.get(name) != fields} == {}
