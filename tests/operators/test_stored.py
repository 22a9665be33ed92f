"""States in the recovery store: they come back as they were, damaged ones are refused, older ones still load."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zstandard

from operators.errors import ConfigError, FatalError
from operators.stored import FORM, UNCHECKED, restored, stored, verify

STATE = (3, ["ab", b"c"], {"k": 0.5}, None, tuple(range(300)))


def test_a_state_comes_back_as_it_was_stored_in_less_room() -> None:
    form, data = stored((1, ["ab", b"c"], {"k": np.zeros((300, 4))}, None))
    version, texts, arrays, nothing = restored((form, data), "it")
    assert (version, texts, nothing) == (1, ["ab", b"c"], None)
    assert isinstance(arrays, dict)
    assert arrays["k"].tolist() == np.zeros((300, 4)).tolist()
    assert len(data) < 1_000


def test_states_of_earlier_releases_still_load() -> None:
    packed = zstandard.compress(pickle.dumps(STATE, 5))
    assert restored((UNCHECKED, packed), "it") == STATE
    assert restored(STATE, "it") == STATE
    for older in [(UNCHECKED, packed), STATE]:
        verify(older, "it")


@pytest.mark.parametrize("held", [("pickle 5", b""), (FORM, "text"), ("pickle 6, zstd", b"", 1)])
def test_a_form_of_another_release_is_refused(held: tuple[object, ...]) -> None:
    with pytest.raises(
        FatalError, match=r"the state of it in the snapshot is stored as .*; this release reads 'blake2b"
    ):
        restored(held, "it")


class Loaded(Exception):
    """A damaged pickle was loaded."""


def make() -> None:
    raise Loaded


class Trap:
    def __reduce__(self) -> tuple[object, ...]:
        return make, ()


def test_nothing_is_unpickled_before_the_digest_holds() -> None:
    packed = zstandard.compress(pickle.dumps(Trap()))
    with pytest.raises(ConfigError, match=r"the state of it in the recovery store is damaged .* Restore"):
        restored((FORM, bytes(16) + packed), "it")


@pytest.mark.parametrize("bit", range(0, 8 * 60, 7))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    form, data = stored(STATE)
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    for refuses in (restored, verify):
        with pytest.raises(ConfigError, match="is damaged"):
            refuses((form, bytes(damaged)), "it")
