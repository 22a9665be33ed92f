"""The table of panes that each contestant makes of the topic, and the comparison of two such tables."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import orjson

WIDTH_MS = 10_000


class Pane(NamedTuple):
    """Ten seconds of a service and model. The latency is that of the requests that did not fail."""

    requests: int
    errors: int
    latency_sum: float
    latency_min: float | None
    latency_max: float | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


Table = dict[tuple[str, int], Pane]
"""Panes by series and start in milliseconds."""


def of_messages(messages: Iterable[tuple[bytes | None, bytes]]) -> Table:
    """The table in a peer's topic: the series is the record's key or the field `key`.

    Raises `ValueError` if a pane comes twice.
    """
    table: Table = {}
    for key, value in messages:
        row = orjson.loads(value.replace(b"-Infinity", b"null").replace(b"Infinity", b"null"))
        name = (key.decode() if key else row["key"], row["start"])
        if name in table:
            raise ValueError(f"the pane {name} comes twice")
        table[name] = _pane(row)
    return table


def of_store(path: Path) -> Table:
    """The table in our SQLite store."""
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        rows = db.execute(
            "SELECT service || '|' || model AS key, pane_start / 1000 AS start, requests, errors, latency_sum,"
            " latency_min, latency_max, prompt_tokens_sum AS prompt_tokens,"
            " completion_tokens_sum AS completion_tokens, cost_sum AS cost_usd"
            " FROM llm_panes WHERE dimension_set = 'service,model,operation' AND width_s = 10"
        ).fetchall()
    db.close()
    return {(row["key"], row["start"]): _pane(dict(row)) for row in rows}


def _pane(row: Mapping[str, Any]) -> Pane:
    return Pane(
        row["requests"], row["errors"], row["latency_sum"] or 0.0, row["latency_min"], row["latency_max"],
        int(row["prompt_tokens"] or 0), int(row["completion_tokens"] or 0), row["cost_usd"] or 0.0,
    )  # fmt: skip


def closed(table: Table, before_ms: int) -> Table:
    """The panes that end by this time."""
    return {name: pane for name, pane in table.items() if name[1] + WIDTH_MS <= before_ms}


def differences(ours: Table, theirs: Table) -> list[str]:
    """The differences of the two tables, a sentence each. Sums of floats may differ by their rounding."""
    out = [f"{name}: only ours" for name in sorted(ours.keys() - theirs.keys())]
    out += [f"{name}: only theirs" for name in sorted(theirs.keys() - ours.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        for field, a, b in zip(Pane._fields, ours[name], theirs[name], strict=True):
            if not _same(a, b):
                out.append(f"{name}: {field} is {a} in ours, {b} in theirs")
    return out


def _same(a: float | None, b: float | None) -> bool:
    if a is None or b is None:
        return a is b
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
