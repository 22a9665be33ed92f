"""The figures of the contestants' runs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.peers.panes import Table
from benchmarks.throughput import Measured


@dataclass(frozen=True)
class Run:
    """The resources that a contestant used, the table that it made, and the number of its alerts."""

    measured: Measured
    table: Table
    alerts: int


@dataclass(frozen=True)
class Figures:
    """One contestant: the cost of a million events, and the whole run over the full topic, with its start."""

    cpu_s_per_million: float
    run_cpu_s: float
    run_seconds: float
    peak_mib: float
    panes: int
    alerts: int


def figures(small: Sequence[Run], full: Sequence[Run], small_events: int, full_events: int) -> Figures:
    """Medians; the cost of a million events is the difference of the two topics, so the start does not count."""
    cpu_small, cpu_full = (statistics.median(r.measured.cpu_s for r in runs) for runs in (small, full))
    return Figures(
        cpu_s_per_million=round((cpu_full - cpu_small) * 1_000_000 / (full_events - small_events), 2),
        run_cpu_s=round(cpu_full, 1),
        run_seconds=round(statistics.median(r.measured.seconds for r in full), 1),
        peak_mib=round(max(r.measured.peak_mib for r in full)),
        panes=len(full[-1].table),
        alerts=full[-1].alerts,
    )


@dataclass(frozen=True)
class Result:
    """All contestants, and the differences of their tables of panes from ours."""

    events: int
    pace: int
    rounds: int
    machine: str
    panes_compared: int
    versions: Mapping[str, str]
    figures: Mapping[str, Figures]
    differences: Mapping[str, Sequence[str]]

    def as_json(self) -> str:
        """The result as one JSON object."""
        out = asdict(self)
        out["differences"] = {name: len(lines) for name, lines in self.differences.items()}
        return json.dumps(out)

    def as_text(self) -> str:
        """The result as a table, with the first few differences of each contestant."""
        lines = [f"{self.events:,} events, median of {self.rounds} rounds, {self.machine}"]
        lines.append(f"  {'':14} CPU s a million events; the whole run: CPU s, s, MiB, panes, alerts, differences")
        for name, f in self.figures.items():
            lines.append(
                f"  {name:14} {f.cpu_s_per_million:>8.2f}; {f.run_cpu_s:>8.1f} {f.run_seconds:>8.1f} {f.peak_mib:>6.0f}"
                f" {f.panes:>6} {f.alerts:>6} {len(self.differences[name]):>6}  {self.versions[name]}"
            )
        lines.append(f"  {self.panes_compared} panes of the full topic compared with ours each time")
        lines += [f"  {name}: {line}" for name, found in self.differences.items() for line in found[:5]]
        return "\n".join(lines)
