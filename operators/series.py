"""A series' name: one value of a dimension set, as canonical text.

`service=chat-api,model=gpt-4o` names the dimensions of the set, in its order, with their values. The text is the key of
the series everywhere: in panes, in state, in the store. `%`, `,`, `=` and control characters in a value are
percent-encoded, so different values never give the same text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote

OTHER = "__other__"
"""The value of every dimension of an overflow series."""

_ESCAPED = {ord(c): f"%{ord(c):02X}" for c in [*map(chr, range(32)), "%", ",", "=", "\x7f"]}


def text(dimensions: Sequence[str], values: Sequence[str]) -> str:
    """The canonical text of the series of a dimension set with these values."""
    return ",".join(f"{d}={v.translate(_ESCAPED)}" for d, v in zip(dimensions, values, strict=True))


def sent(value: str) -> str:
    """The value of a label as it was sent; one that reads like that of an overflow series gets a `~` before it.

    Different values stay different.
    """
    return f"~{value}" if OTHER in value and value.lstrip("~").startswith(OTHER) else value


def parse(series: str) -> dict[str, str]:
    """The dimensions and values that `text` was made of, in order."""
    return {d: unquote(v) for d, v in (part.split("=", 1) for part in series.split(","))}


def dimension_set(series: str) -> str:
    """The names of the series' dimensions, comma separated: `service,model`."""
    return ",".join(part.split("=", 1)[0] for part in series.split(","))


def overflow(dimensions: Sequence[str], shard: int | None = None) -> str:
    """The overflow series of the dimension set, for the requests of series that are not admitted.

    Each shard admits by itself; with its number the series is its own (`service=__other__.7`), so that two shards never
    give rows of the same key.
    """
    return text(dimensions, [OTHER if shard is None else f"{OTHER}.{shard}"] * len(dimensions))


@lru_cache(maxsize=1 << 17)
def rank(series: str) -> int:
    """A fixed 64-bit hash: the same in every process, version and run. Orders admission and chooses the shard."""
    return int.from_bytes(hashlib.blake2b(series.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def shard_of(series: str, shards: int) -> int:
    """The shard that owns the series, in range(shards)."""
    return rank(series) % shards
