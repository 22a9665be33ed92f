"""The benchmark of closing panes on a small scale."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import ROOT


def test_every_number_of_series_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.closing", "--series", "0", "20", "--panes", "2", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    none, some = json.loads(done.stdout)["closing"]
    assert (none["series"], some["series"]) == (0, 20)
    assert 0 < some["detect_s"] < some["close_s"] <= some["most_s"]
    assert some["peak_mib"] > 0
