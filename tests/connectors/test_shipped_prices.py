"""The shipped price table against names as libraries, gateways and clouds write them."""

from __future__ import annotations

import re
import tomllib
from datetime import date
from decimal import Decimal
from importlib.resources import files
from itertools import combinations, pairwise, product
from typing import Any

import pytest
from pydantic import TypeAdapter

from connectors.prices import SHIPPED, described, shipped
from operators.enrich.pricing import Price
from operators.model import MISSING
from operators.patterns import literals, may_meet
from tests.operators.enrich.test_pricing import at, costs

TODAY = date(2026, 11, 30)
TREE: dict[str, Any] = tomllib.loads(SHIPPED.read_text(), parse_float=Decimal)
ROWS = TypeAdapter(list[Price]).validate_python(TREE["price"])


def usd(provider: str, model: str, day: date = TODAY) -> tuple[str, ...] | None:
    """USD for a million tokens: prompt, cached, completion; None without a price. Thousandths of a USD are exact."""
    million = 1_000_000
    parts = [(million, 0, 0, 0), (million, million, 0, 0), (0, 0, million, 0)]
    found = costs(shipped(), [(provider, model, at(day), part, MISSING) for part in parts])
    return None if MISSING in found else tuple(f"{cost / 10**9:g}" for cost in found)


@pytest.mark.parametrize(
    ("provider", "model", "prices"),
    [
        ("openai", "gpt-4o-mini", "0.15 0.075 0.6"),
        ("openai", "gpt-4o-mini-2024-07-18", "0.15 0.075 0.6"),
        ("", "openai/gpt-4o-mini", "0.15 0.075 0.6"),
        ("openrouter", "openrouter/openai/gpt-4o-mini", "0.15 0.075 0.6"),
        ("azure", "azure/gpt-4o-mini-2024-07-18", "0.15 0.075 0.6"),
        ("openai", "gpt-4o", "2.5 1.25 10"),
        ("openai", "gpt-4o-2024-11-20", "2.5 1.25 10"),
        ("openai", "gpt-4o-2024-05-13", "5 5 15"),
        ("azure", "azure/gpt-4o-2024-05-13", "5 5 15"),
        ("openai", "gpt-4.1-nano-2025-04-14", "0.1 0.025 0.4"),
        ("openai", "o3-2025-04-16", "2 0.5 8"),
        ("openai", "o4-mini-2025-04-16", "1.1 0.275 4.4"),
        ("openai", "gpt-5-2025-08-07", "1.25 0.125 10"),
        ("openai", "gpt-5-mini", "0.25 0.025 2"),
        ("openai", "gpt-5.1-codex-mini", "0.25 0.025 2"),
        ("openai", "gpt-6.2-sol", "2 0.1 10"),
        ("openai", "ft:gpt-4o-mini-2024-07-18:acme::abc123", "0.3 0.15 1.2"),
        ("openai", "text-embedding-3-small", "0.02 0.02 0"),
        ("anthropic", "claude-sonnet-4-5", "3 0.3 15"),
        ("anthropic", "claude-sonnet-4-5-20250929", "3 0.3 15"),
        ("openrouter", "anthropic/claude-sonnet-4.5", "3 0.3 15"),
        ("aws.bedrock", "anthropic.claude-sonnet-4-5-20250929-v1:0", "3 0.3 15"),
        ("bedrock", "bedrock/us.anthropic.claude-sonnet-4-5-20250929-v1:0", "3 0.3 15"),
        ("vertex_ai", "vertex_ai/claude-sonnet-4-5@20250929", "3 0.3 15"),
        ("vertex_ai", "claude-3-5-sonnet-v2@20241022", "3 0.3 15"),
        ("aws.bedrock", "anthropic.claude-3-5-sonnet-20241022-v2:0", "3 0.3 15"),
        ("anthropic", "claude-3-7-sonnet-latest", "3 0.3 15"),
        ("anthropic", "claude-sonnet-4-20250514", "3 0.3 15"),
        ("anthropic", "claude-opus-4-1-20250805", "15 1.5 75"),
        ("anthropic", "claude-opus-4-20250514", "15 1.5 75"),
        ("anthropic", "claude-opus-4-5-20251101", "5 0.5 25"),
        ("bedrock", "global.anthropic.claude-opus-5", "5 0.5 25"),
        ("anthropic", "claude-opus-5-5", "4 0.2 20"),
        ("anthropic", "claude-haiku-4-5-20251001", "1 0.1 5"),
        ("bedrock", "arn:aws:bedrock:eu-west-1:1:x/us.anthropic.claude-3-haiku-20240307-v1:0", "0.25 0.03 1.25"),
        ("gcp.gemini", "gemini-2.5-flash", "0.3 0.03 2.5"),
        ("gcp.gemini", "models/gemini-2.5-flash-lite", "0.1 0.01 0.4"),
        ("gcp.vertex_ai", "projects/p/locations/l/publishers/google/models/gemini-2.5-pro", "1.25 0.125 10"),
        ("gemini", "gemini/gemini-2.0-flash-001", "0.1 0.025 0.4"),
        ("mistral_ai", "mistral-large-latest", "0.5 0.05 1.5"),
        ("mistral", "mistral/mistral-medium-2508", "0.4 0.04 2"),
        ("deepseek", "deepseek/deepseek-chat", "0.28 0.028 0.42"),
        ("x_ai", "grok-4-1-fast-non-reasoning", "1.25 0.2 2.5"),
        ("xai", "xai/grok-4.5", "2 0.5 6"),
        ("aws.bedrock", "us.amazon.nova-pro-v1:0", "0.8 0.2 3.2"),
        ("bedrock", "bedrock/amazon.nova-lite-v1:0", "0.06 0.015 0.24"),
        ("cohere", "command-a-03-2025", "2.5 2.5 10"),
        ("voyage", "voyage-3.5-lite", "0.02 0.02 0"),
    ],
)  # fmt: skip
def test_real_names_have_their_price(provider: str, model: str, prices: str) -> None:
    assert usd(provider, model) == tuple(prices.split())


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4o-audio-preview"),
        ("openai", "gpt-4o-mini-realtime-preview-2024-12-17"),
        ("openai", "gpt-4o-transcribe"),
        ("openai", "gpt-4o-mini-tts"),
        ("openai", "gpt-4o-search-preview"),
        ("openai", "gpt-5.1-codex-mini-next"),
        ("openai", "gpt-7"),
        ("anthropic", "claude-opus-4-9"),
        ("gcp.gemini", "gemini-2.5-flash-image"),
        ("gcp.gemini", "gemini-2.5-flash-native-audio-preview-09-2025"),
        ("groq", "openai/gpt-oss-120b"),
        ("ollama", "ollama/mistral-small"),
        ("azure_ai", "mistral-large-latest"),
        ("vllm", "my-finetune-7b"),
        ("", "my-gpt-4o"),
        ("", "unknown"),
    ],
)
def test_other_models_have_none(provider: str, model: str) -> None:
    assert usd(provider, model) is None


