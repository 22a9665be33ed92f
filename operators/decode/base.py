"""The contracts of decoding: a decoder makes columns of records, a format makes native events of one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from operators.decode.config import DecodeConfig
from operators.model import Events

MAX_SENT: Final = 200


@dataclass(frozen=True, slots=True)
class Fault:
    """One record that could not be used, or one call in it.

    `record` is the index of the record among the decoded values, `call` the place of the call in the record, 0 for a
    record as a whole. `reason` is one of `operators.model.Reason`. `detail` and `payload` show known fields that cannot
    hold content, and the type and size of all else.
    """

    record: int
    reason: str
    detail: str
    payload: str
    call: int = 0


@dataclass(slots=True)
class Decoded:
    """The events and faults of a sequence of records, both in the order of the records.

    `repeats` counts calls that a record tells more than once. `passed_over` counts what tells of no call by what it is:
    `no_call` (spans of agents and tools, other logs), `metric`, `cache_hit` (no call reached a provider),
    `stream_opening`. `formats` counts the records by their format where that was found out. `unknown` counts
    attributes of calls by name that look like usage and that no convention knows.
    """

    events: Events
    faults: list[Fault]
    repeats: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


class Decoder(Protocol):
    """One format of records. Holds no state between calls, so it does not matter how records are split into calls.

    Every record is one fault, or each call in it is an event or a fault (exactly one in formats that hold one a
    record). No record makes it raise. Prompts, completions and other content are neither in events nor in faults.
    """

    def decode(
        self,
        values: Sequence[bytes],
        limits: DecodeConfig,
        timestamp_is: Literal["start", "end"] = "start",
    ) -> Decoded:
        """The events and faults of these records.

        `Events.record` and `Fault.record` index `values`. `tokens_per_second` is left to `operators.enrich`.
        """
        ...


class Unreadable(Exception):
    """A record that is not of its format, or that tells its calls in no usable way: it becomes one dead letter.

    `reason` is one of `operators.model.Reason`; `detail` holds no content.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Call:
    """One call that a record tells of.

    `fields` is the native event (`docs/formats.md`) as plain values; a field that is not told is left out or None, and
    is never made up. Values are not checked here: a wrong one makes this call a dead letter. `found` says where each
    field stood in the record. `keys` are texts by which the same call is known again, each with its kind in front:
    `span:<trace id>/<span id>`, `call:<id>`, and those of `operators.decode.seen.response_keys`. `originals` has, by
    field, the first `MAX_SENT` characters of what was sent where a word of the vocabulary stands for it; only people
    who look at payloads see it.
    """

    fields: dict[str, Any]
    found: dict[str, str] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    originals: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Reading:
    """What one record tells: its calls in their order, and the counts of `Decoded`."""

    calls: list[Call]
    repeats: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


def add_counts(to: dict[str, int], more: Mapping[str, int]) -> None:
    """Add counts by name to others, in place."""
    for name, count in more.items():
        to[name] = to.get(name, 0) + count


class Format(Protocol):
    """A format whose records are translated to native events."""

    def read(self, value: bytes, limits: DecodeConfig) -> Reading:
        """The calls of one record; raises `Unreadable`, and nothing else."""
        ...


class Recognizable(Format, Protocol):
    """A format in JSON whose records can be told from all others."""

    def looks_like(self, record: object) -> bool:
        """Whether a parsed JSON value has names that only this format has."""
        ...
