"""The reference of attributes is made from the table of conventions, and names every row and role."""

from __future__ import annotations

from flows.conventions import _ASIDES, conventions
from operators.decode.log_events import EVENTS
from operators.decode.record import MeasuredRecord
from operators.decode.resolve import FIELDS, ROWS
from operators.decode.span_roles import ROLES
from tests.conftest import ROOT


def test_the_document_is_fresh() -> None:
    assert (ROOT / "docs" / "conventions.md").read_text() == conventions(), "the document is stale: run `make docs`"


def test_every_row_role_and_event_is_named() -> None:
    text = conventions()
    assert [row.place for row in ROWS if f"`{row.place}`" not in text] == []
    assert [name for name in EVENTS if f"| `{name}` |" not in text] == []
    assert [name for name in ROLES if f"| `{name}` |" not in text] == []


def test_what_is_no_field_of_events_is_explained() -> None:
    assert set(_ASIDES) == FIELDS - set(MeasuredRecord.__struct_fields__)
