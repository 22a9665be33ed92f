"""Telemetry of several formats on a real broker: each call counts once, also when it comes again after a restart."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import uuid4

import pytest

from tests.brokers import Broker, create_topic, produce
from tests.otlp import AT, Plain, as_proto, json_text
from tests.processes import Job

CALLS = 40
SECOND = 1_000_000_000
USAGE = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.usage.input_tokens": 800,
    "gen_ai.usage.output_tokens": 100,
    "gen_ai.prompt": "zebra",
}


def spans(n: int, trace: str) -> list[Plain]:
    """A call below the span of an agent, which repeats its sums."""
    start = AT + n * SECOND
    agent = {**USAGE, "gen_ai.operation.name": "invoke_agent"}
    return [
        Plain(agent, f"{n:015x}a", trace_id=trace, start=start, end=start + 2 * SECOND, name="invoke_agent"),
        Plain(USAGE, f"{n:015x}b", f"{n:015x}a", trace, start=start, end=start + SECOND),
    ]


def litellm(n: int) -> bytes:
    start = AT / SECOND + n
    return json.dumps(
        {
            "id": f"chatcmpl-{n}", "litellm_call_id": f"call-{n}", "call_type": "acompletion", "status": "success",
            "model": "gpt-4o", "startTime": start, "endTime": start + 1, "completionStartTime": start + 1,
            "prompt_tokens": 800, "completion_tokens": 100, "messages": [{"role": "user", "content": "zebra"}],
        }
    ).encode()  # fmt: skip


def native(n: int) -> bytes:
    return json.dumps(
        {"timestamp": AT // 10**9 + n, "service": "own", "event_id": f"e{n}", "latency_ms": 1000, "prompt_tokens": 800}
    ).encode()


@pytest.fixture
def job(kafka: Broker, tmp_path: Path) -> Job:
    topic = f"t-{uuid4().hex[:8]}"
    for name in (topic, f"{topic}.spans"):
        create_topic(kafka, name, 1)
    return Job(tmp_path / topic, {
        "source.kind": "kafka", "source.batch_size": 20, "kafka.brokers": kafka.address, "kafka.stop_at_end": True,
        "kafka.topics": [topic, f"{topic}.spans"], "kafka.group_id": topic,
        "source.topics": {f"{topic}.spans": {"format": "otlp_proto"}},
    })  # fmt: skip


def test_calls_of_all_formats_count_once_over_a_restart(kafka: Broker, job: Job) -> None:
    topic = job.folder.name
    cut = as_proto(spans(0, f"{1:032x}"))[:-3]
    told = [as_proto(spans(n, f"{1 + n:032x}")) for n in range(CALLS)]
    produce(kafka, f"{topic}.spans", [*told, cut, told[3]])
    mixed = [
        of(n) for n in range(CALLS) for of in (litellm, native, lambda n: json_text(spans(n, f"{1_000 + n:032x}")))
    ]
    produce(kafka, topic, [*mixed, b"{}", b'{"resourceSpans": 3}', mixed[0], mixed[1], mixed[2]])
    said = job.run(*job.recovered())
    assert "records of the format litellm come" in said
    expected = {"on_time": 4 * CALLS, "late": 0, "duplicate": 4, "dead": {"not_otlp": 1, "wrong_type": 1}}
    assert {name: job.balance()[name] for name in expected} == expected
    assert job.balance()["passed_over"] == {"no_call": 2 * CALLS + 2}
    assert set(job.requests("service").values()) == {4 * CALLS}

    # All of it is delivered again: a Collector that had no answer sends anew.
    produce(kafka, f"{topic}.spans", told)
    produce(kafka, topic, mixed)
    job.run(*job.recovered())
    assert job.balance()["on_time"] == 4 * CALLS
    assert job.balance()["duplicate"] == 4 + 4 * CALLS
    assert set(job.requests("service").values()) == {4 * CALLS}
    for path in job.folder.iterdir():
        if path.is_file():
            assert b"zebra" not in path.read_bytes(), path
