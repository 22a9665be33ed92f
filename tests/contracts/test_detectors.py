"""Every detector of the registry keeps the laws and has exactly the properties that it declares."""

from __future__ import annotations

import pytest

from operators.detect import registry
from tests.contracts.laws.detectors import LAWS, hold
from tests.contracts.laws.histories import WATCH


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", sorted(registry.DETECTORS))
def test_a_detector_keeps_the_law(name: str, law: str) -> None:
    hold(LAWS[law], registry.DETECTORS[name])


def test_the_registry_names_its_detectors_and_every_cell_has_a_vote() -> None:
    assert [make(WATCH).name for make in registry.DETECTORS.values()] == list(registry.DETECTORS)
    built = registry.build(WATCH)
    voted = {c for d in built for c, vote in zip(d.cells, registry.votes(WATCH, d), strict=True) if vote}
    assert voted == set(WATCH.cells)
    for make in registry.DETECTORS.values():
        detector = make(WATCH)
        first = WATCH.cells.index(detector.cells[0])
        assert WATCH.cells[first : first + len(detector.cells)] == detector.cells
