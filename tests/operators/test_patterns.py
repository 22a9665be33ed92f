from __future__ import annotations

import pytest

from operators.patterns import literals, matches


@pytest.mark.parametrize(
    ("name", "pattern", "fits", "count"),
    [
        ("gpt-4o", "gpt-4o", True, 6),
        ("gpt-4o-mini", "gpt-4o", False, 6),
        ("gpt-4o-mini", "gpt-4o*", True, 6),
        ("gpt-4o", "GPT-4o", False, 6),
        ("m1", "m?", True, 1),
        ("m3", "m[12]", False, 1),
        ("m2", "m[12]", True, 1),
        ("", "*", True, 0),
        ("a\nb", "a*", True, 1),
    ],
)
def test_patterns(name: str, pattern: str, fits: bool, count: int) -> None:
    assert matches(name, pattern) is fits
    assert literals(pattern) == count
