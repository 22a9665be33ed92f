"""The price file and its changes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from connectors.prices import EVERY_S, PriceFile, load
from operators.errors import ConfigError
from operators.model import MISSING
from tests.operators.enrich.test_pricing import DAY, ONE, at, costs


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def cost(prices: PriceFile) -> int:
    return costs(prices(), [("", "swift-1", at(DAY), (1, 0, 0, 0), MISSING)])[0]


def test_a_change_is_seen_after_a_few_seconds(tmp_path: Path) -> None:
    path, clock = tmp_path / "prices.toml", Clock()
    told: list[bool] = []
    path.write_text(ONE)
    prices = PriceFile(path, told.append, clock)
    assert cost(prices) == 2_500
    path.write_text(ONE.replace("2.5", "3.25"))
    clock.now += EVERY_S / 2
    assert cost(prices) == 2_500
    clock.now += EVERY_S / 2
    assert cost(prices) == 3_250
    assert told == [True]


def test_an_unchanged_file_is_not_read_again(tmp_path: Path) -> None:
    path, clock = tmp_path / "prices.toml", Clock()
    told: list[bool] = []
    path.write_text(ONE)
    prices = PriceFile(path, told.append, clock)
    table = prices()
    clock.now += EVERY_S
    assert prices() is table
    assert told == []


@pytest.mark.parametrize("broken", ["[[price]\n", '[[price]]\nmodel = "x"\n', None])
def test_a_broken_or_missing_file_leaves_the_prices_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    path, clock = tmp_path / "prices.toml", Clock()
    told: list[bool] = []
    path.write_text(ONE)
    prices = PriceFile(path, told.append, clock)
    if broken is None:
        path.unlink()
    else:
        path.write_text(broken)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            clock.now += EVERY_S
            assert cost(prices) == 2_500
    assert told == [False]
    (line,) = caplog.messages
    assert f"the price file {path} (enrich.prices)" in line
    assert line.endswith("the prices read before stay in force")
    path.write_text(ONE.replace("2.5", "4"))
    clock.now += EVERY_S
    assert cost(prices) == 4_000
    assert told == [False, True]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot be read: No such file"),
        (b"\xff", "is not UTF-8 (byte 0)"),
        (b"a = = 1", "is not TOML: Invalid value (at line 1"),
        (b"a = 1", "a: unknown"),
    ],
)
def test_a_start_with_a_wrong_file_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "prices.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        PriceFile(path)
    assert str(caught.value).startswith(f"the price file {path} (enrich.prices)")
    assert said in str(caught.value)


def test_digits_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(ONE.replace("2.5", "0.000001"))
    assert costs(load(path), [("", "swift-1", at(DAY), (1_000_000_000, 0, 0, 0), MISSING)]) == [1_000_000]
