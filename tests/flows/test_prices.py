"""The prices that the settings ask for, through the backtest: the whole flow as a user starts it."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pytest

from flows.backtest.__main__ import main
from flows.process.run import Run
from flows.settings.layers import set_options
from flows.settings.model import load
from flows.wiring import enricher
from operators.metrics import METRIC_INDEX
from operators.model import MISSING
from operators.observe.telemetry import Telemetry
from tests.operators.enrich.test_pricing import at, columns

OWN = '[[price]]\nmodel = "gpt-4o*"\nvalid_from = 2026-06-01\nprompt = 1\ncompletion = 1\n'
MAY, JUNE = date(2026, 5, 31), date(2026, 6, 1)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SENTINEL_CONFIG", raising=False)
    Path("own.toml").write_text(OWN)


def cost(model: str, day: date, *sets: str, said: int = MISSING) -> int:
    """Nano-USD of an event with 1,000 prompt tokens, by these settings; `said` is the cost that it carries."""
    settings = load({}, Path.cwd(), set_options(sets)).settings
    event = ("openai", model, at(day), (1_000, 0, 0, 0), said)
    events = enricher(settings, Run(Telemetry(), None))(columns([event]))
    return int(events.values[METRIC_INDEX["cost"], 0])


def test_without_settings_the_shipped_prices_hold() -> None:
    assert cost("gpt-4o-2024-08-06", JUNE) == 2_500_000
    assert cost("my-finetune-7b", JUNE) == MISSING
    assert cost("gpt-4o", JUNE, "enrich.shipped_prices=false") == MISSING


def test_own_prices_win_where_they_are_in_force() -> None:
    assert cost("gpt-4o-2024-08-06", JUNE, "enrich.prices=own.toml") == 1_000_000
    assert cost("gpt-4o", MAY, "enrich.prices=own.toml") == 2_500_000
    assert cost("gpt-4.1", JUNE, "enrich.prices=own.toml") == 2_000_000
    assert cost("gpt-4.1", JUNE, "enrich.prices=own.toml", "enrich.shipped_prices=false") == MISSING


@pytest.mark.parametrize("said", [0, 77])
def test_a_cost_that_an_event_carries_always_wins(said: int) -> None:
    assert cost("gpt-4o", JUNE, "enrich.prices=own.toml", said=said) == said


def event(i: int, model: str, **more: Any) -> bytes:
    return orjson.dumps({
        "event_id": str(i), "timestamp": f"2026-06-01T12:{i // 60:02}:{i % 60:02}Z", "service": "chat", "model": model,
        "latency_ms": 100, "prompt_tokens": 1_000, "completion_tokens": 10, **more,
    })  # fmt: skip


def test_a_backtest_tells_the_models_without_a_price(capfd: pytest.CaptureFixture[str]) -> None:
    models = ["gpt-4o-mini", "swift-1", "swift-2"]
    Path("events.jsonl").write_bytes(b"\n".join(event(i, models[i % 3]) for i in range(120)))
    assert main(["--json", "events.jsonl"]) == 0
    out, err = capfd.readouterr()
    assert orjson.loads(out)["balance"]["unpriced"] == 80
    assert err.count("no price is in force for") == 1
    assert "for swift-1, swift-2: the cost" in err and 'model = "swift-1"\nvalid_from = 2026-06-01\n' in err
    Path("own.toml").write_text(OWN.replace("gpt-4o*", "swift-?"))
    assert main(["--json", "events.jsonl", "--set", "enrich.prices=own.toml"]) == 0
    out, err = capfd.readouterr()
    assert orjson.loads(out)["balance"]["unpriced"] == 0
    assert "no price" not in err


def test_costs_of_their_own_are_never_told_as_missing(capfd: pytest.CaptureFixture[str]) -> None:
    Path("events.jsonl").write_bytes(b"\n".join(event(i, "swift-1", cost_usd=0) for i in range(60)))
    assert main(["--json", "events.jsonl"]) == 0
    assert "no price" not in capfd.readouterr().err
