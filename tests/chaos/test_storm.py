"""Law 3 over a cluster, in its short form; `make chaos` is the long one."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.brokers import Broker
from tests.chaos.disturbed import Place
from tests.chaos.storm import Storm
from tests.stepped_clock import SteppedClock

PLANS = {  # the disturbances of the runs, in this order
    "one folder": [
        "kill",
        "clock",
        "stop",
        "outputs-grown",
        "outputs-hung",
        "supervisor",
        "outputs-anew",
        "broker-stop",
    ],
    "a volume each": ["kill", "rescale", "input-grown", "stop"],
    "another topic": ["input-anew"],
}


@pytest.fixture(scope="module")
def storm(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> Storm:
    folder = tmp_path_factory.mktemp("storm")
    place = Place([kafka], Random(5), clock=SteppedClock(folder), until_s=1)
    return Storm(place, folder, print, blocks=1)


@pytest.mark.parametrize("plan", PLANS)
def test_a_cluster_loses_and_doubles_nothing(storm: Storm, plan: str) -> None:
    storm.place = replace(storm.place, volumes=plan == "a volume each", random=Random(5))
    figures = storm.run(PLANS[plan])
    assert figures.alerts >= 5 and figures.panes >= 100, "without these it shows nothing"
    assert (figures.lost, figures.doubled) == (0, 0), figures
