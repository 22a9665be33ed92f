"""Whether two series may hold the same requests."""

from __future__ import annotations

from operators.series import OTHER

Labels = dict[str, tuple[str, ...]]
"""By dimension, the values that a series' requests had; nothing is said of a dimension that is not there."""


def same_requests(one: dict[str, str], seen_of_one: Labels, other: dict[str, str], seen_of_other: Labels) -> bool:
    """Whether two series may hold the same requests.

    Not so where both name a dimension with different values, nor where neither's requests were seen with the values
    that the other names: the rarer the requests of one, the fewer of its values were seen in the other's.
    """
    if any(other.get(dimension, value) != value for dimension, value in one.items()):
        return False
    return _may_be_of(one, other, seen_of_other) or _may_be_of(other, one, seen_of_one)


def _may_be_of(series: dict[str, str], other: dict[str, str], seen_of_other: Labels) -> bool:
    wanted = {d: value for d, value in series.items() if d not in other}
    return all(d not in seen_of_other or {value, OTHER} & {*seen_of_other[d]} for d, value in wanted.items())
