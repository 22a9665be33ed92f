"""Paths to values in parsed JSON: `usage.input`, `calls[0].model`, `attributes."llm.model"`."""

from __future__ import annotations

import re
from typing import Any, Final

Path = tuple[str, ...]

_STEP: Final = re.compile(r'(?:^|\.)(?:"((?:[^"\\]|\\.)+)"|([^."\[\]^\\]+))|\[(\d{1,5})\]')
_ESCAPED: Final = re.compile(r"\\(.)")
_INDEX: Final = re.compile(r"\d{1,5}", re.ASCII)


def steps(path: str) -> Path:
    """The keys and indexes of a path; raises `ValueError`."""
    found: list[str] = []
    at = 0
    while at < len(path) or not found:
        step = _STEP.match(path, at) if path[:1] != "." else None
        if step is None:
            raise ValueError(
                "is no path: put dots between keys, quote a key that has dots of its own as in "
                'attributes."llm.model", and write an index as [0]'
            )
        quoted, plain, index = step.groups()
        found.append(_ESCAPED.sub(r"\1", quoted) if quoted is not None else plain or index)
        at = step.end()
    return tuple(found)


def whence(path: str) -> tuple[bool, Path]:
    """Whether a path begins at the record (`^.`) rather than at the call, and its steps; raises `ValueError`."""
    from_record = path.startswith(("^.", "^["))
    return from_record, steps(path[1:].removeprefix(".") if from_record else path)


def at(record: object, path: Path) -> Any:
    """The value at a path of keys and indexes; None if it is not there."""
    for step in path:
        if isinstance(record, dict):
            record = record.get(step)
        elif isinstance(record, list) and _INDEX.fullmatch(step) and int(step) < len(record):
            record = record[int(step)]
        else:
            return None
    return record
