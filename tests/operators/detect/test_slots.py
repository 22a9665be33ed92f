"""Slots against a plain dict, and arrays that grow and clear."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.detect.slots import Arrays, Slots, unpacked

names = st.sampled_from("abcdefgh")


@given(st.lists(st.tuples(names, st.booleans()), max_size=40))
def test_slots_are_kept_reused_and_saved(steps: list[tuple[str, bool]]) -> None:
    slots, plain = Slots(), dict[str, int]()
    for name, add in steps:
        if add and name not in plain:
            free = min(set(range(len(plain) + 1)) - set(plain.values()))
            assert slots.add(name) == free
            plain[name] = free
        elif not add and name in plain:
            slots.drop(plain.pop(name))
        assert {n: slots.get(n) for n in "abcdefgh"} == {n: plain.get(n) for n in "abcdefgh"}
        assert len(slots) == len(plain)
        slots = Slots(slots.texts)
    assert all(slots.texts[i] == n for n, i in plain.items())


def blank(slots: int) -> dict[str, np.ndarray]:
    return {"a": np.full((slots, 2), -1.0), "b": np.zeros(slots, np.int64)}


def test_arrays_grow_and_keep_their_values() -> None:
    arrays = Arrays(blank, 2)
    arrays.state["a"][1] = 7.0
    arrays.reserve(2)
    assert arrays.capacity == 2
    arrays.reserve(5)
    assert arrays.capacity == 8
    assert arrays.state["a"][:3].tolist() == [[-1, -1], [7, 7], [-1, -1]]
    arrays.clear(1)
    assert arrays.state["a"][1].tolist() == [-1, -1]


@given(st.integers(0, 9), st.data())
def test_arrays_are_saved_as_copies_and_loaded(used: int, data: st.DataObject) -> None:
    arrays = Arrays(blank, 10)
    values = st.sampled_from([-1.0, 0.0, 0.1, np.inf, np.nan])
    arrays.state["a"][:used] = data.draw(st.lists(st.tuples(values, values), min_size=used, max_size=used)) or 0.0
    arrays.state["b"][:used] = data.draw(st.lists(st.sampled_from([0, 1, -(2**62)]), min_size=used, max_size=used)) or 0
    expected = {name: array[:used].copy() for name, array in arrays.state.items()}
    saved = pickle.dumps(arrays.save(used))
    arrays.state["b"][:] = 4
    found = unpacked(pickle.loads(saved))
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    other = Arrays(blank, 1)
    other.load(found)
    other.load({})
    np.testing.assert_array_equal(other.state["a"][:used], expected["a"])


def test_an_initial_value_takes_a_bit() -> None:
    arrays = Arrays(blank, 8_000)
    arrays.state["a"][7, 1] = 2.0
    assert len(pickle.dumps(arrays.save(8_000))) < 3 * 8_000 / 8 + 500
