"""Costs of events that come without one."""

from __future__ import annotations

import time
import tomllib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.enrich import pricing
from operators.enrich.pricing import NO_PRICES, Price, PriceTable, missing, names, unpriced
from operators.errors import ConfigError
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, MISSING, SECOND, Events
from operators.patterns import literals, matches

TOKENS = [METRIC_INDEX[n] for n in ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")]
COST = METRIC_INDEX["cost"]
DAY = date(2026, 1, 1)

Request = tuple[str, str, int, tuple[int, int, int, int], int]  # provider, model, start, tokens, cost


def at(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * SECOND


def columns(requests: list[Request]) -> Events:
    values = np.full((len(METRICS), len(requests)), MISSING, np.int64)
    for i, (_, _, _, tokens, cost) in enumerate(requests):
        values[TOKENS, i], values[COST, i] = tokens, cost
    labels = [tuple({"provider": r[0], "model": r[1]}.get(label, "") for label in LABELS) for r in requests]
    combos = list(dict.fromkeys(labels))
    start = np.array([r[2] for r in requests], np.int64)
    index = np.array([combos.index(x) for x in labels], np.int32)
    none = [""] * len(requests)
    return Events(np.arange(len(requests)), start, start, values, start < 0, index, combos, none, none)


def costs(table: PriceTable, requests: list[Request]) -> list[int]:
    events = columns(requests)
    table.fill(events)
    return [int(cost) for cost in events.values[COST]]


def table(text: str) -> PriceTable:
    return pricing.read(tomllib.loads(text, parse_float=Decimal))


ONE = """
[[price]]
model = "swift-*"
valid_from = 2026-01-01
prompt = 2.5
cached = 0.0375
completion = 10
reasoning = 20
"""


@pytest.mark.parametrize(
    ("tokens", "nano_usd"),
    [
        ((1_000, MISSING, 100, MISSING), 2_500_000 + 1_000_000),
        ((1_000, 400, 100, 30), 600 * 2_500 + 15_000 + 70 * 10_000 + 30 * 20_000),
        ((1_000, 5_000, 100, 300), 37_500 + 100 * 20_000),  # a part is never more than the whole
        ((1_000, MISSING, MISSING, MISSING), 2_500_000),
        ((MISSING, 7, 100, MISSING), 1_000_000),
        ((1, 1, MISSING, MISSING), 38),  # 37.5, rounded half up
        ((0, 0, 0, 0), 0),
        ((MISSING, 5, MISSING, 5), MISSING),
        ((10**9, 0, 10**9, 10**9), MISSING),  # above the limit of the metric
    ],
)
def test_each_part_has_its_price(tokens: tuple[int, int, int, int], nano_usd: int) -> None:
    assert costs(table(ONE), [("", "swift-1", at(DAY), tokens, MISSING)]) == [nano_usd]


def test_tokens_that_were_written_to_the_cache_have_a_price_of_their_own() -> None:
    written = METRIC_INDEX["cache_write_tokens"]

    def cost(prices: str, tokens: int) -> int:
        events = columns([("", "swift-1", at(date(2026, 2, 1)), (1_000, 400, 100, MISSING), MISSING)])
        events.values[written] = tokens
        table(prices).fill(events)
        return int(events.values[COST, 0])

    rest = 15_000 + 100 * 10_000  # what was cached, and the completion
    assert cost(ONE + "cache_write = 3.125", 200) == 400 * 2_500 + 200 * 3_125 + rest
    assert cost(ONE + "cache_write = 0", 200) == 400 * 2_500 + rest
    assert cost(ONE + "cache_write = 3.125", 5_000) == 600 * 3_125 + rest  # a part is never more than what is left
    assert cost(ONE, 200) == cost(ONE, MISSING) == cost(ONE + "cache_write = 3.125", MISSING) == 600 * 2_500 + rest


def test_a_part_without_a_price_costs_as_much_as_the_whole() -> None:
    plain = table('[[price]]\nmodel = "*"\nvalid_from = "2026-01-01"\nprompt = 2\ncompletion = 8\n')
    assert costs(plain, [("any", "any", at(DAY), (10, 5, 10, 5), MISSING)]) == [10 * 2_000 + 10 * 8_000]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("openrouter/openai/gpt-4o-2024-08-06", "gpt-4o"),
        ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("claude-3-5-sonnet-v2@20241022", "claude-3-5-sonnet"),
        ("us-gov.anthropic.claude-3-haiku-20240307-v1:0:48k", "claude-3-haiku"),
        ("anthropic.claude-opus-5", "claude-opus-5"),
        ("bedrock/eu.amazon.nova-lite-v1:0", "nova-lite"),
        ("swift-v2", "swift-v2"),
        ("swift-latest", "swift-latest"),
        ("swift-0613", "swift-0613"),
        ("swift-2024-13-01", "swift-2024-13-01"),
        ("meta.llama3-8b-instruct-v1:0", "meta.llama3-8b-instruct"),
        ("ft:swift-2024-08-06:acme::1", "ft:swift-2024-08-06:acme::1"),
        ("openai/", "openai/"),
        ("-2024-08-06", "-2024-08-06"),
        ("", ""),
    ],
)
def test_the_dress_of_a_platform_is_taken_off(model: str, name: str) -> None:
    as_sent, _, plain = names(model)
    assert (as_sent, plain) == (model, name)


