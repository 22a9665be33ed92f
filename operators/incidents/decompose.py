"""Explain an unusual value: the label values that the excess comes from, and the factors of a mean.

Both compare arithmetic means of the anomalous panes with the usual ones (`operators.incidents.composition`). They need
not add up to the figures of a verdict, which may be geometric means over another horizon.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log, sqrt
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from operators.incidents.composition import Observed, Usual
from operators.metrics import ERROR_RATIO, METRIC_INDEX, METRICS, REQUESTS
from operators.model import DIMENSIONS
from operators.series import OTHER

Told = dict[str, str | float]

ENOUGH: Final = 5.0
"""Least number of observed requests that are explained."""
CLEAR: Final = 1.1
"""Least factor by which a dimension's mix moves the mean, to be preferred to the mix of `mix_by`."""
KNOWN: Final = 30.0
"""Least number of usual requests, fading, that anything is compared with."""
LEAST: Final = 0.2
"""Least `share`, and least `uneven` share, of a contributor."""
CHANCE: Final = 1.0
"""With n requests the least share is no smaller than `CHANCE / sqrt(n)`: chance moves shares by 1 / sqrt(n)."""
EACH: Final = 2
"""Most contributors of one label."""
MOST: Final = 5
"""Most contributors."""

Numbers = NDArray[np.signedinteger] | NDArray[np.floating]


class _Part(NamedTuple):
    """One value of a label: its share of the excess, and that share less its part of an even change of all values."""

    value: str
    share: float
    uneven: float


def contributors(cell: str, up: bool, usual: Usual, observed: Observed, expected: float) -> tuple[Told, ...]:
    """The label values that give more of the cell's excess than the other requests do, the largest share first.

    `expected` is the usual number of requests a pane, used for the cell `requests` alone; `up` is the direction of the
    anomaly. Each result names its `dimension`, `value`, `share` of the excess, `usual_share` of the requests and, if
    known, its `observed` and `usual` value (a mean in the metric's unit, a ratio, or requests a pane).
    """
    if usual.whole[0] < KNOWN or (cell != REQUESTS and observed.whole[0] < ENOUGH):
        return ()
    usually = expected * observed.panes if cell == REQUESTS else 1.0
    least = max(LEAST, CHANCE / sqrt(max(observed.whole[0], usually, 1.0)))
    found: list[tuple[float, str, str, Told]] = []
    for label, seen in observed.by_label().items():
        known = usual.values.get(label, {})
        blank = np.zeros(len(usual.whole))
        now = {v: seen.get(v, blank) for v in sorted({*seen, *known})}
        for part in sorted(_parts(cell, up, usual, known, observed, now, expected), key=_unevenness)[:EACH]:
            if min(part.uneven, part.share) < least or part.value == OTHER:
                continue
            told: Told = {"dimension": label, "value": part.value, "share": _round(min(part.share, 1.0))}
            if part.value in known or label not in usual.full:
                told["usual_share"] = _round(known.get(part.value, blank)[0] / usual.whole[0])
            told |= _values(cell, now[part.value], observed.panes, "observed")
            if part.value in known:
                told |= _values(cell, known[part.value], usual.panes, "usual")
            found.append((-part.share, label, part.value, told))
    return tuple(told for *_, told in sorted(found, key=lambda f: f[:3])[:MOST])


def _unevenness(part: _Part) -> tuple[float, str]:
    return -part.uneven, part.value


def _parts(
    cell: str,
    up: bool,
    usual: Usual,
    known: Mapping[str, Numbers],
    observed: Observed,
    now: Mapping[str, Numbers],
    expected: float,
) -> Iterator[_Part]:
    """The excess over the usual by value of one label.

    The excess of a mean has two parts: n (m - m0), since the value's own mean has moved, and (n - p N) (m0 - M0), since
    it has more requests. n and m are its requests and mean, p and m0 its usual share and mean, N all requests, M0 the
    usual mean of all. The parts of all values add up to the whole excess.
    """
    whole, base = observed.whole, usual.whole
    if cell == REQUESTS:
        excess = float(whole[0]) - expected * observed.panes
        if excess == 0.0 or (excess > 0.0) != up:
            return
        for value, sums in now.items():
            p = _at(known, value, 0) / base[0]
            share = (float(sums[0]) - p * expected * observed.panes) / excess
            yield _Part(value, share, share - p)
        return
    n_at, total_at = (0, 1) if cell == ERROR_RATIO else _columns(cell)
    if base[n_at] <= 0.0 or whole[n_at] <= 0:
        return
    mean, n_all = float(base[total_at] / base[n_at]), float(whole[n_at])
    excess = float(whole[total_at]) - n_all * mean
    if excess == 0.0 or (excess > 0.0) != up:
        return
    moved, more, even = [], [], []
    for value, sums in now.items():
        n, before = float(sums[n_at]), _at(known, value, n_at)
        own = _at(known, value, total_at) / before if before > 0.0 else mean
        moved.append(float(sums[total_at]) - n * own)
        more.append((n - before / base[n_at] * n_all) * (own - mean))
        even.append(n * own)
    rest = n_all - sum(float(sums[n_at]) for sums in now.values())
    scale = sum(moved) / max(sum(even) + rest * mean, 1e-9)
    for i, value in enumerate(now):
        yield _Part(value, (moved[i] + more[i]) / excess, (moved[i] - scale * even[i] + more[i]) / excess)


def _at(known: Mapping[str, Numbers], value: str, column: int) -> float:
    return float(known[value][column]) if value in known else 0.0


def _columns(metric: str) -> tuple[int, int]:
    m = METRIC_INDEX[metric]
    return 2 + 2 * m, 3 + 2 * m


