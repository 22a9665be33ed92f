"""Each deliberate bug of decoders, writers and panes breaks one of their laws. `pytest -s` prints the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from hypothesis import strategies as st

from connectors.reliable import ReliablePartition
from operators.decode.base import Decoder
from operators.decode.native import NativeDecoder
from operators.decode.registry import DECODERS
from tests.contracts import test_decoders as decoders
from tests.contracts import test_panes as panes
from tests.contracts import test_writers as writers
from tests.contracts.mutants.decoders import MUTANTS as DECODER_MUTANTS
from tests.contracts.mutants.panes import MUTANTS as PANE_MUTANTS
from tests.contracts.mutants.translated import MUTANTS as TRANSLATED_MUTANTS
from tests.contracts.mutants.writers import ROUTES, SINKS, WRITERS, Around, MutantSystem
from tests.contracts.mutation import Check, all_caught, drawn, first_broken
from tests.operators.pane_parts import REAL, Parts


def decoder_laws(read: Decoder, of: str = "native") -> Iterator[tuple[str, Check]]:
    for name, law in decoders.LAWS.items():
        if of in law.of:
            yield name, drawn(lambda *rest, law=law: law.holds(read, *rest), law.drawn(of), min(law.examples, 15))


def test_every_bug_of_a_decoder_breaks_a_law() -> None:
    assert first_broken(decoder_laws(NativeDecoder())) is None
    all_caught("decoder", {name: first_broken(decoder_laws(make())) for name, make in DECODER_MUTANTS.items()})


def test_every_bug_of_a_translating_decoder_breaks_the_law_that_forbids_it() -> None:
    for of in sorted({of for of, _, _ in TRANSLATED_MUTANTS.values()}):
        assert first_broken(decoder_laws(DECODERS[of], of)) is None
    caught = {
        name: first_broken((law, check) for law, check in decoder_laws(make(), of) if law == named)
        for name, (of, named, make) in TRANSLATED_MUTANTS.items()
    }
    all_caught("translating decoder", caught)


DIFFERENT = st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=12)
SECOND_CRASH = [([(3, False)], False, False), ([(1, True)], False, False)]
ANOTHER_ORDER = [([(4, False)], False, False), ([(4, False)], False, True)]
WRITER_LAWS: dict[Callable[..., None], dict[str, st.SearchStrategy[Any]]] = {
    writers.test_writing_twice_equals_once: {"items": writers.numbers},
    writers.test_any_chunking_gives_the_same: {
        "items": DIFFERENT, "size": writers.chunks, "batch": writers.chunks, "at_once": st.booleans(),
    },
    writers.test_a_neighbour_that_fails_for_a_while_loses_nothing: {"tries": st.integers(1, 6), "items": DIFFERENT},
    writers.test_a_bad_item_is_rejected_once_and_the_good_ones_are_written: {
        "items": DIFFERENT, "at": st.integers(0, 12), "size": writers.chunks,
    },
    writers.test_keys_go_to_partitions_the_same_way_in_every_process: {"keys": st.lists(st.text(), max_size=5)},
    writers.test_what_the_last_epoch_wrote_may_come_again: {"items": DIFFERENT, "first": st.integers(0, 12)},
    writers.test_kills_and_replays_leave_each_item_once: {
        "lives": st.one_of(st.sampled_from([SECOND_CRASH, ANOTHER_ORDER]), st.lists(writers.life, max_size=5)),
        "at_once": st.booleans(),
    },
}  # fmt: skip


def writer_laws(name: str, empty: writers.Empty) -> Iterator[tuple[str, Check]]:
    """The laws over a system that is empty at first."""
    for law, parts in WRITER_LAWS.items():
        inner = cast(Any, law).hypothesis.inner_test
        strategy = st.fixed_dictionaries(parts).map(lambda drawn: (drawn,))
        yield law.__name__, drawn(lambda these, inner=inner: inner(name=name, empty=empty, **these), strategy, 15)


def broken_by(
    plain: writers.Empty, name: str, mutant: Callable[[Any, Any], Around], route: Callable[[], int] = lambda: 0
) -> str | None:
    """The law that a system breaks with mutants as writers, or with these routes; None if it breaks none."""

    @contextmanager
    def empty(_: str) -> Iterator[Any]:
        with plain(name) as system:
            yield MutantSystem(system, mutant, route)

    return first_broken(writer_laws(name, empty))


def test_every_bug_of_a_writer_or_its_sink_breaks_a_law(monkeypatch: pytest.MonkeyPatch) -> None:
    with writers.emptied() as empty:
        assert [broken_by(empty, name, Around) for name in ("memory", "sqlite", "jsonl")] == [None] * 3
        caught = {what: broken_by(empty, name, mutant) for what, (name, mutant) in WRITERS.items()}
        caught |= {what: broken_by(empty, "memory", Around, routes()) for what, routes in ROUTES.items()}
        for what, (method, mutated) in SINKS.items():
            with monkeypatch.context() as patch:
                patch.setattr(ReliablePartition, method, mutated)
                caught[what] = first_broken(writer_laws("memory", empty))
    all_caught("writer", caught)


def pane_laws(by: Parts) -> Iterator[tuple[str, Check]]:
    """The laws of the replaced parts, as the others are correct; all laws if no part is replaced."""
    touched = {name for name in Parts.__dataclass_fields__ if getattr(by, name) is not getattr(REAL, name)}
    for name, law in panes.LAWS.items():
        if not touched or touched & law.of:
            yield name, drawn(lambda *rest, law=law: law.holds(by, *rest), law.drawn, law.examples // 3)


def test_every_bug_of_what_makes_panes_breaks_a_law() -> None:
    assert first_broken(pane_laws(REAL)) is None
    all_caught("pane", {name: first_broken(pane_laws(by)) for name, by in PANE_MUTANTS.items()})
