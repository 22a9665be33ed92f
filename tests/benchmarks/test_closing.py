"""The closing benchmark on a small scale: it runs, and the figures come as one JSON object a line."""

from __future__ import annotations

import json

import pytest

from benchmarks import closing


def test_each_number_of_series_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert closing.main(["--here", "--series", "30", "--panes", "2"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"series", "shards", "seconds", "detection_s", "peak_mib"}
    assert found["series"] == 30
    assert 0.0 < found["detection_s"] <= found["seconds"]
