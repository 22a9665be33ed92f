"""compose.yaml fits the schema of its specification and our settings and commands, and its parts fit each other."""

from __future__ import annotations

import json
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from bytewax.run import _parse_args

from flows import __version__, simulate
from flows.main import flow
from flows.recovery import store
from flows.settings.model import Settings, load
from flows.settings.schema import setting_at
from operators.decode.conventions import TABLE
from tests.conftest import ROOT, leave_out

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
FLOWS = sorted(name for name in SERVICES if name.startswith("flow-"))
SCHEMA = ROOT / ".services" / "compose-spec.json"
OBSERVABILITY = ROOT / "observability"


@pytest.fixture(scope="module")
def schema() -> Any:
    if not SCHEMA.exists():
        leave_out("the schema of the Compose specification is not there: make services")
    return json.loads(SCHEMA.read_text())


def test_it_fits_the_schema_of_the_specification(schema: Any) -> None:
    jsonschema.validate(COMPOSE, schema, jsonschema.Draft202012Validator)


def test_the_schema_refuses_a_wrong_field(schema: Any) -> None:
    wrong = {"services": {"a": {"image": "b:1", "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_images_are_pinned_and_ports_are_bound_to_loopback(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+", service["image"])
    assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", []))
    assert not service.get("privileged") and "network_mode" not in service
    if "build" in service:
        assert service["image"] == f"llm-sentinel:{__version__}"
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])


def test_each_service_starts_after_its_dependencies_are_healthy() -> None:
    needs = {name: service.get("depends_on", {}) for name, service in SERVICES.items()}
    assert set(TopologicalSorter({name: set(on) for name, on in needs.items()}).static_order()) == set(SERVICES)
    for on in needs.values():
        for other, how in on.items():
            match how["condition"]:
                case "service_healthy":
                    assert "test" in SERVICES[other]["healthcheck"]
                case "service_completed_successfully":
                    assert "restart" not in SERVICES[other]
    waits = {"topics", "greptimedb"}
    assert all(needs[name].keys() == waits for name in FLOWS)
    asked = {name for name, service in SERVICES.items() if "test" in service.get("healthcheck", {})}
    assert set(SERVICES) - asked == {"topics", "simulator", "otel-collector", "tempo"}


def test_mounted_files_exist() -> None:
    volumes = set()
    for service in SERVICES.values():
        for source, _, to in (str(v).partition(":") for v in service.get("volumes", [])):
            if not source.startswith("."):
                volumes.add(source)
                continue
            assert to.endswith(":ro"), source
            assert (ROOT / source).exists(), source
    assert volumes == set(COMPOSE["volumes"])


