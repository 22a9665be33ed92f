"""Whether laws catch a bug: they are run over something that has one, until the first of them fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

Check = Callable[[], None]
"""One law, met with whatever is drawn for it; raises where it does not hold."""


def drawn(holds: Callable[..., None], strategy: st.SearchStrategy[tuple[Any, ...]], examples: int) -> Check:
    """The law over a few examples, the same in every run; nothing is shrunk, as nobody reads them."""

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
    """The name of the first law that does not hold, or that something fails in; None where all hold."""
    for name, check in laws:
        try:
            check()
        except Exception:  # noqa: BLE001 - a bug may raise anything
            return name
    return None


def told(caught: Mapping[str, str | None]) -> str:
    """By mutant, which law caught it, in lines."""
    widest = max(map(len, caught))
    return "\n".join(f"  {mutant:{widest}}  {law or 'NO LAW'}" for mutant, law in caught.items())


def all_caught(what: str, caught: Mapping[str, str | None]) -> None:
    """Print the table; fail where a mutant has met no law that it breaks."""
    print(f"\n{what}\n{told(caught)}")
    survivors = [mutant for mutant, law in caught.items() if law is None]
    assert not survivors, f"no law notices a {what} that {', or one that '.join(survivors)}"
