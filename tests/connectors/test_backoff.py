"""The waits between tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connectors.backoff import pause_s

seconds = st.floats(0.001, 100)


@given(owner=st.text(), failures=st.integers(1, 100_000), first=seconds, most=seconds)
def test_a_wait_is_half_to_all_of_a_time_that_doubles_up_to_a_limit(
    owner: str, failures: int, first: float, most: float
) -> None:
    whole = min(first * 2.0 ** min(failures - 1, 60), most)
    assert whole / 2 <= pause_s(owner, failures, first, most) <= whole
    assert pause_s(owner, failures, first, most) == pause_s(owner, failures, first, most)


def test_owners_that_fail_together_do_not_come_back_together() -> None:
    for failures in range(1, 5):
        waits = sorted(pause_s(f"kafka_alerts/llm.alerts/{n}", failures, 1, 60) for n in range(100))
        whole = 2.0 ** (failures - 1)
        assert waits[10] < 0.6 * whole
        assert waits[-10] > 0.9 * whole
        assert len(set(waits)) == 100