@given(st.text(max_size=30) | st.text("-/.:v0126@a", max_size=30))
def test_each_name_is_part_of_the_one_before_and_none_is_empty(model: str) -> None:
    as_sent, version, plain = names(model)
    assert as_sent == model and version in as_sent and plain in version and bool(plain) == bool(model)


def test_a_version_is_priced_without_the_dress_of_its_platform() -> None:
    assert names("a/b/swift-2026-01-31")[1] == "swift-2026-01-31"
    assert names("us.anthropic.claude-opus-4-20250514-v1:0")[1] == "claude-opus-4-20250514-v1:0"


@pytest.mark.parametrize(
    "model", ["/" * 1_024, "-v1" * 341, "-v1:a" * 204, "a." * 512, "-2026-01-31" * 93, "-v" + "1" * 1_022]
)
def test_long_names_take_no_long_time(model: str) -> None:
    began = time.perf_counter()
    for _ in range(10):
        names(model)
    assert time.perf_counter() - began < 1


def test_a_row_for_the_name_as_it_was_sent_is_more_specific_than_one_for_the_plain_name() -> None:
    rows = ["swift", "swift-2026-01-31", "north/*", "*"]
    several = "".join(
        f'[[price]]\nmodel = "{model}"\nvalid_from = 2026-01-01\nprompt = {usd}\ncompletion = 0\n'
        for usd, model in enumerate(rows, 1)
    )
    asked = ["swift", "swift-2026-01-31", "swift-2026-02-28", "x/swift-2026-01-31", "north/swift-2026-02-28", "other"]
    found = costs(table(several), [("", model, at(DAY), (1, 0, 0, 0), MISSING) for model in asked])
    assert found == [1_000, 2_000, 1_000, 2_000, 3_000, 4_000]


def test_an_event_with_a_cost_keeps_it() -> None:
    said = [("", "swift-1", at(DAY), (10, 0, 10, 0), cost) for cost in (77, 0)]
    assert costs(table(ONE), said) == [77, 0]


def test_the_start_decides_which_price_is_in_force() -> None:
    two = table(ONE + '[[price]]\nmodel = "swift-*"\nvalid_from = 2026-02-01\nprompt = 1\ncompletion = 1\n')
    february = at(date(2026, 2, 1))
    found = costs(
        two, [("", "swift-1", start, (1, 0, 0, 0), MISSING) for start in (at(DAY) - 1, at(DAY), february - 1, february)]
    )
    assert found == [MISSING, 2_500, 2_500, 1_000]


