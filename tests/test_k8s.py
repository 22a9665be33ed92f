"""The manifests as kustomize renders them fit the schemas of Kubernetes, our settings, and each other."""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from bytewax.run import _create_arg_parser
from prometheus_client import CollectorRegistry

from connectors.listener import Listener
from flows import __version__
from flows.recovery import store
from flows.recovery.gather import check_token
from flows.recovery.rescale import rescale
from flows.run import variable
from flows.settings.model import RecoveryConfig, Settings, load
from flows.settings.schema import setting_at
from observability.prometheus_rule import RULES, rule_object
from operators.errors import ConfigError
from tests.conftest import ROOT, leave_out

KUSTOMIZE = ROOT / ".services" / "kustomize"
OVERLAYS = ("dev", "prod")
MONITORING = {"ServiceMonitor", "PrometheusRule"}  # kinds of the Prometheus operator, without a schema here
TEXT = "".join(p.read_text() for p in sorted((ROOT / "k8s").rglob("*")) if p.is_file())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    if not KUSTOMIZE.exists():
        leave_out("kustomize is not there: make services")
    done = subprocess.run(
        [KUSTOMIZE, "build", ROOT / "k8s" / "overlays" / overlay], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(kind: str, overlay: str, name: str = "llm-sentinel") -> dict[str, Any]:
    (found,) = [
        o
        for o in rendered(overlay)
        if o["kind"] == kind and re.fullmatch(f"{name}(-[a-z0-9]{{10}})?", o["metadata"]["name"])
    ]
    return found


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pod(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = one("StatefulSet", overlay)["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def settings_of(overlay: str, folder: Path) -> Settings:
    for name, text in one("ConfigMap", overlay)["data"].items():
        (folder / name).write_text(text)
    return load({"SENTINEL_CONFIG": "sentinel.toml"}, folder).settings


@pytest.fixture
def deployed(overlay: str, tmp_path: Path) -> Settings:
    return settings_of(overlay, tmp_path)


@pytest.mark.parametrize("version", ["1.30", "latest"])
def test_manifests_fit_the_schemas(overlay: str, version: str) -> None:
    wanted = kubernetes_validate.latest_version() if version == "latest" else version
    for manifest in rendered(overlay):
        if manifest["kind"] not in MONITORING:
            kubernetes_validate.validate(manifest, wanted, strict=True)


def test_the_validation_refuses_a_wrong_field() -> None:
    service = one("Service", "prod")
    wrong = {**service, "spec": {**service["spec"], "clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_variables_are_settings() -> None:
    names = set(re.findall(r"SENTINEL_([A-Z][A-Z0-9_]*[A-Z0-9])\b", TEXT + DOCKERFILE)) - {"CONFIG"}
    assert names
    assert [n for n in names if setting_at(Settings, tuple(n.lower().split("__"))) is None] == []


def test_the_settings_are_right_for_pods(overlay: str, deployed: Settings) -> None:
    assert deployed.source.kind == "kafka"
    assert (deployed.recovery.shards, deployed.recovery.layout) == (64, {"dev": "shared", "prod": "own"}[overlay])
    assert deployed.alerts.kafka
    assert deployed.dead_letters.kafka
    assert deployed.alerts.jsonl is None
    assert deployed.dead_letters.jsonl is None
    assert deployed.store.kind == "greptime"


def test_files_that_are_mounted_are_in_the_settings(
    overlay: str, container: dict[str, Any], pod: dict[str, Any]
) -> None:
    config = one("ConfigMap", overlay)
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    kept = {t["metadata"]["name"] for t in one("StatefulSet", overlay)["spec"]["volumeClaimTemplates"]}
    assert {v["name"] for v in pod["volumes"]} | kept == set(mounts.values())
    assert [v["configMap"]["name"] for v in pod["volumes"] if "configMap" in v] == [config["metadata"]["name"]]
    for entry in container["env"]:
        folder, _, name = entry.get("value", "").rpartition("/")
        if folder:
            assert mounts[folder] == "settings"
            assert name in config["data"]
    assert "SENTINEL_CONFIG" in {e["name"] for e in container["env"]}
    assert mounts["/data"] in kept
    cache_folder = re.search(r"NUMBA_CACHE_DIR=(\S+)", DOCKERFILE)
    assert cache_folder is not None
    assert cache_folder[1] in mounts


def test_each_pod_is_its_process_with_its_own_partition(tmp_path: Path) -> None:
    """The place that `bytewax.run` and the recovery folder derive from the arguments and environment of each pod."""
    stateful, service = one("StatefulSet", "prod"), one("Service", "prod")["metadata"]
    (container,) = stateful["spec"]["template"]["spec"]["containers"]
    deployed, spec = settings_of("prod", tmp_path), stateful["spec"]
    lines = one("ConfigMap", "prod")["data"]["addresses"].splitlines()
    (workers,) = [p["containerPort"] for p in container["ports"] if p["name"] == "workers"]
    name = stateful["metadata"]["name"]
    assert lines == [
        f"{name}-{i}.{service['name']}.{service['namespace']}.svc:{workers}" for i in range(spec["replicas"])
    ]
    module, *arguments = container["args"]
    assert module == "bytewax.run"
    args = _create_arg_parser().parse_args(arguments)  # type: ignore[no-untyped-call]
    assert args.import_str == "flows.main"
    assert args.snapshot_interval is not None
    assert args.backup_interval is not None
    for i in range(spec["replicas"]):
        environ = {
            "BYTEWAX_POD_NAME": f"{name}-{i}",
            "BYTEWAX_STATEFULSET_NAME": next(
                e["value"] for e in container["env"] if e["name"] == "BYTEWAX_STATEFULSET_NAME"
            ),
            "BYTEWAX_HOSTFILE_PATH": str(tmp_path / "addresses"),
        }
        place = store.place(arguments, environ)
        assert (place.process, place.processes) == (i, spec["replicas"])
        assert str(place.folder) == "/data/recovery"
        own = store.Place(tmp_path / f"volume-{i}", place.process, place.processes)
        held = store.claim(own, deployed.recovery.shards, 10, "kafka", deployed.recovery.layout)
        assert held is not None
        held.release()
        assert [p.name for p in (tmp_path / f"volume-{i}").glob("part-*.sqlite3")] == [f"part-{i}.sqlite3"]


def test_pods_that_settle_snapshots_know_each_other_by_a_secret(tmp_path: Path) -> None:
    """The pods of prod meet at addresses that others can reach; without the Secret they do not start."""
    (container,) = one("StatefulSet", "prod")["spec"]["template"]["spec"]["containers"]
    (token,) = [e for e in container["env"] if e["name"] == variable("recovery.token")]
    (secret,) = [e["secretRef"]["name"] for e in container["envFrom"]]
    assert token["valueFrom"] == {"secretKeyRef": {"name": secret, "key": token["name"]}}
    addresses = one("ConfigMap", "prod")["data"]["addresses"].splitlines()
    with pytest.raises(ConfigError, match=token["name"]):
        check_token(addresses, None)
    settings_of("prod", tmp_path)
    environ = {"SENTINEL_CONFIG": "sentinel.toml", token["name"]: "0123456789abcdef"}
    found = load(environ, tmp_path).settings.recovery.token
    assert found is not None
    check_token(addresses, found.get_secret_value())
    (dev,) = one("StatefulSet", "dev")["spec"]["template"]["spec"]["containers"]
    assert token["name"] not in {e["name"] for e in dev["env"]}, "flows.cluster makes its own token"


def test_the_one_pod_of_dev_has_several_processes_that_keep_to_one_folder() -> None:
    spec = one("StatefulSet", "dev")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert spec["replicas"] == 1
    module, *arguments = container["args"]
    assert module == "flows.cluster"
    assert arguments == ["--workers", "2", "-r", "/data/recovery"]
    assert not [e["name"] for e in container["env"] if e["name"].startswith("BYTEWAX_")]


def test_the_pod_of_dev_lives_while_its_processes_are_brought_back(tmp_path: Path) -> None:
    (container,) = one("StatefulSet", "dev")["spec"]["template"]["spec"]["containers"]
    probe, settings = container["livenessProbe"], settings_of("dev", tmp_path)
    assert probe["httpGet"]["path"] == "/health/live"
    away = settings.cluster.backoff_most_s + settings.kafka.start_budget_s
    assert probe["failureThreshold"] * probe["periodSeconds"] > 1.5 * away


def test_a_store_of_dev_can_go_on_in_prod(tmp_path: Path) -> None:
    dev, prod = (settings_of(overlay, tmp_path).recovery for overlay in OVERLAYS)
    folders = [tmp_path / name for name in ("old", "new")]

    def claim(folder: Path, process: int, processes: int, of: RecoveryConfig) -> None:
        place = store.Place(folder, process, processes)
        held = store.claim(place, of.shards, 10, "kafka", of.layout, partitions=of.partitions)
        assert held is not None
        held.release()

    claim(folders[0], 0, 2, dev)
    rescale(folders, 2)
    for i, folder in enumerate(folders):
        claim(folder, i, 2, prod)


def test_objects_belong_together(overlay: str, container: dict[str, Any]) -> None:
    spec, service = one("StatefulSet", overlay)["spec"], one("Service", overlay)
    labels = spec["template"]["metadata"]["labels"]
    for selector in (spec["selector"]["matchLabels"], service["spec"]["selector"]):
        assert selector
        assert selector.items() <= labels.items()
    assert spec["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    namespace = one("Namespace", overlay)["metadata"]["name"]
    assert {o["metadata"].get("namespace", namespace) for o in rendered(overlay)} == {namespace}
    named = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert {p["targetPort"]: p["port"] for p in service["spec"]["ports"]} == named
    assert container["image"] == f"llm-sentinel:{__version__}"


def test_pods_start_together_and_give_up_all_rights(
    overlay: str, pod: dict[str, Any], container: dict[str, Any]
) -> None:
    """The pods meet the profile `restricted`, which the namespace enforces, and stricter rules."""
    enforced = one("Namespace", overlay)["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
    assert enforced == "restricted"
    assert one("StatefulSet", overlay)["spec"]["podManagementPolicy"] == "Parallel"
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & pod.keys()
    assert all({"configMap", "emptyDir"} & volume.keys() for volume in pod["volumes"])
    user = pod["securityContext"]
    assert user["runAsNonRoot"] is True
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in DOCKERFILE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_only_allowed_connections_go_in_or_out(overlay: str, deployed: Settings) -> None:
    deny = one("NetworkPolicy", overlay, "deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    allow = one("NetworkPolicy", overlay)["spec"]

    def allowed(rules: list[dict[str, Any]], peer: str) -> set[tuple[str, int | str]]:
        found = set()
        for rule in rules:
            for selector in rule[peer]:
                name = selector.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
                found |= {(name or "own", port["port"]) for port in rule["ports"]}
        return found

    assert allowed(allow["ingress"], "from") == {("own", "workers"), ("monitoring", "metrics")}
    neighbours = {
        (host.split(".")[1], int(port))
        for host, _, port in (a.partition(":") for a in (deployed.kafka.brokers, deployed.store.greptime.endpoint))
    }
    assert allowed(allow["egress"], "to") == {("own", "workers"), ("kube-system", 53)} | neighbours


def test_secrets_are_named_and_not_brought(overlay: str, container: dict[str, Any]) -> None:
    assert [o for o in rendered(overlay) if o["kind"] == "Secret"] == []
    assert container["envFrom"] == [{"secretRef": {"name": "llm-sentinel", "optional": True}}]
    shown = yaml.safe_dump(one("ConfigMap", overlay))
    assert not re.search(r"(?i)password|secret|token|sasl", shown)


def test_a_stop_has_time_for_a_last_snapshot(pod: dict[str, Any], container: dict[str, Any]) -> None:
    interval = float(container["args"][container["args"].index("-s") + 1]) if "-s" in container["args"] else 10.0
    assert pod["terminationGracePeriodSeconds"] >= 3 * interval


def test_pods_of_prod_are_kept_apart() -> None:
    affinity = one("StatefulSet", "prod")["spec"]["template"]["spec"]["affinity"]["podAntiAffinity"]
    (rule,) = affinity["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = one("StatefulSet", "prod")["spec"]["template"]["metadata"]["labels"]
    assert rule["podAffinityTerm"]["labelSelector"]["matchLabels"].items() <= labels.items()


def test_the_resources_are_more_than_measured(container: dict[str, Any]) -> None:
    measured = re.search(r"\| `flow_1` \|.*\| (\d+) \|\n", (ROOT / "docs" / "performance.md").read_text())
    assert measured is not None
    asked = container["resources"]
    (requested,) = re.findall(r"^(\d+)Gi$", asked["requests"]["memory"])
    (limit,) = re.findall(r"^(\d+)Gi$", asked["limits"]["memory"])
    assert int(measured[1]) < int(requested) * 1024 <= int(limit) * 1024
    assert f"{measured[1]} MiB" in (ROOT / "k8s" / "base" / "statefulset.yaml").read_text()


def test_the_service_monitor_fits_the_service() -> None:
    monitor, service = one("ServiceMonitor", "prod")["spec"], one("Service", "prod")
    assert set(monitor) == {"jobLabel", "selector", "endpoints"}
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["endpoints"]
    assert endpoint["port"] in {p["name"] for p in service["spec"]["ports"]}
    scraped = yaml.safe_load((RULES / "prometheus.yml").read_text())["scrape_configs"]
    assert service["metadata"]["labels"][monitor["jobLabel"]] in {job["job_name"] for job in scraped}


def test_the_rules_are_those_of_prometheus() -> None:
    """Fails if a rule was changed without `make docs`."""
    made = yaml.safe_load((ROOT / "k8s" / "monitoring" / "prometheusrule.yaml").read_text())
    assert made == rule_object()
    assert one("PrometheusRule", "prod")["spec"] == made["spec"]


def test_rules_of_all_files_become_one_object(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / f"{name}.rules.yaml").write_text(f"groups: [{{name: {name}, rules: []}}]")
    (tmp_path / "prometheus.yml").write_text("global: {}")
    assert [g["name"] for g in rule_object(tmp_path)["spec"]["groups"]] == ["a", "b"]


def test_probes_ask_what_the_listener_answers(container: dict[str, Any], deployed: Settings) -> None:
    ready: list[bool] = []
    listener = Listener("127.0.0.1", 0, CollectorRegistry(), lambda: bool(ready))
    try:

        def status(path: str) -> int:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{listener.server_port}{path}", timeout=5) as answer:
                    return int(answer.status)
            except urllib.error.HTTPError as error:
                with error:
                    return error.code

        paths = {k: container[k]["httpGet"]["path"] for k in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert {k: status(p) for k, p in paths.items()} == {
            "startupProbe": 200, "livenessProbe": 200, "readinessProbe": 503
        }  # fmt: skip
        ready.append(True)
        assert status(paths["readinessProbe"]) == 200
        (health,) = re.findall(r"http://127\.0\.0\.1:9464(/[\w/]+)", DOCKERFILE)
        assert status(health) == 200
    finally:
        listener.stop()
    (port,) = [p["containerPort"] for p in container["ports"] if p["name"] == "metrics"]
    assert {container[k]["httpGet"]["port"] for k in paths} == {"metrics"}
    assert (deployed.metrics.host, deployed.metrics.port) == ("0.0.0.0", port)


def test_the_settings_inside_the_image(tmp_path: Path) -> None:
    (inside,) = re.findall(r'(?s)COPY <<"EOF" (?:sentinel\.toml)\n(.*?)\nEOF\n', DOCKERFILE)
    (tmp_path / "sentinel.toml").write_text(inside)
    settings = load({}, tmp_path).settings
    (data, _) = re.findall(r'VOLUME \["([^"]+)", "([^"]+)"\]', DOCKERFILE)[0]
    written = [settings.store.sqlite.path, settings.alerts.jsonl, settings.dead_letters.jsonl]
    assert {str(p.parent) if p else "" for p in written} == {data}
    assert settings.metrics.port == 9464
    assert settings.metrics.host == "127.0.0.1"


def test_files_that_the_image_copies_are_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = set(re.findall(r"(?m)^COPY (?!--from|<<)(\S+) ", DOCKERFILE))
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
