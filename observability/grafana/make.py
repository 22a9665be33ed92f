"""`python -m observability.grafana.make`: write the dashboards as JSON for Grafana's provisioning."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from observability.grafana import anomalies, health, overview, series

FOLDER: Final = Path(__file__).parent / "dashboards"
BOARDS: Final[Mapping[str, Callable[[], Dashboard]]] = {
    "overview": overview.dashboard,
    "anomalies": anomalies.dashboard,
    "series": series.dashboard,
    "health": health.dashboard,
}


def text(name: str) -> str:
    """A dashboard as JSON."""
    return json.dumps(BOARDS[name]().build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    for board in BOARDS:
        (FOLDER / f"{board}.json").write_text(text(board))
