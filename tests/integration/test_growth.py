"""The recovery store, the rows a start loads and the rows an epoch writes do not grow from day 2 to day 90."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from bytewax.errors import BytewaxRuntimeError

from flows.pipeline import Shape
from flows.recovery.rewind import forget_unfinished
from flows.recovery.upkeep import LOADED
from operators.config import DetectConfig, EpisodesConfig, GroupsConfig, PanesConfig, TimeConfig
from operators.decode.config import DecodeConfig
from operators.model import SECOND
from operators.panes.shard import row_keys
from tests.harness import BEGAN, MemoryTopic, World

HOUR = 3600
DAYS = 90
SHAPE = Shape(
    4,
    TimeConfig(pane_s=900, correction_s=1_800),
    PanesConfig(dimension_sets=(("service",),)),
    DetectConfig(),
    EpisodesConfig(),
    GroupsConfig(),
    expectations=False,
)
SERVICES = "abcf"
"""Series, one for each shard. Each has an event an hour; the events of an hour are one poll and one epoch."""


def hour(number: int) -> list[bytes]:
    """The events of an hour in order, at other minutes than in the previous hour."""
    minutes = sorted((number * 7 + event * 17) % 60 for event in range(len(SERVICES)))
    return [
        orjson.dumps({
            "timestamp": BEGAN / SECOND + (number - 24 * DAYS) * HOUR + minute * 60,
            "service": service, "latency_ms": 100 + number % 7,
        })
        for service, minute in zip(SERVICES, minutes, strict=True)
    ]  # fmt: skip


class Size(NamedTuple):
    """The number of rows in the store, and number and bytes of those that a start loads and the last epoch wrote."""

    rows: int
    loaded: int
    loaded_bytes: int
    written: int
    written_bytes: int


def size(folder: Path) -> Size:
    forget_unfinished(folder)
    with closing(sqlite3.connect(folder / "part-0.sqlite3")) as db:
        ((rows, last),) = db.execute("SELECT count(*), max(snap_epoch) FROM snaps")
        (loaded,) = db.execute(f"SELECT count(*), sum(length(ser_change)) FROM ({LOADED})", (last + 1,))
        (written,) = db.execute("SELECT count(*), sum(length(ser_change)) FROM snaps WHERE snap_epoch = ?", (last,))
    return Size(rows, *loaded, *written)


def test_at_day_ninety_the_store_a_start_and_an_epoch_are_as_at_day_two(tmp_path: Path) -> None:
    """The time of a start and of an epoch depends on the number of rows, since Bytewax reads all of them in both."""
    topic = MemoryTopic({"p0": [event for number in range(24 * DAYS) for event in hour(number)]})
    # A memory for duplicates would take a poll of its own after the crash.
    world = World(topic, SHAPE, decode=DecodeConfig(dedupe_s=0), recovery=tmp_path)
    sizes = []
    for days in (2, DAYS - 2):
        topic.crash_after = [24 * days]
        with pytest.raises(BytewaxRuntimeError):
            world.run(len(SERVICES))
        sizes.append(size(tmp_path))
    early, late = sizes
    assert early.loaded > 4 * len(row_keys(900, 1_800)), "no keys of buckets are loaded"
    assert all(now <= 1.1 * then for now, then in zip(late, early, strict=True)), (early, late)
    assert world.balances["p0"].on_time == len(SERVICES) * (24 * DAYS - 2)
