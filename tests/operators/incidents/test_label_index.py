"""The index finds the same as a search through all values, after any additions, removals and searches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from operators.incidents.label_index import LabelIndex
from tests.conftest import examples

Labels = dict[str, str]

DIMENSIONS = (("service", "model"), ("model", "service"), ("service",), ("tenant", "model"), ("tenant",), ())

labels = st.sampled_from(DIMENSIONS).flatmap(
    lambda dimensions: st.tuples(*(st.sampled_from("ab") for _ in dimensions)).map(
        lambda values: dict(zip(dimensions, values, strict=True))
    )
)
steps = st.lists(st.tuples(st.sampled_from(["add", "discard", "find"]), st.sampled_from("123456"), labels), max_size=40)


def contradict(one: Labels, other: Labels) -> bool:
    return any(other.get(dimension, value) != value for dimension, value in one.items())


@examples(200)
@given(steps)
def test_the_index_finds_the_same_as_a_full_search(plan: list[tuple[str, str, Labels]]) -> None:
    index: LabelIndex[str] = LabelIndex()
    there: dict[str, Labels] = {}
    for what, key, of in plan:
        match what:
            case "add":
                index.add(key, of, key)
                there.pop(key, None)
                there[key] = of
            case "discard":
                index.discard(key)
                there.pop(key, None)
            case _:
                found = list(index.find(of))
                assert sorted(found) == sorted(k for k, others in there.items() if not contradict(of, others))
        assert index.values() == list(there)


def test_a_second_value_under_a_key_replaces_the_first() -> None:
    index: LabelIndex[int] = LabelIndex()
    index.add("k", {"service": "a"}, 1)
    index.add("k", {"service": "b"}, 2)
    assert list(index.find({"service": "a"})) == []
    assert list(index.find({"service": "b"})) == [2]
