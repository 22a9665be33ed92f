"""A table or state that changes needs a new version: the digest of each layout is pinned to its version."""

from __future__ import annotations

import pickle
import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.greptime import encoding
from connectors.sqlite import SCHEMA, create_statements
from connectors.tables import TABLES, Column, Table, Type
from flows.pipeline import FLOW
from operators.stored import restored
from tests.contracts.layouts import NOTHING, digest, fault, layout, read_pins
from tests.contracts.states import OF_STEP, PARTS, STATES, sampled
from tests.golden import snapshots

States = dict[str, list[object]]

pytestmark = pytest.mark.compiled


@pytest.fixture(scope="module")
def run() -> States:
    return sampled()


@pytest.fixture(scope="module")
def texts(run: States) -> dict[str, str]:
    return layouts(run)


def layouts(samples: Mapping[str, list[object]]) -> dict[str, str]:
    """The layout of each state, by name; samples of inner states are taken from the states around them."""
    met: States = {name: list(samples.get(name, [])) for name in STATES}
    return {name: one_layout(name, met) for name in STATES}  # a state comes after those around it


def one_layout(name: str, met: States) -> str:
    """The layout of this state and of its parts; samples of the states inside it are added to `met`."""
    text, inside = layout(met[name], STATES[name].apart)
    lines = [text]
    for part, apart in PARTS.items():
        if part in inside:
            text, more = layout(inside[part], apart)
            lines.append(f"{part} = {text}")
            for other, states in more.items():
                inside.setdefault(other, []).extend(states)
    for other in inside.keys() & met.keys():
        met[other] += inside[other]
    return "\n".join([*lines, STATES[name].encoded()])


def fault_of_state(name: str, text: str, version: int | str | None = None) -> str | None:
    state = STATES[name]
    return fault(
        f"the layout of the state `{name}`",
        name,
        text,
        state.version if version is None else version,
        f"raise {state.where}, read the version before it too or refuse that by name",
        read_pins(),
    )


def table_layouts(table: Table) -> dict[str, str]:
    """The columns of this table in each store, by the name of their pin."""
    greptime = [(c.name, str(c.data_type), str(c.semantic_type)) for c in encoding.columns(table)]
    return {f"{table.name} in sqlite": "\n".join(create_statements(table)), f"{table.name} in greptime": repr(greptime)}


def fault_of_table(name: str, text: str, version: int = SCHEMA) -> str | None:
    return fault(
        f"the table {name}",
        name,
        text,
        version,
        "raise SCHEMA in connectors/sqlite.py, say in CHANGELOG.md what becomes of the tables that are there",
        read_pins(),
    )


@pytest.mark.parametrize("name", STATES)
def test_the_layout_of_each_state_is_that_of_its_version(name: str, texts: dict[str, str]) -> None:
    if said := fault_of_state(name, texts[name]):
        pytest.fail(said, pytrace=False)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_the_columns_of_each_table_are_those_of_the_schema_version(table: Table) -> None:
    for name, text in table_layouts(table).items():
        if said := fault_of_table(name, text):
            pytest.fail(said, pytrace=False)


def test_every_state_was_met_and_no_branch_of_it_is_empty(texts: dict[str, str]) -> None:
    for name, text in texts.items():
        *layouts_of_it, encoded = text.split("\n")
        assert NOTHING not in "".join(layouts_of_it) or (layouts_of_it == [NOTHING] and encoded), f"{name}: {text}"


def test_a_version_stands_first(run: States) -> None:
    for name, states in run.items():
        for state in states:
            assert isinstance(state, dict) or (isinstance(state, tuple) and state[0] == STATES[name].version), name


