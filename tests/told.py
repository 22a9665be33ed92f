"""What a record of any format may tell of a call, for the laws of the decoders."""

from __future__ import annotations

from typing import Final, NamedTuple

from hypothesis import strategies as st

from operators.decode.record import METRIC_FIELDS
from operators.model import SENT_LABELS


class Told(NamedTuple):
    """The content of a plain record: labels by name, values by metric in fixed-point steps; others are not sent."""

    at: int  # microseconds, whole milliseconds
    labels: dict[str, str]
    steps: dict[str, int]
    event_id: str
    trace_id: str

    def in_units(self) -> dict[str, float]:
        """The values by field of a native record, in the units of their metrics."""
        return {
            field: self.steps[metric.name] / metric.scale
            for field, metric in METRIC_FIELDS.items()
            if metric.name in self.steps
        }


_texts = st.sampled_from(["", "chat", "gpt-4o", "Gpt-4o", "é"])
told: Final[st.SearchStrategy[Told]] = st.builds(
    Told,
    at=st.integers(0, 10**7).map(lambda ms: 1_740_960_000_000_000 + ms * 1_000),
    labels=st.fixed_dictionaries(
        {"service": _texts.filter(bool)}, optional={label: _texts for label in SENT_LABELS if label != "service"}
    ),
    steps=st.fixed_dictionaries({}, optional={m.name: st.integers(0, 5_000_000) for m in METRIC_FIELDS.values()}),
    event_id=st.sampled_from(["", "e1", "e2"]),
    trace_id=st.sampled_from(["", "t1"]),
)


def _apart(many: list[Told]) -> list[Told]:
    return [one._replace(event_id=f"e{i}") for i, one in enumerate(many)]


calls: Final = st.lists(told, min_size=1, max_size=4, unique_by=lambda one: one.at).map(_apart)
"""Calls of one record, none of which is another one told again."""


def late_by(one: Told, steps: int) -> Told:
    """The call with a latency of this many microseconds, which may be negative."""
    return one._replace(steps={**one.steps, "latency": steps})
