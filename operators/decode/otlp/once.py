"""Each call once: which of the spans of one record count, and what those that do not count add to them.

A framework, an instrumentation and the client below it may each write a span of the same call. The innermost one
counts, since its time is the call's own. What it lacks is taken from the others:

- A span above a call in its trace tells of the same call if it is a call of the same kind, unless a span of an agent, a
  tool or a workflow stands between them: then both are calls.
- Spans with the same response id or call id that overlap tell of one call, in whatever trace. The innermost of them is
  the shortest.
- Spans of one trace with the same name, start and end are one span that was written twice.
- A span of another library in the same process, inside this one in time, tells of the same call if it tells the same.
- logfire tells of a stream in a span for its opening, and in another one of no length at its end, with its duration.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from operators.decode.fields import TOKENS
from operators.decode.otlp.calls import Told
from operators.decode.otlp.roles import EMBEDDINGS
from operators.decode.otlp.signals import Span
from operators.decode.resolve import Conventions, Found
from operators.decode.values import is_number, number, text
from operators.decode.vocabulary import COMPLETE_NOTHING

Spans = Mapping[tuple[str, str], tuple[Span, str | None]]
"""All spans of a record by trace id and span id, and the operation of each, see `roles.operation`."""

_OWN: Final = frozenset(
    {"timestamp", "latency_ms", "ttft_ms", "span_id", "trace_id", "status", "error_type", "operation"}
)
"""What the span that counts tells alone."""

_ABOVE: Final = ("agent", "session_id", "user", "tenant", "service")
"""What any span above a call may tell for all calls below it."""

_USAGE: Final = frozenset({*TOKENS, "cost_usd"})
_PARTS: Final = ("cached_tokens", "cache_write_tokens", "reasoning_tokens")
_MS: Final = 1_000_000
_DAY: Final = 86_400  # seconds
_HIGHEST: Final = 64
"""Most spans above a call that are looked at. A trace made to hurt has ten thousand."""
_NEAR: Final = 32
"""Most spans that are held against one of another library, those that start next after it."""


def counted(told: Sequence[Told], spans: Spans, conventions: Conventions) -> list[Told]:
    """Those of the calls that count, completed, in the order given; each has another trace id and span id."""
    by_id = {(t.span.trace_id, t.span.span_id): t for t in told}
    for t in told:
        for span, operation in _up(t.span, spans):
            above = by_id.get((span.trace_id, span.span_id))
            if above is not None and _kind(above) == _kind(t):
                _drop(above, t)
            elif operation == "":
                break
    for alike in _alike(_left(told)):
        inmost = min(alike, key=lambda t: (_length(t), -t.span.start))
        for t in alike:
            if t is not inmost:
                _drop(t, inmost)
    for outer, inmost in _nested(_left(told)):
        if not inmost.within:
            _drop(outer, inmost)
    _close_streams(_left(told))
    left = _left(told)
    asked = _Above(conventions)
    for t in left:
        for outer in t.outer:
            _complete(t, outer, alone=outer.within == 1)
        _inherit(t, spans, asked)
    return left


def _drop(outer: Told, inmost: Told) -> None:
    """Let the inmost count in place of the outer one."""
    outer.within += 1
    inmost.outer.append(outer)


def _left(told: Sequence[Told]) -> list[Told]:
    """Those that no other call counts in place of."""
    return [t for t in told if not t.within]


def _up(span: Span, spans: Spans) -> Iterator[tuple[Span, str | None]]:
    """The spans above this one, as far as the record has them, the nearest first."""
    been = {span.span_id}
    while span.parent_id and span.parent_id not in been and len(been) <= _HIGHEST:
        been.add(span.parent_id)
        found = spans.get((span.trace_id, span.parent_id))
        if found is None:
            return
        yield found
        span = found[0]


def _kind(told: Told) -> str:
    """What no span of another kind tells too: all that answers in words is one."""
    return told.operation if told.operation in COMPLETE_NOTHING else ""


def _length(told: Told) -> int:
    """The length of a span; one of no length is no measure of anything, and comes last."""
    return told.span.end - told.span.start or 1 << 63


def _alike(told: Sequence[Told]) -> list[list[Told]]:
    """Groups of calls that share an id and overlap in time, or are one span written twice; each call is in at most one.

    Some servers give their responses ids that are not their own alone, so an id that comes back later is another call.
    """
    latest: dict[tuple[object, ...], int] = {}  # the group that a key was last seen in
    groups: list[list[Told]] = []
    ends: list[int] = []
    for t in sorted(told, key=lambda t: t.span.start):
        span = t.span
        keys: list[tuple[object, ...]] = [("span", span.trace_id, span.name, span.start, span.end)]
        keys += [("response", t.response_id)] if t.response_id else []
        keys += [("call", t.call_id)] if t.call_id else []
        near = (latest[key] for key in keys if key in latest and span.start <= ends[latest[key]])
        group = next(near, len(groups))
        if group == len(groups):
            groups.append([])
            ends.append(span.start)
        groups[group].append(t)
        ends[group] = max(ends[group], span.end)
        latest |= dict.fromkeys(keys, group)
    return [group for group in groups if len(group) > 1]


def _nested(told: Sequence[Told]) -> Iterator[tuple[Told, Told]]:
    """Pairs (outer, inner) of spans of two libraries that tell of one call without any id in common.

    They come from one process, the one lies in the other in time, and all that both tell is equal: model, outcome,
    usage. Only a failed call, or one whose usage both tell, is judged so. An inner span is in one pair at most.
    """
    equal: dict[tuple[object, ...], list[Told]] = {}
    for t in sorted(told, key=lambda t: t.span.start):
        if (outcome := _outcome(t)) is not None:
            equal.setdefault(outcome, []).append(t)
    starts = {outcome: [t.span.start for t in of] for outcome, of in equal.items()}
    for outer in sorted(told, key=lambda t: t.span.end - t.span.start):
        outcome = _outcome(outer)
        if outcome is None:
            continue
        first = bisect_left(starts[outcome], outer.span.start)
        for inner in islice(equal[outcome], first, first + _NEAR):
            if not inner.paired and _same_call(outer, inner):
                inner.paired = True
                yield outer, inner
                break


def _outcome(told: Told) -> tuple[object, ...] | None:
    """What spans of one call must both tell; None if this one does not tell it."""
    names = ("error_type",) if told.fields["status"] == "error" else ("prompt_tokens", "completion_tokens")
    values = [told.fields.get(name) for name in names]
    return (told.fields["status"], _kind(told), *values) if all(map(_hashable, values)) else None


def _same_call(outer: Told, inner: Told) -> bool:
    """Whether two spans of equal outcome tell of one call."""
    a, b = outer.span, inner.span
    if a.scope == b.scope or not (a.start <= b.start and b.end <= a.end) or a.resource != b.resource:
        return False
    return not (outer.response_id and inner.response_id) and bool(_models(outer) & _models(inner))


def _models(told: Told) -> set[str]:
    """The names of the model that a call tells, without the prefix of a router."""
    names = (told.fields.get("model"), told.fields.get("model_requested"))
    return {name.rpartition("/")[2] for name in names if isinstance(name, str)}


def _close_streams(told: Sequence[Told]) -> None:
    """Give logfire's log of a finished stream the start of the span that opened it."""
    openers: dict[tuple[str, ...], list[Told]] = {}
    for t in sorted(filter(opens_stream, told), key=lambda t: t.span.start):
        openers.setdefault(_siblings(t), []).append(t)
    for t in told:
        if t.span.attributes.get("logfire.span_type") != "log":
            continue
        end = t.span.end or t.span.start
        lasted = number(t.span.attributes.get("duration"))
        start = end - round(lasted * 1e9) if is_number(lasted) and 0 <= lasted <= _DAY else end
        of = openers.get(_siblings(t), [])
        before = [o for o in of[: bisect_right(of, end, key=lambda o: o.span.start)][-_NEAR:] if not o.within]
        if before:
            opener = next((o for o in reversed(before) if o.span.end <= start + _MS), before[-1])
            _drop(opener, t)
            start = opener.span.start
        t.fields |= {"timestamp": start, "latency_ms": (end - start) / _MS, "streamed": True}
        t.found |= {"timestamp": "start of the stream", "latency_ms": "end of the stream - start", "streamed": "log"}


