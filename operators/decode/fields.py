"""The fields of a call as a format gathers them from a parsed JSON record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import orjson

from operators.decode import vocabulary
from operators.decode.base import MAX_SENT, Call, Reading, Unreadable, add_counts
from operators.decode.paths import Path, at, steps
from operators.decode.times import EARLIEST, LATEST, BadTime, parse_time
from operators.decode.translate import MAX_CALLS
from operators.decode.values import is_number, told
from operators.model import SECOND, Reason

TOKENS: Final = ("prompt_tokens", "completion_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
_OF_PROMPT: Final = ("prompt_tokens", "cached_tokens", "cache_write_tokens")

_TRANSLATED: Final = ("provider", "error_type", "finish_reason")

_FIRST: Final = EARLIEST / SECOND
_LAST: Final = LATEST / SECOND - 1  # a time just before the end may be rounded up to it


def parsed(value: bytes) -> object:
    """The JSON object or array of a record; raises `Unreadable` for all else."""
    try:
        found: object = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        what = f"{error.msg} (byte {error.pos})" if value.strip() else "the record is empty"
        raise Unreadable(Reason.NOT_JSON, what) from None
    if not isinstance(found, dict | list):
        raise Unreadable(Reason.NOT_AN_OBJECT, "must be a JSON object, or an array of objects")
    return found


def items(found: object) -> list[Any]:
    """The elements of an array, or the one object; raises `Unreadable` for more than `MAX_CALLS`."""
    each = found if isinstance(found, list) else [found]
    at_most(len(each))
    return each


def at_most(calls: int) -> None:
    """Raises `Unreadable` for more calls than `MAX_CALLS`."""
    if calls > MAX_CALLS:
        raise Unreadable(Reason.TOO_MANY_CALLS, f"the record has {calls} calls; at most {MAX_CALLS} are accepted")


def text(value: object) -> str:
    """A text or a number as text; "" for every other value, which may hold content."""
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else ""


def elapsed_ms(start: object, end: object) -> float | str | None:
    """The milliseconds from start to end, negative if the end is first; None if one is absent.

    A value that is no time gives a text, which is no latency: it makes the call a dead letter.
    """
    if start is None or end is None:
        return None
    try:
        return (_micros(end) - _micros(start)) / 1_000
    except BadTime:
        return "no time"


def _micros(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise BadTime("no time")
    if isinstance(value, float) and _FIRST <= value < _LAST:
        return round(value * SECOND)  # the same as below, without its columns
    return parse_time(value)


class Source(NamedTuple):
    """The places where a field may stand, each with its name, and how its value is read.

    Where `read` gives None, the next place is tried.
    """

    places: tuple[tuple[Path, str], ...]
    read: Callable[[Any], Any] | None


def source(*paths: str, read: Callable[[Any], Any] | None = None) -> Source:
    """The source of these paths."""
    return Source(tuple((steps(path), path) for path in paths), read)


def key(*names: str, read: Callable[[Any], Any] | None = None) -> Source:
    """The source of these keys, dots and all."""
    return Source(tuple(((name,), name) for name in names), read)


class Gathered:
    """The native event of one call, with the place where each field stood.

    `absent`: texts that say that there is none, beside those of all formats.
    """

    __slots__ = ("absent", "fields", "found", "originals")

    def __init__(self, absent: tuple[str, ...] = ()) -> None:
        self.absent = absent
        self.fields: dict[str, Any] = {}
        self.found: dict[str, str] = {}
        self.originals: dict[str, str] = {}

    def take(self, name: str, record: object, where: Source, under: str = "") -> Any:
        """Fill a field from the first of its places that is there, if it is still open; gives its value.

        `under` is where the record stands in a larger one.
        """
        for path, place in where.places:
            if name in self.fields:
                break
            self.put(name, at(record, path), under + place, where.read)
        return self.fields.get(name)

    def put(self, name: str, value: Any, place: str, read: Callable[[Any], Any] | None = None) -> None:
        """Fill a field with a value that stood at this place, unless the value says that there is none."""
        if not told(value) or (isinstance(value, str) and value in self.absent):
            return
        field = value if read is None else read(value)
        if field is None:
            return
        self.fields[name] = field
        self.found[name] = place
        self.originals.pop(name, None)
        if name in _TRANSLATED and field != value:
            self.originals[name] = text(value)[:MAX_SENT]

    def drop(self, *names: str) -> None:
        """Leave these fields unknown."""
        for name in names:
            self.fields.pop(name, None)
            self.found.pop(name, None)

    def include_cache(self, total: Any, whole: Any = None) -> None:
        """Count the cache into a prompt without it: the cache is more, or the total or another count proves it."""
        counts = (self.fields.get(name, 0) for name in TOKENS)
        prompt, completion, read, written, _ = (count if is_number(count) else 0 for count in counts)
        cache = read + written
        if cache and prompt and (read > prompt or whole == prompt + cache or total == prompt + completion + cache):
            self.fields["prompt_tokens"] = prompt + cache

    def drop_zeros(self) -> None:
        """Leave the counts of 0 unknown that nobody counted."""
        self.drop(*uncounted(self.fields, str(self.fields.get("operation"))))

    def drop_no_price(self) -> None:
        """Leave a cost of 0 beside counted tokens unknown: the sender has no price for the model."""
        if self.fields.get("cost_usd") == 0 and any(name in self.fields for name in TOKENS):
            self.drop("cost_usd")

    def call(self, *keys: str) -> Call:
        """The call, known again by these keys."""
        return Call(self.fields, self.found, keys, self.originals)


def uncounted(counts: Mapping[str, Any], operation: str) -> list[str]:
    """The names of the counts of 0 that stand for what nobody counted.

    Every input has some tokens: where those of the prompt are 0 or not told, its parts were not counted either, and
    nothing was where the completion has none too. Embeddings and rerankings complete nothing: their 0 is no count.
    """
    names: tuple[str, ...] = ("completion_tokens",) if operation in vocabulary.COMPLETE_NOTHING else ()
    if not counts.get("prompt_tokens"):
        names += _OF_PROMPT if counts.get("completion_tokens") else TOKENS
    return [name for name in names if counts.get(name) == 0]


def words(translate: Callable[[str], str]) -> Callable[[Any], Any]:
    """The reading of a text by this translation, and of any other value as it is."""
    return lambda value: translate(value) if isinstance(value, str) else value


def once(told_of: Iterable[Call | str]) -> Reading:
    """The reading of one record, from its calls and the names of what is passed over.

    A call that shares a key with one before it is a repeat.
    """
    reading = Reading([])
    seen: set[str] = set()
    for call in told_of:
        if isinstance(call, str):
            add_counts(reading.passed_over, {call: 1})
            continue
        if seen.isdisjoint(call.keys):
            reading.calls.append(call)
        else:
            reading.repeats += 1
        seen.update(call.keys)
    return reading
