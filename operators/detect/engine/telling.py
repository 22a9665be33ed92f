"""Makes the findings and alerts of a shard's episodes, with their trails and the requests that show them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from operators import series as names
from operators.config import TimeConfig
from operators.detect import registry
from operators.detect.base import Watch
from operators.detect.context.mix import Mix
from operators.detect.context.shares import Shares
from operators.incidents import decompose, explain
from operators.incidents import episodes as ep
from operators.incidents.findings import Finding
from operators.kernels.detect import EXPECTED, LOWER, OBSERVED, SCORE, SPAN, UPPER, WEIGHT, Floats
from operators.metrics import ERROR_RATIO, REQUESTS
from operators.model import DIMENSIONS, LABELS, MISSING, SECOND, Alert, Status, caller_fields
from operators.panes.table import PaneTable

Why = Literal["", "quiet", "level_shift", "expired"]
_STATUS: dict[int, Status] = {ep.OPENED: "firing", ep.RISEN: "updated"}

HOLDS = 0.45
"""The least score of a series that is still close to anomalous. A finding that falls below it untold was chance."""


class Teller:
    """Makes findings and alerts of steps. It holds settings only; the state of an episode is in its trail."""

    def __init__(
        self, watch: Watch, mix: Mix, shares: Shares, time: TimeConfig, threshold: Callable[[int], float]
    ) -> None:
        """`threshold` gives the level at which a pane of a slot is anomalous."""
        self._watch = watch
        self._threshold = threshold
        self._mix = mix
        self._shares = shares
        self._width = time.pane_s * SECOND
        self._lateness = round(time.lateness_s * SECOND)

    def kind(self, cell: int, verdict: tuple[float, ...], by: str, quiet: int) -> str:
        """The kind of an episode that opens with this verdict; `quiet` counts the panes since the last request."""
        up, missing = verdict[OBSERVED] >= verdict[EXPECTED], quiet * verdict[EXPECTED]
        return explain.kind(self._watch.cells[cell], up, missing >= explain.SILENT_REQUESTS, registry.finds(by))

    def explained(self, trail: ep.Trail, cell: int, sums: Floats, panes: int) -> float:
        """The part of the squared deviations of a minute's requests that the series' own shift explains.

        It is the last minute for all series, however long an episode lasts, so values of one metric compare. `sums` are
        those of the minute, which spans `panes` panes. The part is 0 if only single requests stand out.
        """
        if trail.expected is None:
            return 0.0
        match self._watch.cells[cell]:
            case "requests":
                n = panes * trail.expected
                return float(sums[0] - n) ** 2 / max(n, 1.0)
            case "error_ratio":
                n, total = float(sums[0]), float(sums[1])
            case _:
                n, total = float(sums[2 + 2 * cell]), float(sums[3 + 2 * cell])
        return (total - n * trail.expected) ** 2 / max(n, 1.0)

    def finding(
        self,
        step: ep.Step,
        series: str,
        trail: ep.Trail,
        pane: int,
        verdict: tuple[float, ...],
        explained: float,
        alert: Alert | None = None,
    ) -> Finding:
        """The finding of the cell at the pane, with the alert of its change, if there is one."""
        metric = self._watch.cells[step.cell]
        score = verdict[SCORE]
        return Finding(
            at=(pane + 1) * self._width + self._lateness,
            series=series,
            metric=metric,
            episode=ep.episode_id(series, metric, step.since * self._width) if alert is None else alert.episode_id,
            level=self._threshold(step.slot) * score / max(1.0 - score, 1e-9),
            explained=explained,
            reach=(pane + 1 - max(int(verdict[SPAN]), 1)) * self._width,
            alert=alert,
            seen=() if alert is None else _plain(trail.seen),
            holds=all(registry.finds(name) != "deviation" for name in trail.detectors)
            or (score >= HOLDS and not (step.what == ep.OPENED and step.since == pane)),
        )

    def _in_unit(self, step: ep.Step, judged: float, by: str) -> float:
        """A value of this detector's verdict in the unit of its cell."""
        usual = self._mix.reference(step.slot, step.cell) if registry.finds(by) == "deviation" else 0.0
        return explain.in_unit(self._watch, step.cell, judged + usual)

    def witness(
        self, trail: ep.Trail, step: ep.Step, table: PaneTable, row: int, pane: int, verdict: tuple[float, ...], by: str
    ) -> None:
        """Add the row's requests that show the deviation to the trail, which keeps the worst of all panes in order."""
        cell = self._watch.cells[step.cell]
        if cell == REQUESTS:
            return
        a, b = np.searchsorted(table.evidence_row, (row, row + 1)).tolist()
        up = verdict[OBSERVED] >= verdict[EXPECTED]
        usual = self._in_unit(step, verdict[UPPER if registry.finds(by) == "outlier" else EXPECTED], by)
        known = {(w.event_id, w.trace_id, w.caller, w.start) for w in trail.witnesses}
        for i in range(a, b):
            if cell == ERROR_RATIO:
                if not table.evidence_error[i]:
                    continue
                steps_, value = 1, 1.0
            else:
                metric = self._watch.metrics[step.cell]
                steps_ = int(table.evidence_values[i, self._watch.axis[step.cell]])
                value = steps_ / metric.scale
                if steps_ == MISSING or (value <= usual if up else value >= usual):
                    continue
            start, event, trace = int(table.evidence_start[i]), table.evidence_event[i], table.evidence_trace[i]
            caller = table.evidence_caller[i]
            if (event, trace, caller, start) not in known:
                trail.witnesses.append(ep.Witness(-steps_ if up else steps_, start, event, trace, value, pane, caller))
        trail.witnesses.sort()
        del trail.witnesses[ep.MAX_EVIDENCE :]

    def alert(
        self,
        step: ep.Step,
        series: str,
        trail: ep.Trail,
        pane: int,
        seen: int,
        verdict: tuple[float, ...],
        by: str,
        learned: tuple[int, int],
        reason: Why = "",
        again: bool = False,
    ) -> Alert:
        """The next alert of the episode; `seen` is the last pane in which the series had requests.

        `learned` is the number of panes that the verdict's detector learned from, and the first pane of the series.
        `again` makes the first alert once more, as it would be told now.
        """
        watch, cell = self._watch, step.cell
        status: Status = "resolved" if reason else _STATUS[ep.OPENED if again else step.what]
        since = step.since * self._width
        until = (step.until + 1) * self._width if status == "resolved" else None
        episode = ep.episode_id(series, watch.cells[cell], since)
        observed, expected, lower, upper = (
            self._in_unit(step, verdict[field], by) for field in (OBSERVED, EXPECTED, LOWER, UPPER)
        )
        silent_s = (pane - seen) * watch.pane_s if trail.kind == explain.SILENCE else 0
        unit, dimensions = explain.unit(watch, cell), names.parse(series)
        contributors, factors = self._why(step, trail, pane, verdict, by)
        text = explain.sentence(
            watch.cells[cell], unit, dimensions, status, observed, expected, upper if observed > expected else lower,
            verdict[SPAN] * watch.pane_s, verdict[WEIGHT], since, until, reason, silent_s,
            registry.finds(by), "" if reason or silent_s else explain.cause(contributors, factors, observed > expected),
        )  # fmt: skip
        sequence = trail.sequence - again
        trail.sequence = sequence + 1
        return Alert(
            alert_id=ep.alert_id(episode, sequence),
            episode_id=episode,
            group_id="",
            related=(),
            sequence=sequence,
            status=status,
            severity=step.severity,
            kind=trail.kind,
            series=dimensions,
            metric=watch.cells[cell],
            unit=unit,
            at=(pane + 1) * self._width + self._lateness,
            since=since,
            until=until,
            observed=observed,
            expected=expected,
            lower=lower,
            upper=upper,
            score=round(verdict[SCORE], 4),
            detectors=trail.detectors,
            evidence=tuple(
                {"event_id": w.event_id, "trace_id": w.trace_id, **caller_fields(w.caller), "value": w.value}
                for w in trail.witnesses
            ),
            text=text,
            reason=reason,
            contributors=contributors,
            factors=factors,
            learned_panes=learned[0],
            learned_since=learned[1] * self._width if learned[0] else None,
        )

    def _why(
        self, step: ep.Step, trail: ep.Trail, pane: int, verdict: tuple[float, ...], by: str
    ) -> tuple[tuple[decompose.Told, ...], tuple[decompose.Told, ...]]:
        """The contributors to the excess, and the factors of the mean; none for a single request."""
        if registry.finds(by) == "outlier" or not trail.observed.panes:
            return (), ()
        cell, up = self._watch.cells[step.cell], verdict[OBSERVED] >= verdict[EXPECTED]
        usual = self._shares.usual(step.slot, pane)
        expected = verdict[EXPECTED] if trail.expected is None else trail.expected
        return (
            decompose.contributors(cell, up, usual, trail.observed, expected),
            decompose.factors(cell, up, usual, trail.observed, self._watch.pane_s, self._watch.config.mix_by),
        )


def see(trail: ep.Trail, table: PaneTable, row: int, series: str) -> None:
    """Note the values that the series' requests have in this pane, for each dimension that the series does not name."""
    named = names.dimension_set(series).split(",")
    a, b = np.searchsorted(table.breakdown_row, (row, row + 1)).tolist()
    for label, value in zip(table.breakdown_label[a:b].tolist(), table.breakdown_value[a:b].tolist(), strict=True):
        if LABELS[label] in DIMENSIONS and LABELS[label] not in named:
            values = trail.seen.setdefault(LABELS[label], set())
            values.add(table.breakdown_values[value] if len(values) < ep.MAX_SEEN else names.OTHER)


def look(trail: ep.Trail, table: PaneTable, row: int | None) -> None:
    """Add an anomalous pane to the episode's observations; `row` is the series' own, None if it has no requests."""
    trail.observed.panes += 1
    if row is not None:
        a, b = np.searchsorted(table.breakdown_row, (row, row + 1)).tolist()
        trail.observed.add(table, row, a, b)


def _plain(seen: dict[str, set[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((dimension, tuple(sorted(values))) for dimension, values in sorted(seen.items()))