def opens_stream(told: Told) -> bool:
    """Whether the span is logfire's for the opening of a stream, of which a log tells when it has ended."""
    return (
        told.span.attributes.get("logfire.span_type") == "span"
        and told.operation != EMBEDDINGS
        and told.fields["status"] == "ok"
        and told.fields.get("streamed") is not False
        and not told.response_id
        and not {"finish_reason", "prompt_tokens"} & set(told.fields)
        and told.fields.get("model") == told.fields.get("model_requested")
    )


def _siblings(told: Told) -> tuple[str, ...]:
    """What the spans of one stream have in common."""
    span = told.span
    return span.trace_id, span.parent_id, span.scope, str(told.fields.get("model_requested"))


def _complete(told: Told, outer: Told, alone: bool) -> None:
    """Take from a span of the same call what this one lacks; `alone` if that span tells of no other call."""
    usage = alone and (
        _agree(told.fields, outer.fields, "prompt_tokens") or _agree(told.sent, outer.sent, "prompt_tokens")
    )
    if usage and not any(name in told.fields for name in _PARTS):
        # The outer one tells the parts too, and so what a count that both wrote lacks.
        for name in ("prompt_tokens", "completion_tokens"):
            if name in told.sent and told.sent[name] == outer.sent.get(name):
                told.fields[name] = outer.fields[name]
    for name in _PARTS:
        # A client that knows no such part writes 0; a library above it that does not say so casts doubt on that.
        if alone and told.fields.get(name) == 0 and name not in outer.fields and "prompt_tokens" in outer.fields:
            del told.fields[name], told.found[name]
    for name, value in outer.fields.items():
        if name in told.fields or name in _OWN or (name in _USAGE and not usage) or not (alone or name in _ABOVE):
            continue
        told.fields[name] = value
        told.found[name] = f"{outer.found[name]} of span {outer.span.name}"
        if name in outer.originals:
            told.originals[name] = outer.originals[name]
    first: Any = outer.fields.get("ttft_ms")
    if alone and "ttft_ms" not in told.fields and told.fields.get("streamed") is not False and is_number(first):
        after = first + (outer.span.start - told.span.start) / _MS
        if after >= 0:
            told.fields["ttft_ms"] = after
            told.found["ttft_ms"] = f"{outer.found['ttft_ms']} of span {outer.span.name}"
    if told.fields.get("error_type") == "unknown" and "error_type" in outer.fields:
        told.fields["error_type"], told.found["error_type"] = outer.fields["error_type"], outer.found["error_type"]
        if "error_type" in outer.originals:
            told.originals["error_type"] = outer.originals["error_type"]
    told.response_id = told.response_id or outer.response_id
    told.call_id = told.call_id or outer.call_id