def test_known_figures() -> None:
    """512 tokens not cached, 1,536 cached, 96 of completion: 0.0002496 USD."""
    one = [("openai", "gpt-4o-mini-2024-07-18", at(TODAY), (2_048, 1_536, 96, 0), MISSING)]
    assert costs(shipped(), one) == [249_600]


@pytest.mark.parametrize(
    ("model", "last_before", "first"),
    [
        ("gpt-4o", ("5", "5", "15"), date(2024, 10, 2)),
        ("o3", ("10", "2.5", "40"), date(2025, 6, 11)),
        ("deepseek-chat", ("0.56", "0.07", "1.68"), date(2025, 9, 30)),
        ("claude-sonnet-5-5", ("2", "0.2", "10"), date(2026, 10, 7)),
        ("gemini-3.8-flash", ("0.75", "0.075", "3.75"), date(2027, 1, 1)),
    ],
)
def test_a_price_holds_until_the_next_one(model: str, last_before: tuple[str, ...], first: date) -> None:
    assert usd("", model, date.fromordinal(first.toordinal() - 1)) == last_before != usd("", model, first)


def spelled(pattern: str) -> list[str]:
    """The patterns that this one stands for, without sets of characters."""
    parts = re.split(r"\[([^\]]+)\]", pattern)
    return ["".join(chosen) for chosen in product(*(list(p) if i % 2 else [p] for i, p in enumerate(parts)))]


def test_no_two_rows_are_ambiguous() -> None:
    """Of two rows that may meet in a model and a provider, one is more specific: the file's order decides nothing."""
    for one, other in combinations(ROWS, 2):
        if (one.model, one.provider) == (other.model, other.provider) or not may_meet(one.provider, other.provider):
            continue
        if any(may_meet(a, b) for a in spelled(one.model) for b in spelled(other.model)):
            ranks = {(literals(row.model), literals(row.provider)) for row in (one, other)}
            assert len(ranks) == 2, (one.model, other.model)


def test_the_rows_of_a_model_are_together_by_date() -> None:
    names = [(row.provider, row.model) for row in ROWS]
    for one, next_ in pairwise(ROWS):
        assert (one.provider, one.model) != (next_.provider, next_.model) or one.valid_from < next_.valid_from
    assert len(set(names)) == sum(a != b for a, b in zip(names, [None, *names], strict=False))


def test_each_part_costs_what_it_may() -> None:
    """A cached token is no dearer than another, a written one no cheaper, and one of the completion is the dearest."""
    for row in ROWS:
        assert (row.cached or 0) < row.prompt
        assert row.cache_write is None or row.cache_write > row.prompt
        assert row.completion >= row.prompt or row.completion == 0
        assert row.reasoning is None


def test_the_table_tells_its_day_and_its_sources() -> None:
    assert described(shipped()) == f"{len(ROWS)} prices of {TREE['gathered']}"
    assert shipped() is shipped()
    head = SHIPPED.read_text().partition("\ngathered =")[0]
    assert len(re.findall(r"\b[\w.]+\.(?:com|dev|ai)/[\w/.-]+", head)) >= 9


def test_the_table_is_in_the_package() -> None:
    assert (files("connectors") / "prices.toml").is_file()
    project = tomllib.loads((SHIPPED.parents[1] / "pyproject.toml").read_text())
    assert "*.toml" in project["tool"]["setuptools"]["package-data"]["*"]
