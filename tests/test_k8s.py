"""The manifests and the image: right by the schemas of Kubernetes, by our settings, and by each other."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from bytewax.run import _create_arg_parser
from prometheus_client import CollectorRegistry

from connectors.listener import Listener
from flows import recovery
from flows.schema import setting_at
from flows.settings import Settings, load
from tests.conftest import ROOT

FILES = sorted((ROOT / "k8s").glob("*.yaml"))
OBJECTS: list[dict[str, Any]] = [o for f in FILES for o in yaml.safe_load_all(f.read_text())]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def one(kind: str) -> dict[str, Any]:
    (found,) = [o for o in OBJECTS if o["kind"] == kind]
    return found


@pytest.fixture
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = one("StatefulSet")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


@pytest.fixture
def deployed(tmp_path: Path) -> Settings:
    for name, text in one("ConfigMap")["data"].items():
        (tmp_path / name).write_text(text)
    return load({"SENTINEL_CONFIG": "sentinel.toml"}, tmp_path).settings


@pytest.mark.parametrize("manifest", [pytest.param(o, id=o["kind"]) for o in OBJECTS])
@pytest.mark.parametrize("version", ["1.30", "latest"])
def test_manifests_fit_the_schemas(manifest: dict[str, Any], version: str) -> None:
    wanted = kubernetes_validate.latest_version() if version == "latest" else version
    kubernetes_validate.validate(manifest, wanted, strict=True)


def test_the_validation_refuses_a_wrong_field() -> None:
    wrong = {**one("Service"), "spec": {**one("Service")["spec"], "clusterIp": "None"}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_variables_are_settings(container: dict[str, Any]) -> None:
    text = DOCKERFILE + "".join(f.read_text() for f in FILES)
    names = set(re.findall(r"SENTINEL_([A-Z][A-Z0-9_]*[A-Z0-9])\b", text)) - {"CONFIG"}
    assert names
    assert [n for n in names if setting_at(Settings, tuple(n.lower().split("__"))) is None] == []
    assert "SENTINEL_CONFIG" in {e["name"] for e in container["env"]}


def test_the_settings_are_right_for_pods(deployed: Settings) -> None:
    assert deployed.source.kind == "kafka"
    assert (deployed.recovery.shards, deployed.recovery.layout) == (64, "own")
    assert deployed.alerts.kafka
    assert deployed.dead_letters.kafka
    assert deployed.alerts.jsonl is None
    assert deployed.dead_letters.jsonl is None
    assert deployed.store.kind == "greptime"


def test_files_that_are_mounted_are_in_the_settings(container: dict[str, Any], pod: dict[str, Any]) -> None:
    mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
    kept = {t["metadata"]["name"] for t in one("StatefulSet")["spec"]["volumeClaimTemplates"]}
    assert {v["name"] for v in pod["volumes"]} | kept == set(mounts.values())
    for entry in container["env"]:
        folder, _, name = entry.get("value", "").rpartition("/")
        if folder:
            assert mounts[folder] == "settings"
            assert name in one("ConfigMap")["data"]
    assert mounts["/data"] in kept
    cache = re.search(r"NUMBA_CACHE_DIR=(\S+)", DOCKERFILE)
    assert cache is not None
    assert cache[1] in mounts


def test_each_pod_is_its_process_with_its_own_partition(
    container: dict[str, Any], deployed: Settings, tmp_path: Path
) -> None:
    """What `bytewax.run` and the recovery folder make of the arguments and the environment of each pod."""
    spec = one("StatefulSet")["spec"]
    lines = one("ConfigMap")["data"]["addresses"].splitlines()
    (workers,) = [p["containerPort"] for p in container["ports"] if p["name"] == "workers"]
    name, service = one("StatefulSet")["metadata"]["name"], one("Service")["metadata"]
    assert lines == [
        f"{name}-{i}.{service['name']}.{service['namespace']}.svc:{workers}" for i in range(spec["replicas"])
    ]
    module, *arguments = container["args"]
    assert module == "bytewax.run"
    args = _create_arg_parser().parse_args(arguments)  # type: ignore[no-untyped-call]
    assert args.import_str == "flows.main"
    assert args.snapshot_interval is not None
    assert args.backup_interval is not None
    (tmp_path / "addresses").write_text("\n".join(lines) + "\n")
    for i in range(spec["replicas"]):
        environ = {
            "BYTEWAX_POD_NAME": f"{name}-{i}",
            "BYTEWAX_STATEFULSET_NAME": next(
                e["value"] for e in container["env"] if e["name"] == "BYTEWAX_STATEFULSET_NAME"
            ),
            "BYTEWAX_HOSTFILE_PATH": str(tmp_path / "addresses"),
        }
        place = recovery.place(arguments, environ)
        assert (place.process, place.processes) == (i, spec["replicas"])
        assert str(place.folder) == "/data/recovery"
        own = recovery.Place(tmp_path / f"volume-{i}", place.process, place.processes)
        held = recovery.claim(own, deployed.recovery.shards, 10, "kafka", deployed.recovery.layout)
        assert held is not None
        held.release()
        assert [p.name for p in (tmp_path / f"volume-{i}").glob("part-*.sqlite3")] == [f"part-{i}.sqlite3"]


def test_objects_belong_together(container: dict[str, Any]) -> None:
    spec = one("StatefulSet")["spec"]
    labels = spec["template"]["metadata"]["labels"]
    for selector in (
        spec["selector"]["matchLabels"],
        one("Service")["spec"]["selector"],
        one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    assert spec["serviceName"] == one("Service")["metadata"]["name"]
    assert one("Service")["spec"]["clusterIP"] == "None"
    assert one("Service")["spec"]["publishNotReadyAddresses"] is True
    assert {o["metadata"].get("namespace", "llm-sentinel") for o in OBJECTS} == {one("Namespace")["metadata"]["name"]}
    named = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert {p["targetPort"]: p["port"] for p in one("Service")["spec"]["ports"]} == named


def test_pods_start_together_and_give_up_all_rights(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert one("StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"
    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    user = pod["securityContext"]
    assert user["runAsNonRoot"] is True
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {user['runAsUser']}:{user['runAsGroup']}\n" in DOCKERFILE
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


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


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = set(re.findall(r"(?m)^COPY (?!--from|<<)(\S+) ", DOCKERFILE))
    assert {line[1:] for line in ignored if line.startswith("!")} == copied
    assert all((ROOT / name).exists() for name in copied)
