"""The contributors to an excess, and the factors of a mean."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from operators.incidents import decompose
from operators.incidents.composition import COLUMNS, MOST_VALUES, ByLabel, Observed, Usual
from operators.incidents.decompose import Numbers, Told, contributors, factors, main_factor
from operators.metrics import METRIC_INDEX, METRICS
from operators.model import LABELS, Ints


def sums(requests: int, errors: int = 0, **means: float) -> Ints:
    """The sums of `requests` requests, all of which carry these metrics, with these means."""
    out = np.zeros(COLUMNS, np.int64)
    out[:2] = requests, errors
    for name, mean in means.items():
        m = METRIC_INDEX[name]
        out[2 + 2 * m : 4 + 2 * m] = requests, round(requests * mean * METRICS[m].scale)
    return out


def usual(**labels: Mapping[str, Numbers]) -> Usual:
    values: ByLabel = {label: {v: s.astype(np.float64) for v, s in of.items()} for label, of in labels.items()}
    whole = sum(next(iter(values.values())).values(), np.zeros(COLUMNS))
    return Usual(100.0, whole, values, frozenset())


def observed(panes: int, **labels: dict[str, Ints]) -> Observed:
    out = Observed(panes)
    out.values = {(LABELS.index(label), v): s for label, of in labels.items() for v, s in of.items()}
    out.whole = sum(next(iter(labels.values())).values(), np.zeros(COLUMNS, np.int64))
    return out


def named(told: tuple[Told, ...]) -> list[tuple[str, str]]:
    return [(str(c["dimension"]), str(c["value"])) for c in told]


TENANTS = usual(tenant={"acme": sums(200, latency=100.0), "globex": sums(800, latency=1_000.0)})


def test_a_tenant_that_has_become_slow_is_named_with_its_shares() -> None:
    now = observed(3, tenant={"acme": sums(20, latency=2_100.0), "globex": sums(80, latency=1_000.0)})
    assert contributors("latency", True, TENANTS, now, 0.0) == (
        {"dimension": "tenant", "value": "acme", "share": 1.0, "usual_share": 0.2, "observed": 2100.0, "usual": 100.0},
    )


def test_a_tenant_that_is_as_much_slower_as_all_others_is_not_named() -> None:
    now = observed(3, tenant={"acme": sums(20, latency=300.0), "globex": sums(80, latency=3_000.0)})
    assert contributors("latency", True, TENANTS, now, 0.0) == ()


def test_more_requests_to_an_expensive_model_are_named_at_an_unchanged_price() -> None:
    models = usual(model={"small": sums(950, cost=0.001), "large": sums(50, cost=0.1)})
    now = observed(3, model={"small": sums(30, cost=0.001), "large": sums(70, cost=0.1)})
    (told,) = contributors("cost", True, models, now, 0.0)
    assert (told["value"], told["usual_share"]) == ("large", 0.05)
    assert told["share"] == pytest.approx(0.95, abs=0.01)


def test_requests_are_compared_with_the_expected_ones() -> None:
    tenants = usual(tenant={"acme": sums(100), "globex": sums(900)})
    flood = observed(3, tenant={"acme": sums(203), "globex": sums(27)})
    (told,) = contributors("requests", True, tenants, flood, 10.0)
    assert told == {
        "dimension": "tenant", "value": "acme", "share": 1.0, "usual_share": 0.1, "observed": 67.67, "usual": 1.0,
    }  # fmt: skip
    even = observed(3, tenant={"acme": sums(30), "globex": sums(270)})
    assert contributors("requests", True, tenants, even, 10.0) == ()
    gone = observed(3, tenant={"globex": sums(27)})
    alone = usual(tenant={"acme": sums(500), "globex": sums(500)})
    assert named(contributors("requests", False, alone, gone, 18.0)) == [("tenant", "acme")]


def test_errors_are_named_by_their_kind() -> None:
    kinds = usual(error_type={"timeout": sums(2, errors=2), "rate_limit": sums(8, errors=8)})
    kinds = kinds._replace(whole=sums(1000, errors=10).astype(np.float64))
    now = observed(3, error_type={"timeout": sums(40, errors=40), "rate_limit": sums(1, errors=1)})
    now.whole = sums(100, errors=41)
    (told,) = contributors("error_ratio", True, kinds, now, 0.0)
    assert (told["value"], told["share"], told["observed"]) == ("timeout", 0.985, 1.0)


def test_few_requests_the_other_direction_and_missing_usual_values_are_not_explained() -> None:
    slow = observed(3, tenant={"acme": sums(20, latency=2_100.0), "globex": sums(80, latency=1_000.0)})
    assert contributors("latency", False, TENANTS, slow, 0.0) == ()
    young = usual(tenant={"acme": sums(9, latency=100.0), "globex": sums(20, latency=1_000.0)})
    assert contributors("latency", True, young, slow, 0.0) == ()
    few = observed(3, tenant={"acme": sums(2, latency=2_100.0), "globex": sums(2, latency=1_000.0)})
    assert contributors("latency", True, TENANTS, few, 0.0) == ()
    assert contributors("quality", True, TENANTS, slow, 0.0) == ()
    chance = observed(3, tenant={"acme": sums(3, latency=1_400.0), "globex": sums(6, latency=2_000.0)})
    assert contributors("latency", True, TENANTS, chance, 0.0) == ()
    proven = observed(3, tenant={"acme": sums(300, latency=1_400.0), "globex": sums(600, latency=2_000.0)})
    assert named(contributors("latency", True, TENANTS, proven, 0.0)) == [("tenant", "acme")]


def test_a_new_value_has_no_usual_value_and_a_rare_one_no_usual_share() -> None:
    now = observed(3, tenant={"initech": sums(60, latency=9_000.0), "globex": sums(40, latency=1_000.0)})
    (new,) = contributors("latency", True, TENANTS, now, 0.0)
    assert (new["value"], new["usual_share"], "usual" in new) == ("initech", 0.0, False)
    (rare,) = contributors("latency", True, TENANTS._replace(full=frozenset({"tenant"})), now, 0.0)
    assert "usual_share" not in rare


def test_at_most_two_values_of_a_label_and_five_of_all_are_named_and_never_the_rest() -> None:
    def both(now: bool) -> dict[str, dict[str, Ints]]:
        slow = {f"v{i}": sums(100, latency=9_000.0 if now else 100.0) for i in range(2)}
        rest = {"__other__": sums(800, latency=100.0)}
        return {label: {**slow, **rest} for label in ("tenant", "model", "region")}

    told = contributors("latency", True, usual(**both(now=False)), observed(3, **both(now=True)), 0.0)
    assert len(told) == 5
    assert {v for _, v in named(told)} == {"v0", "v1"}
    back = usual(tenant={"__other__": sums(500, latency=100.0), "acme": sums(500, latency=100.0)})
    others = observed(3, tenant={"__other__": sums(500, latency=900.0), "acme": sums(500, latency=100.0)})
    assert contributors("latency", True, back, others, 0.0) == ()


part = st.tuples(st.integers(0, 500), st.floats(1.0, 10_000.0))


@given(st.lists(part, min_size=1, max_size=5), st.lists(part, min_size=1, max_size=5))
def test_the_shares_of_all_values_add_up_to_the_whole_excess(
    before: list[tuple[int, float]], after: list[tuple[int, float]]
) -> None:
    known = {f"v{i}": sums(n, latency=m).astype(np.float64) for i, (n, m) in enumerate(before)}
    seen = {f"v{i}": sums(n, latency=m) for i, (n, m) in enumerate(after)}
    base, now = usual(tenant=known), observed(3, tenant=seen)
    blank = np.zeros(COLUMNS)
    every = {v: seen.get(v, blank) for v in sorted({*known, *seen})}
    for up in (True, False):
        parts = list(decompose._parts("latency", up, base, known, now, every, 0.0))
        excess = now.whole[3] - now.whole[2] * base.whole[3] / max(base.whole[2], 1.0)
        if parts and abs(excess) > 1e-3 * now.whole[3]:
            assert sum(p.share for p in parts) == pytest.approx(1.0, abs=1e-6)


def means(requests: int, prompt: float, completion: float, cached: float, price: float) -> Ints:
    paid = prompt + completion - cached
    return sums(
        requests, prompt_tokens=prompt, completion_tokens=completion, cached_tokens=cached, cost=paid * price,
        latency=completion * 10.0,
    )  # fmt: skip


def by_name(told: tuple[Told, ...]) -> dict[str, float]:
    return {str(f["factor"]): float(f["times"]) for f in told}


def test_a_pure_shift_of_the_mix_is_all_mix() -> None:
    small, large = means(900, 100, 50, 0, 1e-6), means(100, 100, 50, 0, 2e-5)
    now = observed(10, model={"small": means(50, 100, 50, 0, 1e-6), "large": means(50, 100, 50, 0, 2e-5)})
    told = factors("cost", True, usual(model={"small": small, "large": large}), now, 10)
    assert [f["factor"] for f in told] == ["volume", "mix", "tokens", "price"]
    assert told[1]["dimension"] == "model"
    assert by_name(told) == pytest.approx({"volume": 1.0, "mix": 10.5 / 2.9, "tokens": 1.0, "price": 1.0}, rel=1e-3)
    assert main_factor(told, up=True) == told[1]
    assert main_factor(told, up=False) is None


@pytest.mark.parametrize(
    ("now", "factor", "times"),
    [
        (means(100, 300, 150, 60, 1e-6), "tokens", 3.0),
        (means(100, 100, 50, 20, 3e-6), "price", 3.0),
        (means(100, 100, 50, 0, 1e-6), "cache", 150 / 130),
        (means(300, 100, 50, 20, 1e-6), "volume", 3.0),
    ],
)
def test_each_factor_stands_for_itself(now: Ints, factor: str, times: float) -> None:
    before = usual(model={"m": means(1000, 100, 50, 20, 1e-6)})
    told = factors("cost", True, before, observed(10, model={"m": now}), 10)
    assert by_name(told) == pytest.approx(
        {"volume": 1.0, "tokens": 1.0, "cache": 1.0, "price": 1.0, factor: times}, rel=1e-3
    )


def test_latency_is_tokens_of_the_completion_and_time_for_each() -> None:
    before = usual(model={"m": means(1000, 100, 50, 0, 1e-6)})
    now = means(100, 100, 100, 0, 1e-6)
    now[3] *= 2
    told = by_name(factors("latency", True, before, observed(10, model={"m": now}), 10))
    assert told == pytest.approx({"volume": 1.0, "tokens": 2.0, "price": 2.0})


def test_without_tokens_there_is_no_price_and_other_metrics_and_few_requests_have_no_factors() -> None:
    before, now = usual(model={"m": sums(100, cost=1.0)}), observed(3, model={"m": sums(10, cost=2.0)})
    assert [f["factor"] for f in factors("cost", True, before, now, 10)] == ["volume"]
    assert factors("ttft", True, before, now, 10) == ()
    assert factors("cost", True, before, observed(3, model={"m": sums(4, cost=2.0)}), 10) == ()
    assert factors("cost", True, before, observed(3, model={"m": sums(10, cost=0.0)}), 10) == ()


mean = st.integers(1, 1_000)
parts = st.dictionaries(
    st.sampled_from("abc"),
    st.builds(means, st.integers(10, 500), mean, mean, st.just(0), st.floats(1e-6, 1e-3)),
    min_size=1,
)


@given(parts, parts, st.booleans(), st.sampled_from(["cost", "latency"]))
def test_the_factors_but_volume_multiply_to_the_change_of_the_mean(
    before: dict[str, Ints], after: dict[str, Ints], up: bool, cell: str
) -> None:
    base, now = usual(tenant=before), observed(3, tenant=after)
    told = factors(cell, up, base, now, 10, mix_by="tenant")
    if not told:
        assert base.whole[0] < decompose.KNOWN
        return
    total = 3 + 2 * METRIC_INDEX[cell]
    change = (now.whole[total] / now.whole[0]) / (base.whole[total] / base.whole[0])
    product = prod(times for factor, times in by_name(told).items() if factor != "volume")
    assert product == pytest.approx(change, rel=2e-3)


def test_observed_sums_are_bounded_and_come_back_from_a_snapshot() -> None:
    from tests.watching import Request, table

    rows = table([Request(1.0, {"latency": 5.0}, labels={"tenant": f"t{i:02}"}) for i in range(10)])
    out = Observed()
    for _ in range(5):
        out.add(rows, 0, 0, len(rows.breakdown_row))
    assert out.whole[0] == 50
    assert {v: int(s[0]) for v, s in out.by_label()["tenant"].items()} == {f"t{i:02}": 5 for i in range(10)}
    for k in range(10):
        more = table([Request(1.0, {"latency": 5.0}, labels={"tenant": f"x{k}-{i}"}) for i in range(10)])
        out.add(more, 0, 0, len(more.breakdown_row))
    known = out.by_label()["tenant"]
    assert len(known) == MOST_VALUES + 1
    assert sum(int(s[0]) for s in known.values()) == 150
    panes, whole, values = out.save()
    again = Observed.load(panes, whole, values)  # type: ignore[arg-type]
    assert again.save() == out.save()
