"""Law 3 over a cluster, in short; `make chaos` is the long one."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.brokers import Broker
from tests.chaos.storm import Storm


def test_a_cluster_loses_and_doubles_nothing(kafka: Broker, tmp_path: Path) -> None:
    storm = Storm(kafka, tmp_path, Random(5), print, blocks=1)
    figures = storm.run(2)
    assert figures.alerts >= 5 and figures.panes >= 100, "without these it shows nothing"
    assert figures.kills >= 2
    assert (figures.lost, figures.doubled) == (0, 0), figures


def test_pods_with_a_volume_each_lose_and_double_nothing(kafka: Broker, tmp_path: Path) -> None:
    storm = Storm(kafka, tmp_path, Random(5), print, blocks=1, volumes=True)
    figures = storm.run(2)
    assert figures.alerts >= 5 and figures.panes >= 100, "without these it shows nothing"
    assert figures.kills >= 2
    assert (figures.lost, figures.doubled) == (0, 0), figures
