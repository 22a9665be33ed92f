"""A start goes on from the store of an earlier release, or refuses it in a sentence that says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.tables import PANES
from flows import __version__
from flows.process.ending import cause
from operators.decode.intake import Balance
from tests.golden import make, snapshots

FILES = sorted(snapshots.FOLDER.glob("*.sqlite3.gz"))


def told(lines: list[bytes]) -> list[tuple[str, str]]:
    """The kind and the status of each alert; its figures may change with detection."""
    return [(alert["kind"], alert["status"]) for alert in map(json.loads, lines)]


@pytest.mark.parametrize("packed", [pytest.param(f, id=f.name.removesuffix(".sqlite3.gz")) for f in FILES])
def test_a_release_goes_on_from_the_snapshot_of_another_or_says_what_to_do(packed: Path, tmp_path: Path) -> None:
    snapshots.unpacked(packed, tmp_path)
    world = snapshots.world(tmp_path)
    try:
        snapshots.run(world)
    except Exception as error:  # noqa: BLE001 - of any type, but it must be caused by an error of this program
        refused = cause(error)
        assert refused is not None, "a changed form needs a new version, so that the start can refuse the old one"
        assert "this release reads" in str(refused)
        return
    golden = (make.FOLDER / snapshots.CASE / "alerts.jsonl").read_bytes().splitlines()
    assert told([line.value for line in world.alerts.lines]) == told(golden)
    assert world.topic.polls < len(make.read(snapshots.CASE)) // 50, "it began anew"
    total = sum(world.balances.values(), Balance())
    assert total.records == total.on_time == len(make.read(snapshots.CASE)), "both runs do not count each record once"
    whole = snapshots.world(tmp_path)
    whole.recovery = None
    snapshots.run(whole)
    rows, all_rows = (w.store.rows[PANES.name] for w in (world, whole))
    assert rows.items() <= all_rows.items()
    hours = {key for key in all_rows if key[PANES.index["width_s"]] == 3600}
    assert hours and hours <= rows.keys(), "rows of hours, which hold records of the first run, are missing"


def test_this_release_has_one() -> None:
    assert f"{__version__}.sqlite3.gz" in {f.name for f in FILES}
