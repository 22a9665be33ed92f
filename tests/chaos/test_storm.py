"""Law 3 over a cluster, in short; `make chaos` is the long one."""

from __future__ import annotations

from random import Random

import pytest

from tests.brokers import Broker
from tests.chaos.storm import Storm


@pytest.fixture(scope="module")
def storm(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    return Storm(kafka, tmp_path_factory.mktemp("storm"), Random(5), print, blocks=1)


@pytest.mark.parametrize(("volumes", "seed"), [(False, 5), (True, 5)], ids=["one folder", "a volume each"])
def test_a_cluster_loses_and_doubles_nothing(storm: Storm, volumes: bool, seed: int) -> None:
    storm.volumes, storm.random = volumes, Random(seed)
    figures = storm.run(2)
    assert figures.alerts >= 5 and figures.panes >= 100, "without these it shows nothing"
    assert figures.kills >= 2
    assert (figures.lost, figures.doubled) == (0, 0), figures
