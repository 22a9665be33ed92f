"""The throughput benchmark on a small scale: every contestant runs, and the figures come as one JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


def test_every_contestant_runs_and_is_measured(shared: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.throughput", "--events", "20000", "--rounds", "1", "--json"]
    done = subprocess.run(
        [*command, "--plot", str(tmp_path / "plot.svg")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    for name in ("bare", "flow_1", "flow_2", "naive"):
        assert set(result[name]) == {"events_per_s", "cpu_s", "peak_mib"}
        assert result[name]["events_per_s"] > 0
    assert set(result["ratios"]) == {"flow_1/bare", "flow_2/flow_1", "flow_1/naive"}
    assert (tmp_path / "plot.svg").read_text().startswith("<svg")