def _agree(counts: Mapping[str, Any], others: Mapping[str, Any], name: str) -> bool:
    """Whether the two do not tell different counts."""
    told = {of[name] for of in (counts, others) if _hashable(of.get(name))}
    return len(told) < 2


def _hashable(value: Any) -> bool:
    return is_number(value) or isinstance(value, str)


class _Above:
    """What spans tell for the calls below them; each span is read once, however many these are."""

    def __init__(self, conventions: Conventions) -> None:
        self._conventions = conventions
        self._read: dict[tuple[str, str], dict[str, Found]] = {}

    def read(self, span: Span) -> dict[str, Found]:
        """The fields of `_ABOVE` that the span tells."""
        key = span.trace_id, span.span_id
        if key not in self._read:
            read = self._conventions.read(span.attributes)
            self._read[key] = {name: read[name][0] for name in _ABOVE if name in read}
        return self._read[key]


def _inherit(told: Told, spans: Spans, above: _Above) -> None:
    """Take the names of agent, session, user and tenant from the nearest span above that tells them."""
    missing = [name for name in _ABOVE if name not in told.fields]
    for span, _ in _up(told.span, spans) if missing else ():
        read = above.read(span)
        for name in [name for name in missing if name in read]:
            told.fields[name] = text(read[name].value)
            told.found[name] = f"{read[name].row.place} of span {span.name}"
            missing.remove(name)