def _values(cell: str, sums: Numbers, panes: float, name: str) -> Told:
    """The cell's value of these sums under this name; empty if the sums give none."""
    if cell == REQUESTS:
        return {name: _round(float(sums[0]) / panes)} if panes > 0 else {}
    n_at, total_at = (0, 1) if cell == ERROR_RATIO else _columns(cell)
    if sums[n_at] <= 0:
        return {}
    scale = 1 if cell == ERROR_RATIO else METRICS[METRIC_INDEX[cell]].scale
    return {name: _round(float(sums[total_at]) / float(sums[n_at]) / scale)}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def factors(cell: str, up: bool, usual: Usual, observed: Observed, pane_s: int, mix_by: str = "") -> tuple[Told, ...]:
    """The factors of the mean cost or latency, each with its `usual` and `observed` value and their ratio, `times`.

    `volume`, requests a minute, stands beside the others, whose product is the change of the mean:

    - `mix`: the mean if only the mix of `dimension` had changed, each value with its usual mean; the dimension is the
      one that explains most, else `mix_by`;
    - `tokens`: tokens a request (for latency those of the completion);
    - `cache`, for cost alone: the share of tokens that are not read from the cache;
    - `price`: the cost of one of these, or the time of a token of the completion, in the metric's unit.

    The usual values of tokens, cache and price are those of the observed mix.
    """
    if cell not in ("cost", "latency") or usual.whole[0] < KNOWN or observed.whole[0] < ENOUGH:
        return ()
    before, after = _Means(cell, usual.whole), _Means(cell, observed.whole)
    if min(before.value, after.value) <= 0.0:
        return ()
    dimension, mixed = _explaining(_mixed(cell, usual, observed), up, before, after, mix_by)
    out: list[Told] = []
    if usual.panes > 0 and observed.panes > 0:
        per_minute = 60.0 / pane_s
        volume = (usual.whole[0] / usual.panes * per_minute, observed.whole[0] / observed.panes * per_minute)
        out.append(_factor("volume", *volume))
    if dimension:
        out.append({**_factor("mix", before.value, mixed.value), "dimension": dimension})
    if min(mixed.tokens, after.tokens) > 0.0:
        out.append(_factor("tokens", mixed.tokens, after.tokens))
        if cell == "cost" and min(mixed.paid, after.paid) > 0.0:
            if mixed.paid < mixed.tokens or after.paid < after.tokens:
                out.append(_factor("cache", mixed.paid / mixed.tokens, after.paid / after.tokens))
            out.append(_factor("price", mixed.value / mixed.paid, after.value / after.paid))
        elif cell == "latency":
            out.append(_factor("price", mixed.value / mixed.tokens, after.value / after.tokens))
    return tuple(out)


def main_factor(told: Sequence[Told], up: bool, least: float = 1.3) -> Told | None:
    """The factor other than volume that explains most of a change in this direction; None if all are below `least`."""
    side = 1.0 if up else -1.0
    by_size = [(side * log(float(f["times"])), f) for f in told if f["factor"] != "volume" and float(f["times"]) > 0.0]
    size, found = max(by_size, key=lambda f: f[0], default=(0.0, None))
    return found if size >= log(least) else None


class _Means:
    """Means per request: the metric in its unit, tokens, and tokens that were not read from the cache."""

    def __init__(self, cell: str, sums: Numbers) -> None:
        n = max(float(sums[0]), 1e-9)
        self.value = float(sums[_columns(cell)[1]]) / n / METRICS[METRIC_INDEX[cell]].scale
        completion = float(sums[_columns("completion_tokens")[1]]) / n
        prompt = float(sums[_columns("prompt_tokens")[1]]) / n
        cached = float(sums[_columns("cached_tokens")[1]]) / n
        self.tokens = completion if cell == "latency" else prompt + completion
        self.paid = self.tokens if cell == "latency" else self.tokens - cached


def _mixed(cell: str, usual: Usual, observed: Observed) -> dict[str, _Means]:
    """The usual means under the observed mix, by dimension.

    A value that is new, or too rare to be known, keeps its observed mean: its whole difference belongs to the mix.
    """
    out: dict[str, _Means] = {}
    for label, seen in observed.by_label().items():
        if label not in DIMENSIONS:
            continue
        known = usual.values.get(label, {})
        blank = np.zeros(len(usual.whole))
        whole, rest, left = blank.copy(), usual.whole - sum(known.values(), blank), observed.whole - blank
        for value, sums in seen.items():
            own = known.get(value, sums)
            whole += float(sums[0]) * own / max(float(own[0]), 1e-9)
            left -= sums
        if left[0] > 0.0:
            own = rest if rest[0] >= 1.0 else usual.whole
            whole += left[0] * own / own[0]
        mixed = _Means(cell, whole)
        if mixed.value > 0.0:
            out[label] = mixed
    return out


def _explaining(
    mixed: Mapping[str, _Means], up: bool, before: _Means, after: _Means, mix_by: str
) -> tuple[str, _Means]:
    """The dimension whose mix moves the mean in the direction and leaves least to explain, else `mix_by`; its means."""
    side = 1.0 if up else -1.0
    helping = [label for label, means in mixed.items() if side * log(means.value / before.value) > log(CLEAR)]
    best = min(helping, key=lambda label: (abs(log(after.value / mixed[label].value)), label), default=mix_by)
    return (best, mixed[best]) if best in mixed else ("", before)


def _factor(name: str, usual: float, observed: float) -> Told:
    return {"factor": name, "usual": _round(usual), "observed": _round(observed), "times": _round(observed / usual)}
