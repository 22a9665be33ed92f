"""Model names without their version: a new dated version of a model is not a new series.

Series, and so learned state, go by the family; the name that was sent stays in the breakdown, as `model_version`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from operators.model import LABELS, Events
from operators.patterns import literals, matches

_MODEL: Final = LABELS.index("model")
_VERSION: Final = LABELS.index("model_version")
_KNOWN: Final = 1 << 12

_DATED: Final = re.compile(
    r"(?P<family>.+?)(?:[-@]20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"|[-@]20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|[-@:]latest)",
    re.DOTALL,
)
"""`-2026-01-31`, `-20260131`, the same after `@`, and `-latest`, which names one version today and another tomorrow."""


class Renames:
    """The rules: `families` by pattern, the most specific first (of equals the first given), then dates if `dated`."""

    def __init__(self, families: Mapping[str, str], dated: bool) -> None:
        self._rules = sorted(families.items(), key=lambda rule: -literals(rule[0]))
        self._dated = dated
        self.family = lru_cache(_KNOWN)(self._family)
        """The family of a model; the model itself if no rule matches."""

    def _family(self, model: str) -> str:
        for pattern, family in self._rules:
            if matches(model, pattern):
                return family
        found = _DATED.fullmatch(model) if self._dated else None
        return found["family"] if found else model

    def apply(self, events: Events) -> None:
        """Replace each model by its family, in place; different labels stay different.

        Costs one look-up for each distinct combination of labels.
        """
        events.combos = [self._renamed(labels) for labels in events.combos]

    def _renamed(self, labels: tuple[str, ...]) -> tuple[str, ...]:
        model = labels[_MODEL]
        family = self.family(model)
        if family == model or not model:
            return labels
        changed = list(labels)
        changed[_MODEL], changed[_VERSION] = family, model
        return tuple(changed)
