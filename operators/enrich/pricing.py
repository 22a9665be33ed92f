"""The cost of events that carry none: tokens times the price that was in force at the start of the event.

A price is in force for a provider and a model (patterns, see `operators.patterns`) from a date on, at midnight UTC. If
several are in force at the start of an event and match its provider and a name of its model (see `names`), the one with
the most specific model pattern counts; then the most specific provider pattern, the latest date, the first in the
table. So a price that is added with a date changes nothing before that date.

Cached and cache-written tokens are part of the prompt's, reasoning tokens part of the completion's; each part has its
own price. Money is integers: the table gives USD for a million tokens, and a price is held in pico-USD a token.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final

import numpy as np
from pydantic import Field, ValidationError, field_validator

from operators.errors import ConfigError
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Bools, Events, Ints
from operators.patterns import literals, matches
from operators.section import Section

_PROVIDER: Final = LABELS.index("provider")
_MODEL: Final = LABELS.index("model")
_SENT: Final = LABELS.index("model_version")
_PROMPT: Final = METRIC_INDEX["prompt_tokens"]
_COMPLETION: Final = METRIC_INDEX["completion_tokens"]
_CACHED: Final = METRIC_INDEX["cached_tokens"]
_WRITTEN: Final = METRIC_INDEX["cache_write_tokens"]
_REASONING: Final = METRIC_INDEX["reasoning_tokens"]
_COST: Final = METRIC_INDEX["cost"]
_LIMIT: Final = round(METRICS[_COST].limit * METRICS[_COST].scale)
_STEPS: Final = 1_000
"""Steps of a price (pico-USD) in a step of a cost (nano-USD)."""
_KNOWN: Final = 1 << 12
_DATE: Final = r"[-@]20\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])"
_VERSION: Final = r"-v\d+(?::\w+)*"
_DRESSED: Final = re.compile(
    rf"(?:(?:[a-z-]+\.)?(?:anthropic|amazon)\.)?"
    rf"(?P<version>(?P<model>.+?)(?:(?:{_VERSION})?{_DATE}(?:{_VERSION})?|-v\d+(?::\w+)+)?)",
    re.DOTALL,
)

# At most 4 * 10^9 pico-USD x 10^9 tokens, twice: below 2^63.
Usd = Annotated[Decimal, Field(ge=0, le=4_000, decimal_places=6)]


class Price(Section):
    """One row of the table: USD for a million tokens, at most six digits after the point."""

    provider: str = Field("*", description="Pattern of the provider; * also stands for none.")
    model: str = Field(min_length=1, description="Pattern of the model.")
    valid_from: date = Field(description="The first day, UTC, on which it holds.")
    prompt: Usd = Field(description="Prompt tokens that the cache neither held nor took in.")
    completion: Usd = Field(description="Completion tokens that are not reasoning.")
    cached: Usd | None = Field(None, description="Cached prompt tokens; as other prompt tokens if not given.")
    cache_write: Usd | None = Field(
        None, description="Prompt tokens that were written to the cache; as other prompt tokens if not given."
    )
    reasoning: Usd | None = Field(None, description="Reasoning tokens; as other completion tokens if not given.")

    @field_validator("prompt", "completion", "cached", "cache_write", "reasoning", mode="before")
    @classmethod
    def _number(cls, v: object) -> object:
        if v is not None and (isinstance(v, bool) or not isinstance(v, int | float | Decimal)):
            raise ValueError("must be a number")
        return v

    @property
    def steps(self) -> list[int]:
        """Pico-USD a token: prompt, cached, cache_write, completion, reasoning."""
        of_prompt = (self.prompt if usd is None else usd for usd in (self.cached, self.cache_write))
        reasoning = self.completion if self.reasoning is None else self.reasoning
        return [int(usd * 1_000_000) for usd in (self.prompt, *of_prompt, self.completion, reasoning)]


def names(model: str) -> tuple[str, str, str]:
    """The names by which a model may be priced: as it was sent, without the dress of its platform, without its version.

    The dress is a path before it (`openai/`, `models/`), and the region and vendor that Bedrock writes before a Claude
    or a Nova. The version is a date at the end (`-2024-08-06`, `-20250929`, `@20250929`) and that of Bedrock (`-v1:0`).
    """
    found = _DRESSED.fullmatch(model.rpartition("/")[2])
    return (model, found["version"], found["model"]) if found else (model, model, model)


class PriceTable:
    """Prices, ready to be looked up. Never changes. `gathered`: the day on which they were read off, if it is known."""

    def __init__(self, prices: Iterable[Price], gathered: date | None = None) -> None:
        self.gathered = gathered
        rows = list(prices)
        self._rows = rows
        starts = [_microseconds(row.valid_from) for row in rows]
        self._starts: Ints = np.unique(np.array(starts, np.int64))
        self._period = np.searchsorted(self._starts, starts, side="right").tolist()
        self._steps: Ints = np.array([*(row.steps for row in rows), [0] * 5], np.int64)
        self._in_force = lru_cache(_KNOWN)(self._look_up)

    def __len__(self) -> int:
        return len(self._rows)

    def _look_up(self, provider: str, model: str) -> tuple[int, ...]:
        """The row in force in each period: before the first date, from each date to the next; -1 for none."""
        known = set(names(model))
        found = [
            (literals(row.model), literals(row.provider), period, -i)
            for i, (row, period) in enumerate(zip(self._rows, self._period, strict=True))
            if matches(provider, row.provider) and any(matches(name, row.model) for name in known)
        ]
        return tuple(
            -max((key for key in found if key[2] <= period), default=(0, 0, 0, 1))[3]
            for period in range(len(self._starts) + 1)
        )

    def fill(self, events: Events) -> None:
        """Give a cost to the events that have tokens but no cost, in place; rounded half up to nano-USD.

        A cost stays `MISSING` if no price is in force, or if it would be above the metric's limit. The model must still
        be the one that was sent. Takes a look-up for each distinct (provider, model) and a few passes over arrays.
        """
        wanted = np.flatnonzero(unpriced(events))
        if not len(self._rows) or not len(wanted):
            return
        pairs: dict[tuple[str, str], int] = {}
        pair_of_combo = np.array(
            [pairs.setdefault((labels[_PROVIDER], labels[_MODEL]), len(pairs)) for labels in events.combos], np.int64
        )
        in_force = np.array([self._in_force(*pair) for pair in pairs], np.int64)
        period = np.searchsorted(self._starts, events.start[wanted], side="right")
        row = in_force[pair_of_combo[events.combo[wanted]], period]
        wanted, row = wanted[row >= 0], row[row >= 0]
        tokens = np.maximum(events.values[:, wanted], 0)
        cached = np.minimum(tokens[_CACHED], tokens[_PROMPT])
        written = np.minimum(tokens[_WRITTEN], tokens[_PROMPT] - cached)
        reasoning = np.minimum(tokens[_REASONING], tokens[_COMPLETION])
        plain = tokens[_PROMPT] - cached - written
        parts = np.stack([plain, cached, written, tokens[_COMPLETION] - reasoning, reasoning])
        cost = ((parts * self._steps[row].T).sum(axis=0) + _STEPS // 2) // _STEPS
        events.values[_COST, wanted] = np.where(cost <= _LIMIT, cost, MISSING)


NO_PRICES: Final = PriceTable(())
"""The table without rows: it gives no event a cost."""


def unpriced(events: Events) -> Bools:
    """Whether each event carries prompt or completion tokens but no cost."""
    values = events.values
    mask: Bools = (values[_COST] == MISSING) & ((values[_PROMPT] != MISSING) | (values[_COMPLETION] != MISSING))
    return mask


def missing(events: Events, chosen: Bools) -> dict[tuple[str, str], int]:
    """The (provider, model as it was sent) of the chosen events that have tokens but no cost, and their first starts.

    The models may have been replaced by their families already.
    """
    wanted = np.flatnonzero(unpriced(events) & chosen)
    if not len(wanted):
        return {}
    starts = np.full(len(events.combos), np.iinfo(np.int64).max)
    np.minimum.at(starts, events.combo[wanted], events.start[wanted])
    found: dict[tuple[str, str], int] = {}
    for combo in np.unique(events.combo[wanted]).tolist():
        labels, start = events.combos[combo], int(starts[combo])
        pair = labels[_PROVIDER], labels[_SENT] or labels[_MODEL]
        found[pair] = min(found.get(pair, start), start)
    return found


def read(tree: Mapping[str, Any]) -> PriceTable:
    """The table of a price file as TOML gives it, numbers as Decimal: `[[price]]` rows, and when they were `gathered`.

    Raises `ConfigError` with every wrong row and its fault.
    """
    problems = [
        f"{name}: unknown, the file holds [[price]] rows, and may say when they were gathered"
        for name in tree
        if name not in {"price", "gathered"}
    ]
    gathered = tree.get("gathered")
    if gathered is not None and type(gathered) is not date:
        problems.append("gathered: must be a date, as 2026-01-31")
    rows = tree.get("price", [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ConfigError("price: must be [[price]] rows")
    prices: list[Price] = []
    first: dict[tuple[str, str, date], int] = {}
    for number, row in enumerate(rows, 1):
        try:
            price = Price.model_validate(row)
        except ValidationError as error:
            problems.extend(_said(number, row, error))
            continue
        key = (price.provider, price.model, price.valid_from)
        if key in first:
            problems.append(f"[[price]] row {number}: repeats row {first[key]} (provider, model, valid_from)")
        first.setdefault(key, number)
        prices.append(price)
    if problems:
        raise ConfigError("; ".join(problems))
    return PriceTable(prices, gathered)


def _said(number: int, row: Mapping[str, Any], error: ValidationError) -> Iterable[str]:
    model = row.get("model")
    whose = f" ({model})" if isinstance(model, str) else ""
    for item in error.errors(include_url=False, include_input=False):
        what = {"extra_forbidden": f"unknown, a row has {', '.join(Price.model_fields)}", "missing": "must be set"}.get(
            item["type"], item["msg"].removeprefix("Value error, ").replace("Input ", "").replace("Decimal input ", "")
        )
        yield f"[[price]] row {number}{whose}: {'.'.join(map(str, item['loc']))}: {what}"


def _microseconds(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * SECOND
