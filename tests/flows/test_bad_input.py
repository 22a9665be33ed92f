"""Faults in records: each kind has one outcome, is counted, and does not change the results of other records.

`docs/bad-input.md` lists the kinds by their names here.
"""

from __future__ import annotations

import json
import re
from typing import Final

import pytest

from connectors.tables import PANES
from flows.pipeline import Shape
from operators.config import DetectConfig, EpisodesConfig, GroupsConfig, PanesConfig, TimeConfig
from operators.model import SECOND, Reason
from operators.series import OTHER, parse
from tests.conftest import ROOT
from tests.harness import BEGAN, MemoryTopic, World

START: Final = BEGAN // SECOND - 300
"""Unix time of the first good record; the last one is of the second before the run begins."""
DEEP: Final = b"[" * 100_000


def record(at: float = START + 150, **fields: object) -> bytes:
    """A good record, unless the given fields make it a bad one."""
    known = {"timestamp": at, "service": "chat", "model": "m", "operation": "chat", "tenant": "t", "latency_ms": 20}
    return json.dumps({**known, **fields}, ensure_ascii=False).encode("utf-8", "surrogatepass")


def raw(tail: bytes) -> bytes:
    """A good record with this text after its last field."""
    return record()[:-1] + b"," + tail + b"}"


GOOD: Final = [record(START + second, tenant=f"t{second % 3}") for second in range(300)]

DEAD: Final = {
    "the year 1970": (record(timestamp="1970-01-01T00:00:00Z"), Reason.BAD_TIME),
    "the year 9999": (record(timestamp="9999-12-31T23:59:59Z"), Reason.BAD_TIME),
    "a clock an hour ahead": (record(START + 150 + 3600), Reason.FUTURE_TIME),
    "NaN": (raw(b'"ttft_ms":NaN'), Reason.NOT_JSON),
    "Infinity": (raw(b'"ttft_ms":-Infinity'), Reason.NOT_JSON),
    "1e308": (raw(b'"ttft_ms":1e308'), Reason.BAD_NUMBER),
    "a number beyond floats": (raw(b'"prompt_tokens":1e999'), Reason.BAD_NUMBER),
    "negative tokens": (record(prompt_tokens=-1), Reason.BAD_NUMBER),
    "deep nesting": (raw(b'"messages":' + DEEP + b"]" * len(DEEP)), Reason.NOT_JSON),
    "brackets that never close": (DEEP, Reason.NOT_JSON),
    "invalid UTF-8": (record(service="caf@").replace(b"@", b"\xe9"), Reason.NOT_UTF8),
    "half a surrogate pair": (record(service="@").replace(b"@", b"\\ud83d"), Reason.NOT_JSON),
    "a record of 10 MB": (record(prompt="x" * 10_000_000), Reason.RECORD_TOO_LARGE),
    "a label of 1,025 characters": (record(service="x" * 1_025), Reason.STRING_TOO_LONG),
    "an empty record": (b"", Reason.NOT_JSON),
    "two objects in one record": (record() + record(), Reason.NOT_JSON),
    "a list of events": (b"[" + record() + b"]", Reason.NOT_AN_OBJECT),
    "no service": (record(service=""), Reason.MISSING_FIELD),
    "another number, a list or an object where a text belongs": (record(service=7.5), Reason.WRONG_TYPE),
}
"""By name: a record, and the reason why it is a dead letter."""

LABELS: Final = {
    "a NUL character": "a\0b",
    "control characters": "\x1b[31mred\x1b[0m\r\n\t\x7f",
    "a label of 1,024 characters": "x" * 1_024,
    "emoji": "👩‍👩‍👧‍👦 🦜",
    "right-to-left text": "שלום \u202eabc",
    "separators": "a,b=c%2C%d",
    "the name of the overflow": OTHER,
    "the name of a shard's overflow": f"{OTHER}.3",
}
"""By name: an odd label that is taken unchanged."""

TIME: Final = TimeConfig(pane_s=10)


def run(records: list[bytes], panes: PanesConfig | None = None, batch: int = 70, shards: int = 4) -> World:
    shape = Shape(shards, TIME, panes or PanesConfig(), DetectConfig(), EpisodesConfig(), GroupsConfig())
    world = World(MemoryTopic({"p": records}), shape)
    world.run(batch)
    return world


def requests(world: World, width_s: int = 10) -> dict[str, int]:
    """The requests in the store, by series."""
    found: dict[str, int] = {}
    series, width, count = (
        next(i for i, c in enumerate(PANES.columns) if c.name == n) for n in ("series", "width_s", "requests")
    )
    for row in world.store.rows[PANES.name].values():
        if row[width] == width_s:
            found[row[series]] = found.get(row[series], 0) + row[count]
    return found


@pytest.fixture(scope="module")
def undisturbed() -> World:
    return run(GOOD)