def test_the_most_specific_price_counts() -> None:
    def row(provider: str, model: str, usd: int) -> str:
        names = f'provider = "{provider}"\nmodel = "{model}"\nvalid_from = 2026-01-01'
        return f"[[price]]\n{names}\nprompt = {usd}\ncompletion = 0\n"

    several = table(
        row("*", "*", 1)
        + row("north", "*", 2)
        + row("*", "swift-*", 3)
        + row("north", "swift-*", 4)
        + row("*", "swift-1", 5)
    )
    asked = [("", "other"), ("north", "other"), ("", "swift-2"), ("north", "swift-2"), ("north", "swift-1")]
    found = costs(several, [(*pair, at(DAY), (1, 0, 0, 0), MISSING) for pair in asked])
    assert found == [1_000, 2_000, 3_000, 4_000, 5_000]


def test_events_with_tokens_and_no_price_are_told() -> None:
    events = columns([
        ("", "swift-1", at(DAY), (1, 0, 0, 0), MISSING),
        ("", "north-1", at(DAY), (1, 0, 0, 0), MISSING),
        ("", "north-1", at(DAY), (1, 0, 0, 0), 5),
        ("", "north-1", at(DAY), (MISSING, MISSING, MISSING, MISSING), MISSING),
    ])  # fmt: skip
    assert unpriced(events).tolist() == [True, True, False, False]
    table(ONE).fill(events)
    assert unpriced(events).tolist() == [False, True, False, False]
    NO_PRICES.fill(events)
    assert unpriced(events).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gathered = 1", "gathered: must be a date"),
        ("gathered = 2026-01-31T10:00:00Z", "gathered: must be a date"),
        ("prices = 1", "prices: unknown, the file holds [[price]] rows"),
        ("price = 1", "must be [[price]] rows"),
        ("price = [1]", "must be [[price]] rows"),
        (ONE.replace("completion = 10\n", ""), "row 1 (swift-*): completion: must be set"),
        (ONE.replace("completion", "complet"), "complet: unknown, a row has provider, model, valid_from, prompt"),
        (ONE.replace("2.5", "-1"), "prompt: should be greater than or equal to 0"),
        (ONE.replace("2.5", "4000.1"), "prompt: should be less than or equal to 4000"),
        (ONE.replace("2.5", "0.0000001"), "prompt: should have no more than 6 decimal places"),
        (ONE.replace("2.5", "nan"), "prompt: should be a finite number"),
        (ONE.replace("2.5", "inf"), "prompt: should be a finite number"),
        (ONE.replace("2.5", "true"), "prompt: must be a number"),
        (ONE.replace("2.5", '"2.5"'), "prompt: must be a number"),
        (ONE.replace("2026-01-01", '"soon"'), "valid_from: should be a valid date"),
        (
            ONE.replace("2026-01-01", "2026-01-01T10:00:00Z"),
            "valid_from: Datetimes provided to dates should have zero time",
        ),
        (ONE.replace("swift-*", ""), "model: String should have at least 1 character"),
        (ONE + ONE, "[[price]] row 2: repeats row 1"),
    ],
)
def test_wrong_tables_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        table(text)
    assert said in str(caught.value)


def test_an_empty_file_is_a_table_without_prices() -> None:
    assert len(table("")) == 0


def test_a_file_may_say_when_its_prices_were_gathered() -> None:
    assert table(ONE).gathered is None
    assert table("gathered = 2026-01-31\n" + ONE).gathered == date(2026, 1, 31)


def test_a_price_of_writes_to_a_cache_is_read() -> None:
    (row,) = tomllib.loads(ONE + "cache_write = 3.125\n", parse_float=Decimal)["price"]
    assert Price.model_validate(row).cache_write == Decimal("3.125")


def test_models_without_a_cost_are_found_with_their_first_start() -> None:
    later = at(DAY) + 5
    events = columns([
        ("", "swift-1", at(DAY), (1, 0, 0, 0), MISSING),
        ("a", "north-1", later, (1, 0, 0, 0), MISSING),
        ("a", "north-1", at(DAY), (1, 0, 0, 0), MISSING),
        ("", "north-1", later, (1, 0, 0, 0), MISSING),
        ("", "north-2", later, (1, 0, 0, 0), 5),
        ("", "north-3", later, (1, 0, 0, 0), MISSING),
    ])  # fmt: skip
    table(ONE).fill(events)
    chosen = np.array([True, True, True, True, True, False])
    assert missing(events, chosen) == {("a", "north-1"): at(DAY), ("", "north-1"): later}
    assert missing(events, ~chosen & False) == {}


