"""The words of an alert: its kind, its values in units, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import exp
from typing import Final

from operators.detect.base import Finds, Watch
from operators.incidents.decompose import Told, main_factor
from operators.metrics import ERROR_RATIO, MEASURES, REQUESTS
from operators.model import SECOND

SILENCE: Final = "silence"
SILENT_REQUESTS: Final = 10
"""A drop is a silence if this many usual requests are missing in a row: by chance that happens once in e**10."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def kind(cell: str, up: bool, silent: bool, finds: Finds = "deviation") -> str:
    """The kind of an episode; `finds` is that of the detector whose verdict opened it.

    It names the metric and the direction; it is `silence` if traffic fell to nothing, `<metric>_outlier` for a single
    request and `<metric>_limit` for a static limit.
    """
    if finds != "deviation":
        return f"{cell}_{finds}"
    return SILENCE if silent and (cell, up) == (REQUESTS, False) else MEASURES[cell].kind(up)


def unit(watch: Watch, cell: int) -> str:
    """The unit of the alert's values for the cell."""
    return MEASURES[watch.cells[cell]].unit


def in_unit(watch: Watch, cell: int, judged: float) -> float:
    """A verdict's value in the cell's unit, to six digits; a geometric mean if the metric is judged in logs."""
    value = judged
    if cell < len(watch.metrics):
        settings = watch.settings[cell]
        if settings.in_logs:
            value = max(exp(min(judged, 700.0)) - watch.metrics[cell].offset, 0.0)
    elif watch.cells[cell] == REQUESTS:
        value = judged * 60.0 / watch.pane_s
    return float(f"{value:.6g}")


def span_text(seconds: float) -> str:
    """`10 s`, `5 min`, `2 h`."""
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} s"


def quantity(value: float, of: str) -> str:
    """A value as people write it: `1.24 s`, `340 ms`, `12.5 %`, `$0.0034`."""
    if of == "ms":
        return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"
    if of == "USD":
        return f"${_plain(value)}"
    if of == "1/min":
        return f"{value:.3g} requests/min"
    if of == "tokens":
        return f"{value:,.0f} tokens" if value >= 1000 else f"{value:.3g} tokens"
    return f"{value:.3g}" if of == "1" else f"{value:.3g} {of}"


def _plain(value: float) -> str:
    """Three digits, without an exponent even if the value is small: `0.0000244`."""
    return f"{Decimal(f'{value:.3g}'):f}" if value < 1 else f"{value:,.2f}"


def sentence(
    cell: str,
    unit: str,
    series: dict[str, str],
    status: str,
    observed: float,
    expected: float,
    bound: float | None,
    span_s: float,
    requests: float,
    since: int,
    until: int | None,
    reason: str = "",
    silent_s: float = 0.0,
    finds: Finds = "deviation",
    cause: str = "",
) -> str:
    """One sentence: measure, series, observed and usual value, number of requests, beginning.

    Values are in `unit`, times in microseconds. `bound` is the end of the usual band on the side of the deviation;
    `reason` is why the episode resolved, as in `Alert`; `silent_s` is the length of a silence, else 0; `finds` is that
    of the detector whose verdict is told; `cause` is the text that the function `cause` gives.
    """
    where = ", ".join(f"{k} {v}" for k, v in series.items() if v)

    def show(value: float) -> str:
        return f"{100 * value:.3g} %" if cell == ERROR_RATIO else quantity(value, unit)

    begun = clock(since)
    than = "is the limit" if finds == "limit" else "is usual"
    if status == "resolved":
        over = _OVER[reason]
        ended = f" and ended {clock(until)}" if until is not None else ""
        return (
            f"{MEASURES[cell].title} of {where} is {over}: the episode began {begun}{ended}, at worst "
            f"{show(observed)} where {show(expected)} {than}."
        )
    what = f"{MEASURES[cell].title} of {where}"
    if silent_s:
        silent = f"{where[:1].upper()}{where[1:]} has sent nothing for {span_text(silent_s)}"
        return f"{silent} where {show(expected)} is usual, since {begun}."
    if finds == "outlier":
        return (
            f"{MEASURES[cell].title} of a single request of {where} is {show(observed)}, among {requests:.0f} in "
            f"{span_text(span_s)}, where {show(expected)} is usual (at most {show(bound or 0.0)}), since {begun}."
        )
    over = f"over the last {span_text(span_s)} ({requests:.0f} request{'' if requests == 1 else 's'})"
    banded = bound is not None and finds != "limit"
    side = f" ({'at most' if observed > expected else 'at least'} {show(bound or 0.0)})" if banded else ""
    return f"{what} is {show(observed)} {over} where {show(expected)} {than}{side}, since {begun}{cause}."


def cause(contributors: Sequence[Told], factors: Sequence[Told], up: bool) -> str:
    """The end of the sentence, which explains the deviation: the first contributor, and the main factor."""
    parts = []
    if contributors:
        first = contributors[0]
        usual = first.get("usual_share")
        of_usual = f" (usually {_percent(float(usual))} of the requests)" if usual is not None else ""
        what = f"{str(first['dimension']).replace('_', ' ')} {first['value']}"
        parts.append(f"{_percent(float(first['share']))} of the difference comes from {what}{of_usual}")
    factor = main_factor(factors, up)
    if factor is not None:
        times = f"{float(factor['times']):.3g} times the usual"
        of = f" by {factor['dimension']}" if "dimension" in factor else ""
        parts.append(f"{_FACTORS[str(factor['factor'])]}{of} makes it {times}")
    return "".join(f"; {part}" for part in parts)


_FACTORS: Final = {
    "mix": "another mix",
    "tokens": "the number of tokens a request",
    "cache": "the share of tokens not read from the cache",
    "price": "the price or time of a token",
}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0.0 else "less than 1 %"


_OVER: Final = {
    "quiet": "no longer abnormal",
    "level_shift": "taken for the new normal, for it has lasted",
    "expired": "no longer watched, for nothing came any more",
}


def clock(microseconds: int | None) -> str:
    """A time for people: `2025-03-04 05:18:20 UTC`."""
    if microseconds is None:
        return "-"
    return (_EPOCH + timedelta(seconds=microseconds // SECOND)).strftime("%Y-%m-%d %H:%M:%S UTC")
