"""Text that is dropped or hashed reaches nothing: no event, dead letter, series, evidence or row."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from connectors.rows import pane_rows
from operators.decode.base import Decoded
from operators.decode.config import DecodeConfig, PrivacyConfig
from operators.decode.native import NativeDecoder
from operators.decode.privacy import hashed
from operators.decode.record import METRIC_FIELDS
from operators.model import DIMENSIONS, LABELS, TEXT_FIELDS, caller_fields, caller_text
from operators.panes.fold import fold_events
from tests.conftest import examples

KEY = "a key of thirty-two characters.."
SECRET = "zebra-umbrella-0123456789abcdef"  # has the form of a name and of no other field's value
HEAD: dict[str, Any] = {"timestamp": 1_740_960_000, "service": "chat-api", "latency_ms": 5}
SETS = (DIMENSIONS, *((name,) for name in DIMENSIONS))


def decode(privacy: PrivacyConfig, *sent: dict[str, Any]) -> Decoded:
    return NativeDecoder().decode([json.dumps(one).encode() for one in sent], DecodeConfig(privacy=privacy))


def shown(decoded: Decoded) -> str:
    """Everything that goes on from the decoder, and the rows that are made of it."""
    events = decoded.events
    table = fold_events(events, np.ones(len(events), np.bool_), SETS, 10_000_000, 5, 50)
    return repr((decoded, table, pane_rows(table, 10)))


RULES = st.dictionaries(st.sampled_from(TEXT_FIELDS), st.sampled_from(["drop", "hash"])).filter(
    lambda rules: rules.get("service") != "drop"
)


@examples(150)
@given(rules=RULES, fault=st.sampled_from([{}, {"latency_ms": -1}, {"latency_ms": []}, {"streamed": 3}, {"model": {}}]))
def test_no_secret_in_a_field_with_a_rule_is_shown(rules: dict[Any, Any], fault: dict[str, Any]) -> None:
    ruled = {*rules, "user", "key"}
    secrets = {name: f"{SECRET}-{name}" for name in ruled}
    decoded = decode(PrivacyConfig(hash_key=SecretStr(KEY), rules=rules), HEAD, {**HEAD, **secrets, **fault}, HEAD)
    assert len(decoded.events) + len(decoded.faults) == 3
    assert SECRET not in shown(decoded)
    assert f"{len(SECRET)} chars" not in shown(decoded)


@given(secret=st.text(min_size=1, max_size=20), key=st.one_of(st.none(), st.text(min_size=16, max_size=100)))
def test_the_end_user_and_the_api_key_are_hashed_or_dropped_without_a_rule(secret: str, key: str | None) -> None:
    (caller,) = decode(
        PrivacyConfig(hash_key=None if key is None else SecretStr(key)), {**HEAD, "user": secret, "key": secret}
    ).events.caller or [""]
    found = caller_fields(caller)
    if key is None:
        assert found == {}
    else:
        assert found == dict.fromkeys(("user", "key"), hashed(secret, key.encode("utf-8", "surrogatepass")))
        assert all(len(text) == 16 and int(text, 16) >= 0 for text in found.values())


def test_without_a_rule_the_secret_would_be_found() -> None:
    """Otherwise the tests above could not fail."""
    for name in sorted({*TEXT_FIELDS} - {"user", "key", "status", "span_id", "model_requested"}):
        assert SECRET in shown(decode(PrivacyConfig(), {**HEAD, name: SECRET})), name
    bad = {**HEAD, "model": SECRET, "latency_ms": -1}
    assert SECRET in shown(decode(PrivacyConfig(), bad))
    assert SECRET not in shown(decode(PrivacyConfig(rules={"model": "drop"}), bad))
    assert '"model":"[private]"' in decode(PrivacyConfig(rules={"model": "drop"}), bad).faults[0].payload


def test_equal_texts_have_equal_hashes_by_the_key_alone() -> None:
    assert hashed("ada", b"k" * 16) == hashed("ada", b"k" * 16)
    several = {hashed(text, key) for text in ("ada", "bob") for key in (b"k" * 16, b"l" * 16, b"k" * 200, b"l" * 200)}
    assert len(several) == 8


def test_a_hashed_label_still_keys_its_series() -> None:
    rules: Any = {"tenant": "hash", "service": "hash"}
    events = decode(
        PrivacyConfig(hash_key=SecretStr(KEY), rules=rules), {**HEAD, "tenant": "acme"}, {**HEAD, "tenant": "acme"}
    ).events
    (labels,) = events.combos
    assert labels[LABELS.index("tenant")] == hashed("acme", KEY.encode())
    assert labels[LABELS.index("service")] == hashed("chat-api", KEY.encode())


def test_a_dropped_status_is_not_judged() -> None:
    assert decode(PrivacyConfig(rules={"status": "drop"}), {**HEAD, "status": "error"}).events.error.tolist() == [False]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rules": {"tenant": "hash"}}, 'rules.tenant = "hash" needs hash_key'),
        ({"rules": {"service": "drop"}}, "rules.service must not be"),
        ({"hash_key": "hunter2"}, "16"),
        ({"rules": {"tenant": "mask"}}, "'drop' or 'hash'"),
        ({"rules": {"latency_ms": "drop"}}, "'event_id'"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        PrivacyConfig(**settings)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_the_key_is_never_shown() -> None:
    config = DecodeConfig(privacy=PrivacyConfig(hash_key=SecretStr(KEY), rules={"tenant": "hash"}))
    assert KEY not in repr(config) + str(config) + repr(NativeDecoder().decode([b"{}"], config))


@given(st.tuples(*[st.text("0123456789abcdef", max_size=16)] * 2), st.text(max_size=20))
def test_the_text_of_a_caller_holds_its_fields(hashes: tuple[str, str], session: str) -> None:
    fields = {"user": hashes[0], "key": hashes[1], "session_id": session}
    assert caller_fields(caller_text(*hashes, session)) == {name: text for name, text in fields.items() if text}


def test_numbers_have_no_rules() -> None:
    assert not {*METRIC_FIELDS} & {*TEXT_FIELDS}
