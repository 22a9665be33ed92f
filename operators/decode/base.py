"""The contract of a decoder: records in, columns and faults out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from operators.config import DecodeConfig
from operators.model import Events


@dataclass(frozen=True, slots=True)
class Fault:
    """One record that could not be used.

    `record` is its index among the decoded values, `reason` one of `operators.model.Reason`. `detail` and `payload`
    show known fields that cannot hold content, and the type and size of all else.
    """

    record: int
    reason: str
    detail: str
    payload: str


@dataclass(slots=True)
class Decoded:
    """The events and faults of a sequence of records, both in the order of the records."""

    events: Events
    faults: list[Fault]


class Decoder(Protocol):
    """One format of records. Holds no state between calls, so it does not matter how records are split into calls.

    Every record is either one fault or all of its events (one or more; exactly one in formats that hold one a record).
    No record makes it raise. Prompts, completions and other content are neither in events nor in faults.
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
