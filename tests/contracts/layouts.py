"""The layout of states: their types, keys, lengths and arrays, without their values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

PINS = Path(__file__).with_name("pins.json")
"""The digest of each layout, by name and version. A released line is never changed."""

NOTHING = "nothing"
"""Marks a place that is empty in all samples, so that its layout is unknown."""


def layout(samples: Sequence[object], apart: Mapping[str, str] | None = None) -> tuple[str, dict[str, list[object]]]:
    """The common layout of these samples of one state, and the samples of the states inside it.

    A tuple is a sequence if its length differs between samples, else a record. A dict is a map if its values are plain
    and its keys differ between samples, else a record. Pairs with the same names in all samples are a record too.
    `apart` maps paths such as "9.*.1" to the names of parts that appear in the layout by name alone: inner states with
    a version of their own, and parts that occur in several places.
    """
    inside: dict[str, list[object]] = {}
    return _layout(list(samples), "", apart or {}, inside), inside


def _layout(samples: list[Any], path: str, apart: Mapping[str, str], inside: dict[str, list[object]]) -> str:
    def at(part: object, among: list[Any]) -> str:
        return _layout(among, f"{path}.{part}".lstrip("."), apart, inside)

    kinds: set[str] = set()
    for name in (name for pattern, name in apart.items() if samples and fnmatch(path, pattern)):
        inside.setdefault(name, []).extend(s for s in samples if s is not None)
        kinds, samples = {f"<{name}>"}, [s for s in samples if s is None]
    kinds |= {_kind(s) for s in samples if not isinstance(s, tuple | list | dict) or is_packed(s)}
    tuples = [s for s in samples if isinstance(s, tuple) and not is_packed(s)]
    lists = [s for s in samples if isinstance(s, list)]
    dicts = [s for s in samples if isinstance(s, dict)]
    if not any(tuples) and tuples:
        kinds.add(f"({NOTHING}, ...)")
    elif len(pairs := {_names(s) for s in tuples}) == 1 and (names := pairs.pop()):
        kinds.add(f"({', '.join(f'{n!r}: {at(n, [dict(s)[n] for s in tuples])}' for n in names)})")
    elif len({*map(len, tuples)}) == 1:
        kinds.add(f"({', '.join(at(i, list(column)) for i, column in enumerate(zip(*tuples, strict=True)))})")
    elif tuples:
        kinds.add(f"({at('*', [element for s in tuples for element in s])}, ...)")
    if lists:
        kinds.add(f"[{at('*', [element for s in lists for element in s])}]")
    keys = sorted({key for s in dicts for key in s})
    values = [value for s in dicts for value in s.values()]
    if any(len(s) < len(keys) for s in dicts) and all(isinstance(value, str | int | float) for value in values):
        kinds.add(f"{{{at('*', list(keys))}: {at('*', values)}}}")
    elif dicts:
        kinds.add(f"{{{', '.join(f'{key!r}: {at(key, [s[key] for s in dicts if key in s])}' for key in keys)}}}")
    return " | ".join(sorted(kinds)) or NOTHING


def _names(value: tuple[Any, ...]) -> tuple[str, ...]:
    """The names of a tuple of (name, value) pairs; empty for any other tuple."""
    pairs = all(isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in value)
    return tuple(pair[0] for pair in value) if pairs else ()


def is_packed(value: object) -> bool:
    """Whether this is an array packed by `operators.detect.slots.packed`."""
    match value:
        case ((*shape,), bool() | int() | float(), np.ndarray() as bits, np.ndarray()):
            return bits.dtype == np.uint8 and all(isinstance(n, int) for n in shape)
    return False


def _kind(value: Any) -> str:
    """The type of a value; of an array also its axes, without the length of the first, which counts series or rows."""
    if is_packed(value):
        shape, *_, others = value
        return f"packed {others.dtype}{_axes(shape)}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{_axes(value.shape)}"
    return type(value).__name__


def _axes(shape: Sequence[int]) -> str:
    return f"[{', '.join(['*', *map(str, shape[1:])])}]"


def digest(text: str) -> str:
    """The digest of a layout, short enough for a line of the pins."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def fault(
    what: str, name: str, text: str, version: int | str, raise_it: str, pins: Mapping[str, Mapping[str, str]]
) -> str | None:
    """One sentence on how to mend a layout that differs from the pin of its version; None if it does not differ.

    `what` begins the sentence; `raise_it` names the place of the version and the other work that a new one needs.
    """
    new = digest(text)
    known = pins.get(name, {})
    pinned = known.get(str(version))
    if pinned == new:
        return None
    if pinned is None:
        return f'{what} has version {version} without a pin: put "{version}": "{new}" under "{name}" into {_FILE}'
    following = version + 1 if isinstance(version, int) else "<the new one>"
    return (
        f"{what} has changed but its version is still {version}: {raise_it}, and put "
        f'"{following}": "{new}" under "{name}" into {_FILE}'
    )


def read_pins() -> dict[str, dict[str, str]]:
    """The pins by name and version."""
    found: dict[str, dict[str, str]] = json.loads(PINS.read_text())
    return found


_FILE = "tests/contracts/pins.json"
