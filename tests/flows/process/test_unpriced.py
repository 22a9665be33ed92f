"""Models without a price are told once, with the row that gives them one."""

from __future__ import annotations

import tomllib
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.process.unpriced import NAMED, Unpriced, row
from operators.config import EnrichConfig
from operators.enrich import pricing
from operators.enrich.enricher import Enricher
from operators.model import MISSING, SECOND
from tests.operators.enrich.test_pricing import DAY, Request, at, columns, costs


def asked(provider: str, model: str, start: int = at(DAY)) -> Request:
    return (provider, model, start, (10, 0, 10, 0), MISSING)


def see(told: Unpriced, *requests: Request) -> None:
    events = columns(list(requests))
    told.see(events, np.ones(len(events), np.bool_))


def test_each_model_is_told_once_with_the_row_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    told = Unpriced()
    see(
        told, asked("north", "swift-2", at(DAY) + 40 * 86_400 * SECOND), asked("north", "swift-2"), asked("", "swift-3")
    )
    see(told, asked("north", "swift-2"))
    said = capsys.readouterr().err
    assert said.count("no price is in force") == 1
    assert "for north swift-2, swift-3: the cost" in said
    assert said.endswith(
        '[[price]]\nprovider = "north"\nmodel = "swift-2"\nvalid_from = 2026-01-01\nprompt = ?\ncompletion = ?\n'
    )
    see(told, asked("south", "swift-2"))
    assert "for south swift-2:" in capsys.readouterr().err
    told.finish()
    assert capsys.readouterr().err == ""


def test_the_name_that_was_sent_is_told_not_the_family(capsys: pytest.CaptureFixture[str]) -> None:
    events = Enricher(EnrichConfig())(columns([asked("", "swift-2026-01-31")]))
    Unpriced().see(events, np.ones(1, np.bool_))
    assert "for swift-2026-01-31:" in capsys.readouterr().err


def test_events_with_a_cost_without_tokens_or_not_chosen_are_not_told(capsys: pytest.CaptureFixture[str]) -> None:
    told, none = Unpriced(), (MISSING,) * 4
    see(told, ("", "a", at(DAY), (10, 0, 10, 0), 0), ("", "b", at(DAY), none, MISSING))
    told.see(columns([asked("", "c")]), np.zeros(1, np.bool_))
    assert capsys.readouterr().err == ""


def test_names_are_bounded_and_the_others_counted(capsys: pytest.CaptureFixture[str]) -> None:
    told = Unpriced()
    see(told, *(asked("", f"m{i}") for i in range(NAMED - 1)))
    see(told, *(asked("", f"n{i}") for i in range(5)))
    see(told, *(asked("", f"n{i}") for i in range(8)))
    said = capsys.readouterr().err
    assert "n0" in said and "n1" not in said
    assert said.count(f"more models than these {NAMED} have no price") == 1
    told.finish()
    assert capsys.readouterr().err == "7 more models had no price\n"


def test_models_beyond_exactly_as_many_as_are_named_are_told_of_once(capsys: pytest.CaptureFixture[str]) -> None:
    told = Unpriced()
    see(told, *(asked("", f"m{i}") for i in range(NAMED)))
    assert "more models" not in capsys.readouterr().err
    for i in range(3):
        see(told, asked("", f"n{i}"))
    assert capsys.readouterr().err.count("more models than these") == 1


def test_memory_has_a_bound(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("flows.process.unpriced._MOST", 30)
    told = Unpriced()
    see(told, *(asked("", f"m{i}") for i in range(50)))
    see(told, *(asked("", f"m{i}") for i in range(50)))
    told.finish()
    assert capsys.readouterr().err.endswith("at least 10 more models had no price\n")


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.text('*?[]!\\"\n\x1b\x7f-/:a1', max_size=12)


@given(names, names.filter(bool), names)
def test_the_row_prices_this_model_from_this_day_on(provider: str, model: str, other: str) -> None:
    start = at(DAY) + 7 * 3_600 * SECOND
    text = row(provider, model, start)
    assert "".join(text.split("\n")).isprintable()
    table = pricing.read(tomllib.loads(text.replace("?\n", "1\n").removesuffix("?") + "2", parse_float=Decimal))
    found = costs(
        table, [asked(provider, model, start), asked(provider, model, at(DAY) - 1), asked(provider, other, start)]
    )
    assert found[:2] == [30_000, MISSING]
    assert model in pricing.names(other) or found[2] == MISSING


def test_events_are_not_changed() -> None:
    before, after = (columns([asked("", "a"), asked("", "b")]) for _ in range(2))
    Unpriced().see(after, np.ones(2, np.bool_))
    assert np.array_equal(before.values, after.values)
    assert before.combos == after.combos