def test_every_step_of_a_real_recovery_store_is_pinned(tmp_path: Path) -> None:
    snapshots.run(snapshots.world(tmp_path))
    with closing(sqlite3.connect(tmp_path / "part-0.sqlite3")) as db:
        found = db.execute("SELECT step_id, ser_change FROM snaps WHERE ser_change IS NOT NULL").fetchall()
    stored = {(step.removeprefix(f"{FLOW}."), restored(pickle.loads(state), step)[0]) for step, state in found}
    unknown = sorted({step for step, _ in stored} - set(OF_STEP))
    assert not unknown, (
        f"the steps {', '.join(unknown)} keep a state that is not pinned: add them to OF_STEP, and their states to "
        "STATES and to the run, in tests/contracts/states.py"
    )
    assert stored == {(step, STATES[OF_STEP[step]].version) for step, _ in stored}
    assert {OF_STEP[step] for step, _ in stored} >= {"source partition", "shard", "detection", "groups", "sink"}


def test_no_pin_is_of_something_that_is_gone() -> None:
    assert set(read_pins()) == {*STATES, *(name for table in TABLES.values() for name in table_layouts(table))}


def planted(run: States, name: str, change: Any) -> str:
    """The sentence about a state that `change` has altered; fails if another state is named as well."""
    changed: States = {**run, name: [change(state) for state in run[name]]}
    found = {n: said for n, text in layouts(changed).items() if (said := fault_of_state(n, text))}
    assert list(found) == [name], "the states around it and inside it are as they were"
    return found[name]


def changed_at(state: Any, where: int, to: object) -> Any:
    return (*state[:where], to, *state[where + 1 :])


def test_another_key_or_type_or_length_or_element_is_noticed(run: States) -> None:
    version = STATES["detection"].version
    sentence = (
        rf"the layout of the state `detection` has changed but its version is still {version}: raise VERSION in "
        r"operators/detect/engine/monitor.py, read the version before it too or refuse that by name, and put "
        rf'"{int(version) + 1}": "[0-9a-f]{{16}}" under "detection" into tests/contracts/pins.json'
    )

    def key(state: Any) -> Any:
        return changed_at(state, 6, {**state[6], "new": state[6]["born"]})

    def dtype(state: Any) -> Any:
        shape, known, bits, others = state[6]["born"]
        return changed_at(state, 6, {**state[6], "born": (shape, known, bits, others.astype(np.int32))})

    def axis(state: Any) -> Any:
        shape, known, bits, others = state[6]["born"]
        return changed_at(state, 6, {**state[6], "born": ((*shape, 1), known, bits, others)})

    for change in (key, dtype, axis, lambda state: (*state, 0), lambda state: changed_at(state, 2, 1.5)):
        assert re.fullmatch(sentence, planted(run, "detection", change))


def test_other_fields_of_an_alert_in_a_group_are_noticed(run: States) -> None:
    def change(state: Any) -> Any:
        over = tuple(((*alert, "new"), *rest) for alert, *rest in state[6])
        return changed_at(state, 6, over)

    assert "raise VERSION of Groups" in planted(run, "groups", change)


def test_a_state_inside_another_is_told_by_its_own_name(run: States) -> None:
    def change(state: Any) -> Any:
        return changed_at(state, 3, (*state[3], 0))

    changed = {**run, "source partition": [change(state) for state in run["source partition"]]}
    found = [name for name, text in layouts(changed).items() if fault_of_state(name, text)]
    assert found == ["intake"]


def test_a_new_version_without_a_pin_says_which_line_to_add(texts: dict[str, str]) -> None:
    text = texts["shard"]
    assert fault_of_state("shard", text, version=99) == (
        "the layout of the state `shard` has version 99 without a pin: "
        f'put "99": "{digest(text)}" under "shard" into tests/contracts/pins.json'
    )


def test_another_column_is_noticed_in_every_store() -> None:
    table = TABLES["llm_alerts"]
    for columns in (
        (*table.columns, Column("new", Type.INT)),
        table.columns[:-1],
        (*table.columns[:-1], table.columns[-1]._replace(type=Type.BYTES)),
        (*table.columns[:-1], table.columns[-1]._replace(name="new")),
    ):
        for name, text in table_layouts(Table(table.name, columns)).items():
            said = fault_of_table(name, text)
            assert said is not None and said.startswith(
                f"the table {name} has changed but its version is still {SCHEMA}"
            )
            assert f'and put "{SCHEMA + 1}": "' in said
