"""What the log says once of records: their format where it was found out, and attributes that nobody reads."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Final

from operators.decode.intake import Batch
from operators.text import printable

log = logging.getLogger(__name__)

MOST: Final = 20
"""Most attributes that are named."""


@dataclass(slots=True)
class Novelties:
    """The formats and the unknown attributes that were told of; each is told once a process."""

    _formats: set[str] = field(default_factory=set)
    _unknown: set[str] = field(default_factory=set)

    def see(self, batch: Batch) -> None:
        """Tell what this batch has that none before it had."""
        for name in sorted(batch.formats):
            if name not in self._formats:
                self._formats.add(name)
                level = logging.DEBUG if name == "native" else logging.INFO
                log.log(level, "records of the format %s come, first in source partition %s", name, batch.partition)
        for name in sorted(batch.unknown):
            if name not in self._unknown and len(self._unknown) < MOST:
                self._unknown.add(name)
                log.warning(
                    "calls carry %s, which looks like usage and which no convention reads: if it tells a field, name "
                    "it in decode.attributes", printable(name),
                )  # fmt: skip
