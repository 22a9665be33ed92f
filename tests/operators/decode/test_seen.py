"""The memory for calls that were told before: it equals a plain list of sights, for any keys and any cut."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from operators.decode.seen import Seen, hashed, keys_of
from operators.kernels.seen import Keys, forget_older, ring, see
from operators.model import Ints
from tests.conftest import ROOT

Key = tuple[int, int]
Sight = tuple[int, list[Key]]
"""An event: the time that has passed since the one before, and its keys."""


class Remembered:
    """The last sights in a plain list, the oldest first."""

    def __init__(self, horizon: int, most: int) -> None:
        self._horizon, self._most = horizon, most
        self.sights: list[tuple[Key, int]] = []

    def repeats(self, keys: list[Key], now: int) -> bool:
        self.sights = [(key, at) for key, at in self.sights if at >= now - self._horizon]
        again = any(key in keys for key, _ in self.sights)
        for key in keys:
            if key != (0, 0):
                self.sights = [*self.sights, (key, now)][-self._most :]
        return again


# Slots are chosen by the low bits of the second half: these share them in tables of any size that is met here.
alike = st.tuples(st.integers(0, 3), st.sampled_from([7, 7 + (1 << 40), 7 + (1 << 50), 8, 8 + (1 << 40)]))
keys = st.one_of(alike, st.tuples(st.integers(0, 2), st.integers(0, 40)), st.just((0, 0)))
events: st.SearchStrategy[list[Sight]] = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 5, 40]), st.lists(keys, max_size=3)), max_size=40
)
cuts = st.lists(st.integers(0, 40), max_size=4)


def columns(told: list[Sight], before: int = 0) -> tuple[Keys, Ints]:
    times = before + np.cumsum([after for after, _ in told], dtype=np.int64)
    width = max((len(of) for _, of in told), default=0)
    padded = [[*of, *[(0, 0)] * (width - len(of))] for _, of in told]
    return np.array(padded, np.uint64).reshape(len(told), width, 2), times


def judged(seen: Seen, told: list[Sight], places: list[int]) -> list[bool]:
    found: list[bool] = []
    now = 0
    bounds = [0, *sorted(min(place, len(told)) for place in places), len(told)]
    for low, high in pairwise(bounds):
        hashes, times = columns(told[low:high], now)
        found += seen.repeats(hashes, times).tolist()
        now = int(times[-1]) if len(times) else now
    return found


@given(events, cuts, st.integers(0, 60), st.integers(1, 30))
@example([(0, [(1, 7), (2, 7)]), (0, [(2, 7)]), (50, [(3, 7)]), (0, [(2, 7)])], [], 40, 2)
def test_it_equals_a_list_of_sights_for_any_keys_and_any_cut(
    told: list[Sight], places: list[int], horizon: int, most: int
) -> None:
    plain = Remembered(horizon, most)
    now = 0
    expected = []
    for after, of in told:
        now += after
        expected.append(plain.repeats(of, now))
    assert judged(Seen(horizon, most), told, places) == expected


@given(events, st.integers(1, 8))
def test_a_ring_that_goes_round_and_a_table_with_holes_find_every_key(told: list[Sight], most: int) -> None:
    memory, plain = ring(8), Remembered(10**9, most)
    now = 0
    for after, of in told:
        now += after
        hashes, _ = columns([(0, of)])
        repeat = np.zeros(1, np.bool_)
        see(memory, most, hashes, np.array([now], np.int64), 10**9, repeat)
        assert bool(repeat[0]) == plain.repeats(of, now)
        assert int(memory.use[1]) == len(plain.sights)
        known = {key for key, _ in plain.sights}
        in_table = [int(i) for i in memory.place if i >= 0]
        assert {tuple(memory.key[i].tolist()) for i in in_table} == known
        assert len(in_table) == len(known), "each key has one slot, that of its last sight"
    forget_older(memory, now + 1)
    assert (memory.place == -1).all() and int(memory.use[1]) == 0


def test_a_key_that_was_seen_again_outlives_its_first_sight() -> None:
    seen = Seen(10, 100)
    one = hashed(["a"])[:, None]
    assert [bool(seen.repeats(one, np.array([at]))[0]) for at in (0, 8, 16, 27)] == [False, True, True, False]


def test_two_keys_of_one_event_that_are_equal_make_no_repeat() -> None:
    assert not Seen(10, 100).repeats(keys_of([("a", "a")]), np.zeros(1, np.int64))[0]


@pytest.mark.parametrize("most", [1_024, 3_000, 100_000])
def test_a_full_memory_takes_at_most_64_bytes_a_key(most: int) -> None:
    seen = Seen(10**9, most)
    rng = np.random.default_rng(1)
    for start in range(0, 2 * most, 1_000):
        fresh = rng.integers(1, 1 << 63, (1_000, 1, 2), np.uint64, endpoint=True)
        assert not seen.repeats(fresh, np.full(1_000, start, np.int64)).any()
    assert len(seen) == most and seen.full
    assert seen.nbytes <= 64 * most
    assert seen.oldest is not None and seen.oldest >= most - 1_000


def test_hashes_are_those_of_the_texts_and_nothing_else() -> None:
    found = keys_of([("span:a/b", "call:c"), (), ("call:c",)])
    assert found.shape == (3, 2, 2)
    assert found[0, 1].tolist() == found[2, 0].tolist() != found[0, 0].tolist()
    assert not found[1].any() and not found[2, 1].any()
    assert keys_of([]).shape == (0, 0, 2) and keys_of([(), ()]).shape == (2, 0, 2)
    assert hashed(["\ud800"]).shape == (1, 2)


def test_the_loops_also_run_uncompiled() -> None:
    told = "Seen(5, 2).repeats(keys_of([('a',), ('b',), ('a', 'c'), ('b',)]), np.arange(4)).tolist()"
    code = f"import numpy as np\nfrom operators.decode.seen import Seen, keys_of\nprint({told})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "[False, False, True, False]", done.stderr
