"""The files that are decoded: which records they hold, and what becomes of each call in them."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import numpy as np
import orjson
import zstandard

from operators.decode.base import Call, Format, Unreadable, add_counts
from operators.decode.config import DecodeConfig
from operators.decode.mapped import MappedFormat
from operators.decode.mapping import MappingConfig
from operators.decode.privacy import make_private, rules
from operators.decode.record import MeasuredRecord
from operators.decode.registry import AUTO, BINARY, FORMATS, MAPPED, NATIVE
from operators.decode.seen import Seen, keys_of
from operators.decode.times import format_time
from operators.decode.translate import native_json, read
from operators.errors import ConfigError
from operators.model import SECOND

_NATIVE_FIELDS: Final = frozenset(MeasuredRecord.__struct_fields__) - {"attributes"}
"""What is shown of a native record: its attributes may hold prompts."""
_OPENERS: Final[dict[str, Callable[[BinaryIO], BinaryIO]]] = {
    ".gz": lambda raw: cast(BinaryIO, gzip.GzipFile(fileobj=raw)),
    ".zst": lambda raw: io.BufferedReader(
        cast(io.RawIOBase, zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    ),
}


@dataclass(slots=True)
class Outcome:
    """What the flow makes of one file, taken as a partition of its own.

    `found` has, for each event, where each of its fields stood in the payload; `unknown` counts attributes that look
    like usage and that no convention knows.
    """

    file: str
    events: list[dict[str, Any]] = field(default_factory=list)
    found: list[dict[str, str]] = field(default_factory=list)
    duplicates: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    dead_letters: list[dict[str, str]] = field(default_factory=list)
    formats: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> bytes:
        """The outcome as one line of JSON."""
        return orjson.dumps(
            {
                "file": self.file,
                "events": self.events,
                "duplicates": self.duplicates,
                "passed_over": sum(self.passed_over.values()),
                "dead_letters": self.dead_letters,
            }
        )


def decode_file(path: Path, asked: str, mapping: MappingConfig | None, limits: DecodeConfig) -> Outcome:
    """What the flow makes of a file whose records have the format that was asked for.

    Raises `ConfigError` if the file cannot be read, or if the format needs a mapping and there is none.
    """
    if asked == MAPPED and mapping is None:
        raise ConfigError(f"the format {MAPPED} needs a mapping: set source.mapping (docs/formats.md)")
    formats = dict(FORMATS) if mapping is None else {**FORMATS, MAPPED: MappedFormat(mapping)}
    partition = _Partition(str(path), formats, limits)
    for value in records(path, limits.max_record_bytes):
        partition.take(value, _format_of(value, path, asked, mapping is not None, limits))
    return partition.outcome


def records(path: Path, most: int) -> Iterator[bytes]:
    """The records of a file: a line each if its name ends in .jsonl or .ndjson, else the whole; raises `ConfigError`.

    Of a record with more than `most` bytes only one byte more is given.
    """
    try:
        with path.open("rb") as raw:
            opener = _OPENERS.get(path.suffix)
            opened = raw if opener is None else opener(raw)
            if _name(path).endswith((".jsonl", ".ndjson")):
                yield from _lines(opened, most)
            else:
                yield opened.read(most + 1)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path} cannot be read: {why}") from error


def _name(path: Path) -> str:
    return path.stem if path.suffix in _OPENERS else path.name


def _lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    line = b""
    while chunk := file.readline(most + 1):
        line = line[: most + 1] + chunk
        if not chunk.endswith(b"\n"):
            continue
        if line.strip():
            yield line.rstrip(b"\r\n")
        line = b""
    if line.strip():
        yield line


def _format_of(value: bytes, path: Path, asked: str, mapped: bool, limits: DecodeConfig) -> str:
    """The format of a record: as it was asked for, else by the name of the file and the record itself."""
    if asked != "auto":
        return asked
    if _name(path).endswith((".bin", ".pb", ".binpb")):
        return BINARY
    found = AUTO.found(value, limits)
    if found is None and mapped and NATIVE.decode([value], limits).faults:
        found = MAPPED
    return found or "native"


class _Partition:
    """A file as a source partition of its own, which remembers the calls that it has told."""

    def __init__(self, name: str, formats: Mapping[str, Format], limits: DecodeConfig) -> None:
        self.outcome = Outcome(name)
        self._formats = formats
        self._limits = limits
        self._seen = Seen(round(limits.dedupe_s * SECOND), limits.dedupe_max_ids) if limits.dedupe_s else None
        self._running = np.zeros(1, np.int64)  # the highest start so far

    def take(self, value: bytes, name: str) -> None:
        """Decode the next record, which is of this format."""
        outcome = self.outcome
        add_counts(outcome.formats, {name: 1})
        if name == "native":
            self._add(value, _native(value))
            return
        try:
            reading = read(self._formats[name], value, self._limits)
        except Unreadable as error:
            outcome.dead_letters.append({"reason": error.reason, "detail": error.detail})
            return
        outcome.duplicates += reading.repeats
        add_counts(outcome.passed_over, reading.passed_over)
        add_counts(outcome.unknown, reading.unknown)
        for call in reading.calls:
            self._add(native_json(call.fields), call)

    def _add(self, record: bytes, call: Call) -> None:
        """Judge one call as the flow does: dead letter, duplicate, or event."""
        decoded = NATIVE.decode([record], self._limits)
        if decoded.faults:
            self.outcome.dead_letters += [{"reason": f.reason, "detail": f.detail} for f in decoded.faults]
            return
        self._running = np.maximum(self._running, decoded.events.start)
        if self._seen is not None and self._seen.repeats(keys_of([call.keys]), self._running)[0]:
            self.outcome.duplicates += 1
            return
        fields = {name: told for name, told in call.fields.items() if told is not None}
        fields["timestamp"] = format_time(int(decoded.events.start[0]))
        make_private(self._limits.privacy, fields)
        private = rules(self._limits.privacy)
        as_sent = {call.found[name]: sent for name, sent in call.originals.items() if name not in private}
        if as_sent:
            fields["attributes"] = as_sent
        self.outcome.events.append(fields)
        self.outcome.found.append(call.found)


def _native(value: bytes) -> Call:
    """A native record as a call; one without fields if it is none."""
    try:
        fields = orjson.loads(value)
    except orjson.JSONDecodeError:
        return Call({})
    fields = fields if isinstance(fields, dict) else {}
    known = {name: told for name, told in fields.items() if name in _NATIVE_FIELDS and told is not None}
    event_id = known.get("event_id")
    return Call(known, {name: name for name in known}, (event_id,) if isinstance(event_id, str) and event_id else ())
