"""The settings of the simulator."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal, get_args

from pydantic import AwareDatetime, Field, field_validator

from operators.section import Section

KindName = Literal[
    "latency_spike",
    "latency_drift",
    "token_explosion",
    "completion_collapse",
    "cost_surge",
    "error_burst",
    "traffic_surge",
    "traffic_drop",
    "tenant_abuse",
    "quality_degradation",
    "retry_storm",
    "model_update",
    "tenant_quality_drop",
    "stuck_stream",
]
"""The kinds of incidents; `connectors.simulation.incidents` describes each one."""

_HOUR_US = 3_600_000_000


class IncidentsConfig(Section):
    """The incidents of the simulation and their number. At most one at a time; each has a label."""

    per_day: float = Field(
        default=28, ge=0, le=288, description="Incidents in a day, after the calm hours; 0 for none."
    )
    calm_h: float = Field(
        default=24,
        ge=0,
        description="Hours without incidents at the start, so that the usual can be learned. A simulation that ends "
        "before 1.5 times as many is calm for two thirds of its time, and its incidents are shorter and closer.",
    )
    kinds: tuple[KindName, ...] = Field(
        default=get_args(KindName), min_length=1, description="The kinds to choose from. Each comes once a round."
    )

    @field_validator("kinds")
    @classmethod
    def _different(cls, v: tuple[KindName, ...]) -> tuple[KindName, ...]:
        if len(set(v)) < len(v):
            raise ValueError("a kind is named twice")
        return v


class SimulatorConfig(Section):
    """The simulated source: the same settings give the same records, byte for byte."""

    seed: int = Field(
        default=7, ge=0, lt=1 << 32, description="Another seed gives another fleet history of the same kind."
    )
    start: AwareDatetime = Field(
        default=datetime(2026, 1, 5, 12, tzinfo=UTC), description="Event time of the first requests. Whole minutes."
    )
    hours: float = Field(default=36, ge=0.1, le=24 * 366, description="Simulated time, in hours; live has no end.")
    rate: float = Field(default=2, gt=0, le=5_000, description="Events a second, on average over a weekday.")
    partitions: int = Field(default=2, ge=1, le=256, description="Partitions of the source; events go to them in turn.")
    live: bool = Field(
        default=False,
        description="Give each event when it ends by the clock, without end. A resumed flow goes on at the present.",
    )
    history_h: float = Field(
        default=0, ge=0, le=24 * 366, description="Live: this many hours before the present come first."
    )
    backfill_h: float = Field(
        default=0, ge=0, le=24 * 366, description="Live: the first hours of the history come as fast as they are read."
    )
    speed: float = Field(
        default=60, ge=1, le=100_000, description="Live: how many times as fast as the clock the rest of it comes."
    )
    incidents: IncidentsConfig = IncidentsConfig()

    @property
    def start_us(self) -> int:
        """Start of the simulated time in microseconds, cut to the minute."""
        return int(self.start.timestamp()) // 60 * 60_000_000

    @property
    def minutes(self) -> int | None:
        """Length of the simulated time in whole minutes; None if it has no end."""
        return None if self.live else max(1, round(self.hours * 60))

    @property
    def history_us(self) -> int:
        """How long before the present a live simulation begins, in microseconds."""
        return round(self.history_h * _HOUR_US)

    @property
    def backfill_us(self) -> int:
        """Length of the part of the history that comes without waiting, in microseconds."""
        return round(self.backfill_h * _HOUR_US)