@pytest.mark.parametrize("name", FLOWS)
def test_the_flow_is_two_processes_of_one_cluster(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES[name]
    settings = load(service["environment"], tmp_path).settings
    assert (settings.source.kind, settings.store.kind) == ("kafka", "greptime")
    assert settings.alerts.kafka and settings.dead_letters.kafka
    assert settings.alerts.jsonl is None and settings.dead_letters.jsonl is None
    assert settings.kafka.topics == ("llm.telemetry", "llm.otlp.spans")
    assert (settings.recovery.shards, settings.recovery.layout) == (64, "shared")
    module, *arguments = service["command"]
    assert module == "bytewax.run"
    monkeypatch.setattr(sys, "argv", ["bytewax.run", *arguments])
    assert _parse_args().import_str == flow.__module__  # type: ignore[no-untyped-call]
    place = store.place(arguments, {})
    assert (place.process, place.processes, str(place.folder)) == (FLOWS.index(name), len(FLOWS), "/data/recovery")
    addresses = arguments[arguments.index("-a") + 1].split(";")
    assert [a.partition(":")[0] for a in addresses] == FLOWS
    assert "recovery:/data" in service["volumes"]
    assert f":{settings.metrics.port}/health/ready" in " ".join(service["healthcheck"]["test"])


def made_topics() -> dict[str, int]:
    found = re.findall(r"make --topic (\S+) --partitions (\d+)", SERVICES["topics"]["command"][0])
    return {topic: int(partitions) for topic, partitions in found}


def test_topics_are_made_for_all_who_use_them(tmp_path: Path) -> None:
    kafka = load(SERVICES[FLOWS[0]]["environment"], tmp_path).settings.kafka
    made = made_topics()
    collector = yaml.safe_load((OBSERVABILITY / "otel" / "collector.yaml").read_text())
    assert {*kafka.topics, kafka.alert_topic, kafka.dead_letter_topic, kafka.heartbeat_topic} <= made.keys()
    assert collector["exporters"]["kafka"]["traces"]["topic"] in made
    assert min(made[topic] for topic in kafka.topics) >= len(FLOWS)


def test_the_flow_reads_what_the_collector_writes(tmp_path: Path) -> None:
    settings = load(SERVICES[FLOWS[0]]["environment"], tmp_path).settings
    exporter = yaml.safe_load((OBSERVABILITY / "otel" / "collector.yaml").read_text())["exporters"]["kafka"]
    topic = exporter["traces"]["topic"]
    assert topic in settings.kafka.topics
    assert settings.source.read_as(topic) == (exporter["traces"]["encoding"], None)
    assert exporter["partition_traces_by_id"] is True, "a call counts once within a partition"
    assert exporter["producer"]["max_message_bytes"] <= settings.decode.max_record_bytes


def test_the_simulator_understands_its_arguments() -> None:
    module, *arguments = SERVICES["simulator"]["command"]
    assert module == simulate.__name__
    args = simulate._parser().parse_args(arguments)
    assert (args.kafka, args.topic, args.live) == ("kafka:9092", "llm.telemetry", True)
    assert simulate._config(args).rate == 50


def example(file: str) -> list[str]:
    return re.findall(r"(?m)^#?([A-Z][A-Z_]+)=", (ROOT / f"{file}.example").read_text())


def test_each_service_is_given_its_own_secrets_by_a_file_that_git_does_not_see() -> None:
    given = {name: service["env_file"] for name, service in SERVICES.items() if "env_file" in service}
    assert given == {**{name: ["flow.env"] for name in FLOWS}, "grafana": ["grafana.env"]}
    assert {"flow.env", "grafana.env"} <= set((ROOT / ".gitignore").read_text().splitlines())
    of_flow, of_grafana = example("flow.env"), example("grafana.env")
    assert of_flow and of_grafana
    for name in of_flow:
        assert setting_at(Settings, tuple(name.removeprefix("SENTINEL_").lower().split("__"))), name
    assert [name for name in of_grafana if not name.startswith(("GF_", "GREPTIMEDB_"))] == []
    for service in SERVICES.values():
        shown = service.get("environment", {})
        assert not [key for key in shown if re.search("PASSWORD|SECRET|TOKEN|OPTIONS", key)]


def test_prometheus_scrapes_services_that_are_there() -> None:
    config = yaml.safe_load((OBSERVABILITY / "prometheus" / "prometheus.yml").read_text())
    targets = {t for job in config["scrape_configs"] for s in job["static_configs"] for t in s["targets"]}
    port = SERVICES[FLOWS[0]]["environment"]["SENTINEL_METRICS__PORT"]
    assert {f"{name}:{port}" for name in FLOWS} <= targets
    told = {t for a in config["alerting"]["alertmanagers"] for s in a["static_configs"] for t in s["targets"]}
    assert {t.partition(":")[0] for t in targets | told} <= SERVICES.keys() | {"localhost"}


def test_the_collector_removes_content_before_it_writes_anything() -> None:
    config = yaml.safe_load((OBSERVABILITY / "otel" / "collector.yaml").read_text())
    patterns = {
        pattern.encode().decode("unicode_escape")
        for part in config["processors"]["transform/no_content"]["trace_statements"]
        for statement in part["statements"]
        for pattern in re.findall(r'"(.+)"', statement)
    }

    def removed(key: str) -> bool:
        return any(re.search(p, key) for p in patterns)

    content = (
        "gen_ai.prompt", "gen_ai.prompt.0.content", "gen_ai.completion.0.content", "gen_ai.input.messages",
        "gen_ai.output.messages", "gen_ai.system_instructions", "gen_ai.tool.definitions",
        "gen_ai.tool.call.arguments", "llm.input_messages.0.message.content", "llm.output_messages", "input.value",
        "output.value", "llm.prompts", "llm.completions", "embedding.embeddings.0.embedding.text",
        "reranker.input_documents.0.document.content", "llm.tools.0.tool.json_schema", "llm.openai.messages",
        "llm.anthropic.content", "llm.openai.stringified_raw_response", "ai.prompt", "ai.prompt.messages", "ai.value",
        "ai.values", "ai.embeddings", "ai.response.text", "ai.response.toolCalls", "ai.toolCall.args",
        "langfuse.observation.input", "langfuse.trace.output", "traceloop.entity.output", "mlflow.spanInputs",
        "haystack.component.output",
        "request_data", "response_data", "logfire.msg", "all_messages_events", "pydantic_ai.all_messages",
    )  # fmt: skip
    kept = (
        "gen_ai.prompt.name", "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "gen_ai.request.model",
        "gen_ai.output.type", "llm.model_name", "llm.token_count.prompt", "service.name", "llm.openai.model",
        "ai.response.model", "ai.response.providerMetadata", "ai.usage.promptTokens",
        "langfuse.observation.usage_details", "traceloop.entity.name", "mlflow.spanType", "gen_ai.usage.raw",
    )  # fmt: skip
    assert [key for key in content if not removed(key)] == []
    assert [key for key in kept if removed(key)] == []
    # The flow loses by that only what stands within content.
    assert {row.attribute for row in TABLE if removed(row.attribute)} == {
        "output.value", "request_data", "haystack.component.output", "gen_ai.completion.0.finish_reason",
        "llm.completions.0.finish_reason", "gen_ai.completion", "mlflow.spanOutputs",
    }  # fmt: skip
    for pipeline in config["service"]["pipelines"].values():
        assert "transform/no_content" in pipeline["processors"]
    for name, pipeline in config["service"]["pipelines"].items():
        for part in ("receivers", "processors", "exporters"):
            assert set(pipeline[part]) <= config[part].keys(), name


def test_grafana_is_given_the_variables_of_its_provisioning() -> None:
    grafana = SERVICES["grafana"]
    mounted = dict(v.removesuffix(":ro").split(":") for v in grafana["volumes"])
    provisioning = OBSERVABILITY / "grafana" / "provisioning"
    sources = (provisioning / "datasources" / "sentinel.yaml").read_text()
    wanted = set(re.findall(r"\$\{(\w+)\}", sources))
    assert len(wanted) >= 5
    assert wanted <= {*grafana["environment"], *example("grafana.env")}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "sentinel.yaml").read_text())["providers"]
    assert mounted["./observability/grafana/dashboards"] == provider["options"]["path"]
    host, port = grafana["environment"]["GREPTIMEDB_ADDRESS"].split(":")
    assert f"0.0.0.0:{port}" in SERVICES[host]["command"]
