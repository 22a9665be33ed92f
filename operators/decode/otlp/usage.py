"""The counts of tokens of a span, whichever way they were told, and its cost.

`put` takes the name of a field, its value and the place where it stood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from operators.decode.fields import TOKENS, uncounted
from operators.decode.paths import at, steps
from operators.decode.resolve import Found
from operators.decode.values import inside, is_number, number

_PARTS_OF: Final = {
    "prompt_tokens": re.compile(r"input_(?!tokens$)|cached_modality_|cache_?(read|creation|write)", re.IGNORECASE),
    "completion_tokens": re.compile(r"output_(?!tokens$)|thoughts_"),
}
"""Names of the parts that stand beside what is left of the whole."""
_COST: Final = re.compile(r"\$?\s*([0-9.]+(?:[eE]-?[0-9]+)?)\s*(?:USD)?")
_WITHOUT_CACHE: Final = frozenset(
    {"openinference.instrumentation.bedrock", "@arizeai/openinference-instrumentation-bedrock"}
)
"""Scopes of libraries that hand on counts of input that lack the cached part under a name that includes it."""


def tokens(read: Mapping[str, Sequence[Found]], operation: str, scope: str, put: Any) -> dict[str, Any]:
    """The counts: prompt tokens with cache, completion tokens with reasoning, whichever way they were told.

    Parts that are more than their whole, or a total that is the sum of whole and parts, prove that the parts were not
    in the whole. A count of -1 is unknown, and so are those of 0 that nobody counted. Gives the counts as they were
    told.
    """
    firsts = {name: read[name][0] for name in (*TOKENS, "total_tokens") if name in read}
    counts = {name: number(found.value) for name, found in firsts.items()}
    counts = {name: count for name, count in counts.items() if count != -1}
    total = counts.pop("total_tokens", None)
    if counts.get("cache_write_tokens") == 0:
        counts["cache_write_tokens"] = _by_lifetime(firsts["cache_write_tokens"])
    sent = dict(counts)
    if all(map(is_number, counts.values())):
        prompt, completion = counts.get("prompt_tokens"), counts.get("completion_tokens")
        cache = counts.get("cached_tokens", 0) + counts.get("cache_write_tokens", 0)
        reasoning = counts.get("reasoning_tokens", 0)
        added = total - (prompt or 0) - (completion or 0) if is_number(total) and total else None
        if prompt is not None:
            first, proofs = firsts["prompt_tokens"], {cache, cache + reasoning}
            basis = "without_cache" if scope in _WITHOUT_CACHE else first.row.basis
            lacks = _is_beside("cached_tokens", firsts) or _uncached(read) == prompt
            counts["prompt_tokens"] += cache if lacks else _left_out(first, basis, prompt, cache, added, proofs)
        if completion is not None:
            first, proofs = firsts["completion_tokens"], {reasoning, cache + reasoning}
            lacks = _is_beside("reasoning_tokens", firsts)
            counts["completion_tokens"] += (
                reasoning if lacks else _left_out(first, first.row.basis, completion, reasoning, added, proofs)
            )
    for name in uncounted(counts, operation):
        del counts[name]
    for name, count in counts.items():
        put(name, count, firsts[name].row.place)
    return {name: sent[name] for name in counts}


def _is_beside(part: str, firsts: Mapping[str, Found]) -> bool:
    """Whether the name of a part says that its whole lacks it."""
    return part in firsts and firsts[part].row.basis == "beside"


def _uncached(read: Mapping[str, Sequence[Found]]) -> Any:
    """The provider's own count of an input without its cache: until 5 the Vercel AI SDK hands on Anthropic's."""
    return number(read["uncached_tokens"][0].value) if "uncached_tokens" in read else None


def _by_lifetime(found: Found) -> Any:
    """The tokens written to the cache, summed over lifetimes: LangChain has 0 for their sum where it tells each."""
    beside = at(found.beside, steps(found.row.path)[:-1]) if found.row.path else None
    counts = (
        [number(value) for name, value in beside.items() if "ephemeral" in name] if isinstance(beside, dict) else []
    )
    return sum(filter(is_number, counts))


def _left_out(found: Found, basis: str, whole: Any, parts: Any, added: Any, proofs: set[Any]) -> Any:
    """The tokens of the parts that the count of the whole lacks.

    `added` is what the total has beyond prompt and completion, None if there is no total; `proofs` the values of it
    that prove that the parts are missing.
    """
    if basis == "parts" and isinstance(found.beside, dict):
        of_whole = _PARTS_OF[found.row.field]
        siblings = [number(value) for name, value in found.beside.items() if of_whole.match(name)]
        parts = sum(filter(is_number, siblings))
    elif basis != "without_cache":
        return parts if parts > whole or (parts and added in proofs) else 0
    return 0 if added == 0 else parts


def cost(read: Mapping[str, Sequence[Found]], failed: bool, put: Any) -> None:
    """The cost; 0 stands for a price that the library does not know, unless the call failed."""
    for found in read.get("cost_usd", ()):
        written = _COST.fullmatch(found.value.strip()) if isinstance(found.value, str) else None
        price = number(written[1] if written else found.value)
        if isinstance(of_parts := inside(price), dict):
            prices = [number(part) for part in of_parts.values()]
            price = sum(filter(is_number, prices)) if any(map(is_number, prices)) else None
        if price != 0 or failed:
            put("cost_usd", price, found.row.place)
            return
