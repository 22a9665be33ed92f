"""`python -m observability.prometheus_rule`: print the rules as a PrometheusRule of the Prometheus operator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import yaml

RULES: Final = Path(__file__).parent / "prometheus"


def rule_object(folder: Path = RULES) -> dict[str, Any]:
    """One PrometheusRule with the groups of all `*.rules.yaml` in the folder, in the order of the files' names."""
    groups = [
        group for path in sorted(folder.glob("*.rules.yaml")) for group in yaml.safe_load(path.read_text())["groups"]
    ]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "llm-sentinel", "labels": {"app.kubernetes.io/name": "llm-sentinel"}},
        "spec": {"groups": groups},
    }


if __name__ == "__main__":
    sys.stdout.write("# Made by `make docs` from observability/prometheus.\n")
    yaml.safe_dump(rule_object(), sys.stdout, sort_keys=False, width=100_000, allow_unicode=True)
