"""The form of a state in the recovery store: pickled, compressed, and behind a digest that shows damage.

Every stateful step, source partition and sink partition stores its state by `stored`. A state is unpickled only after
its digest was found right, unless an earlier release stored it without one.
"""

from __future__ import annotations

import pickle
from hashlib import blake2b
from typing import Final, NoReturn

import zstandard

from operators.errors import ConfigError, FatalError

State = tuple[object, ...]
Stored = tuple[str, bytes]
"""A state as the recovery store holds it: `FORM` and the bytes."""

FORM: Final = "blake2b, zstd, pickle 5"
DIGEST_BYTES: Final = 16
UNCHECKED: Final = "pickle 5, zstd"
"""The form of earlier releases, without a digest; their sources and sinks stored states as they were."""


def stored(state: State) -> Stored:
    """A state for the recovery store, half to a quarter of its size: compressing costs less than writing the rest."""
    packed = zstandard.compress(pickle.dumps(state, 5), level=1)
    return FORM, _digest(packed) + packed


def restored(held: State, owner: str) -> State:
    """The state that `stored` was given; `owner` is the step or partition that it belongs to, for messages.

    Raises `ConfigError` if the digest does not hold, `FatalError` for a form that this release does not read.
    """
    match held:
        case (str(form), bytes(data)) if form == FORM:
            packed = _checked(data, owner)
        case (str(form), bytes(packed)) if form == UNCHECKED:
            pass
        case (int(), *_):
            return held
        case _:
            raise FatalError(
                f"the state of {owner} in the snapshot is stored as {held[0]!r}; this release reads {FORM!r}: "
                "go on with the release that made it, or give -r a new folder"
            )
    state: State = pickle.loads(zstandard.decompress(packed))  # noqa: S301 - out of the store of this flow
    return state


def verify(held: object, owner: str) -> None:
    """Check the digest if `stored` gave this. Raises `ConfigError` if it does not hold."""
    match held:
        case (str(form), bytes(data)) if form == FORM:
            _checked(data, owner)


def refuse(owner: str) -> NoReturn:
    """Raise `ConfigError`, since this state is damaged."""
    raise ConfigError(
        f"the state of {owner} in the recovery store is damaged (its checksum does not hold): the disk or a copy has "
        "changed it. Restore the recovery folders of all processes from one copy, or give -r a new folder to start over"
    )


def _digest(packed: bytes) -> bytes:
    return blake2b(packed, digest_size=DIGEST_BYTES).digest()


def _checked(data: bytes, owner: str) -> bytes:
    digest, packed = data[:DIGEST_BYTES], data[DIGEST_BYTES:]
    if _digest(packed) != digest:
        refuse(owner)
    return packed