@pytest.mark.parametrize("name", DEAD)
def test_a_bad_record_is_a_dead_letter_and_changes_nothing_else(name: str, undisturbed: World) -> None:
    bad, reason = DEAD[name]
    world = run([*GOOD[:150], bad, *GOOD[150:]])
    balance = world.balances["p"]
    assert (balance.records, balance.on_time, balance.late, balance.dead) == (301, 300, 0, {reason: 1})
    (letter,) = [json.loads(message.value) for message in world.letters.lines]
    assert (letter["offset"], letter["reason"]) == (150, reason)
    assert len(letter["payload"]) <= 2_048
    assert world.store.rows == undisturbed.store.rows
    assert world.alerts.lines == undisturbed.alerts.lines


def test_all_of_them_mixed_in(undisturbed: World) -> None:
    mixed = [value for i, good in enumerate(GOOD) for value in (good, [*DEAD.values()][i % len(DEAD)][0])]
    mixed = [value for value in mixed if len(value) < 1_000_000]
    world = run(mixed)
    balance = world.balances["p"]
    assert balance.on_time == len(GOOD)
    assert balance.records == balance.events == len(mixed)
    assert world.store.rows == undisturbed.store.rows


def test_the_last_value_of_a_repeated_key_counts() -> None:
    twice = raw(b'"service":"other","service":"twice","tenant":"x","tenant":"y"')
    world = run([*GOOD[:150], twice, *GOOD[150:]])
    found = requests(world)
    assert found["service=twice,model=m,operation=chat"] == found["tenant=y"] == 1
    assert "tenant=x" not in found


@pytest.mark.parametrize("name", LABELS)
def test_an_odd_label_is_a_series_like_any_other(name: str) -> None:
    label = LABELS[name]
    world = run([record(START + second, tenant=label if second % 2 else "t") for second in range(300)])
    assert world.balances["p"].on_time == 300
    found = {parse(series)["tenant"]: n for series, n in requests(world).items() if series.startswith("tenant=")}
    shown = f"~{label}" if label.startswith(OTHER) else label
    assert found == {"t": 150, shown: 150}


def test_a_sender_that_calls_itself_other_is_not_the_overflow() -> None:
    names = [OTHER, *(f"{OTHER}.{shard}" for shard in range(4)), f"~{OTHER}", *(f"tenant-{i}" for i in range(60))]
    records = [record(START + second, tenant=name) for second in range(0, 300, 30) for name in names]
    sets = PanesConfig(dimension_sets=(("tenant",),), series_per_shard=3, breakdown_values=2)
    found = requests(run(records, sets))
    assert sum(found.values()) == len(records)
    overflow = {series for series in found if re.fullmatch(rf"tenant={OTHER}\.\d", series)}
    assert len(overflow) == 4
    assert len(found) <= 4 * 3 + 4
    everyone = requests(run(records, PanesConfig(dimension_sets=(("tenant",),))))
    assert everyone == {f"tenant={'~' if OTHER in name else ''}{name}": 10 for name in names}


def test_one_wrong_clock_does_not_blind_the_others(undisturbed: World) -> None:
    """Two more producers on the partition, each with its own service: one an hour ahead and one an hour behind."""
    records = []
    for second, good in enumerate(GOOD):
        ahead = record(START + second + 3600, service="ahead")
        behind = record(START + second - 3600, service="behind")
        records += [good, ahead, behind]
    world = run(records)
    balance = world.balances["p"]
    assert balance.records == 900
    assert (balance.on_time, balance.late, balance.dead) == (300, 300, {Reason.FUTURE_TIME: 300})
    assert world.store.rows == undisturbed.store.rows  # an hour is more than time.correction_s


def test_a_clock_behind_by_less_than_the_correction_is_late_and_still_in_the_rows() -> None:
    """A late event counts for its own series if the series was known when the pane closed, else for the overflow."""
    records = []
    for second, good in enumerate(GOOD):
        records += [good, record(START + second - 60, tenant="t0", service="behind")]
    world = run(records)
    balance = world.balances["p"]
    assert (balance.records, balance.on_time, balance.late) == (600, 300, 300)
    found = requests(world)
    known = 240 + 300 // 3  # 60 late events are earlier than the first good record, when no series was known
    assert found["tenant=t0"] == known
    for dimensions in PanesConfig().dimension_sets:
        assert sum(n for series, n in found.items() if [*parse(series)] == [*dimensions]) == 600
    assert not {"service=behind,model=m,operation=chat", "service=behind"} & set(found)


def test_an_empty_topic_ends_without_a_row() -> None:
    world = run([])
    assert world.balances["p"].records == 0
    assert world.store.rows == {}


def table() -> dict[str, str]:
    """The rows of the document, by their first cell."""
    rows = re.findall(r"(?m)^\| ([^|]+?) \| (.+) \|$", (ROOT / "docs" / "bad-input.md").read_text())
    return {name.replace("`", ""): rest for name, rest in rows}


def test_the_document_has_every_kind_with_its_reason() -> None:
    found = table()
    for name, (_, reason) in DEAD.items():
        assert f"`{reason}`" in found[name], name
    for name in LABELS:
        assert name in found
