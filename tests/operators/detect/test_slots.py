"""Slots against a plain dict, and arrays that grow and clear."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from operators.detect.slots import Arrays, Slots

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


def test_arrays_grow_by_doubling_and_keep_what_is_there() -> None:
    arrays = Arrays(blank, 2)
    arrays.state["a"][1] = 7.0
    arrays.reserve(2)
    assert arrays.capacity == 2
    arrays.reserve(5)
    assert arrays.capacity == 8
    assert arrays.state["a"][:3].tolist() == [[-1, -1], [7, 7], [-1, -1]]
    arrays.clear(1)
    assert arrays.state["a"][1].tolist() == [-1, -1]


def test_arrays_are_saved_as_copies_and_loaded() -> None:
    arrays = Arrays(blank, 2)
    arrays.state["b"][0] = 3
    saved = arrays.save(1)
    arrays.state["b"][0] = 4
    other = Arrays(blank, 1)
    other.load(saved)  # type: ignore[arg-type]
    assert other.state["b"].tolist() == [3]
    other.load({})
    assert other.state["b"].tolist() == [3]