usd = st.decimals(0, 4_000, places=6)
prices = st.builds(
    Price,
    provider=st.sampled_from(["*", "a", "a*", ""]),
    model=st.sampled_from(["*", "m", "m*", "m1", "?1"]),
    valid_from=st.integers(0, 4).map(lambda n: DAY + timedelta(days=n)),
    prompt=usd,
    completion=usd,
    cached=usd | st.none(),
    reasoning=usd | st.none(),
)
NAMES = {"m": {"m"}, "m1": {"m1"}, "x1": {"x1"}, "a/x1": {"a/x1", "x1"}, "a/m1-2026-01-31": {"a/m1-2026-01-31", "m1"}}
tokens = st.integers(-1, 5) | st.integers(0, 10**9)
request = st.tuples(
    st.sampled_from(["", "a", "ab"]),
    st.sampled_from(list(NAMES)),
    st.integers(-1, 6).map(lambda n: at(DAY) + n * 43_200 * SECOND),
    st.tuples(tokens, tokens, tokens, tokens),
    st.sampled_from([MISSING, MISSING, 9]),
)
tables = st.lists(prices, max_size=8, unique_by=lambda p: (p.provider, p.model, p.valid_from))


def reference(rows: list[Price], asked: Request) -> int:
    """The cost of one event in nano-dollars, calculated in exact fractions."""
    provider, model, start, (prompt, cached, completion, reasoning), cost = asked
    if cost != MISSING or (prompt == MISSING and completion == MISSING):
        return cost
    found: Price | None = None
    for row in rows:
        fits = matches(provider, row.provider) and any(matches(name, row.model) for name in NAMES[model])
        if at(row.valid_from) <= start and fits:
            here = (literals(row.model), literals(row.provider), row.valid_from)
            if found is None or here > (literals(found.model), literals(found.provider), found.valid_from):
                found = row
    if found is None:
        return MISSING
    whole, out = max(prompt, 0), max(completion, 0)
    part, thought = min(max(cached, 0), whole), min(max(reasoning, 0), out)
    of_cached = found.prompt if found.cached is None else found.cached
    of_thought = found.completion if found.reasoning is None else found.reasoning
    nano = 1_000 * sum(
        n * Fraction(p)
        for n, p in (
            (whole - part, found.prompt),
            (part, of_cached),
            (out - thought, found.completion),
            (thought, of_thought),
        )
    )
    rounded = int(nano + Fraction(1, 2))
    return rounded if rounded <= METRICS[COST].limit * METRICS[COST].scale else MISSING


@given(tables, st.lists(request, max_size=12))
def test_costs_are_those_of_a_plain_reference(rows: list[Price], requests: list[Request]) -> None:
    assert costs(PriceTable(rows), requests) == [reference(rows, r) for r in requests]


@given(tables, st.lists(request, max_size=12), st.data())
def test_costs_are_the_same_for_any_cut_into_batches(
    rows: list[Price], requests: list[Request], data: st.DataObject
) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(requests)), max_size=4)))
    prices = PriceTable(rows)
    apart = [c for a, b in zip([0, *cuts], [*cuts, len(requests)], strict=True) for c in costs(prices, requests[a:b])]
    assert apart == costs(PriceTable(rows), requests)


@given(tables, prices, st.lists(request, max_size=12))
def test_an_added_price_changes_nothing_before_its_date(rows: list[Price], new: Price, requests: list[Request]) -> None:
    before = [r for r in requests if r[2] < at(new.valid_from)]
    if all((new.provider, new.model, new.valid_from) != (p.provider, p.model, p.valid_from) for p in rows):
        assert costs(PriceTable([*rows, new]), before) == costs(PriceTable(rows), before)
