"""The rule that decides which values of settings may be shown."""

from __future__ import annotations

import json
from typing import Literal
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr

from operators.section import MASK, UNNAMED, Hidden, PlainText, Section, may_be_shown, told, without


class Inner(Section):
    secret: str = "s3cret-inner"


class Example(Section):
    number: int | None = 3
    choice: Literal["a", "b"] = "a"
    name: PlainText = "plain"
    names: tuple[PlainText, ...] | None = ("plain",)
    text: str = "s3cret-text"
    texts: tuple[str, ...] = ("s3cret-list",)
    table: dict[PlainText, str] = Field({"a": "s3cret-table"})
    keys: dict[str, int] = Field({"s3cret-key": 1})
    password: SecretStr | None = SecretStr("s3cret-password")
    unknown: dict[PlainText, SecretStr] = Field({"a": Hidden("s3cret-hidden")})
    absent: str | None = None
    inner: Inner = Inner()
    inners: tuple[Inner, ...] = (Inner(),)


def test_text_is_shown_only_where_it_is_marked() -> None:
    shown = {name for name, field in Example.model_fields.items() if may_be_shown(field)}
    assert set(Example.model_fields) - shown == {"text", "texts", "table", "keys", "absent"}


def test_a_repr_has_no_text_that_is_not_marked() -> None:
    for text in (repr(Example()), str(Example()), f"{[Example()]}"):
        assert "s3cret" not in text
        assert "plain" in text and "number=3" in text and "absent=None" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("pane_s", "pane_s"), ("sasl.password", "sasl.password"), ("cooperative-sticky", "cooperative-sticky"),
        ("hunter2", UNNAMED), ("Hunter", UNNAMED), ("a b", UNNAMED), ("", UNNAMED), ("x" * 65, UNNAMED),
        ("a\n", UNNAMED),
    ],
)  # fmt: skip
def test_a_name_is_shown_if_it_looks_like_one(name: str, shown: str) -> None:
    assert told(name) == shown


@given(st.text(st.characters(codec="utf-8", exclude_characters="%*"), min_size=4, max_size=12))
def test_a_secret_is_found_as_messages_write_it(secret: str) -> None:
    for written in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret), quote(secret, "")):
        assert without(f"<{written}>", [secret]) == f"<{MASK}>"


def test_short_and_empty_secrets_leave_the_text_as_it_is() -> None:
    assert without("a token of abc", ["abc", ""]) == "a token of abc"
    assert without("key=a%2Fb%20c d", ["a/b c"]) == f"key={MASK} d"
    assert without("bytes=in\udcffvalid", ["in\udcffvalid"]) == f"bytes={MASK}"  # from an environment that is not UTF-8
