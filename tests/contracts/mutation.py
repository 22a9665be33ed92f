"""Runs laws over an implementation with a deliberate bug until the first of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Check = Callable[[], None]
"""Runs one law over drawn examples; raises if the law does not hold."""


def drawn(holds: Callable[..., None], strategy: st.SearchStrategy[tuple[Any, ...]], examples: int) -> Check:
    """The law over a few examples, the same in every run; they are not shrunk, as nobody reads them."""

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def meet(arguments: tuple[Any, ...]) -> None:
        holds(*arguments)

    check: Check = meet
    return check


def first_broken(laws: Iterable[tuple[str, Check]]) -> str | None:
    """The name of the first law that raises anything; None if all hold."""
    for name, check in laws:
        try:
            check()
        except Exception:  # noqa: BLE001 - a bug may raise anything
            return name
    return None


def told(caught: Mapping[str, str | None]) -> str:
    """A table with one line for each mutant and the law that caught it."""
    widest = max(map(len, caught))
    return "\n".join(f"  {mutant:{widest}}  {law or 'NO LAW'}" for mutant, law in caught.items())


def all_caught(what: str, caught: Mapping[str, str | None]) -> None:
    """Print the table; fail if a mutant breaks no law."""
    print(f"\n{what}\n{told(caught)}")
    survivors = [mutant for mutant, law in caught.items() if law is None]
    assert not survivors, f"no law notices a {what} that {', or one that '.join(survivors)}"
