"""Each law of detectors catches the deliberate bugs that break it, and passes for every correct detector."""

from __future__ import annotations

import pytest

from operators.detect import registry
from tests.contracts.laws.detectors import LAWS, hold
from tests.contracts.mutants.detectors import MUTANTS, Wrapped

FEW = 4
"""Number of examples; they are the same in every run."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught_by_its_law(name: str) -> None:
    mutant = MUTANTS[name]
    with pytest.raises(AssertionError) as caught:
        hold(LAWS[mutant.breaks], mutant.make, FEW)
    print(f"{name} -> {mutant.breaks}: {caught.value}")


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", sorted(registry.DETECTORS))
def test_what_has_no_bug_passes(name: str, law: str) -> None:
    hold(LAWS[law], type("Sound", (Wrapped,), {"of": name}), FEW)


def test_every_law_catches_something() -> None:
    assert {mutant.breaks for mutant in MUTANTS.values()} == LAWS.keys()
